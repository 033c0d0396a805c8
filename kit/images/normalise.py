"""From what an engine built to a canonical layer: the same content gives the same digest.

Engines differ in how they split layers, which untouched folders they list, which empty files they
leave at mount points, how they compress, and what they write into the configuration. Nothing of
that is content. So the layers above the base are merged into one, and everything equal to the base
is dropped.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kit.digest import CHUNK
from kit.errors import content_error
from kit.files import atomic_writer, safe_member
from kit.images.delta import OPAQUE, WHITEOUT, Found
from kit.images.layer import Entry, LayerWriter
from kit.images.oci import Layer, Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

ENGINE_FILES = frozenset(
    {"etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv", "run/.containerenv"}
)
"""What engines put into a container for themselves."""
ENGINE_FOLDERS = ("dev", "proc", "sys", "run/secrets")
KEPT_SETTINGS = (
    "Env",
    "Cmd",
    "Entrypoint",
    "WorkingDir",
    "User",
    "ExposedPorts",
    "Volumes",
    "StopSignal",
    "Labels",
)
DROPPED_LABELS = ("io.buildah.version",)


def merge(
    layers: Iterable[Iterable[Found]],
    layout: Layout,
    below: Mapping[str, Entry],
    epoch: int,
    mount_points: frozenset[str] = frozenset(),
    scratch: Path | None = None,
) -> tuple[Layer, dict[str, Entry]]:
    """Write what `layers` add to the base into `layout` as one layer.

    Args:
        layers: of `kit.images.delta`, the lowest first.
        layout: where the new layer goes.
        below: every path of the base.
        epoch: time stamp of every file.
        mount_points: folders that the build mounted inputs at; some engines leave them empty.
        scratch: folder in the layout for the layer while it is written.

    Returns:
        The layer, and what is in it.

    Raises:
        KitError: a path or a hard link leads out of the layer (exit 4).
    """
    upper: dict[str, Found] = {}
    gone: set[str] = set()
    inside = _inside(below)
    for layer in layers:
        _apply(layer, upper, inside, gone)
    for path in _hidden(gone, upper, below, inside):
        upper[_whiteout(path)] = Found(Entry(_whiteout(path), "file", 0o644))
    for folder in mount_points:
        _forget_empty(folder, upper, below)
    scratch = scratch or layout.root / "blobs"
    return _write(layout, _linked(_content(upper, below)), epoch, scratch)


def settings(config: Mapping[str, Any], parent: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What an image's configuration says of how to run it, without what only an engine wrote.

    `parent` is the configuration of the image below: variables that it has stay in its order,
    for engines differ in where they put one that was given another value.
    """
    kept = {key: config[key] for key in KEPT_SETTINGS if config.get(key)}
    if "Env" in kept and parent:
        below = [line.partition("=")[0] for line in parent.get("config", {}).get("Env") or []]
        order = {name: place for place, name in enumerate(below)}
        kept["Env"] = sorted(
            kept["Env"], key=lambda line: order.get(line.partition("=")[0], len(order))
        )
    if kept.get("WorkingDir") == "/":
        del kept["WorkingDir"]
    labels = {k: v for k, v in (config.get("Labels") or {}).items() if k not in DROPPED_LABELS}
    kept.pop("Labels", None)
    if labels:
        kept["Labels"] = labels
    return kept


def _apply(
    layer: Iterable[Found],
    upper: dict[str, Found],
    inside: Mapping[str, Sequence[str]],
    gone: set[str],
) -> None:
    """Lay one layer over those before it: additions, whiteouts, opaque folders.

    `gone` collects what of the base cannot be seen any more, whatever is made in its place.
    """
    added: set[str] = set()
    older = _folders(upper)
    for one in layer:
        path = one.entry.path
        safe_member(path, "image layer")
        found = _with_content(one, upper, added)
        folder, _, name = path.rpartition("/")
        if name == OPAQUE:
            gone.update(inside.get(folder, ()))
            _drop(upper, folder, older, itself=False, but=added)
        elif name.startswith(WHITEOUT):
            removed = f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/")
            _drop(upper, removed, older, itself=True, but=added)
            gone.add(removed)
        else:
            if found.entry.kind != "directory":
                _drop(upper, path, older, itself=True, but=added)
                gone.update(inside.get(path, ()))
            upper[path] = found
            added.add(path)


def _hidden(
    gone: Iterable[str],
    upper: Mapping[str, Found],
    below: Mapping[str, Entry],
    inside: Mapping[str, Sequence[str]],
) -> set[str]:
    """The topmost paths of the base that need a whiteout.

    A folder that was removed and made again needs one for each thing that it had before.
    """
    folders = _folders(upper)
    hidden: set[str] = set()
    waiting = sorted(gone, reverse=True)  # a folder is seen before what lies in it
    while waiting:
        path = waiting.pop()
        if path not in below or _is_out_of_sight(path, hidden, upper):
            continue
        if path not in upper and path not in folders:
            hidden.add(path)
        elif path in folders or upper[path].entry.kind == "directory":
            waiting += inside.get(path, ())
    return hidden


def _is_out_of_sight(path: str, hidden: set[str], upper: Mapping[str, Found]) -> bool:
    """Whether a folder above is away, or something else stands there."""
    while path := path.rpartition("/")[0]:
        if path in hidden or (path in upper and upper[path].entry.kind != "directory"):
            return True
    return False


def _content(upper: dict[str, Found], below: Mapping[str, Entry]) -> list[Found]:
    """What differs from the base, sorted, with nothing that only an engine wanted."""
    kept = []
    for path in sorted(upper):
        found = upper[path]
        if path in ENGINE_FILES or path.startswith(tuple(f"{top}/" for top in ENGINE_FOLDERS)):
            continue
        if path in ENGINE_FOLDERS and path not in below:
            continue
        old = below.get(path)
        if old is not None and _same(found, old):
            continue
        kept.append(found)
    return kept


def _same(found: Found, old: Entry) -> bool:
    entry = found.entry
    if entry.kind == "file" and entry.size == old.size and old.kind == "file":
        entry = replace(entry, sha256=_hash(found))
    return entry == old


def _write(
    layout: Layout, content: list[Found], epoch: int, scratch: Path
) -> tuple[Layer, dict[str, Entry]]:
    new = scratch / f"new-layer-{os.getpid()}"
    with atomic_writer(new, 0o444) as stream:
        writer = LayerWriter(stream, epoch)
        for found in content:
            if found.entry.kind != "file":
                writer.add(found.entry)
            elif found.file is None:
                writer.add(found.entry, io.BytesIO())
            else:
                with found.file.open("rb") as source:
                    source.seek(found.offset)
                    writer.add(found.entry, source)
        digest, size = writer.close()
    layout.blob(digest).parent.mkdir(parents=True, exist_ok=True)
    new.replace(layout.blob(digest))
    return Layer(digest, size), writer.entries


def _with_content(found: Found, upper: Mapping[str, Found], added: set[str]) -> Found:
    """A hard link as the file that it shares: a later layer may replace one without the other."""
    entry = found.entry
    if entry.kind != "hardlink":
        return found
    source = upper.get(entry.link)
    if source is None or entry.link not in added or source.entry.kind == "directory":
        raise content_error(f"/{entry.path}: hard link to /{entry.link}, which its layer lacks")
    return replace(source, entry=replace(source.entry, path=entry.path))


def _linked(content: list[Found]) -> list[Found]:
    """Of several names of one file, the one that sorts first carries the bytes."""
    names: dict[tuple[Path, int], str] = {}
    linked = []
    for found in content:
        entry = found.entry
        if entry.kind == "file" and found.file is not None:
            first = names.setdefault((found.file, found.offset), entry.path)
            if first != entry.path:
                linked.append(Found(replace(entry, kind="hardlink", link=first, size=0)))
                continue
        linked.append(found)
    return linked


def _forget_empty(folder: str, upper: dict[str, Found], below: Mapping[str, Entry]) -> None:
    """Take out a mount point that nothing lies in, and the folders that were made for it alone."""
    while folder and folder not in below:
        if any(name.startswith(f"{folder}/") for name in upper):
            return
        upper.pop(folder, None)
        folder = folder.rpartition("/")[0]


def _whiteout(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/{WHITEOUT}{name}".lstrip("/")


def _inside(below: Mapping[str, Entry]) -> dict[str, list[str]]:
    """What lies in each folder of the base, in one look: new folders by the hundred are opaque."""
    found: dict[str, list[str]] = {}
    for path in below:
        found.setdefault(path.rpartition("/")[0], []).append(path)
    return found


def _folders(upper: Mapping[str, Found]) -> set[str]:
    """Every folder that has something in it."""
    found: set[str] = set()
    for path in upper:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def _drop(
    upper: dict[str, Found], path: str, older: set[str], *, itself: bool, but: set[str]
) -> None:
    """Forget what lower layers had at and below a path.

    `older` are the folders that they had something in, `but` is what the present layer has.
    """
    if itself and path not in but:
        upper.pop(path, None)
    if path in older or not path:
        prefix = f"{path}/" if path else ""
        for name in [n for n in upper if n.startswith(prefix) and n not in but]:
            del upper[name]


def _hash(found: Found) -> str:
    assert found.file is not None
    hasher = hashlib.sha256()
    with found.file.open("rb") as stream:
        stream.seek(found.offset)
        left = found.entry.size
        while left:
            piece = stream.read(min(left, CHUNK))
            if not piece:
                raise content_error(f"{found.entry.path}: the engine's archive is cut short")
            hasher.update(piece)
            left -= len(piece)
    return hasher.hexdigest()
