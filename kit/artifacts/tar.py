"""Tar archives read header by header: flat memory, and of a file only the bytes that are asked for.

`tarfile` would do, but for three things: it keeps every member, it trusts the lengths of extended
headers, and what it raises for damaged archives is not one error.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from kit.errors import content_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.errors import KitError

Kind = Literal["file", "folder", "symlink", "hardlink", "whiteout", "opaque", "other"]
"""`whiteout` and `opaque` are the marks of a layer that stands on others."""

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
BLOCK = 512
_ZEROS = bytes(BLOCK)
_BLANK = b" " * 8
"""What a header's checksum counts as while it is summed up."""
_EXTENDED_LIMIT = 1 << 20
"""Bytes of one extended header: a path has at most 4096, attributes at most 64 KB each."""
_PATH_LIMIT = 4 * 4096
"""Characters: Linux takes 4096 bytes, each of which may be shown as an escape of four."""
_MEMBER_LIMIT = 5_000_000
_KINDS: dict[int, Kind] = {
    ord("0"): "file",
    0: "file",
    ord("7"): "file",
    ord("S"): "file",
    ord("1"): "hardlink",
    ord("2"): "symlink",
    ord("3"): "other",
    ord("4"): "other",
    ord("5"): "folder",
    ord("6"): "other",
}
_WITHOUT_DATA = b"123456"
_PAX_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")


class Source(Protocol):
    """Bytes by offset; a caller never goes back behind the end of what it took last."""

    def take(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`, fewer at the end; KitError if the end is before `offset`."""


class Member(NamedTuple):
    """One member of an archive, or one path of a folder that stands for one.

    `path` is relative, without `.` and `..`, empty for the root; of a whiteout it is the path that
    disappears, of an opaque mark the folder.
    """

    path: str
    kind: Kind
    size: int
    link: str
    source: Source | None
    offset: int

    def content(self, limit: int) -> bytes:
        """The first bytes of a file; has to be asked for before the next member is."""
        if self.source is None:
            return b""
        return self.source.take(self.offset, min(self.size, limit))


class Limit:
    """Counts the members of an image, all layers together; too many are an error."""

    def __init__(self) -> None:
        self._left = _MEMBER_LIMIT

    def count(self, where: str) -> None:
        """Count one; raises KitError for one too many (exit 4)."""
        self._left -= 1
        if self._left < 0:
            raise content_error(f"{where}: more than {_MEMBER_LIMIT} members: not a real image")


def members(source: Source, where: str, limit: Limit) -> Iterator[Member]:
    """Walk an archive, from header to header.

    Args:
        source: the archive's bytes.
        where: what to call it in messages.
        limit: shared by all layers of an image.

    Raises:
        KitError: damaged, cut short, or a path climbs out with `..` (exit 4).
    """
    offset, extended = 0, dict[str, bytes]()
    while block := source.take(offset, BLOCK):
        if len(block) < BLOCK:
            raise _short(where)
        if block == _ZEROS:
            return
        limit.count(where)
        code, size = _checked(block, where)
        offset += BLOCK
        if code in b"xgLK":
            if size > _EXTENDED_LIMIT:
                raise content_error(f"{where}: an extended header of {size} bytes")
            content = source.take(offset, size) if code != ord("g") else b""
            if code != ord("g") and len(content) < size:
                raise _short(where)
            if code == ord("x"):
                extended |= _pax(content, where)
            elif code != ord("g"):
                extended["path" if code == ord("L") else "linkpath"] = content.split(b"\0")[0]
            offset += -(-size // BLOCK) * BLOCK
            continue
        if code == ord("S"):
            offset = _after_sparse_map(source, block, offset, where)
        member = _member(block, code, size, extended, source, offset, where)
        yield member
        extended = {}
        if code not in _WITHOUT_DATA:
            offset += -(-member.size // BLOCK) * BLOCK
    if extended:
        raise _short(where)


def clean(name: str, where: str) -> str:
    """The path that a member's name stands for: `./usr//bin/` is `usr/bin`.

    Raises:
        KitError: it climbs out with `..` or holds a zero byte (exit 4).
    """
    if "\0" in name or len(name) > _PATH_LIMIT:
        raise content_error(f"{where}: refused member {name[:80]!r}: no name that a file can have")
    if "//" not in name and "./" not in name and not name.endswith("."):
        return name.strip("/")
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            if not parts:
                raise content_error(f"{where}: refused member {name!r}: it climbs out of its root")
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def marked(member: Member) -> Member:
    """A member of a layer, with whiteouts told apart from files."""
    if WHITEOUT not in member.path:
        return member
    folder, _, name = member.path.rpartition("/")
    if not name.startswith(WHITEOUT):
        return member
    if name == OPAQUE:
        return member._replace(path=folder, kind="opaque")
    hidden = name.removeprefix(WHITEOUT)
    return member._replace(path=f"{folder}/{hidden}" if folder else hidden, kind="whiteout")


def _member(
    block: bytes,
    code: int,
    size: int,
    extended: dict[str, bytes],
    source: Source,
    offset: int,
    where: str,
) -> Member:
    raw = extended.get("GNU.sparse.name") or extended.get("path") or _field(block, 0, 100)
    if "path" not in extended and block[257:263] == b"ustar\0" and block[345]:
        raw = _field(block, 345, 155) + b"/" + raw
    name = raw.decode("utf-8", "backslashreplace")
    kind = _KINDS.get(code, "other")
    if code == 0 and name.endswith("/"):
        kind = "folder"
    link = ""
    if kind in ("symlink", "hardlink"):
        link = (extended.get("linkpath") or _field(block, 157, 100)).decode(
            "utf-8", "backslashreplace"
        )
        if len(link) > _PATH_LIMIT:
            raise content_error(f"{where}: {name[:80]!r}: a link of {len(link)} characters")
        link = clean(link, where) if kind == "hardlink" else link
    if "size" in extended:
        size = _pax_size(extended["size"], where)
    return Member(clean(name, where), kind, size, link, source, offset)


def _checked(block: bytes, where: str) -> tuple[int, int]:
    """Type and size of a header whose sum is right."""
    try:
        told = int(_field(block, 148, 8).strip() or b"x", 8)
        size = _number(block[124:136])
    except ValueError:
        raise content_error(
            f"{where}: damaged, or no tar archive: a header without numbers"
        ) from None
    # Adler-32's lower half is one more than the sum of the bytes, modulo a prime: 50 times quicker
    # than `sum`, and there may be half a million headers.
    counted = zlib.adler32(_BLANK, zlib.adler32(block[156:], zlib.adler32(block[:148])))
    if (counted - 1 - told) & 0xFFFF and not _is_signed_sum(block, told):
        raise content_error(f"{where}: damaged, or no tar archive: a header has a wrong checksum")
    return block[156], size


def _is_signed_sum(block: bytes, told: int) -> bool:
    """Whether a checksum is the one that old programs made, of signed bytes; or a larger sum."""
    summed = block[:148] + _BLANK + block[156:]
    return told in (sum(summed), sum(summed) - 256 * sum(byte > 127 for byte in summed))


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256 for sizes over 8 GB."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ((1 << 95) - 1)
        if field[0] & 0x40 or value >= 1 << 63:
            raise ValueError
        return value
    text = field.split(b"\0")[0].strip()
    if not text.isdigit():
        if text:
            raise ValueError
        return 0
    return int(text, 8)


def _pax(content: bytes, where: str) -> dict[str, bytes]:
    """The records that matter here; each is its own length, a space, key, `=`, value, newline."""
    found: dict[str, bytes] = {}
    place = 0
    while place < len(content) and content[place] != 0:
        match = _PAX_RECORD.match(content, place)
        end = place + int(match[1]) if match else 0
        if match is None or end < match.end() + 1 or content[end - 1 : end] != b"\n":
            raise content_error(f"{where}: damaged: an extended header cannot be read")
        key = match[2].decode("ascii", "replace")
        if key in ("path", "linkpath", "size", "GNU.sparse.name"):
            found[key] = content[match.end() : end - 1]
        place = end
    return found


def _pax_size(text: bytes, where: str) -> int:
    if not text.isdigit() or len(text) > 19:
        raise content_error(f"{where}: damaged: a size of {text[:20]!r}")
    return int(text)


def _after_sparse_map(source: Source, block: bytes, offset: int, where: str) -> int:
    """Where the data of an old GNU sparse file begins; its map may go on in further blocks."""
    more = block[482]
    while more:
        block = source.take(offset, BLOCK)
        if len(block) < BLOCK:
            raise _short(where)
        offset += BLOCK
        more = block[504]
    return offset


def _field(block: bytes, start: int, length: int) -> bytes:
    return block[start : start + length].split(b"\0", 1)[0]


def _short(where: str) -> KitError:
    return content_error(f"{where}: the archive is cut short")
