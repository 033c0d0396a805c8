"""A decoder in NumPy: float32, key/value cache, tensor and pipeline parallel.

One network for all families. What differs between them stands in the engine's `Shape` (norm,
positions, activation, heads) or in which tensors there are (biases, a gate of the MLP, a head of
its own).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .communicator import sum_parts
from .errors import BackendError
from .kv_cache import KvCache, roundings
from .linears import linear_of
from .split import Placement, padded_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .communicator import Communicator
    from .engine import Engine
    from .linears import Linear
    from .tensors import Array

# TensorRT-LLM computes every one of them in the tanh form (functional.gelu of 0.5.0 and later).
GELU = ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
SWIGLU = ("swiglu", "fast-swiglu")
ACTIVATIONS = (*GELU, "relu", "silu", *SWIGLU)


class Decoder:
    """One rank's share of a model; all ranks call the same methods in the same order."""

    def __init__(
        self,
        engine: Engine,
        ranks: Communicator,
        linear: Callable[[dict[str, Array], str], Linear] = linear_of,
    ) -> None:
        self.shape = engine.model
        self._linear_of = linear
        self._linears: dict[str, Linear] = {}
        self._weights = engine.weights
        self._place = Placement(engine.rank, engine.tp_size, engine.pp_size)
        self._world = ranks
        self._ranks = ranks if engine.pp_size == 1 else ranks.group(self._place.stage_ranks)
        self._layers = len(self._place.layers(self.shape.n_layer))
        self._heads = self.shape.n_head // engine.tp_size
        self._kv_heads = max(1, self.shape.n_kv_head // engine.tp_size)
        self._roundings = roundings(engine.kv_cache, engine.weights, self._layers)

    def cache(self, capacity: int) -> KvCache:
        """An empty cache for a sequence of at most `capacity` tokens."""
        sizes = (self._layers, self._kv_heads, capacity, self.shape.head_size)
        return KvCache(*sizes, self._roundings)

    def logits(
        self,
        tokens: list[int],
        cache: KvCache,
        *,
        last_only: bool,
        virtual: Array | None = None,
    ) -> Array:
        """Logits after each new token, [tokens or 1, vocabulary padded to the ranks].

        The tokens follow those in the cache, which grows by them. Every rank gets the logits.
        `virtual` has the vectors of the tokens beyond the vocabulary, in their order.
        """
        place = self._place
        if place.is_first:
            x = self._embedded(tokens, cache.length, virtual)
        else:
            sizes = (len(tokens), self.shape.hidden_size)
            x = self._world.receive(sizes, place.rank - place.tp_size)
        for layer in range(self._layers):
            name = f"transformer.layers.{layer}."
            x = x + self._attention(layer, self._normed(x, name + "input_layernorm"), cache)
            x = x + self._mlp(name + "mlp.", self._normed(x, name + "post_layernorm"))
        cache.advance(len(tokens))
        if last_only and place.is_last:
            x = x[-1:]
        return self._shared_logits(x, 1 if last_only else len(tokens))

    def _shared_logits(self, x: Array, count: int) -> Array:
        """The last stage's logits on all stages: hands x on, or computes and hands back."""
        place, last = self._place, self._place.pp_size - 1
        if not place.is_last:
            self._world.send(x, place.rank + place.tp_size)
            width = padded_vocabulary(self.shape.vocab_size, place.tp_size)
            return self._world.receive((count, width), last * place.tp_size + place.tp_rank)
        x = self._normed(x, "transformer.ln_f")
        name = "lm_head" if self._has("lm_head.weight") else "transformer.vocab_embedding"
        logits = np.concatenate(self._ranks.gather(self._linear(x, name)), axis=-1)
        for stage in range(last):
            self._world.send(logits, stage * place.tp_size + place.tp_rank)
        return logits

    def _embedded(self, tokens: Sequence[int], start: int, virtual: Array | None) -> Array:
        """The tokens' vectors, [tokens, hidden]: the one place that looks them up."""
        ids = np.asarray(tokens)
        beyond = ids >= self.shape.vocab_size
        x = self._looked_up(np.where(beyond, 0, ids))
        if virtual is not None:
            x[beyond] = virtual[ids[beyond] - self.shape.vocab_size]
        if self.shape.rotary_dim == 0:
            positions = self._weights["transformer.position_embedding.weight"]
            x = x + positions[start : start + len(tokens)]
        return x

    def _looked_up(self, ids: np.typing.NDArray[np.int_]) -> Array:
        table, ranks = self._weights["transformer.vocab_embedding.weight"], self._ranks
        if self.shape.embedding == "whole":
            return table[ids]
        if self.shape.embedding == "hidden":
            return np.concatenate(ranks.gather(table[ids]), axis=-1)
        # By vocabulary: a token is one rank's, the others add zeros.
        own = ids - self._place.tp_rank * len(table)
        here = (own >= 0) & (own < len(table))
        rows = np.where(here[:, None], table[np.where(here, own, 0)], np.float32(0))
        return sum_parts(ranks, rows)

    def _attention(self, layer: int, x: Array, cache: KvCache) -> Array:
        name = f"transformer.layers.{layer}.attention."
        new, start, size = len(x), cache.length, self.shape.head_size
        qkv = self._column_parallel(x, name + "qkv").reshape(new, -1, size).transpose(1, 0, 2)
        queries, keys, values = np.split(qkv, [self._heads, self._heads + self._kv_heads])
        if self.shape.rotary_dim:
            queries, keys = self._turned(queries, start), self._turned(keys, start)
        keys, values = cache.extend(layer, keys, values)
        # Each key-value head answers to a group of queries that lie side by side.
        if (group := self._heads // self._kv_heads) > 1:
            keys, values = np.repeat(keys, group, axis=0), np.repeat(values, group, axis=0)
        scores = queries @ keys.transpose(0, 2, 1) / np.float32(math.sqrt(size))
        total = start + new
        future = np.arange(total)[None, :] > np.arange(start, total)[:, None]
        scores = np.where(future, np.float32(-np.inf), scores)
        mixed = (softmax(scores) @ values).transpose(1, 0, 2).reshape(new, -1)
        return self._row_parallel(mixed, name + "dense")

    def _turned(self, x: Array, start: int) -> Array:
        """Rotary embeddings of GPT-NeoX's kind: the halves of what is turned are pairs."""
        width = self.shape.rotary_dim
        powers = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
        frequencies = (1.0 / np.float32(self.shape.rotary_base) ** powers).astype(np.float32)
        positions = np.arange(start, start + x.shape[1], dtype=np.float32)
        angles = positions[:, None] * frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        first, second, rest = np.split(x, [width // 2, width], axis=-1)
        turned: Array = np.concatenate(
            [first * cos - second * sin, second * cos + first * sin, rest], axis=-1
        )
        return turned

    def _mlp(self, name: str, x: Array) -> Array:
        inner = activate(self.shape.activation, self._column_parallel(x, name + "fc"))
        if self._has(name + "gate.weight"):
            inner = inner * self._column_parallel(x, name + "gate")
        return self._row_parallel(inner, name + "proj")

    def _column_parallel(self, x: Array, name: str) -> Array:
        """A layer whose outputs are cut over the ranks."""
        out = self._linear(x, name)
        return out + self._weights[name + ".bias"] if self._has(name + ".bias") else out

    def _row_parallel(self, x: Array, name: str) -> Array:
        """A layer whose inputs are cut over the ranks: the sum over them, then the bias."""
        out = sum_parts(self._ranks, self._linear(x, name))
        return out + self._weights[name + ".bias"] if self._has(name + ".bias") else out

    def _linear(self, x: Array, name: str) -> Array:
        """The layer of that name without its bias: the one place that multiplies with weights."""
        if name not in self._linears:
            self._linears[name] = self._linear_of(self._weights, name)
        return self._linears[name](x)

    def _normed(self, x: Array, name: str) -> Array:
        epsilon, weight = np.float32(self.shape.norm_epsilon), self._weights[name + ".weight"]
        if self.shape.norm == "layer":
            x = x - x.mean(axis=-1, keepdims=True)
        square = np.mean(x * x, axis=-1, keepdims=True)
        normed: Array = x * (1 / np.sqrt(square + epsilon)) * weight
        return normed + self._weights[name + ".bias"] if self._has(name + ".bias") else normed

    def _has(self, name: str) -> bool:
        return name in self._weights


def activate(name: str, x: Array) -> Array:
    """An activation by TensorRT-LLM's name; of `silu` and `swiglu` the part before the gate."""
    if name in GELU:
        inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
        activated: Array = np.float32(0.5) * x * (1 + np.tanh(inner))
        return activated
    if name == "relu":
        return np.maximum(x, np.float32(0))
    if name == "silu" or name in SWIGLU:
        return x / (1 + np.exp(-x))
    raise BackendError(f"activation {name}: expected one of {', '.join(ACTIVATIONS)}")


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares
