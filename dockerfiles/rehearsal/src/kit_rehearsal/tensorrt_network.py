"""The decoder of `decoder.py` as a TensorRT network: the same tensors, the same formulas.

One sequence, all of it at every step, no key/value cache. Inputs `ids` and `positions`, int32
[tokens]; output `logits`, float32 [tokens, vocabulary]. Ranks, quantized weights and vectors beyond
the vocabulary are not part of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .decoder import GELU, SWIGLU
from .errors import NotComputedError

if TYPE_CHECKING:
    from .engine import Engine
    from .tensors import Array

IDS, POSITIONS, LOGITS = "ids", "positions", "logits"
_MASKED = -30000.0  # far below any score, and a number of float16's


class DecoderNetwork:
    """Adds the layers of an engine's model to an empty network with explicit batch."""

    def __init__(self, trt: Any, network: Any, engine: Engine) -> None:
        self._trt = trt
        self._network = network
        self._shape = engine.model
        self._weights = engine.weights
        self._kept: list[np.typing.NDArray[Any]] = []  # TensorRT takes addresses, not copies

    def add(self) -> None:
        """Everything between ids and logits."""
        trt, network, shape = self._trt, self._network, self._shape
        ids = network.add_input(IDS, trt.int32, (-1,))
        positions = network.add_input(POSITIONS, trt.int32, (-1,))
        x = self._rows("transformer.vocab_embedding.weight", ids)
        if shape.rotary_dim == 0:
            x = self._sum(x, self._rows("transformer.position_embedding.weight", positions))
        future = self._future(positions)
        turns = self._turns(positions) if shape.rotary_dim else None
        for layer in range(shape.n_layer):
            name = f"transformer.layers.{layer}."
            inner = self._normed(x, f"{name}input_layernorm")
            x = self._sum(x, self._attention(f"{name}attention.", inner, future, turns))
            inner = self._normed(x, f"{name}post_layernorm")
            x = self._sum(x, self._mlp(f"{name}mlp.", inner))
        x = self._normed(x, "transformer.ln_f")
        tied = "lm_head.weight" not in self._weights
        logits = self._linear(x, "transformer.vocab_embedding" if tied else "lm_head")
        logits.name = LOGITS
        network.mark_output(logits)
        logits.dtype = trt.float32

    def _attention(self, name: str, x: Any, future: Any, turns: tuple[Any, Any] | None) -> Any:
        trt, shape = self._trt, self._shape
        size, heads, kv_heads = shape.head_size, shape.n_head, shape.n_kv_head
        ends = np.cumsum([heads, kv_heads, kv_heads]) * size
        weights = np.split(self._weights[f"{name}qkv.weight"], ends[:-1])
        biases = self._weights.get(f"{name}qkv.bias")
        parts = [None] * 3 if biases is None else np.split(biases, ends[:-1])
        queries, keys, values = (
            self._heads(self._product(x, weight, bias), count, f"{name}{what}")
            for weight, bias, count, what in zip(
                weights, parts, (heads, kv_heads, kv_heads), ("q", "k", "v")
            )
        )
        if turns is not None:
            queries, keys = self._turned(queries, turns), self._turned(keys, turns)
        keys, values = self._repeated(keys), self._repeated(values)
        scores = self._times(queries, keys, transposed=True)
        scores = self._scaled(scores, 1 / math.sqrt(size))
        masked = self._constant(np.full((1, 1, 1), _MASKED, np.float32))
        scores = self._network.add_select(future, masked, scores).get_output(0)
        softmax = self._network.add_softmax(scores)
        softmax.axes = 1 << 2
        mixed = self._network.add_shuffle(self._times(softmax.get_output(0), values))
        mixed.first_transpose = trt.Permutation([1, 0, 2])
        mixed.reshape_dims = (-1, heads * size)
        mixed.name = f"{name}mixed"
        return self._linear(mixed.get_output(0), f"{name}dense")

    def _heads(self, x: Any, count: int, name: str) -> Any:
        """[tokens, heads * size] as [heads, tokens, size]."""
        layer = self._network.add_shuffle(x)
        layer.reshape_dims = (-1, count, self._shape.head_size)
        layer.second_transpose = self._trt.Permutation([1, 0, 2])
        layer.name = name
        return layer.get_output(0)

    def _repeated(self, x: Any) -> Any:
        """Each key-value head answers to a group of queries that lie side by side."""
        group = self._shape.n_head // self._shape.n_kv_head
        if group == 1:
            return x
        order = np.repeat(np.arange(self._shape.n_kv_head, dtype=np.int32), group)
        return self._network.add_gather(x, self._constant(order), 0).get_output(0)

    def _turns(self, positions: Any) -> tuple[Any, Any]:
        """Cosine and sine of each position, [1, tokens, head size]; what is not turned has 1, 0."""
        shape = self._shape
        width, most = shape.rotary_dim, shape.n_positions
        powers = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
        frequencies = (1.0 / np.float32(shape.rotary_base) ** powers).astype(np.float32)
        angles = np.arange(most, dtype=np.float32)[:, None] * frequencies
        rest = (most, shape.head_size - width)
        both = [np.cos(angles), np.cos(angles), np.ones(rest)]
        cosines = np.concatenate(both, axis=1, dtype=np.float32)
        both = [np.sin(angles), np.sin(angles), np.zeros(rest)]
        sines = np.concatenate(both, axis=1, dtype=np.float32)
        cos, sin = (self._looked_up(table[None], positions, axis=1) for table in (cosines, sines))
        return cos, sin

    def _turned(self, x: Any, turns: tuple[Any, Any]) -> Any:
        """Rotary embeddings of GPT-NeoX's kind; a constant matrix swaps the halves."""
        half, size = self._shape.rotary_dim // 2, self._shape.head_size
        swap = np.zeros((1, size, size), dtype=np.float32)
        for place in range(half):
            swap[0, place + half, place] = -1
            swap[0, place, place + half] = 1
        product = self._trt.ElementWiseOperation.PROD
        swapped = self._times(x, self._constant(swap))
        return self._sum(
            self._pairwise(x, turns[0], product), self._pairwise(swapped, turns[1], product)
        )

    def _mlp(self, name: str, x: Any) -> Any:
        trt, kind = self._trt, self._shape.activation
        inner, product = self._linear(x, f"{name}fc"), trt.ElementWiseOperation.PROD
        if kind in GELU:
            cube = self._pairwise(self._pairwise(inner, inner, product), inner, product)
            inside = self._sum(inner, self._scaled(cube, 0.044715))
            bent = self._bent(self._scaled(inside, math.sqrt(2 / math.pi)), "TANH")
            one = self._constant(np.ones((1, 1), np.float32))
            inner = self._scaled(self._pairwise(inner, self._sum(bent, one), product), 0.5)
        elif kind == "relu":
            inner = self._bent(inner, "RELU")
        elif kind == "silu" or kind in SWIGLU:
            inner = self._pairwise(inner, self._bent(inner, "SIGMOID"), product)
        else:
            raise NotComputedError(f"activation {kind} in TensorRT", "the model")
        if f"{name}gate.weight" in self._weights:
            inner = self._pairwise(inner, self._linear(x, f"{name}gate"), product)
        return self._linear(inner, f"{name}proj")

    def _normed(self, x: Any, name: str) -> Any:
        """A norm in float32, whatever the rest is in: squares leave float16's range."""
        trt, shape = self._trt, self._shape
        operations = trt.ElementWiseOperation
        if shape.norm == "layer":
            x = self._pairwise(x, self._mean(x), operations.SUB, exact=True)
        square = self._mean(self._pairwise(x, x, operations.PROD, exact=True))
        epsilon = self._constant(np.full((1, 1), shape.norm_epsilon, np.float32))
        square = self._pairwise(square, epsilon, operations.SUM, exact=True)
        root = self._exact(self._network.add_unary(square, trt.UnaryOperation.SQRT))
        normed = self._pairwise(x, root.get_output(0), operations.DIV, exact=True)
        weight = self._constant(self._weights[f"{name}.weight"][None])
        normed = self._pairwise(normed, weight, operations.PROD, exact=True)
        bias = self._weights.get(f"{name}.bias")
        return normed if bias is None else self._sum(normed, self._constant(bias[None]))

    def _mean(self, x: Any) -> Any:
        average = self._trt.ReduceOperation.AVG
        layer = self._network.add_reduce(x, average, axes=1 << 1, keep_dims=True)
        return self._exact(layer).get_output(0)

    def _linear(self, x: Any, name: str) -> Any:
        return self._product(x, self._weights[f"{name}.weight"], self._weights.get(f"{name}.bias"))

    def _product(self, x: Any, weight: Array, bias: Array | None) -> Any:
        found = self._times(x, self._constant(weight), transposed=True)
        return found if bias is None else self._sum(found, self._constant(bias[None]))

    def _times(self, one: Any, other: Any, *, transposed: bool = False) -> Any:
        kinds = self._trt.MatrixOperation
        kind = kinds.TRANSPOSE if transposed else kinds.NONE
        return self._network.add_matrix_multiply(one, kinds.NONE, other, kind).get_output(0)

    def _future(self, positions: Any) -> Any:
        """Whether a token comes after the one that asks, [1, tokens, tokens]."""
        columns, rows = (self._network.add_shuffle(positions) for _ in range(2))
        columns.reshape_dims, rows.reshape_dims = (1, 1, -1), (1, -1, 1)
        greater = self._trt.ElementWiseOperation.GREATER
        return self._pairwise(columns.get_output(0), rows.get_output(0), greater)

    def _rows(self, name: str, ids: Any) -> Any:
        return self._looked_up(self._weights[name], ids, axis=0)

    def _looked_up(self, table: Array, ids: Any, axis: int) -> Any:
        return self._network.add_gather(self._constant(table), ids, axis).get_output(0)

    def _bent(self, x: Any, kind: str) -> Any:
        kinds = self._trt.ActivationType
        return self._network.add_activation(x, getattr(kinds, kind)).get_output(0)

    def _scaled(self, x: Any, factor: float) -> Any:
        shape = (1,) * len(x.shape)
        number = self._constant(np.full(shape, factor, np.float32))
        return self._pairwise(x, number, self._trt.ElementWiseOperation.PROD)

    def _sum(self, one: Any, other: Any) -> Any:
        return self._pairwise(one, other, self._trt.ElementWiseOperation.SUM)

    def _pairwise(self, one: Any, other: Any, operation: Any, *, exact: bool = False) -> Any:
        layer = self._network.add_elementwise(one, other, operation)
        return (self._exact(layer) if exact else layer).get_output(0)

    def _exact(self, layer: Any) -> Any:
        layer.precision = self._trt.float32
        layer.set_output_type(0, self._trt.float32)
        return layer

    def _constant(self, values: np.typing.NDArray[Any]) -> Any:
        values = np.ascontiguousarray(values)
        self._kept.append(values)
        return self._network.add_constant(values.shape, self._trt.Weights(values)).get_output(0)


def refuse(engine: Engine) -> None:
    """BackendError for what is computed in NumPy only."""
    if engine.world_size > 1:
        raise NotComputedError("several ranks in TensorRT", f"world size {engine.world_size}")
    if engine.dtype not in {"float16", "float32"}:
        raise NotComputedError(f"{engine.dtype} in TensorRT", "the checkpoint's dtype")
    if engine.kv_cache is not None:
        raise NotComputedError(f"key/value caches of {engine.kv_cache} in TensorRT", "the engine")
    coded = [name for name, values in engine.weights.items() if values.dtype != np.float32]
    if coded:
        raise NotComputedError("quantized weights in TensorRT", min(coded))
