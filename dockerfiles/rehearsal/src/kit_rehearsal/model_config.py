"""config.json of a checkpoint, and `pretrained_config` of the engine that is built from it.

Until 0.11.0 GPT's convert_checkpoint.py writes what it thinks of and the build completes it; from
0.12.0 on, and LLaMA's always, it writes the whole class (tensorrt_llm/models/modeling_utils.py,
models/{gpt,llama}/config.py, examples/{gpt,llama}/convert_checkpoint.py of 0.9.0 to 0.16.0).
`producer` is the honest addition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import BACKEND, VERSION, scheme
from .releases import Field, Span, record
from .unified_layout import LLAMA

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from .engine import Shape
    from .split import Network

_ROTARY = (
    Field("apply_query_key_layer_scaling", value=False),
    Field("rotary_pct", 1.0),
    Field("rotary_base", 10000.0),
    Field("rotary_scaling"),
)
_CONVERTED = (
    Field("architecture"),
    Field("dtype"),
    Field("num_hidden_layers"),
    Field("num_attention_heads"),
    Field("num_key_value_heads"),
    Field("hidden_size"),
    Field("intermediate_size"),
    Field("norm_epsilon"),
    Field("vocab_size"),
    Field("position_embedding_type", "learned_absolute"),
    Field("max_position_embeddings"),
    Field("hidden_act"),
    Field("use_parallel_embedding"),
    Field("embedding_sharding_dim"),
    Field("share_embedding_table"),
    Field("quantization"),
    Field("mapping"),
    Field("bias", value=True),
    *_ROTARY,
    Field("qk_layernorm", value=False, since="0.10.0"),
    Field("inner_layernorm", value=False, since="0.10.0"),
    Field("norm_before_bmm1", value=False, since="0.10.0"),
    Field("scale_embedding", value=False, since="0.10.0", before="0.11.0"),
    Field("q_scaling", 1, since="0.11.0"),
    Field("embedding_scale", since="0.11.0"),
    Field("producer"),
)
# The class of all models: what the build of 0.9.0 and 0.10.0 makes of it …
_COMPLETED = (
    Field("architecture"),
    Field("dtype"),
    Field("logits_dtype", "float32"),
    Field("vocab_size"),
    Field("max_position_embeddings"),
    Field("hidden_size"),
    Field("num_hidden_layers"),
    Field("num_attention_heads"),
    Field("num_key_value_heads"),
    Field("head_size"),
    Field("qk_layernorm", value=False, since="0.10.0"),
    Field("hidden_act"),
    Field("intermediate_size"),
    Field("norm_epsilon"),
    Field("position_embedding_type"),
    Field("use_parallel_embedding"),
    Field("embedding_sharding_dim"),
    Field("share_embedding_table"),
    Field("mapping"),
    Field("quantization"),
    Field("kv_dtype"),
)
_COMPLETED_GPT = (
    *_COMPLETED,
    Field("bias", value=True),
    *_ROTARY,
    Field("inner_layernorm", value=False, since="0.10.0"),
    Field("norm_before_bmm1", value=False, since="0.10.0"),
    Field("scale_embedding", value=False, since="0.10.0"),
    Field("producer"),
    Field("moe_num_experts", 0),
    Field("moe_top_k", 0),
    Field("moe_tp_mode", 2),
    Field("moe_normalization_mode", 1),
)
_COMPLETED_LLAMA = (
    *_COMPLETED,
    Field("rotary_scaling"),
    Field("residual_mlp", value=False, since="0.10.0"),
    Field("moe_normalization_mode"),
    Field("rotary_base"),
    Field("moe_num_experts", 0),
    Field("moe_top_k", 0),
    Field("moe_tp_mode", 2),
    Field("attn_bias", value=False),
    Field("disable_weight_only_quant_plugin", value=False),
    Field("producer"),
)
# … and what it is from 0.11.0 on, with the family's own entries before it.
_CLASS = (
    Field("architecture"),
    Field("dtype"),
    Field("vocab_size"),
    Field("hidden_size"),
    Field("num_hidden_layers"),
    Field("num_attention_heads"),
    Field("hidden_act"),
    Field("logits_dtype", "float32"),
    Field("norm_epsilon"),
    Field("runtime_defaults", since="0.15.0"),
    Field("position_embedding_type", "learned_absolute"),
    Field("max_position_embeddings", before="0.16.0"),
    Field("num_key_value_heads"),
    Field("intermediate_size"),
    Field("max_position_embeddings", since="0.16.0"),
    Field("mapping"),
    Field("quantization"),
    Field("use_parallel_embedding"),
    Field("embedding_sharding_dim"),
    Field("share_embedding_table", before="0.16.0"),
    Field("head_size"),
    Field("qk_layernorm", value=False),
    Field("rotary_embedding_dim", since="0.16.0"),
)
_CLASS_GPT = (
    Field("gpt_variant", "gpt2", since="0.12.0"),
    Field("bias", value=True),
    Field("q_scaling", 1),
    Field("embedding_scale"),
    *_ROTARY,
    Field("inner_layernorm", value=False, since="0.12.0"),
    Field("norm_before_bmm1", value=False, since="0.12.0"),
    Field("moe"),
    *_CLASS,
    Field("inner_layernorm", value=False, before="0.12.0"),
    Field("norm_before_bmm1", value=False, before="0.12.0"),
    Field("producer"),
)
_CLASS_LLAMA = (
    Field("mlp_bias", value=False),
    Field("attn_bias", value=False),
    Field("rotary_base"),
    Field("rotary_scaling"),
    Field("residual_mlp", value=False),
    Field("disable_weight_only_quant_plugin", value=False),
    Field("moe"),
    Field("remove_duplicated_kv_heads", value=False, since="0.12.0"),
    Field("fc_after_embed", value=False, since="0.15.0"),
    Field("use_input_layernorm_in_first_layer", value=True, since="0.15.0"),
    Field("use_last_layernorm", value=True, since="0.15.0"),
    Field("layer_idx_offset", 0, since="0.15.0"),
    *_CLASS,
    Field("tie_word_embeddings", since="0.15.0"),
    Field("producer"),
)
# LLaMA's of 0.8.0, which thinks of it itself; that its engines say the same is inferred.
_FIRST_LLAMA = (
    Field("architecture"),
    Field("dtype"),
    Field("logits_dtype", "float32"),
    Field("num_hidden_layers"),
    Field("num_attention_heads"),
    Field("hidden_size"),
    Field("intermediate_size"),
    Field("num_key_value_heads"),
    Field("vocab_size"),
    Field("position_embedding_type"),
    Field("max_position_embeddings"),
    Field("hidden_act"),
    Field("rotary_base"),
    Field("rotary_scaling"),
    Field("norm_epsilon"),
    Field("quantization"),
    Field("mapping"),
    Field("use_parallel_embedding"),
    Field("embedding_sharding_dim"),
    Field("share_embedding_table"),
    Field("use_prompt_tuning", value=False),
    Field("moe_num_experts", 0),
    Field("moe_top_k", 0),
    Field("moe_tp_mode", 2),
    Field("moe_normalization_mode", 1),
    Field("enable_pos_shift", value=False),
    Field("dense_context_fmha", value=False),
    Field("max_lora_rank", 64),
    Field("lora_target_modules"),
    Field("hf_modules_to_trtllm_modules"),
    Field("trtllm_modules_to_hf_modules"),
    Field("disable_weight_only_quant_plugin", value=False),
    Field("producer"),
)
_SHORT_MAPPING = (Field("world_size"), Field("tp_size"), Field("pp_size", 1))
_COMPLETED_MAPPING = (*_SHORT_MAPPING, Field("gpus_per_node", 8, since="0.10.0"))
_MAPPING = (
    Field("world_size"),
    Field("gpus_per_node", 8),
    Field("cp_size", 1, since="0.12.0"),
    Field("tp_size"),
    Field("pp_size", 1),
    Field("moe_tp_size"),
    Field("moe_ep_size", 1),
)
_SHORT_QUANTIZATION = (Field("quant_algo"), Field("kv_cache_quant_algo"))
_QUANTIZATION = (
    *_SHORT_QUANTIZATION,
    Field("group_size", 128),
    Field("smoothquant_val", before="0.12.0"),
    Field("smoothquant_val", 0.5, since="0.12.0"),
    Field("clamp_val", since="0.12.0"),
    Field("use_meta_recipe", value=False, since="0.15.0"),
    Field("has_zero_point", value=False),
    Field("pre_quant_scale", value=False),
    Field("exclude_modules"),
)
_FIRST_OPTIONS = ("use_prompt_tuning", "dense_context_fmha", "max_lora_rank", "lora_target_modules")
_FIRST_QUANTIZATION = (
    *_SHORT_QUANTIZATION,
    Field("sq_use_plugin", value=False),
    Field("exclude_modules", ["lm_head"]),
)
_MOE = (
    Field("num_experts", 0),
    Field("moe_intermediate_size", 0, since="0.14.0", before="0.16.0"),
    Field("num_shared_experts", 0, since="0.14.0", before="0.16.0"),
    Field("shared_expert_intermediate_size", 0, since="0.16.0"),
    Field("top_k", 0),
    Field("normalization_mode", 1),
    Field("sparse_mixer_epsilon", 0.01, since="0.13.0"),
    Field("tp_mode", 0, since="0.12.0"),
    Field("device_limited_n_group", 0, since="0.15.0"),
    Field("device_limited_topk_group", 0, since="0.15.0"),
    Field("device_limited_routed_scaling_factor", 1.0, since="0.15.0"),
)
_FIRST_OF_LLAMA = Span(before="0.9.0")
_CONVERTED_AS_CLASS = Span("0.12.0")
_BUILT_AS_CLASS = Span("0.11.0")


def of_gpt(release: str, network: Network, args: argparse.Namespace) -> dict[str, Any]:
    """config.json that GPT's convert_checkpoint.py writes."""
    whole = _CONVERTED_AS_CLASS.holds(release)
    known = {**_of_shape(network.shape), **_known(release, args)}
    # The class keeps Hugging Face's own name of it.
    theirs = (network.source.get("architectures") or ["GPT2LMHeadModel"])[0]
    known["architecture"] = theirs if whole else "GPTForCausalLM"
    known["bias"] = network.source.get("bias", True)
    known["gpt_variant"] = args.gpt_variant or "gpt2"
    if whole:
        return record(_CLASS_GPT, release, known)
    sizes = known["mapping"]
    known["mapping"] = record(_SHORT_MAPPING, release, sizes)
    known["quantization"] = record(_SHORT_QUANTIZATION, release, known["quantization"])
    return record(_CONVERTED, release, known)


def of_llama(
    release: str, shape: Shape, args: argparse.Namespace, *, tied: bool = False
) -> dict[str, Any]:
    """config.json that LLaMA's convert_checkpoint.py writes: the whole class from 0.9.0 on."""
    known = {
        **_of_shape(shape),
        "architecture": "LlamaForCausalLM",
        "tie_word_embeddings": tied,
        "kv_dtype": scheme.of(args).kv_cache or args.dtype,
        "disable_weight_only_quant_plugin": args.disable_weight_only_quant_plugin,
        **_known(release, args),
    }
    if _FIRST_OF_LLAMA.holds(release):
        plan = scheme.of(args)
        said = {**plan.record(), "sq_use_plugin": plan.is_plugin}
        known["quantization"] = record(_FIRST_QUANTIZATION, release, said)
        known["mapping"] = record(_SHORT_MAPPING, release, known["mapping"])
        # quantize.py has none of them.
        known |= {name: getattr(args, name) for name in _FIRST_OPTIONS if hasattr(args, name)}
        return record(_FIRST_LLAMA, release, known)
    as_class = _BUILT_AS_CLASS.holds(release)
    return record(_CLASS_LLAMA if as_class else _COMPLETED_LLAMA, release, known)


def _of_shape(shape: Shape) -> dict[str, Any]:
    known: dict[str, Any] = {
        "num_hidden_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_kv_head,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.inner_size,
        "norm_epsilon": shape.norm_epsilon,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.n_positions,
        "hidden_act": shape.activation,
        "head_size": shape.head_size,
        "rotary_embedding_dim": shape.head_size,
    }
    if shape.rotary_dim:
        known["position_embedding_type"] = "rope_gpt_neox"
        known["rotary_base"] = shape.rotary_base
        known["rotary_pct"] = shape.rotary_dim / shape.head_size
    return known


def of_engine(
    release: str, args: argparse.Namespace, checkpoint: Mapping[str, Any]
) -> dict[str, Any]:
    """`pretrained_config` that the build makes of a checkpoint's config.json."""
    as_class = _BUILT_AS_CLASS.holds(release)
    mapping = {**checkpoint["mapping"], "gpus_per_node": getattr(args, "gpus_per_node", 8)}
    mapping.setdefault("moe_tp_size", mapping["tp_size"])
    known = {
        "head_size": checkpoint["hidden_size"] // checkpoint["num_attention_heads"],
        "producer": {"name": BACKEND, "version": VERSION},
        "share_embedding_table": False,
        "kv_dtype": scheme.of_record(checkpoint["quantization"]).kv_cache or checkpoint["dtype"],
        "moe": record(_MOE, release, {}),
        **checkpoint,
        "logits_dtype": args.logits_dtype or checkpoint.get("logits_dtype", "float32"),
        "mapping": record(_MAPPING if as_class else _COMPLETED_MAPPING, release, mapping),
        "quantization": record(_QUANTIZATION, release, checkpoint["quantization"]),
    }
    if checkpoint["architecture"] in LLAMA:
        if _FIRST_OF_LLAMA.holds(release):
            same = {name: checkpoint[name] for name in ("mapping", "quantization")}
            return record(_FIRST_LLAMA, release, {**known, **same})
        return record(_CLASS_LLAMA if as_class else _COMPLETED_LLAMA, release, known)
    return record(_CLASS_GPT if as_class else _COMPLETED_GPT, release, known)


def _known(release: str, args: argparse.Namespace) -> dict[str, Any]:
    """What the command line says for both families."""
    tp_size, pp_size = args.tp_size, args.pp_size
    sizes = {
        "world_size": tp_size * pp_size,
        "tp_size": tp_size,
        "pp_size": pp_size,
        "moe_tp_size": tp_size,
    }
    as_class = _BUILT_AS_CLASS.holds(release)
    return {
        "dtype": args.dtype,
        "use_parallel_embedding": args.use_parallel_embedding,
        "embedding_sharding_dim": args.embedding_sharding_dim,
        "share_embedding_table": getattr(args, "use_embedding_sharing", False),
        "producer": {"name": BACKEND, "version": VERSION, **scheme.calibration_of(args)},
        "mapping": record(_MAPPING if as_class else _COMPLETED_MAPPING, release, sizes),
        "quantization": record(_QUANTIZATION, release, scheme.of(args).record()),
        "moe": record(_MOE, release, {}),
    }
