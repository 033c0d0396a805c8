"""What of a lock is known without asking upstream, and what is not, with the reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from kit.data import digests, releases, sources
from kit.digest import Digest
from kit.locks.contents import TOP
from kit.locks.directory import resolve_directory
from kit.locks.git_server import canonical
from kit.locks.lock import Input, Lock, Unresolved
from kit.stacks.stack import TENSORRT_LLM, unsettled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.locks.intent import File, ImageReference, Intent, RequirementGroup, SourceTree
    from kit.locks.lock import Kind

_ROOT = Path(__file__).resolve().parents[2]
"""Of the checkout that the stacks are written in."""
_EXACT = re.compile(r"([A-Za-z0-9._-]+)==([0-9A-Za-z.+!-]+)")
_BLOBS = "the blobs of its manifest are listed by the registry alone"
_TREE = "the archive of a commit is made and hashed where its repository can be reached"
_PACKAGES = "the repository's index and the packages of the base image decide the file"
_CLOSURE = "the base image's own pip decides which versions and what they need"
_INSIDE = "it stands inside the archive, which is a locked file"
_POINTERS = "the objects of this release are not listed in the tables"


def lock(intent: Intent) -> Lock:
    """Inputs with digest and size from the tables; everything else is unresolved."""
    found = list(_everything(intent))
    return Lock(
        stack=intent.stack,
        intent=intent.digest,
        inputs=tuple(sorted(item for item in found if isinstance(item, Input))),
        arguments=intent.arguments,
        unresolved=tuple(sorted(item for item in found if isinstance(item, Unresolved))),
    )


def _everything(intent: Intent) -> Iterator[Input | Unresolved]:
    for image in intent.images:
        yield _image(image)
    for tree in intent.sources:
        yield from _tree(tree, str(intent.release))
    for file in intent.files:
        yield _file(file)
    for model in intent.models:
        yield from resolve_directory(_ROOT, model)
    if intent.apt is not None:
        places = {item.name: item.url for item in intent.apt.repositories}
        theirs = sources.value(str(intent.release), "cuda_packages")
        for group in intent.apt.groups:
            for text in group.packages:
                name, _, version = text.partition("=")
                location = places["cuda" if name in theirs else "ubuntu"]
                known = digests.deb(name, version)
                yield _gap("deb", group.name, name, version, location, _PACKAGES, known)
    for wanted in intent.requirements.groups if intent.requirements else ():
        yield from _closure(wanted)
    for gap in intent.gaps:
        yield Unresolved("file", gap.group, gap.name, "", "", gap.reason)


def _image(image: ImageReference) -> Unresolved:
    reference, _, digest = image.reference.partition("@")
    name, _, tag = reference.rpartition(":")
    known = digests.image(name, tag) if digest else None
    reason = _BLOBS if known else f"{digests.UNSEEN}; {_BLOBS}"
    return _gap("oci", image.name, name, tag, f"oci:{name}", reason, known)


def _tree(tree: SourceTree, release: str) -> Iterator[Input | Unresolved]:
    url = canonical(tree.url, tree.name)
    doubt = unsettled(release) if tree.url == TENSORRT_LLM else None
    reason = f"{doubt}; {_TREE}" if doubt else _TREE
    yield Unresolved("git", tree.name, TOP, tree.commit, url, reason)
    if tree.url != TENSORRT_LLM or not tree.submodules:
        return
    for row in releases.value(release, "submodules") or ():
        place = canonical(row["url"], row["path"])
        yield Unresolved("git", tree.name, row["path"], row["commit"], place, _TREE)
    objects = {row["path"]: row for row in sources.value(release, "lfs") or ()}
    for pattern in tree.lfs:
        row = objects.get(pattern)
        if row is None:
            yield Unresolved("lfs", tree.name, pattern, "", url, _POINTERS)
            continue
        yield Input(
            kind="lfs",
            group=tree.name,
            name=row["path"],
            version="",
            file=f"lfs/{row['oid']}",
            location=url,
            sha256=Digest(row["oid"]),
            size=row["size"],
            source=sources.fact(release, "lfs").source or "",
        )


def _file(file: File) -> Input | Unresolved:
    known = digests.file(file.url)
    if known is None or known.size is None:
        reason = "its size was not seen in a public place" if known else digests.UNSEEN
        return _gap("file", file.group, file.name, "", file.url, reason, known)
    return Input(
        kind="file",
        group=file.group,
        name=file.name,
        version="",
        file=file.name,
        location=file.url,
        sha256=known.digest,
        size=known.size,
        source=known.source,
    )


def _closure(group: RequirementGroup) -> Iterator[Input | Unresolved]:
    for text in group.packages:
        exact = _EXACT.fullmatch(text)
        name, version = (exact[1], exact[2]) if exact else (text, "")
        known = digests.package(name, version)
        if known is None or known.size is None:
            yield Unresolved("wheel", group.name, name, version, "", _CLOSURE)
            continue
        yield Input(
            kind="sdist" if known.file.endswith(".tar.gz") else "wheel",
            group=group.name,
            name=name,
            version=version,
            file=known.file,
            location="",
            sha256=known.digest,
            size=known.size,
            source=known.source,
        )
    for text in group.files:
        yield Unresolved("wheel", group.name, text, "", "", _CLOSURE)
    for text in group.archives:
        yield Unresolved("wheel", group.name, text, "", "", _INSIDE)


def _gap(
    kind: Kind,
    group: str,
    name: str,
    version: str,
    location: str,
    reason: str,
    known: digests.Known | None,
) -> Unresolved:
    digest = known.digest if known else None
    return Unresolved(kind, group, name, version, location, reason, digest)
