"""GPT-2 in NumPy: float32, key/value cache, tensor parallel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .communicator import sum_parts

if TYPE_CHECKING:
    from .communicator import Communicator
    from .engine import Engine, ModelShape
    from .tensors import Array


class Cache:
    """Keys and values of one sequence: per layer [heads of this rank, length, head size]."""

    def __init__(self, layers: int, heads: int, capacity: int, head_size: int) -> None:
        self.keys = np.zeros((layers, heads, capacity, head_size), dtype=np.float32)
        self.values = np.zeros_like(self.keys)
        self.length = 0


class Gpt2:
    """One rank's share of a model; all ranks call the same methods in the same order."""

    def __init__(self, engine: Engine, shape: ModelShape, ranks: Communicator) -> None:
        self._weights = engine.weights
        self._ranks = ranks
        self.shape = shape
        self._hidden = int(engine.weights["transformer.ln_f.weight"].shape[0])
        self._heads = shape.n_head // engine.world_size
        self._head_size = self._hidden // shape.n_head

    def cache(self, capacity: int) -> Cache:
        """An empty cache for a sequence of at most `capacity` tokens."""
        return Cache(self.shape.n_layer, self._heads, capacity, self._head_size)

    def logits(self, tokens: list[int], cache: Cache, *, last_only: bool) -> Array:
        """Logits after each new token, [tokens or 1, vocabulary padded to the ranks].

        The tokens follow those in the cache, which grows by them.
        """
        weights = self._weights
        start = cache.length
        positions = weights["transformer.position_embedding.weight"]
        x = weights["transformer.vocab_embedding.weight"][np.asarray(tokens)]
        x = x + positions[start : start + len(tokens)]
        for layer in range(self.shape.n_layer):
            name = f"transformer.layers.{layer}."
            x = x + self._attention(layer, self._normed(x, name + "input_layernorm"), cache)
            x = x + self._mlp(name + "mlp.", self._normed(x, name + "post_layernorm"))
        cache.length = start + len(tokens)
        if last_only:
            x = x[-1:]
        x = self._normed(x, "transformer.ln_f")
        head = weights.get("lm_head.weight", weights["transformer.vocab_embedding.weight"])
        return np.concatenate(self._ranks.gather(x @ head.T), axis=-1)

    def _attention(self, layer: int, x: Array, cache: Cache) -> Array:
        name = f"transformer.layers.{layer}.attention."
        new, start = len(x), cache.length
        total = start + new
        qkv = self._linear(x, name + "qkv") + self._weights[name + "qkv.bias"]
        parts = qkv.reshape(new, 3, self._heads, self._head_size).transpose(1, 2, 0, 3)
        cache.keys[layer, :, start:total] = parts[1]
        cache.values[layer, :, start:total] = parts[2]
        keys, values = cache.keys[layer, :, :total], cache.values[layer, :, :total]
        scores = parts[0] @ keys.transpose(0, 2, 1) / np.float32(math.sqrt(self._head_size))
        future = np.arange(total)[None, :] > np.arange(start, total)[:, None]
        scores = np.where(future, np.float32(-np.inf), scores)
        mixed = (softmax(scores) @ values).transpose(1, 0, 2).reshape(new, -1)
        dense = sum_parts(self._ranks, self._linear(mixed, name + "dense"))
        return dense + self._weights[name + "dense.bias"]

    def _mlp(self, name: str, x: Array) -> Array:
        inner = gelu_new(self._linear(x, name + "fc") + self._weights[name + "fc.bias"])
        out = sum_parts(self._ranks, self._linear(inner, name + "proj"))
        return out + self._weights[name + "proj.bias"]

    def _linear(self, x: Array, name: str) -> Array:
        product: Array = x @ self._weights[name + ".weight"].T
        return product

    def _normed(self, x: Array, name: str) -> Array:
        centred = x - x.mean(axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        scale = 1 / np.sqrt(variance + np.float32(self.shape.layer_norm_epsilon))
        normed: Array = centred * scale * self._weights[name + ".weight"]
        return normed + self._weights[name + ".bias"]


def gelu_new(x: Array) -> Array:
    """GELU in the tanh form that GPT-2 was trained with."""
    inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
    activated: Array = np.float32(0.5) * x * (1 + np.tanh(inner))
    return activated


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares
