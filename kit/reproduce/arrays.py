"""Files of logits: NumPy arrays of floating point numbers, read a row at a time."""

from __future__ import annotations

import ast
import math
import os
import struct
import sys
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.artifacts import bounded
from kit.errors import content_error

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

_MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 4096
_WIDTHS = {"<f2": 2, "<f4": 4, "<f8": 8}
_KEYS = {"descr", "fortran_order", "shape"}
_ODD = {"<f2": bytes((*range(0x7C, 0x80), *range(0xFC, 0x100))), "<f4": b"\x7f\xff",
        "<f8": b"\x7f\xff"}  # fmt: skip
"""Last bytes without which a number is finite: its exponent is not all ones."""


@dataclass(frozen=True, slots=True)
class Logits:
    """A file of rows of numbers: its shape without the last, the length of a row, where it begins.

    Attributes:
        file: where it is.
        shape: of the whole array.
        dtype: of a number, as NumPy spells it.
        start: offset of the first number.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str
    start: int

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return self.shape[-1]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * _WIDTHS[self.dtype]

    def row(self, stream: BinaryIO, number: int) -> bytes:
        """One row as it stands in the file."""
        stream.seek(self.start + number * self.row_bytes)
        return stream.read(self.row_bytes)

    def numbers(self, raw: bytes) -> Sequence[float]:
        """The numbers of a row."""
        if self.dtype == "<f2":
            return struct.unpack(f"<{self.width}e", raw)
        found: array[float] = array("f" if self.dtype == "<f4" else "d")
        found.frombytes(raw)
        if sys.byteorder == "big":
            found.byteswap()
        return found

    def is_finite(self, raw: bytes) -> bool:
        """Whether all numbers of a row are finite."""
        width = _WIDTHS[self.dtype]
        last = raw[width - 1 :: width]
        if not any(byte in last for byte in _ODD[self.dtype]):
            return True
        return all(map(math.isfinite, self.numbers(raw)))


def read(path: Path) -> Logits:
    """The header of a NumPy file of two axes or more.

    Raises:
        KitError: no such file: another type, another order, another length (exit 4).
    """
    with bounded.opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(12)
        wide = head[6:7] != b"\x01"
        length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
        start = (12 if wide else 10) + length
        if head[:6] != _MAGIC or length > _HEADER_LIMIT:
            raise content_error(f"{path}: expected a NumPy file")
        stream.seek(start - length)
        text = stream.read(length)
    try:
        header = ast.literal_eval(text.decode("latin-1").strip())
        dtype, shape = header["descr"], header["shape"]
        is_plain = header["fortran_order"] is False and set(header) == _KEYS and dtype in _WIDTHS
        is_plain = is_plain and len(shape) > 1 and all(type(n) is int and n > 0 for n in shape)
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise content_error(f"{path}: the header of a NumPy file is damaged: {error}") from error
    if not is_plain or start + math.prod(shape) * _WIDTHS[dtype] != size:
        raise content_error(f"{path}: expected rows of floating point numbers, found {header}")
    return Logits(path, tuple(shape), dtype, start)
