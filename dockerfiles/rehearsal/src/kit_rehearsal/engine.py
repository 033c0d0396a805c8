r"""The engine file of the reference backend. It is not a TensorRT plan and cannot be taken for one.

| bytes | meaning |
| --- | --- |
| 0-15 | the magic `KIT-REHEARSAL\0\0\0` (a plan begins with `ftrt`) |
| 16-19 | format version, uint32 little-endian: 1 |
| 20-23 | length of the header, uint32 little-endian |
| then | the header: JSON with sorted keys `backend`, `backend_version`, `dtype`, `model`, `rank`, `release`, `version`, `world_size` |
| then | a safetensors blob: the rank's weights under TensorRT-LLM's tensor names, matrices [out, in] |

`version` is the release with the label `+rehearsal`; `model` holds what the computation needs and
the weights do not say (heads, vocabulary, positions …; other keys for GPT-2 than for LLaMA), so
that an engine can be run without guessing from config.json. There is no time, host or path in it.
"""  # noqa: E501  a table's row is one line

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import BACKEND, VERSION
from .errors import BackendError
from .files import write_bytes
from .tensors import pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from .tensors import Array

MAGIC = b"KIT-REHEARSAL\0\0\0"
FORMAT_VERSION = 1
_FIXED = struct.Struct("<16sII")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the weights' shapes do not say of a GPT-2."""

    n_head: int
    n_layer: int
    n_positions: int
    vocab_size: int
    layer_norm_epsilon: float


@dataclass(frozen=True, slots=True)
class LlamaShape:
    """What the weights' shapes do not say of a LLaMA."""

    n_head: int
    n_kv_head: int
    n_layer: int
    n_positions: int
    vocab_size: int
    head_size: int
    rms_norm_epsilon: float
    rotary_base: float


@dataclass(frozen=True, slots=True)
class Engine:
    """One rank's engine."""

    release: str
    rank: int
    world_size: int
    dtype: str
    model: ModelShape | LlamaShape
    weights: dict[str, Array]

    def header(self) -> dict[str, Any]:
        """The JSON header."""
        shape = self.model
        return {
            "backend": BACKEND,
            "backend_version": VERSION,
            "dtype": self.dtype,
            "model": {name: getattr(shape, name) for name in type(shape).__slots__},
            "rank": self.rank,
            "release": self.release,
            "version": f"{self.release}+rehearsal",
            "world_size": self.world_size,
        }

    def write(self, path: Path) -> None:
        """Write the file atomically; the same engine gives the same bytes."""
        header = json.dumps(self.header(), sort_keys=True, separators=(",", ":")).encode()
        fixed = _FIXED.pack(MAGIC, FORMAT_VERSION, len(header))
        write_bytes(path, fixed + header + pack(self.weights, self.dtype))


def read(path: Path) -> Engine:
    """An engine; BackendError for anything that is not one of ours."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise BackendError(f"{path}: no such engine") from None
    if len(data) < _FIXED.size:
        raise BackendError(f"{path}: {len(data)} bytes are too few for an engine")
    magic, version, length = _FIXED.unpack_from(data)
    if magic != MAGIC:
        kind = "a TensorRT plan" if data[:4] == b"ftrt" else "something else"
        raise BackendError(f"{path}: expected an engine of {BACKEND}, found {kind}")
    if version != FORMAT_VERSION:
        raise BackendError(f"{path}: engine format {version}, expected {FORMAT_VERSION}")
    try:
        header = json.loads(data[_FIXED.size : _FIXED.size + length])
        return Engine(
            release=header["release"],
            rank=header["rank"],
            world_size=header["world_size"],
            dtype=header["dtype"],
            model=_shape(header["model"]),
            weights=unpack(data[_FIXED.size + length :], str(path)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"{path}: damaged header: {error}") from error


def _shape(model: dict[str, Any]) -> ModelShape | LlamaShape:
    return LlamaShape(**model) if "n_kv_head" in model else ModelShape(**model)
