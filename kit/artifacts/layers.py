"""The bytes of an image's layers: seeked over in files, streamed if compressed, or in folders.

A layer's digest is not verified: most of its bytes are never read. What is read in full (index,
manifest, configuration) is verified where it is read, see `kit.artifacts.stored`.
"""

from __future__ import annotations

import contextlib
import os
import stat
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit import console
from kit.artifacts.tar import Limit, Member, Source, marked, members
from kit.errors import content_error, environment_error
from kit.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.artifacts.tar import Kind

_GZIP = b"\x1f\x8b"
_OTHERS = {b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_FIRST_READ, _LARGEST_READ = 1 << 10, 1 << 16
_NEAR = 4096
"""A next header this near is a neighbour: small files follow each other."""
_PIECE = 1 << 15
"""Bytes that are unpacked at a time; what follows the end of a gzip member in them is copied."""
_NOTED = 64 << 20
"""Compressed layers from this size on are announced: they take a second or more each."""
_LARGEST_EXPANSION = 1 << 40
_RATIO, _RATIO_FROM = 200, 1 << 30
"""Compression of a real layer is 2 to 20 fold; gzip's limit is 1032."""
_OPAQUE_MARKS = ("trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque")
_REDIRECTS = ("trusted.overlay.redirect", "user.overlay.redirect")


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a file: a blob of a layout, or a member of an archive that holds blobs."""

    file: Path
    start: int
    size: int

    def head(self, count: int) -> bytes:
        """The first bytes."""
        with disk_errors(self.file), self.file.open("rb", buffering=0) as stream:
            return os.pread(stream.fileno(), min(count, self.size), self.start)


def of_region(region: Region, where: str, limit: Limit) -> Iterator[Member]:
    """The members of a layer that is a tar archive, plain or gzipped.

    Raises:
        KitError: a compression that is not read (exit 3); damaged or hostile (exit 4).
    """
    head = region.head(8)
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise environment_error(
                f"{where} is compressed by {name}, which kit does not read: Python's standard "
                "library has none for it before 3.14"
                if name == "zstd"
                else f"{where} is compressed by {name}; layers are tar or gzip",
                hint="skopeo copy --dest-compress-format=gzip oci:<layout> oci:<another layout>",
            )
    with disk_errors(region.file), region.file.open("rb", buffering=0) as stream:
        source: Source
        if head.startswith(_GZIP):
            if region.size >= _NOTED:
                console.note(f"reading {where}: {console.size(region.size)}, all of it: gzip")
            source = Unpacked(stream.fileno(), region, where)
        else:
            os.posix_fadvise(stream.fileno(), region.start, region.size, os.POSIX_FADV_RANDOM)
            source = Plain(stream.fileno(), region, where)
        for member in members(source, where, limit):
            yield marked(member)


def of_folder(top: Path, limit: Limit) -> Iterator[Member]:
    """The same of a folder of an engine's overlay storage.

    Its whiteouts are character devices 0/0, its opaque folders have an attribute; fuse-overlayfs
    also writes the marks of an archive.

    Raises:
        KitError: overlay keeps the content of a folder elsewhere (exit 3).
    """
    first_names: dict[int, str] = {}
    for folder, folders, names in os.walk(top):
        here = folder[len(str(top)) :].lstrip("/")
        if _has(folder, _REDIRECTS):
            raise environment_error(f"{folder}: overlay storage keeps its content elsewhere")
        if here:
            yield Member(here, "folder", 0, "", None, 0)
        if _has(folder, _OPAQUE_MARKS):
            yield Member(here, "opaque", 0, "", None, 0)
        for name in names + [n for n in folders if Path(folder, n).is_symlink()]:
            limit.count(folder)
            yield _found(Path(folder, name), f"{here}/{name}" if here else name, first_names)


class Plain:
    """A region by its offsets; a jump costs one small read, neighbours come in larger ones."""

    def __init__(self, descriptor: int, region: Region, where: str) -> None:
        self._descriptor = descriptor
        self._region = region
        self._where = where
        self._window, self._at, self._step = b"", 0, _FIRST_READ

    def take(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, fewer at the end."""
        if offset > self._region.size:
            raise content_error(f"{self._where}: the archive is cut short")
        place = offset - self._at
        if place >= 0 and place + count <= len(self._window):
            return self._window[place : place + count]
        near = 0 <= place <= len(self._window) + _NEAR
        self._step = min(self._step * 2, _LARGEST_READ) if near else _FIRST_READ
        wanted = min(max(count, self._step), self._region.size - offset)
        self._window = os.pread(self._descriptor, wanted, self._region.start + offset)
        self._at = offset
        return self._window[:count]


class Unpacked:
    """A gzipped region, unpacked on the way; several gzip members in a row are one stream."""

    def __init__(self, descriptor: int, region: Region, where: str) -> None:
        self._descriptor = descriptor
        self._region = region
        self._where = where
        self._read = self._written = self._at = 0
        self._piece = self._packed = b""
        self._unpack = zlib.decompressobj(wbits=31)

    def take(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, fewer at the end; only forward."""
        while self._at + len(self._piece) < offset + count and (more := self._more()):
            if offset >= self._at + len(self._piece):
                self._at, self._piece = self._at + len(self._piece), more
            else:
                place = max(0, offset - self._at)
                self._at, self._piece = self._at + place, self._piece[place:] + more
        place = offset - self._at
        if place > len(self._piece):
            raise content_error(f"{self._where}: the archive is cut short")
        return self._piece[place : place + count]

    def _more(self) -> bytes:
        while True:
            if not self._packed:
                size = min(_PIECE, self._region.size - self._read)
                self._packed = os.pread(self._descriptor, size, self._region.start + self._read)
                self._read += len(self._packed)
                if not self._packed:
                    if not self._unpack.eof:
                        raise content_error(f"{self._where}: the gzip stream is cut short")
                    return b""
            if self._unpack.eof and not self._next_stream():
                continue
            try:
                piece = self._unpack.decompress(self._packed, 1 << 20)
            except zlib.error as error:
                raise content_error(f"{self._where}: damaged gzip stream: {error}") from error
            # After the end of a stream the rest lies in another place than before it.
            eof = self._unpack.eof
            self._packed = self._unpack.unused_data if eof else self._unpack.unconsumed_tail
            if piece:
                self._check_growth(len(piece))
                return piece

    def _next_stream(self) -> bool:
        """Begin the next gzip member; zeros between them and after the last are padding."""
        self._packed = self._packed.lstrip(b"\0")
        if self._packed:
            self._unpack = zlib.decompressobj(wbits=31)
        return bool(self._packed)

    def _check_growth(self, count: int) -> None:
        self._written += count
        if self._written > _LARGEST_EXPANSION or (
            self._written > _RATIO_FROM and self._written > _RATIO * self._read
        ):
            raise content_error(
                f"{self._where}: a gzip bomb: {self._read} bytes have become {self._written}"
            )


@dataclass(frozen=True, slots=True)
class _FileBytes:
    """A whole file by its offsets, opened only when bytes of it are asked for."""

    path: Path

    def take(self, offset: int, count: int) -> bytes:
        with contextlib.suppress(OSError), self.path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(count)
        return b""


def _found(file: Path, path: str, first_names: dict[int, str]) -> Member:
    status = file.lstat()
    kind: Kind = "other"
    link, source = "", None
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        return Member(path, "whiteout", 0, "", None, 0)
    if stat.S_ISLNK(status.st_mode):
        kind, link = "symlink", str(file.readlink())
    elif stat.S_ISREG(status.st_mode):
        kind, source = "file", _FileBytes(file)
        if status.st_nlink > 1:
            first = first_names.setdefault(status.st_ino, path)
            kind, link = ("hardlink", first) if first != path else (kind, link)
    return marked(Member(path, kind, status.st_size, link, source, 0))


def _has(folder: str, marks: tuple[str, ...]) -> bool:
    for mark in marks:
        with contextlib.suppress(OSError):
            if os.getxattr(folder, mark, follow_symlinks=False):
                return True
    return False
