"""Tensors in the three storage types, and the safetensors format they are kept in.

Everything is computed in float32; `float16` and `bfloat16` say how values are rounded and stored.
NumPy has no bfloat16, so that one is stored as its upper 16 bits, rounded to nearest even.
Quantized tensors are kept as they are stored: int8 as int8 (two int4 to one of them), float8 e4m3,
which NumPy has not either, as its bits in uint8.
The format (8 bytes little-endian length, JSON header, data) is written here rather than through
the library, whose interface for bfloat16 without torch changed between versions. The bytes are the
same as the library's.
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
_CODES = {"I8": np.dtype(np.int8), "F8_E4M3": np.dtype(np.uint8)}
_CODE_TAGS = {dtype: tag for tag, dtype in _CODES.items()}
# Scales that the releases keep in float32 whatever the model's type is.
_FLOAT32 = (
    "act_scale",
    "activation_scaling_factor",
    "kv_cache_scaling_factor",
    "quantization_scaling_factor",
    "scale_to_int",
    "smoother",
)
# Their order in a file: the wider the type the earlier, as the library has it.
_PLACES = ("F32", "BF16", "F16", "F8_E4M3", "I8")


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


def storage(name: str, values: Stored, dtype: str) -> str:
    """The safetensors type of a tensor in a model of that type."""
    if values.dtype in _CODE_TAGS:
        return _CODE_TAGS[values.dtype]
    last = name.rpartition(".")[2]
    # SmoothQuant's scales are rows, [1, out], in float32; those of weights alone are of the
    # model's type. A scale of groups is a matrix in the model's type, one of a layer is float32.
    row = last == "per_channel_scale" and values.ndim == 2
    single = last == "weights_scaling_factor" and values.ndim < 2
    return TAGS["float32" if last in _FLOAT32 or row or single else dtype]


def pack(tensors: Mapping[str, Stored], dtype: str) -> bytes:
    """A safetensors file: tensors in the order of their types and names, no metadata."""
    dtypes = {tag: known for known, tag in TAGS.items()}
    tags = {name: storage(name, values, dtype) for name, values in tensors.items()}
    header: dict[str, Any] = {}
    chunks: list[bytes] = []
    offset = 0
    for name in sorted(tensors, key=lambda one: (_PLACES.index(tags[one]), one)):
        values, tag = tensors[name], tags[name]
        coded = tag in _CODES
        data = np.ascontiguousarray(values).tobytes() if coded else encode(values, dtypes[tag])
        header[name] = {
            "dtype": tag,
            "shape": list(values.shape),
            "data_offsets": [offset, offset + len(data)],
        }
        offset += len(data)
        chunks.append(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(chunks)


def unpack(blob: bytes, source: str) -> dict[str, Stored]:
    """The tensors of a safetensors file, floats as float32; `source` names it in errors."""
    dtypes = {tag: dtype for dtype, tag in TAGS.items()}
    try:
        (length,) = struct.unpack_from("<Q", blob)
        header = json.loads(blob[8 : 8 + length])
        data = memoryview(blob)[8 + length :]
        tensors: dict[str, Stored] = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            tag, shape = entry["dtype"], tuple(entry["shape"])
            if tag in _CODES:
                codes = np.frombuffer(bytes(data[begin:end]), dtype=_CODES[tag])
                tensors[name] = codes.reshape(shape)
                continue
            if tag not in dtypes:
                raise BackendError(f"{source}: {name}: dtype {tag} is not supported")
            tensors[name] = decode(bytes(data[begin:end]), dtypes[tag], shape)
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(f"{source}: not a safetensors file: {error}") from error
    return tensors
