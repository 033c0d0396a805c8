"""Codes and scales: exact values, bounds of the error, the same as PyTorch where it has the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from kit_rehearsal import quantization, tensors
from kit_rehearsal.errors import BackendError

from tests.conftest import peer

FLOATS = st.floats(-1000, 1000, width=32)
MATRICES = arrays.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=FLOATS
)


def test_channels_of_a_known_matrix() -> None:
    weight = np.array([[1.0, -1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0], [0.3, 0.1, -0.2, 0.05]])
    codes, scales = quantization.quantize_channels(weight.astype(np.float32), 8)
    assert scales == pytest.approx([1 / 128, 0, 0.3 / 128])
    # The largest positive value is 128 steps, which int8 has not.
    assert codes.tolist() == [[127, -128, 64, 0], [0, 0, 0, 0], [127, 43, -85, 21]]
    codes, scales = quantization.quantize_channels(weight.astype(np.float32), 4)
    assert scales == pytest.approx([1 / 8, 0, 0.3 / 8])
    assert codes.tolist() == [[7, -8, 4, 0], [0, 0, 0, 0], [7, 3, -5, 1]]


def test_ties_of_channels_go_away_from_zero() -> None:
    weight = np.array([[128.0, 0.5, -0.5, 2.5]], dtype=np.float32)
    assert quantization.quantize_channels(weight, 8)[0].tolist() == [[127, 1, -1, 3]]


@given(MATRICES, st.sampled_from([4, 8]))
def test_error_of_channels(weight, bits) -> None:
    codes, scales = quantization.quantize_channels(weight, bits)
    steps = 1 << (bits - 1)
    assert codes.min() >= -steps
    assert codes.max() <= steps - 1
    error = np.abs(codes * scales[:, None].astype(np.float64) - weight)
    # Half a step, but a whole one for the largest positive value.
    allowed = np.where(weight >= scales[:, None] * (steps - 1), 1.0, 0.5) * scales[:, None]
    assert (error <= allowed * 1.001 + 1e-30).all()


@given(MATRICES)
def test_int8_of_tokens(values) -> None:
    codes, scales = quantization.quantize_tokens(values)
    assert scales.shape == (len(values), 1)
    assert np.abs(codes).max() <= 127
    assert (np.abs(codes * scales.astype(np.float64) - values) <= scales * 0.5001).all()
    largest = np.abs(values).max(axis=1)
    assert (np.abs(codes).max(axis=1)[largest > 1e-5] == 127).all()


def test_int8_is_pytorchs() -> None:
    torch = peer("torch")
    rng = np.random.default_rng(1)
    values = rng.standard_normal((64, 64)).astype(np.float32)
    values[0, :4] = [0.5 * 0.02, 1.5 * 0.02, -0.5 * 0.02, -2.5 * 0.02]  # ties
    scale = 0.02
    theirs = torch.fake_quantize_per_tensor_affine(torch.tensor(values), scale, 0, -127, 127)
    ours = quantization.int8_rounded(values, scale)
    assert np.array_equal(ours, theirs.numpy())


def test_products_of_integers_are_exact() -> None:
    rng = np.random.default_rng(2)
    left = rng.integers(-128, 128, (3, 5000)).astype(np.int8)
    right = rng.integers(-128, 128, (4, 5000)).astype(np.int8)
    left[0], right[0] = 127, 127  # 80 645 000: float32 would not hold every such sum
    expected = left.astype(np.int64) @ right.astype(np.int64).T
    assert np.array_equal(quantization.integer_product(left, right), expected)


@given(
    arrays.arrays(
        np.int8,
        st.tuples(st.integers(1, 5), st.integers(1, 6).map(lambda half: 2 * half)),
        elements=st.integers(-8, 7),
    )
)
def test_packed_int4_comes_back(codes) -> None:
    packed = quantization.pack_int4(codes)
    assert packed.shape == (codes.shape[0], codes.shape[1] // 2)
    assert packed.dtype == np.int8
    assert np.array_equal(quantization.unpack_int4(packed), codes)


def test_the_first_int4_is_the_lower_half() -> None:
    packed = quantization.pack_int4(np.array([[1, 2, -1, -8]], dtype=np.int8))
    assert packed.view(np.uint8).tolist() == [[0x21, 0x8F]]
    with pytest.raises(BackendError, match="3 columns: int4 needs an even number"):
        quantization.pack_int4(np.zeros((1, 3), dtype=np.int8))


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 5), st.just(12)), elements=FLOATS),
    st.sampled_from([1, 3, 4, 12]),
)
def test_error_of_groups(weight, size) -> None:
    codes, scales = quantization.quantize_groups(weight, size)
    assert scales.shape == (len(weight), 12 // size)
    assert codes.min() >= -8
    assert codes.max() <= 7
    allowed = np.repeat(scales, size, axis=1) * 0.5001
    assert (np.abs(quantization.from_groups(codes, scales) - weight) <= allowed).all()


def test_groups_must_divide_the_inputs() -> None:
    with pytest.raises(BackendError, match="12 inputs are no multiple of the group size 128"):
        quantization.quantize_groups(np.ones((2, 12), dtype=np.float32), 128)


def test_every_float8_is_pytorchs() -> None:
    torch = peer("torch")
    bits = np.arange(256, dtype=np.uint8)
    theirs = torch.tensor(bits).view(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(quantization.from_fp8(bits), theirs, equal_nan=True)
    numbers = bits[(bits & 0x7F) != 0x7F]
    assert np.array_equal(quantization.to_fp8(quantization.from_fp8(numbers)), numbers)


@given(arrays.arrays(np.float32, 32, elements=st.floats(-448, 448, width=32)))
def test_float8_rounds_as_pytorch(values) -> None:
    torch = peer("torch")
    theirs = torch.tensor(values).to(torch.float8_e4m3fn).view(torch.uint8).numpy()
    assert np.array_equal(quantization.to_fp8(values), theirs)


def test_float8_between_two_numbers() -> None:
    torch = peer("torch")
    sizes = np.sort(quantization.from_fp8(np.arange(127, dtype=np.uint8)))
    middles = ((sizes[1:] + sizes[:-1]) / 2).astype(np.float32)
    theirs = torch.tensor(middles).to(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(quantization.from_fp8(quantization.to_fp8(middles)), theirs)


def test_float8_has_no_infinity() -> None:
    bits = quantization.to_fp8(np.array([500, np.inf, -np.inf, np.nan, -0.0], dtype=np.float32))
    values = quantization.from_fp8(bits)
    assert values[:3].tolist() == [448, 448, -448]
    assert np.isnan(values[3])
    assert np.signbit(values[4])


def test_mixed_files_are_the_librarys(tmp_path) -> None:
    torch, library = peer("torch"), peer("safetensors.torch")
    rng = np.random.default_rng(3)
    layer = "transformer.layers.0.mlp.fc."
    made = {
        f"{layer}weight": rng.integers(-128, 128, (6, 4)).astype(np.int8),
        f"{layer}per_channel_scale": rng.random((1, 6)).astype(np.float32),
        f"{layer}bias": rng.random(6).astype(np.float16).astype(np.float32),
        "transformer.layers.0.attention.qkv.weight": np.arange(8, dtype=np.uint8).reshape(2, 4),
        "transformer.layers.0.attention.kv_cache_scaling_factor": np.array([0.1], np.float32),
        "transformer.layers.0.mlp.proj.per_channel_scale": np.array([0.5, 0.25], np.float32),
    }
    theirs = {name: torch.tensor(value) for name, value in made.items()}
    theirs[f"{layer}bias"] = theirs[f"{layer}bias"].half()
    half = "transformer.layers.0.mlp.proj.per_channel_scale"
    theirs[half] = theirs[half].half()
    fp8 = "transformer.layers.0.attention.qkv.weight"
    theirs[fp8] = theirs[fp8].view(torch.float8_e4m3fn)
    library.save_file(theirs, tmp_path / "theirs")
    blob = tensors.pack(made, "float16")
    assert blob == (tmp_path / "theirs").read_bytes()
    back = tensors.unpack(blob, "x")
    assert {name: value.dtype for name, value in back.items()} == {
        name: value.dtype for name, value in made.items()
    }
    assert all(np.array_equal(back[name], value) for name, value in made.items())
