"""One vocabulary for what releases spell in four ways."""

import pytest

from kit.artifacts import precision


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("FP8", {"fp8"}),
        ("FP8_PER_CHANNEL_PER_TOKEN", {"fp8_rowwise"}),
        ("FP8_BLOCK_SCALES", {"fp8_block"}),
        ("NVFP4", {"nvfp4"}),
        ("W4A8_AWQ", {"w4a8_awq"}),
        ("W4A16_AWQ", {"int4_awq"}),
        ("W4A16_GPTQ", {"int4_gptq"}),
        ("W4A16", {"int4_weight_only"}),
        ("W8A16", {"int8_weight_only"}),
        ("W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN", {"int8_sq"}),
        (None, set()),
    ],
)
def test_algorithms(algorithm, expected):
    section = {"quant_algo": algorithm, "kv_cache_quant_algo": None}
    assert precision.of_quantization(section) == (expected, ())


def test_kv_cache_and_unknown_names():
    assert precision.of_quantization({"kv_cache_quant_algo": "INT8"})[0] == {"int8_kv_cache"}
    assert precision.of_quantization({"kv_cache_quant_algo": "FP8"})[0] == {"fp8_kv_cache"}
    section = {"quant_algo": "W1A1", "kv_cache_quant_algo": "W2"}
    assert precision.of_quantization(section) == (frozenset(), ("W1A1", "W2"))
    assert precision.of_quantization({"quant_algo": 8, "kv_cache_quant_algo": []})[0] == frozenset()


def test_layers_of_mixed_precision():
    layers = {"l.0": {"quant_algo": "FP8"}, "l.1": {"quant_algo": "W4A16_AWQ"}, "l.2": 5}
    section = {"quant_algo": "MIXED_PRECISION", "quantized_layers": layers}
    assert precision.of_quantization(section) == ({"fp8", "int4_awq"}, ())


@pytest.mark.parametrize(
    ("bits", "expected"),
    [
        (0, set()),
        (1, {"int4_weight_only"}),
        (1 | 32, {"int4_groupwise"}),
        (2, {"int8_weight_only"}),
        (2 | 4 | 8 | 16, {"int8_sq"}),
        (64, {"int8_kv_cache"}),
        (128 | 256, {"fp8", "fp8_kv_cache"}),
        (512 | 8 | 16, {"fp8_rowwise"}),
    ],
)
def test_bits_of_quant_mode(bits, expected):
    assert precision.of_quant_mode(bits) == expected


def test_switches_of_0_7():
    section = {"use_weight_only": True, "weight_only_precision": "int4", "fp8_kv_cache": True}
    assert precision.of_quantization(section)[0] == {"int4_weight_only", "fp8_kv_cache"}
    assert precision.of_quantization({"use_smooth_quant": True})[0] == {"int8_sq"}


def test_data_types():
    assert precision.of_dtype("torch.bfloat16") == {"bf16"}
    assert precision.of_dtype("auto") == precision.of_dtype(None) == frozenset()
