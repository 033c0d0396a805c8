"""Tensors in the three storage types, and the safetensors format they are kept in.

Everything is computed in float32; `float16` and `bfloat16` say how values are rounded and stored.
NumPy has no bfloat16, so that one is stored as its upper 16 bits, rounded to nearest even.
The format (8 bytes little-endian length, JSON header, data) is written here rather than through
the library, whose interface for bfloat16 without torch changed between versions. The bytes are the
same as the library's for tensors of one type.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

Array = npt.NDArray[np.float32]
Stored = npt.NDArray[Any]

TAGS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}


def encode(values: Array, dtype: str) -> bytes:
    """The values as stored bytes, row-major, little-endian."""
    values = np.ascontiguousarray(values, dtype="<f4")
    if dtype == "float32":
        return values.tobytes()
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype("<f2").tobytes()
    if dtype == "bfloat16":
        bits = values.view("<u4").astype(np.uint64)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
        return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype("<u2").tobytes()
    raise BackendError(f"unknown dtype {dtype}; expected one of {', '.join(TAGS)}")


def decode(data: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    """Stored bytes as float32 values of a shape."""
    if len(data) != WIDTHS[dtype] * int(np.prod(shape)):
        raise BackendError(
            f"tensor of shape {list(shape)} and dtype {dtype}: "
            f"expected {WIDTHS[dtype] * int(np.prod(shape))} bytes, found {len(data)}"
        )
    if dtype == "bfloat16":
        bits = np.frombuffer(data, dtype="<u2").astype(np.uint32) << 16
        return bits.view(np.float32).reshape(shape)
    kind = "<f4" if dtype == "float32" else "<f2"
    return np.frombuffer(data, dtype=kind).astype(np.float32).reshape(shape)


def pack(tensors: Mapping[str, Array], dtype: str) -> bytes:
    """A safetensors file: tensors in the order of their names, no metadata."""
    header: dict[str, Any] = {}
    chunks: list[bytes] = []
    offset = 0
    for name in sorted(tensors):
        data = encode(tensors[name], dtype)
        header[name] = {
            "dtype": TAGS[dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        chunks.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(chunks)


def unpack(blob: bytes, source: str) -> dict[str, Array]:
    """The tensors of a safetensors file as float32; `source` names it in errors."""
    dtypes = {tag: dtype for dtype, tag in TAGS.items()}
    try:
        (length,) = struct.unpack_from("<Q", blob)
        header = json.loads(blob[8 : 8 + length])
        data = memoryview(blob)[8 + length :]
        tensors: dict[str, Array] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            if entry["dtype"] not in dtypes:
                raise BackendError(f"{source}: {name}: dtype {entry['dtype']} is not supported")
            dtype = dtypes[entry["dtype"]]
            tensors[name] = decode(bytes(data[begin:end]), dtype, tuple(entry["shape"]))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(f"{source}: not a safetensors file: {error}") from error
    return tensors
