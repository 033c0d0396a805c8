"""Layers in canonical form: a tar whose bytes depend on nothing but the files in it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zlib
from dataclasses import asdict, dataclass, replace
from typing import IO, TYPE_CHECKING, Any

from kit.digest import CHUNK, Digest
from kit.errors import content_error, environment_error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

TYPES = {
    tarfile.REGTYPE: "file",
    tarfile.AREGTYPE: "file",
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "symlink",
    tarfile.LNKTYPE: "hardlink",
    tarfile.FIFOTYPE: "fifo",
    tarfile.CHRTYPE: "character device",
    tarfile.BLKTYPE: "block device",
}
_CODES = {name: code for code, name in TYPES.items() if code != tarfile.AREGTYPE}
_GZIP = b"\x1f\x8b"
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
CAPABILITY = "SCHILY.xattr.security.capability"
"""The one extended attribute that a layer keeps: a file's capabilities."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What a layer says of one path: everything that counts, no time, no names of owners.

    Attributes:
        path: relative, no leading `./`, no trailing `/`.
        kind: a value of `TYPES`.
        mode: permission bits.
        link: target of a symlink, or path of the file that a hard link shares.
        sha256: of a file's content, hexadecimal; empty for anything else.
        capability: value of the file capability attribute, or empty.
    """

    path: str
    kind: str
    mode: int
    uid: int = 0
    gid: int = 0
    link: str = ""
    size: int = 0
    sha256: str = ""
    capability: str = ""
    device: tuple[int, int] = (0, 0)


class LayerWriter:
    """Write canonical tar entries in the order given; hashes the layer and each file on the way."""

    def __init__(self, stream: IO[bytes], epoch: int) -> None:
        self._stream = stream
        self._epoch = epoch
        self._hasher = hashlib.sha256()
        self._size = 0
        self.entries: dict[str, Entry] = {}

    def add(self, entry: Entry, content: IO[bytes] | None = None) -> None:
        """Append one entry; a file's bytes come from `content`."""
        member = tarfile.TarInfo(entry.path)
        member.type = _CODES[entry.kind]
        member.mode = entry.mode
        member.uid, member.gid = entry.uid, entry.gid
        member.mtime = self._epoch
        member.linkname = entry.link
        member.devmajor, member.devminor = entry.device
        if entry.kind == "file":
            member.size = entry.size
        if entry.capability:
            member.pax_headers = {CAPABILITY: entry.capability}
        self._write(member.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape"))
        if entry.kind == "file":
            entry = replace(entry, sha256=self._copy(content, entry.size))
        self.entries[entry.path] = entry

    def close(self) -> tuple[Digest, int]:
        """End the archive; returns digest and size in bytes."""
        self._write(bytes(2 * tarfile.BLOCKSIZE))
        return Digest(self._hasher.hexdigest()), self._size

    def _copy(self, content: IO[bytes] | None, size: int) -> str:
        hasher = hashlib.sha256()
        left = size
        while left:
            assert content is not None
            piece = content.read(min(left, CHUNK))
            if not piece:
                raise EOFError("archive member is shorter than its header says")
            hasher.update(piece)
            self._write(piece)
            left -= len(piece)
        self._write(bytes(-size % tarfile.BLOCKSIZE))
        return hasher.hexdigest()

    def _write(self, piece: bytes) -> None:
        self._stream.write(piece)
        self._hasher.update(piece)
        self._size += len(piece)


def entry_of(member: tarfile.TarInfo, path: str, link: str = "") -> Entry:
    """The canonical entry for a member of any tar; `path` and `link` are already cleaned."""
    kind = TYPES.get(member.type)
    if kind is None:
        raise content_error(f"/{path}: no layer may hold an entry of type {member.type!r}")
    device = (member.devmajor, member.devminor) if "device" in kind else (0, 0)
    return Entry(
        path=path,
        kind=kind,
        mode=0o777 if kind == "symlink" else member.mode & 0o7777,
        uid=member.uid,
        gid=member.gid,
        link=link if kind in ("symlink", "hardlink") else "",
        size=member.size if kind == "file" else 0,
        capability=member.pax_headers.get(CAPABILITY, ""),
        device=device,
    )


def dump_index(entries: dict[str, Entry]) -> bytes:
    """The index of a layer as JSON, so that later steps need not read the layer again."""
    rows = [list(asdict(entry).values()) for entry in entries.values()]
    return json.dumps(rows, separators=(",", ":")).encode()


def load_index(path: Path) -> dict[str, Entry]:
    """Read what `dump_index` wrote."""
    rows: list[list[Any]] = json.loads(path.read_bytes())
    for row in rows:
        row[-1] = tuple(row[-1])
    return {row[0]: Entry(*row) for row in rows}


def members(stream: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Walk a tar stream once: each member with its content if it is a file."""
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # flat memory
            yield member, archive.extractfile(member) if member.isreg() else None


def unpacked(stream: IO[bytes], where: str) -> Iterator[bytes]:
    """The bytes of a layer's tar, whether it is plain or gzipped; `where` names it in messages.

    Raises:
        KitError: compressed by zstd (exit 3); a damaged gzip stream (exit 4).
    """
    piece = stream.read(CHUNK)
    if piece.startswith(_ZSTANDARD):
        raise environment_error(f"{where} is compressed by zstd, which kit does not read")
    if not piece.startswith(_GZIP):
        while piece:
            yield piece
            piece = stream.read(CHUNK)
        return
    gzip = zlib.decompressobj(wbits=31)
    while piece:
        try:
            yield gzip.decompress(piece, CHUNK)
        except zlib.error as error:
            raise content_error(f"{where}: damaged gzip stream: {error}") from error
        piece = gzip.unconsumed_tail
        if gzip.eof:
            # Streams may follow each other; zeros after the last are padding.
            piece = gzip.unused_data.lstrip(b"\0")
            while not piece and (more := stream.read(CHUNK)):
                piece = more.lstrip(b"\0")
            gzip = zlib.decompressobj(wbits=31) if piece else gzip
        piece = piece or stream.read(CHUNK)
    while not gzip.eof and (rest := gzip.decompress(b"", CHUNK)):
        yield rest
    if not gzip.eof:
        raise content_error(f"{where}: the gzip stream is cut short")


class ChunkStream(io.RawIOBase):
    """A readable file over chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """It is."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; fewer only at the end."""
        pieces, wanted = [], size
        while wanted:
            if not self._rest:
                piece = next(self._chunks, None)
                if piece is None:
                    break
                self._rest = memoryview(piece)
            taken = self._rest[:wanted] if wanted > 0 else self._rest
            pieces.append(taken)
            self._rest = self._rest[len(taken) :]
            wanted -= len(taken)
        return b"".join(pieces)


def clean(name: str) -> str:
    """`./usr//bin/` → `usr/bin`; the root itself becomes the empty text."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def text_file(content: bytes) -> IO[bytes]:
    """A generated file's bytes as a stream."""
    return io.BytesIO(content)
