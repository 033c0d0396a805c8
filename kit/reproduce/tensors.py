"""Tensors of two files, one by one: which differ, by how much, and where first.

Safetensors, the weights inside a rehearsal engine, and the `.bin` files of old checkpoints, each of
which is one tensor. Payloads are hashed in flat memory; of tensors that differ, up to a limit, the
numbers are compared.
"""

from __future__ import annotations

import hashlib
import math
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.artifacts import bounded, tensors
from kit.digest import CHUNK
from kit.reproduce.ladder import Difference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

SCALES_TOLERANCE = 1e-2
"""Relative; scales of a quantized checkpoint come from a calibration on a GPU."""
WITHIN = f"a scale, within {SCALES_TOLERANCE:g} of the largest"
"""What is noted of a difference that does not count."""
_SCALE = "scal"
_NUMBERS_LIMIT = 8 << 20
"""Bytes of one tensor whose numbers are compared, piece by piece that differs."""
_FORMATS = {"F16": "e", "F32": "f", "F64": "d", "I8": "b", "U8": "B", "I16": "h", "U16": "H",
            "I32": "i", "U32": "I", "I64": "q", "U64": "Q"}  # fmt: skip
_BF16 = "BF16"
_FLOATS = ("F16", "BF16", "F32", "F64")


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies, and what it is."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int

    @property
    def shown(self) -> str:
        """`F16 [768, 64]`."""
        return f"{self.dtype} {list(self.shape)}"

    def sha256(self) -> str:
        """Digest of the payload."""
        hasher = hashlib.sha256()
        for piece in self.pieces():
            hasher.update(piece)
        return hasher.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        """The payload, a piece at a time."""
        left = self.size
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            while left and (piece := stream.read(min(CHUNK, left))):
                left -= len(piece)
                yield piece


def of_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name.

    Raises:
        KitError: it is damaged (exit 4).
    """
    with bounded.opened(path) as stream:
        return of_stream(stream, path, 0)


def of_stream(stream: BinaryIO, path: Path, start: int) -> dict[str, Tensor]:
    """The same of safetensors that begin somewhere in a file and go to its end."""
    end = os.fstat(stream.fileno()).st_size
    entries = tensors.read(stream, start, end)
    stream.seek(start)
    payload = start + 8 + int.from_bytes(stream.read(8), "little")
    return {
        name: Tensor(
            path,
            bounded.text(entry, "dtype") or "unknown",
            tuple(entry["shape"]),
            payload + entry["data_offsets"][0],
            entry["data_offsets"][1] - entry["data_offsets"][0],
        )
        for name, entry in entries.items()
    }


def compare(
    where: str, first: dict[str, Tensor], second: dict[str, Tensor], *, is_quantized: bool = False
) -> Iterator[Difference]:
    """Every tensor that is not the same; `where` stands before its name.

    Scales of a quantized checkpoint may differ within `SCALES_TOLERANCE`: they are told and do not
    count.
    """
    for name in sorted({*first, *second}):
        one, other = first.get(name), second.get(name)
        what = f"{where}: {name}"
        if one is None or other is None:
            yield Difference(what, one.shown if one else None, other.shown if other else None)
        elif (one.dtype, one.shape) != (other.dtype, other.shape):
            yield Difference(what, one.shown, other.shown)
        elif (digest := one.sha256()) != (again := other.sha256()):
            note, distance = _numbers(one, other)
            within = is_quantized and _SCALE in name and one.dtype in _FLOATS
            counts = not (within and distance is not None and distance <= SCALES_TOLERANCE)
            if not counts:
                note += f"; {WITHIN}"
            yield Difference(what, f"sha256 {digest}", f"sha256 {again}", note, counts)


def _numbers(first: Tensor, second: Tensor) -> tuple[str, float | None]:
    """The distance in words, and relative to the largest number where all of them were compared."""
    width = _width(first.dtype)
    if width is None or first.size % width:
        return f"{first.shown}, compared as bytes", None
    count, example = 0, ""
    largest = scale = 0.0
    place = compared = 0
    for one, other in zip(first.pieces(), second.pieces(), strict=True):
        if one != other and compared < _NUMBERS_LIMIT:
            compared += len(one)
            pairs = zip(_values(first.dtype, one), _values(first.dtype, other), strict=True)
            for at, (left, right) in enumerate(pairs, place):
                scale = max(scale, abs(left)) if math.isfinite(left) else scale
                if left == right:
                    continue
                inside = slice((at - place) * width, (at - place + 1) * width)
                if one[inside] == other[inside]:  # the same NaN
                    continue
                count += 1
                gap = abs(left - right)
                largest = max(largest, gap) if math.isfinite(gap) else math.inf
                example = example or f"number {at}: {left:.9g} → {right:.9g}"
        place += len(one) // width
    note = f"{first.shown}: {count} of {place} numbers differ, by {largest:g} at most; {example}"
    if compared >= _NUMBERS_LIMIT:
        return f"{note}; at least, the rest was not counted", None
    is_whole = first.size <= CHUNK and scale > 0 and math.isfinite(largest)
    return note, largest / scale if is_whole else None


def _width(dtype: str) -> int | None:
    """Bytes of a number; None for a type whose numbers are not read here."""
    if dtype == _BF16:
        return 2
    return struct.calcsize(_FORMATS[dtype]) if dtype in _FORMATS else None


def _values(dtype: str, raw: bytes) -> tuple[float, ...]:
    if dtype == _BF16:
        halves = struct.unpack(f"<{len(raw) // 2}H", raw)
        return struct.unpack(
            f"<{len(halves)}f", struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves))
        )
    code = _FORMATS[dtype]
    return struct.unpack(f"<{len(raw) // struct.calcsize(code)}{code}", raw)
