"""AWQ: int4 weights in groups, with scales chosen so that the outputs change least.

Of every matrix: inputs that are large on average get larger weights (and are divided for it, which
`prequant_scaling_factor` does at run time), so that rounding hurts them less. How much is searched
for: eleven exponents from 0 to 1, the one with the smallest squared error of the outputs on the
calibration texts is taken. The releases' tool searches the same way; it then lets matrices with one
input share a scale, which is not done here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from . import quantization
from .linears import MATRICES
from .smooth_quant import matrix_names

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .calibration import Range
    from .split import Network
    from .tensors import Array, Stored

_EXPONENTS = tuple(step / 10 for step in range(11))
_SMALLEST = 1e-4


def scaled(network: Network, ranges: Mapping[str, Range], group_size: int) -> Network:
    """The model with its matrices scaled, still in floats: they are rounded after the cut."""
    weights: dict[str, Stored] = dict(network.weights)
    for name in matrix_names(network):
        weight = network.weights[f"{name}.weight"]
        scale = search(weight, ranges[name], group_size)
        weights[f"{name}.weight"] = weight * scale
        weights[f"{name}.prequant_scaling_factor"] = (1 / scale).astype(np.float32)
    return replace(network, weights=weights)


def search(weight: Array, found: Range, group_size: int) -> Array:
    """What the inputs' weights are multiplied with before rounding, [in]."""
    wanted = found.samples @ weight.T
    best, least = np.ones(weight.shape[1], dtype=np.float32), np.inf
    for exponent in _EXPONENTS:
        scale = np.maximum(np.power(found.means, exponent), _SMALLEST)
        scale = (scale / np.sqrt(scale.max() * scale.min())).astype(np.float32)
        codes, steps = quantization.quantize_groups(weight * scale, group_size)
        rounded = quantization.from_groups(codes, steps) / scale
        error = float(np.mean((found.samples @ rounded.T - wanted) ** 2, dtype=np.float64))
        if error < least:
            best, least = scale, error
    return best


def rounded(weights: Mapping[str, Stored], group_size: int) -> dict[str, Stored]:
    """A rank's tensors with the scaled matrices as packed codes and scales of groups.

    What is rounded already stays as it is.
    """
    made = dict(weights)
    for name in weights:
        module, _, kind = name.rpartition(".")
        if kind != "prequant_scaling_factor" or not module.endswith(MATRICES):
            continue
        weight = weights[f"{module}.weight"]
        if weight.dtype == np.float32:
            codes, steps = quantization.quantize_groups(weight, group_size)
            made[f"{module}.weight"] = quantization.pack_int4(codes.T).T
            made[f"{module}.weights_scaling_factor"] = steps
    return made
