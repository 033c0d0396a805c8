"""The canonical archive of a source tree: one commit, always the same bytes (`kit.tree/1`).

A tar file in the form of GNU tar that depends on nothing but the tree of the commit:

* members sorted by the bytes of their paths: files, symbolic links, and one empty folder for each
  submodule; other folders are only implied;
* modes 0644 and 0755 for files, as git knows no others, 0777 for links, 0755 for folders; owner
  and group 0, time 0;
* the link name of a submodule's folder is its commit, so that the archive holds all that the tree
  says; tar programs ignore it there;
* a path or link of more than 100 bytes stands in a `././@LongLink` member before its own;
* `uname` is the version of this form; nothing else is in a header;
* contents as git stores them: no filters, no line ends, no `export-ignore`, no `export-subst`;
* two blocks of zeros at the end.

A change of any of this gives other digests in every lock, and is another version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kit.digest import CHUNK
from kit.errors import content_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from kit.errors import KitError

Kind = Literal["file", "program", "symlink", "submodule"]
"""`program` is a file that may be executed."""

VERSION = b"kit.tree/1"
BLOCK = 512
END = bytes(2 * BLOCK)
PATH_LIMIT = 4096
_NAME = 100
_LARGEST_OCTAL = 8**11
_TYPES: dict[Kind, bytes] = {"file": b"0", "program": b"0", "symlink": b"2", "submodule": b"5"}
_MODES: dict[Kind, int] = {"file": 0o644, "program": 0o755, "symlink": 0o777, "submodule": 0o755}


@dataclass(slots=True)
class Member:
    """One member; bytes of a path that are no UTF-8 are kept as surrogates.

    Attributes:
        path: below the tree, without `.` and `..`.
        kind: what it is.
        size: bytes of its content.
        link: where a link leads; the commit of a submodule.
        stream: where the content is read from, before the next member is asked for.
    """

    path: str
    kind: Kind
    size: int
    link: str
    stream: BinaryIO

    def chunks(self) -> Iterator[bytes]:
        """The content, piece by piece.

        Raises:
            KitError: the archive ends early (exit 4).
        """
        left = self.size
        while left:
            chunk = self.stream.read(min(left, CHUNK))
            if not chunk:
                raise _damaged(self.path, "it ends early")
            left -= len(chunk)
            yield chunk


def header(path: str, kind: Kind, size: int = 0, link: str = "") -> bytes:
    """What stands before the content of a member."""
    name, target = as_bytes(path), as_bytes(link)
    if kind == "submodule":
        name += b"/"
    long = _long(b"L", name) + _long(b"K", target)
    return long + _block(name, _MODES[kind], size, _TYPES[kind], target)


def padding(size: int) -> bytes:
    """What stands after a content of `size` bytes."""
    return bytes(-size % BLOCK)


def members(stream: BinaryIO, where: str) -> Iterator[Member]:
    """Read an archive; `where` names it in messages.

    Every header is made again from what it says and has to be the same: nothing else gets through.

    Raises:
        KitError: it is not of this form, or a path is refused (exit 4).
    """
    last = b""
    while True:
        block, long = _read(stream, BLOCK, where), b""
        if block == END[:BLOCK]:
            if stream.read() != END[BLOCK:]:
                raise _damaged(where, "there is more after its end")
            return
        names: dict[bytes, bytes] = {}
        while (code := block[156:157]) in (b"L", b"K"):
            size = _octal(block, where)
            if not _NAME < size - 1 <= PATH_LIMIT + 1:
                raise _damaged(where, f"a path of {size} bytes")
            text = _read(stream, size + -size % BLOCK, where)
            names[code] = text[: size - 1]
            long += block + text
            block = _read(stream, BLOCK, where)
        name = names.get(b"L") or block[:_NAME].rstrip(b"\0")
        target = names.get(b"K") or block[157 : 157 + _NAME].rstrip(b"\0")
        size, kind = _octal(block, where), _kind(block, where)
        path = safe_path(name.removesuffix(b"/") if kind == "submodule" else name, where)
        link = as_text(target)
        if long + block != header(path, kind, size, link) or (size and kind in _WITHOUT_CONTENT):
            raise _damaged(where, f"{path!r}: not as this form has it")
        if as_bytes(path) <= last:
            raise _damaged(where, f"{path!r}: not in order")
        last = as_bytes(path)
        member = Member(path, kind, size, link, stream)
        start = stream.tell()
        yield member
        stream.seek(start + size)
        if _read(stream, -size % BLOCK, where).strip(b"\0"):
            raise _damaged(where, f"{path!r}: no zeros after it")


def safe_path(raw: bytes, where: str) -> str:
    """A path of a tree that may be written to a disk.

    Raises:
        KitError: it climbs out, is git's own, or no file can have it (exit 4).
    """
    path = as_text(raw)
    parts = path.split("/")
    if (
        "\0" in path
        or len(raw) > PATH_LIMIT
        or any(part in ("", ".", "..") or part.lower() == ".git" for part in parts)
    ):
        raise content_error(f"{where}: refused path {path[:200]!r}")
    return path


def as_text(raw: bytes) -> str:
    """A path as text; what is no UTF-8 comes back with `as_bytes`."""
    return raw.decode("utf-8", "surrogateescape")


def as_bytes(path: str) -> bytes:
    """A path as git and the disk have it."""
    return path.encode("utf-8", "surrogateescape")


_WITHOUT_CONTENT = ("symlink", "submodule")


def _long(code: bytes, name: bytes) -> bytes:
    if len(name) <= _NAME:
        return b""
    size = len(name) + 1
    return _block(b"././@LongLink", 0, size, code, b"") + name + b"\0" + padding(size)


def _block(name: bytes, mode: int, size: int, code: bytes, link: bytes) -> bytes:
    length = b"%011o\0" % size if size < _LARGEST_OCTAL else b"\x80" + size.to_bytes(11, "big")
    first = name[:_NAME].ljust(_NAME, b"\0") + b"%07o\0" % mode + b"0000000\0" * 2 + length
    first += b"%011o\0" % 0
    last = code + link[:_NAME].ljust(_NAME, b"\0") + b"ustar  \0" + VERSION.ljust(32, b"\0")
    last = last.ljust(BLOCK - len(first) - 8, b"\0")
    return first + b"%06o\0 " % (sum(first) + sum(last) + 8 * ord(" ")) + last


def _kind(block: bytes, where: str) -> Kind:
    mode = block[100:108]
    for kind, code in _TYPES.items():
        if code == block[156:157] and mode == b"%07o\0" % _MODES[kind]:
            return kind
    raise _damaged(where, f"a member of type {block[156:157]!r}, mode {mode!r}")


def _octal(block: bytes, where: str) -> int:
    field = block[124:136]
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if not field[:11].isdigit():
        raise _damaged(where, "a header without a size")
    return int(field[:11], 8) if not set(field[:11]) & set(b"89") else -1


def _read(stream: BinaryIO, count: int, where: str) -> bytes:
    found = stream.read(count)
    if len(found) < count:
        raise _damaged(where, "it ends early")
    return found


def _damaged(where: str, what: str) -> KitError:
    return content_error(f"{where}: no archive of a source tree, or damaged: {what}")
