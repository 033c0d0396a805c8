"""Precisions in one vocabulary, whichever way a release, a tool or an era spells them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args

from kit.artifacts import bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

Precision = Literal[
    "fp32",
    "fp16",
    "bf16",
    "fp8",
    "fp8_rowwise",
    "fp8_block",
    "nvfp4",
    "mxfp4",
    "w4a8_awq",
    "w4a8_qserve",
    "int4_awq",
    "int4_gptq",
    "int4_groupwise",
    "int4_weight_only",
    "int8_gptq",
    "int8_weight_only",
    "int8_sq",
    "int8_kv_cache",
    "fp8_kv_cache",
    "nvfp4_kv_cache",
]
"""`int4_groupwise` is AWQ or GPTQ where the record does not say which (`quant_mode` does not)."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_DTYPES: dict[str, Precision] = {
    "float32": "fp32",
    "float16": "fp16",
    "bfloat16": "bf16",
    "fp32": "fp32",
    "fp16": "fp16",
    "bf16": "bf16",
    "half": "fp16",
    "float": "fp32",
}

# QuantAlgo in tensorrt_llm/quantization/mode.py of NVIDIA/TensorRT-LLM (0.8.0 and later).
_ALGORITHMS: dict[str, tuple[Precision, ...]] = {
    "W8A16": ("int8_weight_only",),
    "W4A16": ("int4_weight_only",),
    "W4A16_AWQ": ("int4_awq",),
    "W4A8_AWQ": ("w4a8_awq",),
    "W4A16_GPTQ": ("int4_gptq",),
    "W8A16_GPTQ": ("int8_gptq",),
    "W8A8_SQ_PER_CHANNEL": ("int8_sq",),
    "W8A8_SQ_PER_TENSOR_PLUGIN": ("int8_sq",),
    "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN": ("int8_sq",),
    "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN": ("int8_sq",),
    "W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN": ("int8_sq",),
    "W4A8_QSERVE_PER_GROUP": ("w4a8_qserve",),
    "W4A8_QSERVE_PER_CHANNEL": ("w4a8_qserve",),
    "FP8": ("fp8",),
    "FP8_PER_CHANNEL_PER_TOKEN": ("fp8_rowwise",),
    "FP8_BLOCK_SCALES": ("fp8_block",),
    "NVFP4": ("nvfp4",),
    "NVFP4_AWQ": ("nvfp4",),
    "W4A8_NVFP4_FP8": ("nvfp4", "fp8"),
    "W4A8_MXFP4_FP8": ("mxfp4", "fp8"),
    "W4A8_MXFP4_MXFP8": ("mxfp4",),
    "W4A16_MXFP4": ("mxfp4",),
    "MIXED_PRECISION": (),  # each layer has its own
    "NO_QUANT": (),
}
_CACHES: dict[str, Precision] = {
    "FP8": "fp8_kv_cache",
    "INT8": "int8_kv_cache",
    "NVFP4": "nvfp4_kv_cache",
}

# QuantMode in the same file: the bits are the same in every release that wrote `quant_mode`.
_INT4_WEIGHTS, _INT8_WEIGHTS, _ACTIVATIONS = 1, 2, 4
_PER_GROUP, _INT8_KV_CACHE, _FP8_KV_CACHE = 32, 64, 128
_FP8_QDQ, _FP8_ROWWISE = 256, 512


def of_dtype(dtype: str | None) -> frozenset[Precision]:
    """The precision of a data type such as `float16`; empty for others, `auto` among them."""
    found = _DTYPES.get((dtype or "").removeprefix("torch."))
    return frozenset({found}) if found else frozenset()


def of_quantization(section: Mapping[str, Any]) -> tuple[frozenset[Precision], tuple[str, ...]]:
    """What a `quantization` section says, and the algorithms in it that are not known.

    The section is that of `pretrained_config`, of a checkpoint, of `hf_quant_config.json` or
    `quant_cfg.json`: `quant_algo` and `kv_cache_quant_algo`, with MIXED_PRECISION one `quant_algo`
    per layer below `quantized_layers`; 0.7.x writes the switches of QuantMode instead
    (`use_weight_only`, `use_smooth_quant`, `enable_fp8` …).
    """
    found: set[Precision] = set(_of_switches(section))
    unknown: list[str] = []
    layers = bounded.mapping(section, "quantized_layers").values()
    for algorithm in {bounded.text(item, "quant_algo") for item in (section, *layers)}:
        if algorithm in _ALGORITHMS:
            found.update(_ALGORITHMS[algorithm])
        elif algorithm is not None:
            unknown.append(algorithm)
    cache = bounded.text(section, "kv_cache_quant_algo")
    if cache in _CACHES:
        found.add(_CACHES[cache])
    elif cache is not None and cache not in _ALGORITHMS:
        unknown.append(cache)
    return frozenset(found), tuple(sorted(unknown))


def of_quant_mode(bits: int) -> frozenset[Precision]:
    """What the bits of `quant_mode` in an old config.json mean."""
    found: set[Precision] = set()
    weights = bits & (_INT4_WEIGHTS | _INT8_WEIGHTS | _ACTIVATIONS)
    grouped = bool(bits & _PER_GROUP)
    if weights == _INT4_WEIGHTS:
        found.add("int4_groupwise" if grouped else "int4_weight_only")
    elif weights == _INT8_WEIGHTS:
        found.add("int8_gptq" if grouped else "int8_weight_only")
    elif weights == _INT8_WEIGHTS | _ACTIVATIONS:
        found.add("int8_sq")
    for bit, name in _BITS:
        if bits & bit:
            found.add(name)
    return frozenset(found)


_BITS: tuple[tuple[int, Precision], ...] = (
    (_INT8_KV_CACHE, "int8_kv_cache"),
    (_FP8_KV_CACHE, "fp8_kv_cache"),
    (_FP8_QDQ, "fp8"),
    (_FP8_ROWWISE, "fp8_rowwise"),
)

# QuantMode.to_dict in the same file.
_SWITCHES: tuple[tuple[str, Precision], ...] = (
    ("use_smooth_quant", "int8_sq"),
    ("int8_kv_cache", "int8_kv_cache"),
    ("fp8_kv_cache", "fp8_kv_cache"),
    ("enable_fp8", "fp8"),
    ("enable_fp8_rowwise", "fp8_rowwise"),
)


def _of_switches(section: Mapping[str, Any]) -> frozenset[Precision]:
    found: set[Precision] = {name for switch, name in _SWITCHES if section.get(switch) is True}
    if section.get("use_weight_only") is True:
        if section.get("weight_only_precision") != "int4":
            found.add("int8_weight_only")
        else:
            grouped = section.get("per_group") is True
            found.add("int4_groupwise" if grouped else "int4_weight_only")
    return frozenset(found)
