"""Numbers in 8 and 4 bits: how values become codes and scales, and what codes mean.

Everything is symmetric: value = code * scale. Where codes are multiplied, integers are carried in
float64, which holds any sum that an int32 accumulator holds, so products are exact; the scales are
applied in float32. Matrices are [out, in].

Weights alone (`quantize_channels`) follow TensorRT-LLM's symmetric_quantize: the largest of a
channel becomes 128 (8 bits) or 8 (4 bits) steps, positive values are cut one step below, ties are
rounded away from zero. Calibrated numbers (SmoothQuant, caches, AWQ) use the even range of 127 or 7
steps and round ties to even, as PyTorch does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .errors import BackendError

if TYPE_CHECKING:
    from .tensors import Array

Codes = npt.NDArray[np.int8]
Bits8 = npt.NDArray[np.uint8]

INT8_MOST = 127
INT4_MOST = 7
FP8_MOST = 448.0
_SMALLEST_SCALE = 1e-8


def quantize_channels(weight: Array, bits: int) -> tuple[Codes, Array]:
    """Codes [out, in] and a scale per output channel, [out]; a channel of zeros has scale 0."""
    steps = 1 << (bits - 1)
    scales = (np.abs(weight).max(axis=1) / np.float32(steps)).astype(np.float32)
    safe = np.where(scales == 0, np.float32(1), scales)
    ratio = weight / safe[:, None]
    rounded = np.trunc(ratio + np.copysign(np.float32(0.5), ratio))
    return np.clip(rounded, -steps, steps - 1).astype(np.int8), scales


def to_int8(values: Array, scale: Array | float) -> Codes:
    """The nearest codes of values at a calibrated scale (value = code * scale)."""
    ratio = values / np.maximum(np.float32(_SMALLEST_SCALE), scale)
    return np.clip(np.rint(ratio), -INT8_MOST, INT8_MOST).astype(np.int8)


def quantize_tokens(values: Array) -> tuple[Codes, Array]:
    """Codes and a scale per token, [tokens, 1]: the largest of each becomes 127."""
    scales = np.abs(values).max(axis=-1, keepdims=True) / np.float32(INT8_MOST)
    scales = np.maximum(scales, np.float32(_SMALLEST_SCALE)).astype(np.float32)
    return to_int8(values, scales), scales


def integer_product(left: Codes, right: Codes) -> npt.NDArray[np.float64]:
    """Codes [n, in] times codes [out, in] transposed, exact as in an int32 accumulator."""
    product: npt.NDArray[np.float64] = left.astype(np.float64) @ right.astype(np.float64).T
    return product


def pack_int4(codes: Codes) -> Codes:
    """Two codes of -8 to 7 to a byte along the last axis, the first in the lower half."""
    if codes.shape[-1] % 2:
        raise BackendError(f"{codes.shape[-1]} columns: int4 needs an even number of them")
    low, high = codes[..., 0::2], codes[..., 1::2]
    return ((low & 0x0F) | (high << 4)).astype(np.int8)


def unpack_int4(packed: Codes) -> Codes:
    """The codes that `pack_int4` packed."""
    codes = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), dtype=np.int8)
    codes[..., 0::2] = (packed << 4).astype(np.int8) >> 4  # the shift back carries the sign
    codes[..., 1::2] = packed >> 4
    return codes


def quantize_groups(weight: Array, group_size: int) -> tuple[Codes, Array]:
    """4 bit codes [out, in] and a scale per group of inputs, [out, in / group size]."""
    out, width = weight.shape
    if group_size < 1 or width % group_size:
        raise BackendError(f"{width} inputs are no multiple of the group size {group_size}")
    groups = weight.reshape(out, -1, group_size)
    scales = np.abs(groups).max(axis=-1) / np.float32(INT4_MOST)
    scales = np.maximum(scales, np.float32(_SMALLEST_SCALE)).astype(np.float32)
    codes = np.clip(np.rint(groups / scales[..., None]), -INT4_MOST - 1, INT4_MOST)
    return codes.astype(np.int8).reshape(out, width), scales


def from_groups(codes: Codes, scales: Array) -> Array:
    """The weights that codes and scales of groups mean."""
    out, groups = scales.shape
    values = codes.reshape(out, groups, -1).astype(np.float32) * scales[..., None]
    return values.reshape(codes.shape)


def to_fp8(values: Array) -> Bits8:
    """The nearest float8 e4m3 (no infinities; ties to even), as bits; beyond 448 is cut to it."""
    missing = np.isnan(values)
    size = np.where(missing, 0, np.minimum(np.abs(values), np.float32(FP8_MOST)))
    # Steps are an eighth of the power of two at or below the value, but never below 2**-9.
    exponent = np.where(size < 2.0**-6, -6, np.frexp(size)[1] - 1)
    steps = np.rint(size / np.exp2(exponent - 3.0)).astype(np.int64)
    # Counted in codes: eight a power of two; sixteen steps are the next power's first code.
    codes = 8 * (exponent + 6) + steps
    bits = np.where(missing, 0x7F, codes) | np.where(np.signbit(values), 0x80, 0)
    return bits.astype(np.uint8)


def _fp8_values() -> Array:
    bits = np.arange(128)
    exponent, fraction = bits >> 3, bits & 7
    normal = np.exp2(exponent - 7.0) * (1 + fraction / 8)
    sizes = np.where(exponent == 0, fraction * 2.0**-9, normal)
    sizes[0x7F] = np.nan
    return np.concatenate([sizes, -sizes]).astype(np.float32)


_FP8 = _fp8_values()


def from_fp8(bits: Bits8) -> Array:
    """The values that the bits of float8 e4m3 mean."""
    values: Array = _FP8[bits]
    return values


def fp8_rounded(values: Array, scale: float) -> Array:
    """Values as float8 gives them back at a scale."""
    return from_fp8(to_fp8(values / np.float32(scale))) * np.float32(scale)


def int8_rounded(values: Array, scale: float) -> Array:
    """Values as int8 gives them back at a scale."""
    return to_int8(values, scale).astype(np.float32) * np.float32(scale)
