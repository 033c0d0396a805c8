"""Whole models, and how their tensors are cut for tensor and pipeline parallelism.

The names are those of a TensorRT-LLM checkpoint (`transformer.layers.0.attention.qkv.weight` …);
matrices are [out, in]; qkv has the rows of all queries, then keys, then values. Column-parallel:
qkv (by heads), mlp.fc and mlp.gate; row-parallel: dense and mlp.proj; by vocabulary: lm_head,
padded with zero rows to a multiple of the ranks. A rank counts the layers of its stage from 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BackendError

if TYPE_CHECKING:
    from .engine import EmbeddingCut, Shape
    from .tensors import Array

EMBEDDING = "transformer.vocab_embedding.weight"
POSITIONS = "transformer.position_embedding.weight"
HEAD = "lm_head.weight"
_LAYERS = "transformer.layers."
# How a tensor of a layer is cut, by the end of its name; what is not here is whole on every rank.
_QKV = ("attention.qkv.weight", "attention.qkv.bias")
_INNER = ("mlp.fc.weight", "mlp.fc.bias", "mlp.gate.weight", "mlp.gate.bias")
_ROW_PARALLEL = ("attention.dense.weight", "mlp.proj.weight")
# Scales of quantized layers, last or only axis: cut like the outputs, or like the inputs.
_OUTPUT_SCALES = ("per_channel_scale", "weights_scaling_factor")
_INPUT_SCALES = ("smoother", "prequant_scaling_factor")


@dataclass(frozen=True)
class Network:
    """A whole model: its shape, its tensors under TensorRT-LLM's names, its source's own words.

    Where the output embedding is tied to the input's there is no `lm_head.weight`.
    """

    shape: Shape
    weights: dict[str, Array]
    source: dict[str, Any]


@dataclass(frozen=True)
class Placement:
    """A rank's place: rank = pp_rank * tp_size + tp_rank."""

    rank: int
    tp_size: int
    pp_size: int = 1

    @property
    def tp_rank(self) -> int:
        """Its place among those that share its layers."""
        return self.rank % self.tp_size

    @property
    def pp_rank(self) -> int:
        """Its stage."""
        return self.rank // self.tp_size

    @property
    def is_first(self) -> bool:
        """Whether it has the input embedding."""
        return self.pp_rank == 0

    @property
    def is_last(self) -> bool:
        """Whether it has the last norm and the output embedding."""
        return self.pp_rank == self.pp_size - 1

    @property
    def stage_ranks(self) -> range:
        """The ranks of its stage."""
        return range(self.pp_rank * self.tp_size, (self.pp_rank + 1) * self.tp_size)

    def layers(self, n_layer: int) -> range:
        """Its stage's layers."""
        each = n_layer // self.pp_size
        return range(self.pp_rank * each, (self.pp_rank + 1) * each)


def placements(tp_size: int, pp_size: int) -> list[Placement]:
    """All ranks in their order."""
    return [Placement(rank, tp_size, pp_size) for rank in range(tp_size * pp_size)]


def check_split(shape: Shape, tp_size: int, pp_size: int = 1) -> None:
    """BackendError when heads, MLP or layers cannot be shared evenly."""
    for what, number in (("tensor", tp_size), ("pipeline", pp_size)):
        if number < 1:
            raise BackendError(f"{what} parallelism {number}: expected 1 or more")
    for what, number in (("attention heads", shape.n_head), ("MLP columns", shape.inner_size)):
        if number % tp_size:
            raise BackendError(f"{number} {what} cannot be shared evenly by {tp_size} ranks")
    if shape.n_kv_head % tp_size and tp_size % shape.n_kv_head:
        raise BackendError(
            f"{shape.n_kv_head} key-value heads cannot be shared evenly by {tp_size} ranks"
        )
    if shape.n_layer % pp_size:
        raise BackendError(
            f"{shape.n_layer} layers cannot be shared evenly by {pp_size} pipeline stages"
        )


def padded_vocabulary(vocab_size: int, tp_size: int) -> int:
    """The vocabulary rounded up to a multiple of the ranks."""
    return -(-vocab_size // tp_size) * tp_size


def split_vocabulary(weight: Array, rank: int, tp_size: int) -> Array:
    """One rank's rows of an embedding, zero rows at the end where it is padded."""
    missing = padded_vocabulary(len(weight), tp_size) - len(weight)
    return np.split(np.pad(weight, ((0, missing), (0, 0))), tp_size)[rank]


def split_qkv(matrix: Array, shape: Shape, rank: int, tp_size: int) -> Array:
    """One rank's rows of q, k and v; ranks share a key-value head where there are fewer."""
    queries, kv = shape.n_head * shape.head_size, shape.n_kv_head * shape.head_size
    kv_parts = min(shape.n_kv_head, tp_size)
    parts = np.split(matrix, [queries, queries + kv])
    counts = (tp_size, kv_parts, kv_parts)
    return np.concatenate(
        [np.split(part, count)[rank * count // tp_size] for part, count in zip(parts, counts)]
    )


def cut_layer_tensor(name: str, value: Array, shape: Shape, place: Placement) -> Array:
    """A rank's part of a layer's tensor; the name may have any beginning."""
    rank, size = place.tp_rank, place.tp_size
    module, _, kind = name.rpartition(".")
    if kind in _INPUT_SCALES:
        cut = f"{module}.weight".endswith(_ROW_PARALLEL)
        return np.split(value, size, axis=-1)[rank] if cut else value
    if kind in _OUTPUT_SCALES and value.size > 1:
        part = cut_layer_tensor(f"{module}.bias", value.reshape(-1), shape, place)
        return part.reshape(*value.shape[:-1], -1)
    if name.endswith(_QKV):
        return split_qkv(value, shape, rank, size)
    if name.endswith(_INNER):
        return np.split(value, size)[rank]
    if name.endswith(_ROW_PARALLEL):
        return np.split(value, size, axis=1)[rank]
    return value


def is_cut(name: str) -> bool:
    """Whether the ranks of a stage have parts of a layer's tensor, not all of it."""
    return name.endswith((*_QKV, *_INNER, *_ROW_PARALLEL))


def shares_embedding(cut: EmbeddingCut, tp_size: int) -> bool:
    """Whether one table can serve as input and output embedding: both must be cut alike."""
    return tp_size == 1 or cut == "vocabulary"


def cut_embeddings(
    table: Array, head: Array | None, place: Placement, cut: EmbeddingCut, *, share: bool
) -> dict[str, Array]:
    """A rank's input and output embedding; `head` is None where it is the table.

    With `share` the first stage's table is the output embedding too, if it is one stage.
    """
    rank, size = place.tp_rank, place.tp_size
    made: dict[str, Array] = {}
    if place.is_first:
        if cut == "vocabulary":
            made[EMBEDDING] = split_vocabulary(table, rank, size)
        elif cut == "hidden":
            if table.shape[1] % size:
                raise BackendError(
                    f"the embedding's {table.shape[1]} columns cannot be shared evenly "
                    f"by {size} ranks"
                )
            made[EMBEDDING] = np.split(table, size, axis=1)[rank]
        else:
            made[EMBEDDING] = table
    if place.is_last and not (share and place.is_first):
        made[HEAD] = split_vocabulary(table if head is None else head, rank, size)
    return made


def rank_weights(
    network: Network, place: Placement, *, share_embedding: bool = False
) -> dict[str, Array]:
    """The tensors of one rank's checkpoint; its input embedding is cut as the shape says."""
    source, shape = network.weights, network.shape
    weights = cut_embeddings(
        source[EMBEDDING], source.get(HEAD), place, shape.embedding, share=share_embedding
    )
    if place.is_first and POSITIONS in source:
        weights[POSITIONS] = source[POSITIONS]
    layers = place.layers(shape.n_layer)
    for name, value in source.items():
        if name.startswith("transformer.ln_f."):
            if place.is_last:
                weights[name] = value
        elif name.startswith(_LAYERS):
            number, _, rest = name.removeprefix(_LAYERS).partition(".")
            if int(number) in layers:
                local = f"{_LAYERS}{int(number) - layers.start}.{rest}"
                weights[local] = cut_layer_tensor(rest, value, shape, place)
    return weights


def with_embedding(network: Network, cut: EmbeddingCut) -> Network:
    """The same network, its input embedding to be cut that way."""
    return replace(network, shape=replace(network.shape, embedding=cut))
