"""Networks without a checkpoint: random weights, the same in every run.

The releases build an engine of the network's dimensions only, to measure its speed. Here every
tensor comes from a generator of its own, seeded with its name, and the whole network is made before
it is cut, so that any number of ranks says the same.
"""

from __future__ import annotations

import math
import os
import zlib
from typing import TYPE_CHECKING

import numpy as np

from .errors import BackendError
from .ft_layout import layer_sizes
from .split import EMBEDDING, HEAD, POSITIONS, Network

if TYPE_CHECKING:
    from .engine import Shape
    from .tensors import Array


def network(shape: Shape, *, bias: bool, seed: int = 0) -> Network:
    """A network of that shape: matrices of the size 1/sqrt(in), norms of ones, small biases."""
    if shape.hidden_size % shape.n_head:
        raise BackendError(
            f"hidden size {shape.hidden_size} is no multiple of {shape.n_head} attention heads"
        )
    table = (shape.vocab_size, shape.hidden_size)
    sizes: dict[str, tuple[int, ...]] = {EMBEDDING: table, HEAD: table}
    if shape.rotary_dim == 0:
        sizes[POSITIONS] = (shape.n_positions, shape.hidden_size)
    sizes["transformer.ln_f.weight"] = (shape.hidden_size,)
    if shape.norm == "layer":
        sizes["transformer.ln_f.bias"] = (shape.hidden_size,)
    for layer in range(shape.n_layer):
        for name, size in layer_sizes(shape, 1, bias=bias).items():
            sizes[f"transformer.layers.{layer}.{name}"] = size
    _check_memory(sum(math.prod(size) for size in sizes.values()))
    weights = {name: _tensor(name, size, seed) for name, size in sizes.items()}
    return Network(shape, weights, {"weights": origin(seed)})


def origin(seed: int) -> str:
    """What an engine's header says of such weights."""
    return f"dummy, seed {seed}"


def _check_memory(parameters: int) -> None:
    """BackendError before a network that this machine cannot hold, whole and as one rank's copy."""
    needed, memory = 8 * parameters, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise BackendError(
            f"dummy weights of {parameters} parameters: {needed >> 30} GiB are needed, this "
            f"machine has {memory >> 30}; the rehearsal is for smaller dimensions"
        )


def _tensor(name: str, size: tuple[int, ...], seed: int) -> Array:
    if len(size) == 1 and name.endswith(".weight"):
        return np.ones(size, dtype=np.float32)
    values = np.random.default_rng([seed, zlib.crc32(name.encode())]).standard_normal(
        size, dtype=np.float32
    )
    scale = 1 / math.sqrt(size[-1]) if len(size) > 1 else 0.02
    return values * np.float32(scale)
