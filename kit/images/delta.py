"""What a build put on top of its base, read from the engine: layer by layer, bytes where they lie.

Two ways lead to the same answer. Where the kit may read the engine's overlay storage, the layers
are folders and only what is new is touched. Anywhere else the engine saves the whole image as an
archive, at a few hundred MB a second at best.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from kit.digest import CHUNK, Digest
from kit.errors import content_error
from kit.files import disk_errors
from kit.images.layer import ChunkStream, Entry, clean, entry_of, members, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_OVERLAY_OPAQUE = "trusted.overlay.opaque"
_CAPABILITY = "security.capability"
_PARTIAL = ("trusted.overlay.metacopy", "trusted.overlay.redirect")
_OTHER_MARKS = ("user.overlay.", "user.fuseoverlayfs.")


@dataclass(frozen=True, slots=True)
class Found:
    """One path of a layer, and the file and offset where its bytes lie, if it has any."""

    entry: Entry
    file: Path | None = None
    offset: int = 0


def from_overlay(
    inspected: Mapping[str, Any], base: tuple[Digest, ...]
) -> list[Iterable[Found]] | None:
    """The layers above the base straight from overlay storage; None where that cannot be read.

    Args:
        inspected: what the engine's `inspect` says of the image (`RootFS`, `GraphDriver`).
        base: diff ids that the image has to start with.

    Raises:
        KitError: the image stands on something else (exit 4).
    """
    diffs = tuple(Digest.parse(text) for text in inspected["RootFS"]["Layers"])
    _check_base(diffs, base)
    driver = inspected.get("GraphDriver") or {}
    data = driver.get("Data") or {}
    if driver.get("Name") not in ("overlay", "overlay2") or not data.get("UpperDir"):
        return None
    # Top first: the upper folder, then the lower ones downwards.
    folders = [data["UpperDir"], *filter(None, data.get("LowerDir", "").split(":"))]
    paths = [Path(folder) for folder in folders[: len(diffs) - len(base)]]
    if len(folders) != len(diffs) or os.geteuid() != 0 or not all(map(Path.is_dir, paths)):
        return None
    if any(_is_partial(path) for path in paths):
        return None
    return [_folder(path) for path in reversed(paths)]


def from_archive(
    saved: Iterable[bytes], scratch: Path, base: tuple[Digest, ...]
) -> list[Iterable[Found]]:
    """The layers above the base out of a docker-archive stream, spooled into `scratch`.

    Raises:
        KitError: the image stands on something else (exit 4).
    """
    documents: dict[str, bytes] = {}
    files: dict[str, Path] = {}
    links: dict[str, str] = {}
    digests: dict[str, Digest] = {}
    numbers = itertools.count()
    known = {digest.hex for digest in base}
    for member, content in members(cast("IO[bytes]", ChunkStream(saved))):
        name = clean(member.name)
        if member.issym() or member.islnk():
            folder = name.rpartition("/")[0] if member.issym() else ""
            links[name] = _resolve(folder, member.linkname)
        elif content is not None and member.size < CHUNK and not name.endswith(".tar"):
            documents[name] = content.read()
        elif content is not None:
            files[name] = scratch / str(next(numbers))
            # What the engine calls by the name of a layer of the base need not be kept; but a small
            # one, such as that of a step which changed nothing, may stand above the base once more.
            is_known = member.size >= CHUNK and not known.isdisjoint(
                re.findall("[0-9a-f]{64}", name)
            )
            digests[name] = _copy(content, None if is_known else files[name])
    for name, body in documents.items():  # small layers of an OCI-shaped archive
        files[name] = scratch / str(next(numbers))
        digests[name] = _copy(io.BytesIO(body), files[name])
    manifest = json.loads(documents["manifest.json"])[0]
    names = [links.get(clean(name), clean(name)) for name in manifest["Layers"]]
    _check_base(tuple(digests[name] for name in names), base)
    return [_tar(files[name]) for name in names[len(base) :]]


def _check_base(diffs: tuple[Digest, ...], base: tuple[Digest, ...]) -> None:
    if diffs[: len(base)] != base:
        raise content_error("the built image does not stand on the locked base image")


def _tar(layer: Path) -> Iterator[Found]:
    with layer.open("rb") as stream:
        for member, _ in members(stream):
            path = clean(member.name)
            link = clean(member.linkname) if member.islnk() else member.linkname
            if path:
                yield Found(entry_of(member, path, link), layer, member.offset_data)


def _folder(top: Path) -> Iterator[Found]:
    """The content of one overlay folder in the terms of a layer archive, whiteouts included."""
    first_names: dict[int, str] = {}
    for folder, folders, names in os.walk(top):
        for name in sorted([*folders, *names]):
            file = Path(folder) / name
            path = str(file.relative_to(top))
            status = file.lstat()
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                yield Found(Entry(str(Path(path).with_name(WHITEOUT + name)), "file", 0o644))
                continue
            link = first_names.setdefault(status.st_ino, path) if status.st_nlink > 1 else path
            yield _file(file, path, status, link)
            if stat.S_ISDIR(status.st_mode) and _attribute(file, _OVERLAY_OPAQUE) == b"y":
                yield Found(Entry(f"{path}/{OPAQUE}", "file", 0o644))


def _file(file: Path, path: str, status: os.stat_result, first_name: str) -> Found:
    mode, owner = stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid)
    if stat.S_ISDIR(status.st_mode):
        return Found(Entry(path, "directory", mode, *owner))
    if stat.S_ISLNK(status.st_mode):
        return Found(Entry(path, "symlink", 0o777, *owner, link=str(file.readlink())))
    if first_name != path:
        return Found(Entry(path, "hardlink", mode, *owner, link=first_name))
    if stat.S_ISREG(status.st_mode):
        capability = _attribute(file, _CAPABILITY).decode("utf-8", "surrogateescape")
        entry = Entry(path, "file", mode, *owner, size=status.st_size, capability=capability)
        return Found(entry, file)
    kind = "fifo" if stat.S_ISFIFO(status.st_mode) else "character device"
    kind = "block device" if stat.S_ISBLK(status.st_mode) else kind
    numbers = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return Found(Entry(path, kind, mode, *owner, device=numbers))


def _is_partial(top: Path) -> bool:
    """Whether overlay keeps content of this folder elsewhere, or marks things in another way."""
    for folder, _, names in os.walk(top):
        for path in [folder, *(f"{folder}/{name}" for name in names)]:
            try:
                attributes = os.listxattr(path, follow_symlinks=False)
            except OSError:
                continue
            if any(name in _PARTIAL or name.startswith(_OTHER_MARKS) for name in attributes):
                return True
    return False


def _attribute(file: Path, name: str) -> bytes:
    try:
        return os.getxattr(file, name, follow_symlinks=False)
    except OSError:
        return b""


def _resolve(folder: str, link: str) -> str:
    parts = folder.split("/") if folder else []
    for part in link.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _copy(content: IO[bytes], path: Path | None) -> Digest:
    """Spool a layer, unpacked if the engine keeps it compressed; returns its diff id.

    Without a path its bytes are only hashed.
    """
    hasher = hashlib.sha256()
    with disk_errors(path or Path()), (path or Path(os.devnull)).open("wb") as stream:
        for piece in unpacked(content, "a layer of the engine"):
            hasher.update(piece)
            if path is not None:
                stream.write(piece)
    return Digest(hasher.hexdigest())
