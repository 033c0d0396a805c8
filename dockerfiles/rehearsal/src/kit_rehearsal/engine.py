r"""The engine file of the reference backend. It is not a TensorRT plan and cannot be taken for one.

| bytes | meaning |
| --- | --- |
| 0-15 | the magic `KIT-REHEARSAL\0\0\0` (a plan begins with `ftrt`) |
| 16-19 | format version, uint32 little-endian: 2 |
| 20-23 | length of the header, uint32 little-endian |
| then | the header: JSON with sorted keys `backend`, `backend_version`, `dtype`, `model`, `pp_size`, `rank`, `release`, `tp_size`, `version`, `weights`, `world_size`, and `kv_cache` (`int8` or `fp8`) where the cache is quantized |
| then | a safetensors blob: the rank's weights under TensorRT-LLM's tensor names, matrices [out, in], layers counted from the first of the rank's stage |

Where TensorRT computes (`tensorrt_backend.py`), the format version is 3, the header also has `plan`,
with `bytes`, `compute_capability`, `layer_bytes`, `optimization_level` and `tensorrt`, and instead
of the weights stand, of those sizes, `{"layers": […]}` as TensorRT's engine inspector tells them,
then the plan as TensorRT made it.

`version` is the release with the label `+rehearsal`; `model` is the `Shape`: what the computation
needs and the weights do not say, so that an engine can be run without guessing from config.json.
`weights` says where they are from: `checkpoint`, or `dummy` for random ones. Quantized weights say
themselves what they are (`linears.py`). There is no time, host or path in it. Format 1 was that of
0.1.0's first engines, whose `model` differed by family.
"""  # noqa: E501  a table's row is one line

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from . import BACKEND, VERSION
from .errors import BackendError
from .files import write_bytes
from .tensors import pack, unpack

if TYPE_CHECKING:
    from pathlib import Path

    from .kv_cache import KvType
    from .tensors import Array

MAGIC = b"KIT-REHEARSAL\0\0\0"
FORMAT_VERSION, PLAN_FORMAT_VERSION = 2, 3
_FIXED = struct.Struct("<16sII")

Norm = Literal["layer", "rms"]
EmbeddingCut = Literal["whole", "vocabulary", "hidden"]


@dataclass(frozen=True)
class Shape:
    """What the weights do not say of a decoder.

    Attributes:
        n_layer: of all pipeline stages together.
        n_head: of all ranks together, as are n_kv_head and inner_size.
        inner_size: width of the MLP after the activation.
        activation: TensorRT-LLM's `hidden_act`; a gate of its own comes as the tensor `mlp.gate`.
        rotary_dim: leading entries of a head that are turned; 0 for learned positions.
        embedding: how the input embedding is cut over the tensor parallel ranks.
    """

    n_layer: int
    n_head: int
    n_kv_head: int
    head_size: int
    hidden_size: int
    inner_size: int
    vocab_size: int
    n_positions: int
    norm: Norm
    norm_epsilon: float
    activation: str
    rotary_dim: int = 0
    rotary_base: float = 10000.0
    embedding: EmbeddingCut = "whole"


@dataclass(frozen=True)
class Plan:
    """What TensorRT built.

    Attributes:
        content: the serialized plan.
        level: the builder's optimization level.
        compute_capability: of the GPU that it was built on, and runs on alone.
        layers: what the engine inspector says of each layer.
    """

    content: bytes
    level: int
    compute_capability: str
    layers: list[Any]

    @property
    def tensorrt(self) -> str:
        """The version that the plan's own header names, `8.6.0.12`."""
        return ".".join(map(str, self.content[24:28]))


@dataclass(frozen=True)
class Engine:
    """One rank's engine; rank = pp_rank * tp_size + tp_rank. With a plan it has no weights."""

    release: str
    rank: int
    tp_size: int
    pp_size: int
    dtype: str
    model: Shape
    weights: dict[str, Array]
    origin: str = "checkpoint"
    kv_cache: KvType | None = None
    plan: Plan | None = None

    @property
    def world_size(self) -> int:
        """All ranks."""
        return self.tp_size * self.pp_size

    def header(self) -> dict[str, Any]:
        """The JSON header."""
        return {
            "backend": BACKEND,
            "backend_version": VERSION,
            "dtype": self.dtype,
            "model": asdict(self.model),
            "pp_size": self.pp_size,
            "rank": self.rank,
            "release": self.release,
            "tp_size": self.tp_size,
            "version": f"{self.release}+rehearsal",
            "weights": self.origin,
            "world_size": self.world_size,
            **({"kv_cache": self.kv_cache} if self.kv_cache else {}),
        }

    def write(self, path: Path) -> None:
        """Write the file atomically; the same engine gives the same bytes."""
        told = self.header()
        if self.plan is None:
            version, rest = FORMAT_VERSION, pack(self.weights, self.dtype)
        else:
            version, layers = PLAN_FORMAT_VERSION, _json({"layers": self.plan.layers})
            rest = layers + self.plan.content
            told["plan"] = {
                "bytes": len(self.plan.content),
                "compute_capability": self.plan.compute_capability,
                "layer_bytes": len(layers),
                "optimization_level": self.plan.level,
                "tensorrt": self.plan.tensorrt,
            }
        header = _json(told)
        write_bytes(path, _FIXED.pack(MAGIC, version, len(header)) + header + rest)


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
    if version not in {FORMAT_VERSION, PLAN_FORMAT_VERSION}:
        raise BackendError(
            f"{path}: engine format {version}, expected {FORMAT_VERSION} or "
            f"{PLAN_FORMAT_VERSION}; build it again"
        )
    try:
        header = json.loads(data[_FIXED.size : _FIXED.size + length])
        rest = data[_FIXED.size + length :]
        plan = _plan(header["plan"], rest) if version == PLAN_FORMAT_VERSION else None
        return Engine(
            release=header["release"],
            rank=header["rank"],
            tp_size=header["tp_size"],
            pp_size=header["pp_size"],
            dtype=header["dtype"],
            model=Shape(**header["model"]),
            weights={} if plan else unpack(rest, str(path)),
            origin=header["weights"],
            kv_cache=header.get("kv_cache"),
            plan=plan,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise BackendError(f"{path}: damaged header: {error}") from error


def _plan(told: dict[str, Any], rest: bytes) -> Plan:
    end = told["layer_bytes"]
    if len(rest) != end + told["bytes"]:
        raise ValueError(f"expected {end} + {told['bytes']} bytes after it, found {len(rest)}")
    where = told["optimization_level"], told["compute_capability"]
    return Plan(rest[end:], *where, json.loads(rest[:end])["layers"])


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
