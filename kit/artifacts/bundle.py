"""What a bundle says it is, also where its parts lie on several media; nothing is verified.

The index says what is carried. Small objects are read out of the parts that are here, so that the
versions of images and runs can be told; each is hashed, and no other content is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from kit.artifacts import bounded, settings
from kit.artifacts.bundle_media import SHEET, Media, refused
from kit.artifacts.problem import Problem, few
from kit.bundles import active, verifier
from kit.console import size as shown_size
from kit.errors import content_error
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kit.bundles.verifier import File
    from kit.locks.lock import Lock
    from kit.manifests.record import Manifest

_LICENCE, _UNSTATED = "      licence: ", "not stated"
_COMPONENT = re.compile(
    r"(?P<name>tensorrt(_llm|_cu\d+|(_cu\d+)?_(libs|bindings))?|torch)-(?P<version>[^-/]+)-[^/]+\.whl"
)


@dataclass(frozen=True, slots=True)
class PartFile:
    """One part: what the index says of it, and the file; None where it is not here."""

    name: str
    size: int
    sha256: str
    place: str | None


@dataclass(frozen=True, slots=True)
class Carried:
    """One content: what it is, why it is there, and how much of it this bundle carries.

    `size` are the bytes of its files, `carried` those that are not required of an earlier bundle.
    `licence` is what the transfer sheet says.
    """

    name: str
    kind: str
    stack: str | None
    why: str
    manifest: str
    files: int
    size: int
    carried: int
    licence: str | None


@dataclass(frozen=True, slots=True)
class BundleFolder:
    """What a bundle says of itself.

    Attributes:
        bundle: its name.
        delivery: which one of that name.
        identity: SHA-256 of its index.
        made_with: version of the kit.
        signature: kind and state of it.
        signer: fingerprint of the key that made it; None where it is not signed, or wrongly.
        verified: what is told of that, for people.
        size: bytes of all parts.
        parts_here: `2 of 3`.
        parts_missing: their names.
        parts: all of them.
        base: of a delta: identity of the bundle that it stands on.
        requires: what the site has to have for it.
        stacks: that are carried, as are `examples`, `models`, `datasets`, `runs`, `files`.
        images: with their manifest digests.
        documents: bills of materials and statements of provenance.
        active: classes of content that does something when it is opened, with their counts.
        licences: of each content that states one.
        contents: all of it.
    """

    path: str
    bundle: str
    delivery: int
    identity: str
    made_with: str
    signature: str
    signer: str | None
    verified: str
    size: str
    parts_here: str
    parts_missing: tuple[str, ...]
    parts: tuple[PartFile, ...]
    base: str | None
    requires: str | None
    stacks: tuple[str, ...]
    examples: tuple[str, ...]
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    images: tuple[str, ...]
    runs: tuple[str, ...]
    files: tuple[str, ...]
    documents: tuple[str, ...]
    active: tuple[str, ...]
    licences: tuple[str, ...]
    contents: tuple[Carried, ...]
    observations: tuple[Observation, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Records:
    """The records in a bundle, each with its place."""

    manifests: tuple[tuple[str, Manifest], ...]
    locks: tuple[tuple[str, Lock], ...]


def look(path: Path, more: Sequence[Path] = ()) -> BundleFolder:
    """Read the index of a bundle, and what its parts say in small files.

    Args:
        path: its folder, or its index.
        more: further folders with parts of it.

    Raises:
        KitError: no bundle (exit 2); an index that is damaged, hostile or missing, folders of two
            bundles (exit 4).
    """
    folders = [place if place.is_dir() else place.parent for place in (path, *more)]
    with refused():
        return _Look(Media(str(path), folders)).result()


def records(path: Path) -> Records:
    """The records of runs and the locks that a bundle carries.

    Raises:
        KitError: as `look`; one of them is damaged (exit 4).
    """
    from kit.locks import lock as locks

    with refused():
        work = Media(str(path), [path if path.is_dir() else path.parent])
        manifests = tuple(work.manifests())
        found = [(where, text) for where, text in work.documents("stack", "lock")]
    for problem in work.problems:
        if problem.is_corrupt:
            raise content_error(problem.message, hint=f"kit bundle verify {path}")
    prefix = f"{path}: "
    return Records(
        tuple((prefix + where, manifest) for where, manifest in manifests),
        tuple((prefix + where, locks.loads(text, prefix + where)) for where, text in found),
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """What is told of a bundle whose media are at hand."""

    media: Media

    def result(self) -> BundleFolder:
        index = self.media.index
        missing = tuple(name for name, place in self.media.places.items() if place is None)
        if missing:
            lacking = (
                f"{len(missing)} of {len(self.media.places)} parts are not here: {few(missing)}"
            )
            self.media.problems.append(Problem("part-missing", f"{self.media.path}: {lacking}"))
        contents = tuple(self.contents())
        observations = (*self.of_images(), *self.of_manifests(), *self.of_names())
        required = sum(index.requires.values())
        needs = f"{len(index.requires)} objects, {shown_size(required)}, of bundle {index.base}"
        licences = (f"{row.kind}/{row.name}: {row.licence}" for row in contents if row.licence)
        return BundleFolder(
            path=self.media.path,
            bundle=index.name,
            delivery=index.sequence,
            identity=index.identity,
            made_with=f"kit {index.kit}",
            signature=self.media.signature,
            signer=self.media.signer,
            verified="no: only the index was read; kit bundle verify does it",
            size=f"{shown_size(index.size)}, {len(index.items)} objects",
            parts_here=f"{len(self.media.places) - len(missing)} of {len(self.media.places)}",
            parts_missing=missing,
            parts=tuple(
                PartFile(part.name, part.size, part.sha256, str(place) if place else None)
                for part, place in zip(index.parts, self.media.places.values(), strict=True)
            ),
            base=index.base,
            requires=needs if index.base else None,
            stacks=self.named("stack"),
            examples=self.named("example"),
            models=self.named("model"),
            datasets=self.named("dataset"),
            images=tuple(
                f"{row.name} sha256:{row.manifest}" for row in index.contents if row.kind == "image"
            ),
            runs=self.named("run"),
            files=self.named("file"),
            documents=tuple(
                f"{row.kind}/{row.name}"
                for row in index.contents
                if row.kind in ("sbom", "provenance")
            ),
            active=tuple(self.active()),
            licences=tuple(licences),
            contents=contents,
            observations=observations,
            problems=tuple(self.media.problems),
        )

    def named(self, kind: str) -> tuple[str, ...]:
        return tuple(content.name for content in self.media.index.contents if content.kind == kind)

    def contents(self) -> Iterator[Carried]:
        licences = self.licences()
        items, required = self.media.items, self.media.index.requires
        for content in self.media.index.contents:
            digests = {file.sha256 for file in content.files}
            carried = sum(items[digest].size for digest in digests if digest in items)
            rest = sum(required[digest] for digest in digests if digest in required)
            yield Carried(
                name=content.name,
                kind=content.kind,
                stack=content.stack or None,
                why=content.why,
                manifest=f"sha256:{content.manifest}",
                files=len(content.files),
                size=carried + rest,
                carried=carried,
                licence=licences.get(f"{content.kind}/{content.name}"),
            )

    def licences(self) -> dict[str, str]:
        """Content → licence, as the transfer sheet has it: a line each, in the index's order."""
        if SHEET not in self.media.present:
            return {}
        lines = verifier.content(self.media.head / SHEET).decode("utf-8", "replace").split("\n")
        said = [(line, after) for line, after in pairwise(lines) if after.startswith(_LICENCE)]
        found = {}
        for content, (line, after) in zip(self.media.index.contents, said, strict=False):
            label = f"{content.kind}/{content.name}"
            licence = after.removeprefix(_LICENCE)
            if line.startswith(f"  {label} (") and licence != _UNSTATED:
                found[label] = licence
        return found

    def active(self) -> Iterator[str]:
        counts = dict.fromkeys(active.CLASSES, 0)
        for content in self.media.index.contents:
            for file in content.files:
                kind = active.of(content.kind, file.title, file.role, partial(self.start, file))
                if kind is not None:
                    counts[kind] += 1
        for kind, count in counts.items():
            if count:
                yield f"{count} {active.CLASSES[kind]}"

    def start(self, file: File) -> bytes:
        """The first bytes of a file that is here."""
        item = self.media.items.get(file.sha256)
        return b"".join(self.media.pieces(item, min(4, item.size))) if item else b""

    def of_images(self) -> Iterator[Observation]:
        """What the configurations of images say."""
        for where, text in self.media.documents("image", "config"):
            with self.media.noted():
                for seen in settings.observations(bounded.loads(text, where)):
                    yield replace(seen, where=f"{where.partition(': ')[0]}: {seen.where}")

    def of_manifests(self) -> Iterator[Observation]:
        """What the records of runs say."""
        for where, manifest in self.media.manifests():
            versions = manifest.versions
            for component, version in (
                ("tensorrt_llm", _tensorrt_llm(manifest)),
                ("tensorrt", versions.tensorrt),
                ("cuda", versions.cuda),
                ("python", versions.python),
            ):
                if version is not None:
                    yield Observation(component, version, where, "manifest")

    def of_names(self) -> Iterator[Observation]:
        """Packages that engines depend on, by the names of their wheels."""
        for content in self.media.index.contents:
            if content.kind != "inputs":
                continue
            for file in content.files:
                if match := _COMPONENT.fullmatch(file.title.rpartition("/")[2]):
                    where = f"inputs/{content.name}: {file.title}"
                    yield Observation(match["name"], match["version"], where, "file name")


def _tensorrt_llm(manifest: Manifest) -> str:
    """The version in the image that a run was made in; the reference backend's says that it is."""
    installed = manifest.versions.distributions
    label = "+rehearsal" if "kit-rehearsal" in installed else ""
    return installed.get("tensorrt-llm", manifest.release + label)
