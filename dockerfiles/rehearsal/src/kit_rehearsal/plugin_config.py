"""`plugin_config` of an engine's config.json: kernels, which are recorded and have no effect here.

Names, order and values are those of the releases' tensorrt_llm/plugin/plugin.py (0.5.0 to 0.16.0).
What came later has its place from that file at NVIDIA/TensorRT-LLM@c20322ff, which has the options
of 0.19.0 and later; that it came with 0.19.0 is inferred from trtllm-build's options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import scheme
from .releases import Field, Span, record
from .unified_layout import LLAMA

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

# Until 0.7.1 everything is off, and off is false.
_FLAGS = (
    Field("attention_qk_half_accumulation", value=False),
    Field("bert_attention_plugin", value=False),
    Field("context_fmha_type", 0),
    Field("gemm_plugin", value=False),
    Field("gpt_attention_plugin", value=False),
    Field("identity_plugin", value=False),
    Field("layernorm_plugin", value=False),
    Field("layernorm_quantization_plugin", value=False),
    Field("lookup_plugin", value=False),
    Field("lora_plugin", value=False, since="0.6.0"),
    Field("multi_block_mode", value=False, since="0.6.0"),
    Field("nccl_plugin", value=False),
    Field("paged_kv_cache", value=False),
    Field("quantize_per_token_plugin", value=False),
    Field("quantize_tensor_plugin", value=False),
    Field("remove_input_padding", value=False),
    Field("rmsnorm_plugin", value=False),
    Field("rmsnorm_quantization_plugin", value=False),
    Field("smooth_quant_gemm_plugin", value=False),
    Field("tokens_per_block", 0),
    Field("use_context_fmha_for_generation", value=False, since="0.7.0"),
    Field("use_custom_all_reduce", value=False),
    Field("use_paged_context_fmha", value=False, since="0.7.0"),
    Field("weight_only_groupwise_quant_matmul_plugin", value=False),
    Field("weight_only_quant_matmul_plugin", value=False),
)
_FIRST_DTYPES = {"value": "float16", "before": "0.11.0"}
_AUTO = {"value": "auto", "since": "0.11.0"}
# In the order of the class, which 0.16.0 changed.
_FIELDS = (
    Field("dtype", "float16", since="0.11.0"),
    Field("bert_attention_plugin", **_FIRST_DTYPES),
    Field("bert_attention_plugin", **_AUTO),
    Field("gpt_attention_plugin", **_FIRST_DTYPES),
    Field("gpt_attention_plugin", **_AUTO),
    Field("gemm_plugin"),
    Field("gemm_swiglu_plugin", since="0.11.0"),
    Field("fp8_rowwise_gemm_plugin", since="0.12.0"),
    Field("smooth_quant_gemm_plugin", before="0.16.0"),
    Field("qserve_gemm_plugin", since="0.15.0"),
    Field("identity_plugin"),
    Field("layernorm_quantization_plugin", before="0.16.0"),
    Field("rmsnorm_quantization_plugin", before="0.16.0"),
    Field("nccl_plugin"),
    Field("lookup_plugin", before="0.15.0"),
    Field("lora_plugin"),
    # inferred, as are the other rows since 0.19.0
    Field("dora_plugin", value=False, since="0.19.0"),
    Field("weight_only_groupwise_quant_matmul_plugin"),
    Field("weight_only_quant_matmul_plugin"),
    Field("smooth_quant_plugins", value=True, since="0.15.0"),
    Field("smooth_quant_gemm_plugin", since="0.16.0"),
    Field("layernorm_quantization_plugin", since="0.16.0"),
    Field("rmsnorm_quantization_plugin", since="0.16.0"),
    Field("quantize_per_token_plugin", value=False),
    Field("quantize_tensor_plugin", value=False),
    Field("moe_plugin", "float16", since="0.9.0", before="0.11.0"),
    Field("moe_plugin", **_AUTO),
    Field("mamba_conv1d_plugin", "float16", since="0.9.0", before="0.11.0"),
    Field("mamba_conv1d_plugin", **_AUTO),
    Field("low_latency_gemm_plugin", since="0.13.0"),
    Field("low_latency_gemm_swiglu_plugin", since="0.15.0"),
    Field("gemm_allreduce_plugin", since="0.19.0"),
    Field("context_fmha", value=True),
    Field("context_fmha_fp32_acc", value=False, before="0.12.0"),
    Field("bert_context_fmha_fp32_acc", value=False, since="0.12.0"),
    Field("paged_kv_cache", value=True),
    Field("remove_input_padding", value=True),
    Field("norm_quant_fusion", value=False, since="0.19.0"),
    Field("use_custom_all_reduce", value=True, before="0.12.0"),
    Field("reduce_fusion", value=False, since="0.11.0"),
    Field("user_buffer", value=False, since="0.16.0"),
    Field("multi_block_mode", value=False, before="0.12.0"),
    Field("enable_xqa", value=True, before="0.16.0"),
    Field("attention_qk_half_accumulation", value=False, before="0.11.0"),
    Field("tokens_per_block", 128, before="0.10.0"),
    Field("tokens_per_block", 64, since="0.10.0"),
    Field("use_paged_context_fmha", value=False),
    Field("use_fp8_context_fmha", value=False, since="0.9.0"),
    Field("fuse_fp4_quant", value=False, since="0.19.0"),
    Field("use_context_fmha_for_generation", value=False, before="0.11.0"),
    Field("multiple_profiles", value=False, since="0.9.0"),
    Field("paged_state", value=True, since="0.9.0"),
    Field("streamingllm", value=False, since="0.9.0"),
    Field("manage_weights", value=False, since="0.12.0"),
    Field("use_fused_mlp", value=True, since="0.13.0"),
    Field("pp_reduce_scatter", value=False, since="0.15.0"),
)
_CLASS = Span("0.8.0")
_KV_CACHE_TYPE = Span("0.13.0")
_REDUCE_FUSION_OF_GPT = Span("0.11.0", "0.13.0")


def of_build_py(release: str, args: argparse.Namespace, dtype: str, name: str) -> dict[str, Any]:
    """What the families' build.py record; their last release, 0.8.0, in trtllm-build's names."""
    several = args.world_size > 1
    fmha = args.enable_context_fmha or args.enable_context_fmha_fp32_acc
    given = {
        "gemm_plugin": args.use_gemm_plugin,
        "gpt_attention_plugin": args.use_gpt_attention_plugin,
        "layernorm_plugin": getattr(args, "use_layernorm_plugin", False),
        "lookup_plugin": getattr(args, "use_lookup_plugin", False) and dtype,
        "multi_block_mode": getattr(args, "multi_block_mode", False),
        "nccl_plugin": several and dtype,
        "paged_kv_cache": args.paged_kv_cache,
        "remove_input_padding": args.remove_input_padding,
        "rmsnorm_plugin": getattr(args, "use_rmsnorm_plugin", False),
        "use_custom_all_reduce": args.use_custom_all_reduce and several,
        "use_paged_context_fmha": getattr(args, "use_paged_context_fmha", False),
        "use_context_fmha_for_generation": getattr(args, "use_context_fmha_for_generation", False),
    }
    plan = scheme.of_build(args)
    given |= scheme.plugins(plan, "float16" if plan.algorithm in scheme.WEIGHT_ONLY else dtype)
    other = "rmsnorm" if name == "gpt" else "layernorm"  # the family has one kind of norm
    given.pop(f"{other}_quantization_plugin", None)
    if args.paged_kv_cache:
        given["tokens_per_block"] = args.tokens_per_block
    if not _CLASS.holds(release):
        given["context_fmha_type"] = (2 if args.enable_context_fmha_fp32_acc else 1) if fmha else 0
        return record(_FLAGS, release, given)
    given["context_fmha"] = bool(fmha)
    given["context_fmha_fp32_acc"] = args.enable_context_fmha_fp32_acc
    # 0.8.0 turns every default off first; a plugin that is off is null there, not false.
    off = {
        name: (False if isinstance(value, bool) else None)
        for name, value in record(_FIELDS, release, {}).items()
        if name != "tokens_per_block"
    }
    plugins = {name: value or None for name, value in given.items() if name.endswith("_plugin")}
    return record(_FIELDS, release, {**off, **given, **plugins})


def defaults(release: str) -> dict[str, Any]:
    """What the class of a release has before anything is said."""
    return record(_FIELDS, release, {})


def of_trtllm_build(
    release: str, args: argparse.Namespace, checkpoint: Mapping[str, Any]
) -> dict[str, Any]:
    """What trtllm-build records: enable and disable become what they mean, auto stays."""
    defaults = record(_FIELDS, release, {})
    made: dict[str, Any] = {}
    for name, default in defaults.items():
        value = getattr(args, name, default)
        if isinstance(default, bool):
            made[name] = value in {True, "enable"}
        else:
            made[name] = None if value == "disable" else value
    several = checkpoint["mapping"]["world_size"] > 1
    # Whatever the command line says: the plugin is there for several ranks and in their type.
    made["nccl_plugin"] = checkpoint["dtype"] if several else None
    if "dtype" in made:
        made["dtype"] = checkpoint["dtype"]
    if _KV_CACHE_TYPE.holds(release):
        made["paged_kv_cache"] = args.kv_cache_type == "PAGED"
        made["paged_state"] = False  # for models with a recurrent state only
    plan = scheme.of_record(checkpoint["quantization"])
    if not (plan.is_plugin and made.get("smooth_quant_plugins") is False):
        chosen = scheme.plugins(plan, checkpoint["dtype"])
        if checkpoint.get("disable_weight_only_quant_plugin"):
            chosen = {}
        made.update({name: value for name, value in chosen.items() if name in made})
    has_it = checkpoint["architecture"] in LLAMA or _REDUCE_FUSION_OF_GPT.holds(release)
    if not (several and has_it):
        # Turned off for one rank and, from 0.13.0 on, for all but LLaMA; what needs it, too.
        made.update({name: False for name in ("reduce_fusion", "user_buffer") if name in made})
    return made


def kernels(plugins: Mapping[str, Any]) -> list[str]:
    """What is on and no number depends on here: all but quantization, which is computed."""
    return [
        name
        for name, value in plugins.items()
        if value and name not in {"dtype", "tokens_per_block"} and "quant" not in name
    ]
