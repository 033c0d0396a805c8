"""Safetensors files: the header only, held against the size of the file."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from kit.artifacts import bounded, pointer
from kit.errors import KitError, content_error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_LENGTH = 8
_DIMENSIONS_LIMIT = 32
_BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
}
"""Bits of an element, by safetensors' names; of a type that is not here the size is not checked."""


@dataclass(frozen=True, slots=True)
class TensorFile:
    """One safetensors file.

    Attributes:
        file: its name.
        size: bytes.
        tensors: how many it holds; None if the header is not readable.
        dtypes: of its tensors, as safetensors names them.
        problem: what is wrong with it: truncated, a pointer, damaged.
    """

    file: str
    size: int
    tensors: int | None
    dtypes: frozenset[str]
    problem: str | None = None


def look(path: Path) -> TensorFile:
    """Read the header of a safetensors file; what is wrong with it is its `problem`.

    Raises:
        KitError: there is no such file (exit 2).
    """
    with bounded.opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if (found := pointer.of(stream.read(pointer.LARGEST))) is not None:
            return TensorFile(path.name, size, None, frozenset(), str(found))
        try:
            tensors = read(stream, 0, size)
        except KitError as error:
            return TensorFile(path.name, size, None, frozenset(), str(error))
    dtypes = frozenset(bounded.text(entry, "dtype") or "unknown" for entry in tensors.values())
    return TensorFile(path.name, size, len(tensors), dtypes)


def read(stream: BinaryIO, start: int, end: int) -> Mapping[str, Any]:
    """The entries of the safetensors content between two places of a file.

    Eight bytes with the header's length, the header in JSON, then the tensors without a gap
    (huggingface/safetensors, README.md, "Format").

    Raises:
        KitError: truncated, too long, no such header, places that contradict each other (exit 4).
    """
    stream.seek(start)
    length = int.from_bytes(stream.read(_LENGTH), "little")
    room = end - start - _LENGTH
    if room < 0:
        raise content_error(f"truncated: {end - start} bytes, safetensors begin with {_LENGTH}")
    if length > room:
        raise content_error(f"truncated or no safetensors: a header of {length} bytes, {room} left")
    if length > bounded.DOCUMENT_LIMIT:
        raise content_error(f"a safetensors header of {length} bytes is too large")
    entries = bounded.loads(stream.read(length), "safetensors header")
    entries.pop("__metadata__", None)
    payload, found = _end(entries), room - length
    if payload > found:
        raise content_error(f"truncated: the header names {payload} bytes of tensors, {found} left")
    if payload < found:
        raise content_error(f"{found - payload} bytes more than the header names")
    return entries


def _end(entries: Mapping[str, Any]) -> int:
    """Where the last tensor ends; each has to begin where the one before it ends."""
    for name, entry in entries.items():
        _check(name, entry)
    end = 0
    for name, entry in sorted(entries.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = entry["data_offsets"]
        if start != end:
            what = "a gap before it" if start > end else "it overlaps another tensor"
            raise content_error(
                f"safetensors header: {name[:80]!r} begins at byte {start}, expected {end}: {what}"
            )
        end = stop
    return end


def _check(name: str, entry: Any) -> None:
    place, shape = bounded.at(entry, "data_offsets"), bounded.at(entry, "shape")
    if not (_is_counts(place) and len(place) == 2 and place[0] <= place[1] and _is_counts(shape)):
        raise content_error(f"safetensors header: {name[:80]!r}: no shape or place of that tensor")
    size: int = place[1] - place[0]
    bits = _BITS.get(bounded.text(entry, "dtype") or "")
    if bits is not None and math.prod(shape) * bits != size * 8:
        raise content_error(f"safetensors header: {name[:80]!r}: {size} bytes are not its shape's")


def _is_counts(found: Any) -> bool:
    if not isinstance(found, list) or len(found) > _DIMENSIONS_LIMIT:
        return False
    return all(type(item) is int and 0 <= item < 1 << 63 for item in found)
