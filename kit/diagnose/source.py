"""A log as a stream of blocks that end where lines end, whatever it is written in."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Protocol

from kit.errors import KitError, content_error

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 1 << 16
"""Bytes looked at together: more than a processor's nearest caches hold makes it slower."""
OVERLAP = 4096
"""Bytes of a line without an end that are looked at again with what follows."""

_PACKED = (
    (b"\x1f\x8b", "gzip", "zcat {name} | kit diagnose -"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat {name} | kit diagnose -"),
    (b"\xfd7zXZ", "xz", "xzcat {name} | kit diagnose -"),
    (b"BZh", "bzip2", "bzcat {name} | kit diagnose -"),
    (b"PK\x03\x04", "zip", "unzip -p {name} | kit diagnose -"),
)


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines, or a part of a long one.

    Attributes:
        data: the bytes, without the last line end.
        first_line: the number of the first line, counted from 1.
        lines_end: whether the last line ends here; its rest follows otherwise.
    """

    data: bytes
    first_line: int
    lines_end: bool


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def blocks(stream: IO[bytes], name: str) -> Iterator[Block]:
    """The log, block by block; of one line without an end no more than a block is held.

    Raises:
        KitError: it is not a text (exit 4).
    """
    head = stream.read(BLOCK)
    source = _decoded(head, stream)
    _refuse_binary(head if isinstance(source, _Raw) else b"", name)
    number, data = 1, source.read(BLOCK)
    while data:
        following = source.read(BLOCK)
        cut = data.rfind(b"\n")
        if not following:
            yield Block(data.removesuffix(b"\n"), number, lines_end=True)
            return
        if cut >= 0:
            yield Block(data[:cut], number, lines_end=True)
            number += data.count(b"\n", 0, cut + 1)
            data = data[cut + 1 :]
        elif len(data) >= BLOCK:
            yield Block(data, number, lines_end=False)
            data = data[-OVERLAP:]
        data += following


class _Raw:
    """What was read for a look at it, then the rest."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int, /) -> bytes:
        if self._head:
            head, self._head = self._head, b""
            return head
        return self._stream.read(size)


class _Decoded:
    """UTF-16 as UTF-8."""

    def __init__(self, source: _Raw, encoding: str) -> None:
        self._source = source
        self._decoder = codecs.getincrementaldecoder(encoding)(errors="replace")

    def read(self, size: int, /) -> bytes:
        while data := self._source.read(size):
            if text := self._decoder.decode(data):
                return text.encode("utf-8", errors="replace")
        return b""


def _decoded(head: bytes, stream: IO[bytes]) -> _Readable:
    raw = _Raw(head, stream)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _Decoded(raw, "utf-16")
    sample = head[:4096]
    half = len(sample) // 2
    if half > 8 and sample[1::2].count(0) > 0.8 * half and sample[::2].count(0) < 0.1 * half:
        return _Decoded(raw, "utf-16-le")
    return raw


def _refuse_binary(head: bytes, name: str) -> None:
    """Nothing can be read in bytes that are no text: say so rather than find nothing."""
    for magic, kind, command in _PACKED:
        if head.startswith(magic):
            raise content_error(
                f"{name}: not a text log but {kind} data", hint=command.format(name=name)
            )
    text = head.replace(b"\0", b"")
    if not text:
        if head:
            raise _no_text(name)
        return
    controls = len(text) - len(text.translate(None, _CONTROLS))
    damaged = text.decode("utf-8", errors="replace").count("\ufffd")
    if controls > 0.03 * len(text) or damaged > 0.2 * len(text):
        raise _no_text(name)


def _no_text(name: str) -> KitError:
    return content_error(f"{name}: not a text log", hint=f"file {name}")


_CONTROLS = bytes({*range(32), 127} - set(b"\t\n\r\x0b\x0c\x08\x07\x1b"))
