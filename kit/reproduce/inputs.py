"""L0 and L1: all that is here is what its record names, and both runs began alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.digest import Digest
from kit.images.oci import Layout
from kit.locks import lock as locks
from kit.manifests import diff
from kit.reproduce.ladder import LEVELS, Difference, Rung

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.manifests.record import Manifest
    from kit.project import Project
    from kit.reproduce.side import Side

_PARTS = (
    "example",
    "release",
    "stack",
    "lock",
    "image",
    "versions",
    "model",
    "dataset",
    "commands",
)
_SERVER = ("stack", "image", "version")
"""Of a server, what it is; what it says is no input."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Site:
    """What this host has of a manifest's inputs.

    Attributes:
        lock: digest of the present lock of the stack; None without such a stack.
        checked: what was looked at.
        problems: what is not what its digest says.
    """

    lock: str | None
    checked: tuple[str, ...]
    problems: tuple[Difference, ...]


def of_site(project: Project, manifest: Manifest, image: Digest) -> Site:
    """Look at the lock, and hash the image that is to be run, all of it."""
    lock = None
    if manifest.stack in project.stacks and project.lock_path(manifest.stack).exists():
        lock = str(locks.load(project.lock_path(manifest.stack)).digest)
    layout = Layout(project.images)
    if not layout.blob(image).exists():
        return Site(lock, (f"image {image}: in the engine, not in {layout.root}",), ())
    stored = layout.image(image, manifest.stack)
    wanted = [image, stored.image_id, *dict.fromkeys(layer.digest for layer in stored.layers)]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = list(pool.map(lambda digest: _digest(layout, digest), wanted))
    problems = tuple(
        Difference(f"image blob {digest}", str(digest), seen)
        for digest, seen in zip(wanted, found, strict=True)
        if seen != str(digest)
    )
    return Site(lock, (f"image {image}: {len(wanted)} blobs hashed",), problems)


def received(recorded: Side, site: Site) -> Rung:
    """L0: every file that is here is what its record names."""
    level = LEVELS[0]
    evidence = [f"{len(recorded.whole)} files beside the manifest hashed", *site.checked]
    if recorded.missing:
        few = ", ".join(recorded.missing[:_SHOWN])
        more = len(recorded.missing) - _SHOWN
        evidence.append(
            f"{len(recorded.missing)} files are not here and compared by digest only: {few}"
            + (f" and {more} more" if more > 0 else "")
        )
    if differences := (*recorded.altered, *site.problems):
        reason = f"{len(differences)} files are not what was sent"
        return Rung(level, "failed", reason, tuple(evidence), differences)
    return Rung(level, "passed", "every file that is here is unaltered", tuple(evidence))


def same(recorded: Side, again: Manifest, site: Site) -> Rung:
    """L1: lock, images, model, data, recipe and commands."""
    first = recorded.manifest
    differences = [
        Difference(item.name, _text(item.first), _text(item.second))
        for item in diff.diff(first, again).differences
        if item.part in _PARTS or (item.part == "server" and item.key in _SERVER)
    ]
    differences += _given(first, again)
    if site.lock is not None and first.lock != site.lock and again.lock == first.lock:
        differences.append(Difference(f"lock of {first.stack} on this host", first.lock, site.lock))
    data = again.dataset.files if again.dataset else ()
    evidence = (
        f"lock {again.lock}",
        f"image {again.image.manifest_digest}",
        f"recipe {again.example.digest}",
        f"{len(again.model.files)} files of model {again.model.name}, {len(data)} of data",
        f"{len(again.versions.distributions)} Python packages in the image",
        f"{len(again.commands)} commands",
        *([f"server {again.server.image.manifest_digest}"] if again.server else []),
    )
    if any(item.counts for item in differences):
        return Rung(LEVELS[1], "failed", "the inputs differ", evidence, tuple(differences))
    return Rung(LEVELS[1], "passed", "all inputs are equal", evidence, tuple(differences))


def _given(first: Manifest, again: Manifest) -> Iterator[Difference]:
    """Files that the kit wrote for a step otherwise than recorded; older kits recorded none."""
    other_kit = f"written by kit {first.kit.version} and {again.kit.version}"
    note = "" if first.kit == again.kit else other_kit
    others = {command.name: command for command in again.commands}
    for command in first.commands:
        if command.name not in others:
            continue  # which is told of the commands
        one, other = (
            {file.path: f"sha256:{file.sha256}" for file in each.given}
            for each in (command, others[command.name])
        )
        for path in {**one, **other}:
            if one.get(path) != other.get(path):
                what = f"file given to {command.name}: {path}"
                yield Difference(what, one.get(path), other.get(path), note, counts=bool(one))


def _digest(layout: Layout, digest: Digest) -> str:
    path = layout.blob(digest)
    return str(Digest.of_file(path)) if path.is_file() else "absent"


def _text(value: Any) -> str | None:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return None if value is None else str(value)
