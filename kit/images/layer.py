"""Layers in canonical form: a tar whose bytes depend on nothing but the files in it."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass, fields, replace
from typing import IO, TYPE_CHECKING, Any

from kit.digest import CHUNK, Digest

if TYPE_CHECKING:
    from collections.abc import Iterator
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
    kind = TYPES[member.type]
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
    names = [field.name for field in fields(Entry)]
    entries = {}
    for row in json.loads(path.read_bytes()):
        values: dict[str, Any] = dict(zip(names, row, strict=True))
        entries[row[0]] = Entry(**{**values, "device": tuple(values["device"])})
    return entries


def members(stream: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    """Walk a tar stream once: each member with its content if it is a file."""
    with tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK) as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # flat memory
            yield member, archive.extractfile(member) if member.isreg() else None


def clean(name: str) -> str:
    """`./usr//bin/` → `usr/bin`; the root itself becomes the empty text."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def text_file(content: bytes) -> IO[bytes]:
    """A generated file's bytes as a stream."""
    return io.BytesIO(content)
