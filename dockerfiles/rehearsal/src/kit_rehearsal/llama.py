"""LLaMA in NumPy: RMSNorm, rotary embeddings, grouped queries, SwiGLU; tensor parallel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .communicator import sum_parts
from .gpt2 import Cache, softmax

if TYPE_CHECKING:
    from .communicator import Communicator
    from .engine import Engine, LlamaShape
    from .tensors import Array


class Llama:
    """One rank's share of a model; all ranks call the same methods in the same order."""

    def __init__(self, engine: Engine, shape: LlamaShape, ranks: Communicator) -> None:
        self._weights = engine.weights
        self._ranks = ranks
        self.shape = shape
        self._heads = shape.n_head // engine.world_size
        self._kv_heads = max(1, shape.n_kv_head // engine.world_size)
        powers = np.arange(0, shape.head_size, 2, dtype=np.float32) / np.float32(shape.head_size)
        self._frequencies = (1.0 / np.float32(shape.rotary_base) ** powers).astype(np.float32)

    def cache(self, capacity: int) -> Cache:
        """An empty cache for a sequence of at most `capacity` tokens."""
        return Cache(self.shape.n_layer, self._kv_heads, capacity, self.shape.head_size)

    def logits(self, tokens: list[int], cache: Cache, *, last_only: bool) -> Array:
        """Logits after each new token, [tokens or 1, vocabulary padded to the ranks].

        The tokens follow those in the cache, which grows by them.
        """
        weights = self._weights
        x = weights["transformer.vocab_embedding.weight"][np.asarray(tokens)]
        for layer in range(self.shape.n_layer):
            name = f"transformer.layers.{layer}."
            x = x + self._attention(layer, self._normed(x, name + "input_layernorm"), cache)
            x = x + self._mlp(name + "mlp.", self._normed(x, name + "post_layernorm"))
        cache.length += len(tokens)
        if last_only:
            x = x[-1:]
        x = self._normed(x, "transformer.ln_f")
        head = weights.get("lm_head.weight", weights["transformer.vocab_embedding.weight"])
        return np.concatenate(self._ranks.gather(x @ head.T), axis=-1)

    def _attention(self, layer: int, x: Array, cache: Cache) -> Array:
        name = f"transformer.layers.{layer}.attention."
        new, start, size = len(x), cache.length, self.shape.head_size
        total = start + new
        qkv = self._linear(x, name + "qkv").reshape(new, -1, size).transpose(1, 0, 2)
        queries, keys, values = np.split(qkv, [self._heads, self._heads + self._kv_heads])
        queries, keys = self._turned(queries, start), self._turned(keys, start)
        cache.keys[layer, :, start:total] = keys
        cache.values[layer, :, start:total] = values
        # Each key-value head answers to a group of queries that lie side by side.
        group = self._heads // self._kv_heads
        keys = np.repeat(cache.keys[layer, :, :total], group, axis=0)
        values = np.repeat(cache.values[layer, :, :total], group, axis=0)
        scores = queries @ keys.transpose(0, 2, 1) / np.float32(math.sqrt(size))
        future = np.arange(total)[None, :] > np.arange(start, total)[:, None]
        scores = np.where(future, np.float32(-np.inf), scores)
        mixed = (softmax(scores) @ values).transpose(1, 0, 2).reshape(new, -1)
        return sum_parts(self._ranks, self._linear(mixed, name + "dense"))

    def _turned(self, x: Array, start: int) -> Array:
        """Rotary embeddings of GPT-NeoX's kind: the halves of a head are turned as pairs."""
        positions = np.arange(start, start + x.shape[1], dtype=np.float32)
        angles = positions[:, None] * self._frequencies
        cos, sin = np.cos(angles), np.sin(angles)
        first, second = np.split(x, 2, axis=-1)
        turned: Array = np.concatenate(
            [first * cos - second * sin, second * cos + first * sin], axis=-1
        )
        return turned

    def _mlp(self, name: str, x: Array) -> Array:
        inner = self._linear(x, name + "fc")
        inner = inner / (1 + np.exp(-inner)) * self._linear(x, name + "gate")
        return sum_parts(self._ranks, self._linear(inner, name + "proj"))

    def _linear(self, x: Array, name: str) -> Array:
        product: Array = x @ self._weights[name + ".weight"].T
        return product

    def _normed(self, x: Array, name: str) -> Array:
        square = np.mean(x * x, axis=-1, keepdims=True)
        scale = 1 / np.sqrt(square + np.float32(self.shape.rms_norm_epsilon))
        normed: Array = x * scale * self._weights[name + ".weight"]
        return normed
