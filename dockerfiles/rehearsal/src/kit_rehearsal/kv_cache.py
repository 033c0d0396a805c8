"""The key/value cache: the one place that keys and values go into and come out of.

A quantized cache is simulated: it holds the values that int8 or float8 codes would give back. As in
the releases' kernels, a step's own keys and values are used as they are, those of the steps before
as the cache has them.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from . import quantization
from .errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .tensors import Array

KvType = Literal["int8", "fp8"]


class KvCache:
    """Keys and values of one sequence: per layer [heads of this rank, length, head size]."""

    def __init__(
        self,
        layers: int,
        heads: int,
        capacity: int,
        head_size: int,
        rounded: Sequence[Callable[[Array], Array]] = (),
    ) -> None:
        self.keys = np.zeros((layers, heads, capacity, head_size), dtype=np.float32)
        self.values = np.zeros_like(self.keys)
        self.length = 0
        self._rounded = rounded

    def extend(self, layer: int, keys: Array, values: Array) -> tuple[Array, Array]:
        """Append a layer's new keys and values, [heads, new, head size]; returns all of them.

        `length` stays as it is until every layer has its own: `advance` moves it.
        """
        total = self.length + keys.shape[1]
        if not self._rounded:
            self.keys[layer, :, self.length : total] = keys
            self.values[layer, :, self.length : total] = values
            return self.keys[layer, :, :total], self.values[layer, :, :total]
        rounded = self._rounded[layer]
        past_keys = self.keys[layer, :, : self.length]
        past_values = self.values[layer, :, : self.length]
        self.keys[layer, :, self.length : total] = rounded(keys)
        self.values[layer, :, self.length : total] = rounded(values)
        return (
            np.concatenate([past_keys, keys], axis=1),
            np.concatenate([past_values, values], axis=1),
        )

    def advance(self, new: int) -> None:
        """All layers have seen `new` more tokens."""
        self.length += new


def roundings(
    kind: KvType | None, weights: Mapping[str, Array], layers: int
) -> list[Callable[[Array], Array]]:
    """What a cache of that kind makes of each layer's values; nothing for a plain one."""
    if kind is None:
        return []
    through = quantization.int8_rounded if kind == "int8" else quantization.fp8_rounded
    made: list[Callable[[Array], Array]] = []
    for layer in range(layers):
        name = f"transformer.layers.{layer}.attention.kv_cache_scaling_factor"
        if name not in weights:
            raise BackendError(f"{kind} key/value cache: no tensor {name}")
        made.append(partial(through, scale=float(weights[name].reshape(-1)[0])))
    return made
