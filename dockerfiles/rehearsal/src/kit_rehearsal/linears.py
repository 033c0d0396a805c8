"""Layers that multiply, plain and quantized, as a rank's tensors describe them.

| what is there of a layer | what it is |
| --- | --- |
| `weight` of floats | plain |
| int8 `weight` [in, out], or [in, out / 2] with two int4 to a byte; `per_channel_scale` [out] | weights alone, per output channel |
| int8 `weight` [out, in]; `per_channel_scale` [1, out] or [1, 1] | SmoothQuant: with `act_scale` and the scale of its input (`scale_to_int` of the norm before it, else `quantization_scaling_factor`) static, without them per token; `smoother` divides the input |
| int8 `weight` [out / 2, in], two int4 to a byte; `weights_scaling_factor` [out, groups]; `prequant_scaling_factor` | AWQ |
| int8 `weight` [out, in]; `weights_scaling_factor` [out]; `activation_scaling_factor`; `prequant_scaling_factor` | int8 SmoothQuant of quantize.py |
| float8 `weight` [out, in]; `weights_scaling_factor`, `activation_scaling_factor` | FP8 |

Names and shapes are the releases'. One thing is not: their kernels want int8 and int4 weights
interleaved for a GPU, these are in their plain order. Products of integers are exact; those of
float8 are summed in float32 as the Tensor Cores' are.
"""  # noqa: E501  a table's row is one line

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from . import quantization
from .errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .quantization import Codes
    from .tensors import Array, Stored

# The tensor that holds the static scale of a layer's input.
_INPUT_SCALES = {
    "attention.qkv": "input_layernorm.scale_to_int",
    "attention.dense": "attention.quantization_scaling_factor",
    "mlp.fc": "post_layernorm.scale_to_int",
    "mlp.gate": "post_layernorm.scale_to_int",
    "mlp.proj": "mlp.quantization_scaling_factor",
}
MATRICES = tuple(_INPUT_SCALES)


class Linear(Protocol):
    """A layer: [tokens, in] to [tokens, out], without its bias."""

    def __call__(self, x: Array) -> Array:
        """The product."""
        ...


@dataclass(frozen=True)
class Plain:
    """Float weights, [out, in]; also those that quantized ones mean where activations are not."""

    weight: Array
    input_scale: Array | None = None

    def __call__(self, x: Array) -> Array:
        """The product, of x times the input scale where there is one."""
        product: Array = (x if self.input_scale is None else x * self.input_scale) @ self.weight.T
        return product


@dataclass(frozen=True)
class Integer:
    """Int8 weights and activations.

    Attributes:
        codes: [out, in].
        scales: of the outputs, [out] or [1].
        input_scale: value of a step of the input; None for one of each token.
        prescale: what the input is multiplied with first, [in].
    """

    codes: Codes
    scales: Array
    input_scale: Array | None
    prescale: Array | None

    def __call__(self, x: Array) -> Array:
        """The product: input to codes, integers, back to floats."""
        if self.prescale is not None:
            x = x * self.prescale
        if self.input_scale is None:
            codes, steps = quantization.quantize_tokens(x)
        else:
            codes, steps = quantization.to_int8(x, self.input_scale), self.input_scale
        sums = quantization.integer_product(codes, self.codes).astype(np.float32)
        return sums * steps * self.scales


@dataclass(frozen=True)
class Float8:
    """Float8 weights, [out, in] as the values they mean, and activations at one scale each."""

    weight: Array
    weight_scale: Array
    input_scale: Array

    def __call__(self, x: Array) -> Array:
        """The product."""
        bits = quantization.to_fp8(x / self.input_scale)
        sums = quantization.from_fp8(bits) @ self.weight.T
        product: Array = sums * (self.input_scale * self.weight_scale)
        return product


def linear_of(weights: Mapping[str, Stored], name: str) -> Linear:
    """The layer of that name; BackendError when its tensors are none of the table's rows."""
    weight = weights[f"{name}.weight"]
    if weight.dtype == np.float32:
        return Plain(weight)
    try:
        if weight.dtype == np.uint8:
            return Float8(
                quantization.from_fp8(weight),
                weights[f"{name}.weights_scaling_factor"],
                weights[f"{name}.activation_scaling_factor"],
            )
        if f"{name}.weights_scaling_factor" in weights:
            return _calibrated(weights, name)
        if weights[f"{name}.per_channel_scale"].ndim == 1:
            return Plain(_channels(weight, weights[f"{name}.per_channel_scale"], name))
        return _smooth(weights, name)
    except KeyError as error:
        raise BackendError(f"{name}: quantized, but there is no tensor {error}") from None


def _channels(codes: Codes, scales: Array, name: str) -> Array:
    """Weights [out, in] of codes that stand as [in, out]."""
    if 2 * codes.shape[1] == len(scales):
        codes = quantization.unpack_int4(codes)
    if codes.shape[1] != len(scales):
        raise BackendError(f"{name}: {codes.shape[1]} channels, but {len(scales)} scales")
    values: Array = codes.T.astype(np.float32) * scales[:, None]
    return values


def _smooth(weights: Mapping[str, Stored], name: str) -> Integer:
    scales, smoother = weights[f"{name}.per_channel_scale"], weights.get(f"{name}.smoother")
    prescale = None if smoother is None else 1 / smoother.reshape(-1)
    codes = weights[f"{name}.weight"]
    if f"{name}.act_scale" not in weights:
        return Integer(codes, scales.reshape(-1), None, prescale)
    # The release's scales are those of a kernel that may give int8: accumulator to output steps
    # (per_channel_scale) and output steps to values (act_scale). Together with the input's they
    # are the weight's own.
    input_scale = 1 / weights[input_scale_name(name)].reshape(-1)
    own = scales.reshape(-1) * weights[f"{name}.act_scale"].reshape(-1) / input_scale
    return Integer(codes, own, input_scale, prescale)


def _calibrated(weights: Mapping[str, Stored], name: str) -> Linear:
    codes, scales = weights[f"{name}.weight"], weights[f"{name}.weights_scaling_factor"]
    prescale = weights.get(f"{name}.prequant_scaling_factor")
    if scales.ndim == 1:
        return Integer(codes, scales, weights[f"{name}.activation_scaling_factor"], prescale)
    # Packed in pairs of outputs, [out / 2, in].
    unpacked = quantization.unpack_int4(codes.T).T
    return Plain(quantization.from_groups(unpacked, scales), prescale)


def input_scale_name(name: str) -> str:
    """The tensor with the static input scale of `transformer.layers.0.mlp.fc` and the like."""
    layer, _, module = name.partition(".layers.")[2].partition(".")
    return f"transformer.layers.{layer}.{_INPUT_SCALES[module]}"
