"""SmoothQuant: int8 weights and activations, as the releases' convert scripts compute them.

An input channel that is large is divided by its smoother and its weights are multiplied with it.
Where a norm comes before (qkv, fc, gate) the norm divides; LLaMA's dense and proj divide themselves
(`smoother`), GPT's stay as they are. Then weights and activations become int8: weights with a scale
per output channel, or one per matrix (q, k and v count as three); activations with one calibrated
scale or one of each token.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from . import quantization
from .linears import MATRICES, input_scale_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .calibration import Range
    from .engine import Shape
    from .split import Network
    from .tensors import Array, Stored

_SMALLEST = 1e-5
_ROWS = ("attention.dense", "mlp.proj")
# A norm, and what it feeds.
_FED = {"input_layernorm": ("attention.qkv",), "post_layernorm": ("mlp.fc", "mlp.gate")}


@dataclass(frozen=True)
class Smoothed:
    """A model with its smoothers applied, and its activations' ranges after that.

    `smoothers` are those that no norm took, by layer: what the input is divided by, [in].
    """

    network: Network
    ranges: dict[str, Range]
    smoothers: dict[str, Array]


def smooth(network: Network, ranges: Mapping[str, Range], alpha: float, *, rows: bool) -> Smoothed:
    """The same function with activations that are easier to quantize.

    Args:
        network: whole, in floats.
        ranges: of its layers.
        alpha: how much of an activation's range goes to the weights, 0 to 1.
        rows: smooth dense and proj too, as for LLaMA.
    """
    weights, found, smoothers = dict(network.weights), dict(ranges), {}

    def divide(names: list[str]) -> Array:
        """The smoother that layers with one input share; their weights take it."""
        most = np.max([np.abs(weights[f"{name}.weight"]).max(axis=0) for name in names], axis=0)
        scale = smoother(ranges[names[0]].inputs, most, alpha)
        for name in names:
            weights[f"{name}.weight"] = weights[f"{name}.weight"] * scale
            found[name] = replace(ranges[name], inputs=ranges[name].inputs / scale)
        return scale

    for layer in range(network.shape.n_layer):
        prefix = f"transformer.layers.{layer}."
        for norm, fed in _FED.items():
            names = [prefix + one for one in fed if f"{prefix}{one}.weight" in weights]
            scale = divide(names)
            for kind in ("weight", "bias"):
                if (one := f"{prefix}{norm}.{kind}") in weights:
                    weights[one] = weights[one] / scale
        for name in _ROWS:
            width = weights[f"{prefix}{name}.weight"].shape[1]
            own = divide([prefix + name]) if rows else np.ones(width, dtype=np.float32)
            smoothers[prefix + name] = own
    return Smoothed(replace(network, weights=weights), found, smoothers)


def smoother(inputs: Array, weights: Array, alpha: float) -> Array:
    """Largest input ** alpha / largest weight ** (1 - alpha), by channel."""
    scale = np.power(np.maximum(inputs, _SMALLEST), alpha)
    scale = scale / np.power(np.maximum(weights, _SMALLEST), 1 - alpha)
    return np.maximum(scale, _SMALLEST).astype(np.float32)


def int8_layer(weight: Array, found: Range, parts: tuple[int, ...]) -> dict[str, Stored]:
    """Everything a SmoothQuant layer may need, under the names of the files of 0.5.0 to 0.8.0.

    | name | value, for the matrix or (`.col`) per output channel |
    | --- | --- |
    | weight.int8 | codes, [out, in] |
    | scale_x_orig_quant | input to its codes |
    | scale_w_quant_orig | codes to weights |
    | scale_y_accum_quant | sums of products to codes of the output |
    | scale_y_quant_orig | codes of the output to values |

    `parts` are the rows of q, k and v, which have a scale each; for others all rows are one part.
    """
    most = np.abs(weight).max(axis=1)
    spread = [np.full(len(one), one.max()) for one in np.split(most, np.cumsum(parts)[:-1])]
    each = np.maximum(most, 1e-8) / np.float32(quantization.INT8_MOST)
    whole = np.maximum(np.concatenate(spread), 1e-8) / np.float32(quantization.INT8_MOST)
    x_step = max(float(found.inputs.max()), 1e-8) / quantization.INT8_MOST
    y_step = max(float(found.outputs.max()), 1e-8) / quantization.INT8_MOST
    several = len(parts) > 1
    shared = whole if several else whole[:1]
    return {
        "weight.int8": quantization.to_int8(weight, whole[:, None]),
        "weight.int8.col": quantization.to_int8(weight, each[:, None]),
        "scale_x_orig_quant": np.array([1 / x_step], dtype=np.float32),
        "scale_w_quant_orig": shared.astype(np.float32),
        "scale_w_quant_orig.col": each.astype(np.float32),
        "scale_y_accum_quant": (shared * (x_step / y_step)).astype(np.float32),
        "scale_y_accum_quant.col": (each * (x_step / y_step)).astype(np.float32),
        "scale_y_quant_orig": np.array([y_step], dtype=np.float32),
    }


def layer_parts(name: str, shape: Shape, rows: int) -> tuple[int, ...]:
    """The rows of a layer's matrix that have a scale of their own, per matrix."""
    if not name.endswith("attention.qkv"):
        return (rows,)
    kv = shape.n_kv_head * shape.head_size
    return (rows - 2 * kv, kv, kv)


def engine_tensors(
    name: str, layer: Mapping[str, Stored], *, per_token: bool, per_channel: bool
) -> dict[str, Stored]:
    """A layer's tensors in checkpoints of the later layout and in engines (see linears.py)."""
    column = ".col" if per_channel else ""
    made: dict[str, Stored] = {f"{name}.weight": layer[f"weight.int8{column}"]}
    scale = "scale_w_quant_orig" if per_token else "scale_y_accum_quant"
    made[f"{name}.per_channel_scale"] = layer[scale + column].reshape(1, -1)
    if not per_token:
        made[f"{name}.act_scale"] = layer["scale_y_quant_orig"].reshape(1, 1)
        made[input_scale_name(name)] = layer["scale_x_orig_quant"].reshape(1)
    elif not name.endswith(_ROWS):
        made[input_scale_name(name)] = np.ones(1, dtype=np.float32)
    return made


def quantized(smoothed: Smoothed, *, per_token: bool, per_channel: bool) -> Network:
    """The model with its layers' matrices in int8."""
    network = smoothed.network
    weights: dict[str, Stored] = dict(network.weights)
    for name in matrix_names(network):
        weight = network.weights[f"{name}.weight"]
        parts = layer_parts(name, network.shape, len(weight))
        layer = int8_layer(weight, smoothed.ranges[name], parts)
        weights.update(engine_tensors(name, layer, per_token=per_token, per_channel=per_channel))
        if name in smoothed.smoothers:
            weights[f"{name}.smoother"] = smoothed.smoothers[name].reshape(1, -1)
    return replace(network, weights=weights)


def matrix_names(network: Network) -> list[str]:
    """The matrices of all layers, without `.weight`."""
    names = (
        f"transformer.layers.{layer}.{matrix}"
        for layer in range(network.shape.n_layer)
        for matrix in MATRICES
    )
    return [name for name in names if f"{name}.weight" in network.weights]
