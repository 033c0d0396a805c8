"""config.json of an engine directory, with the keys of each release.

0.5.0: builder_config and plugin_config, sorted. 0.9.0 and 0.16.0: version, pretrained_config and
build_config in the order of the release's classes. Options that only steer kernels are recorded as
the release records them and have no effect here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import BACKEND, VERSION

if TYPE_CHECKING:
    import argparse

    from .ft_layout import FtConfig

_PLUGINS_0_9: dict[str, Any] = {
    "bert_attention_plugin": "float16",
    "gpt_attention_plugin": "float16",
    "gemm_plugin": None,
    "smooth_quant_gemm_plugin": None,
    "identity_plugin": None,
    "layernorm_quantization_plugin": None,
    "rmsnorm_quantization_plugin": None,
    "nccl_plugin": None,
    "lookup_plugin": None,
    "lora_plugin": None,
    "weight_only_groupwise_quant_matmul_plugin": None,
    "weight_only_quant_matmul_plugin": None,
    "quantize_per_token_plugin": False,
    "quantize_tensor_plugin": False,
    "moe_plugin": "float16",
    "mamba_conv1d_plugin": "float16",
    "context_fmha": True,
    "context_fmha_fp32_acc": False,
    "paged_kv_cache": True,
    "remove_input_padding": True,
    "use_custom_all_reduce": True,
    "multi_block_mode": False,
    "enable_xqa": True,
    "attention_qk_half_accumulation": False,
    "tokens_per_block": 128,
    "use_paged_context_fmha": False,
    "use_fp8_context_fmha": False,
    "use_context_fmha_for_generation": False,
    "multiple_profiles": False,
    "paged_state": True,
    "streamingllm": False,
}
_PLUGINS_0_16: dict[str, Any] = {
    "dtype": "float16",
    "bert_attention_plugin": "auto",
    "gpt_attention_plugin": "auto",
    "gemm_plugin": None,
    "gemm_swiglu_plugin": None,
    "fp8_rowwise_gemm_plugin": None,
    "qserve_gemm_plugin": None,
    "identity_plugin": None,
    "nccl_plugin": "auto",
    "lora_plugin": None,
    "weight_only_groupwise_quant_matmul_plugin": None,
    "weight_only_quant_matmul_plugin": None,
    "smooth_quant_plugins": True,
    "smooth_quant_gemm_plugin": None,
    "layernorm_quantization_plugin": None,
    "rmsnorm_quantization_plugin": None,
    "quantize_per_token_plugin": False,
    "quantize_tensor_plugin": False,
    "moe_plugin": "auto",
    "mamba_conv1d_plugin": "auto",
    "low_latency_gemm_plugin": None,
    "low_latency_gemm_swiglu_plugin": None,
    "context_fmha": True,
    "bert_context_fmha_fp32_acc": False,
    "paged_kv_cache": True,
    "remove_input_padding": True,
    "reduce_fusion": False,
    "user_buffer": False,
    "tokens_per_block": 64,
    "use_paged_context_fmha": False,
    "use_fp8_context_fmha": False,
    "multiple_profiles": False,
    "paged_state": True,
    "streamingllm": False,
    "manage_weights": False,
    "use_fused_mlp": True,
    "pp_reduce_scatter": False,
}


def config_0_5(args: argparse.Namespace, model: FtConfig) -> dict[str, Any]:
    """0.5.0 records no version, so `backend` is added."""
    return {
        "backend": f"{BACKEND} {VERSION}",
        "builder_config": {
            "apply_query_key_layer_scaling": False,
            "fp8": False,
            "gather_all_token_logits": args.gather_all_token_logits,
            "hidden_act": model.hidden_act,
            "hidden_size": model.n_embd,
            "int8": False,
            "max_batch_size": args.max_batch_size,
            "max_input_len": args.max_input_len,
            "max_num_tokens": args.max_num_tokens,
            "max_output_len": args.max_output_len,
            "max_position_embeddings": model.n_positions,
            "multi_query_mode": False,
            "name": "gpt",
            "num_heads": model.n_head,
            "num_kv_heads": model.n_head,
            "num_layers": model.n_layer,
            "opt_level": args.builder_opt,
            "parallel_build": args.parallel_build,
            "precision": model.dtype,
            "quant_mode": 0,
            "strongly_typed": args.strongly_typed,
            "tensor_parallel": args.world_size,
            "use_parallel_embedding": args.use_parallel_embedding,
            "use_prompt_tuning": False,
            "use_refit": False,
            "vocab_size": model.vocab_size,
        },
        "plugin_config": {
            "attention_qk_half_accumulation": False,
            "bert_attention_plugin": False,
            "context_fmha_type": _context_fmha_type(args),
            "gemm_plugin": args.use_gemm_plugin,
            "gpt_attention_plugin": args.use_gpt_attention_plugin,
            "identity_plugin": False,
            "layernorm_plugin": args.use_layernorm_plugin,
            "layernorm_quantization_plugin": False,
            "lookup_plugin": args.use_lookup_plugin and model.dtype,
            "nccl_plugin": model.dtype if args.world_size > 1 else False,
            "paged_kv_cache": args.paged_kv_cache,
            "quantize_per_token_plugin": False,
            "quantize_tensor_plugin": False,
            "remove_input_padding": args.remove_input_padding,
            "rmsnorm_plugin": False,
            "rmsnorm_quantization_plugin": False,
            "smooth_quant_gemm_plugin": False,
            "tokens_per_block": args.tokens_per_block if args.paged_kv_cache else 0,
            "use_custom_all_reduce": args.use_custom_all_reduce and args.world_size > 1,
            "weight_only_groupwise_quant_matmul_plugin": False,
            "weight_only_quant_matmul_plugin": False,
        },
    }


def config_0_9(args: argparse.Namespace, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """config.json of 0.9.0."""
    plugins = _plugins(_PLUGINS_0_9, args)
    several = checkpoint["mapping"]["world_size"] > 1
    plugins["nccl_plugin"] = checkpoint["dtype"] if several else None
    plugins["use_custom_all_reduce"] = plugins["use_custom_all_reduce"] and several
    pretrained = {
        **checkpoint,
        "logits_dtype": args.logits_dtype or checkpoint.get("logits_dtype", "float32"),
        "use_prompt_tuning": False,
        "head_size": checkpoint["hidden_size"] // checkpoint["num_attention_heads"],
        "qk_layernorm": False,
    }
    return {
        "version": "0.9.0+rehearsal",
        "pretrained_config": pretrained,
        "build_config": {
            "max_input_len": args.max_input_len,
            "max_output_len": args.max_output_len,
            "max_batch_size": args.max_batch_size,
            "max_beam_width": args.max_beam_width,
            "max_num_tokens": args.max_num_tokens,
            "opt_num_tokens": args.opt_num_tokens,
            "max_prompt_embedding_table_size": 0,
            "gather_context_logits": args.gather_context_logits,
            "gather_generation_logits": args.gather_generation_logits,
            "strongly_typed": args.strongly_typed,
            "builder_opt": args.builder_opt,
            "profiling_verbosity": args.profiling_verbosity,
            "enable_debug_output": args.enable_debug_output,
            "max_draft_len": 0,
            "use_refit": False,
            "input_timing_cache": args.input_timing_cache,
            "output_timing_cache": args.output_timing_cache,
            "lora_config": _lora(args),
            "auto_parallel_config": _auto_parallel(args),
            "weight_sparsity": False,
            "plugin_config": plugins,
            "use_fused_mlp": args.use_fused_mlp,
        },
    }


def config_0_16(args: argparse.Namespace, checkpoint: dict[str, Any]) -> dict[str, Any]:
    """config.json of 0.16.0."""
    plugins = _plugins(_PLUGINS_0_16, args)
    plugins["dtype"] = checkpoint["dtype"]
    plugins["paged_kv_cache"] = args.kv_cache_type == "PAGED"
    pretrained = {**checkpoint, "logits_dtype": args.logits_dtype or checkpoint["logits_dtype"]}
    return {
        "version": "0.16.0+rehearsal",
        "pretrained_config": pretrained,
        "build_config": {
            "max_input_len": args.max_input_len,
            "max_seq_len": args.max_seq_len,
            "opt_batch_size": 8,
            "max_batch_size": args.max_batch_size,
            "max_beam_width": args.max_beam_width,
            "max_num_tokens": args.max_num_tokens,
            "opt_num_tokens": args.opt_num_tokens,
            "max_prompt_embedding_table_size": 0,
            "kv_cache_type": args.kv_cache_type,
            "gather_context_logits": args.gather_context_logits,
            "gather_generation_logits": args.gather_generation_logits,
            "strongly_typed": True,
            "force_num_profiles": None,
            "profiling_verbosity": args.profiling_verbosity,
            "enable_debug_output": args.enable_debug_output,
            "max_draft_len": 0,
            "speculative_decoding_mode": 1,
            "use_refit": False,
            "input_timing_cache": args.input_timing_cache,
            "output_timing_cache": args.output_timing_cache,
            "lora_config": _lora(args),
            "auto_parallel_config": _auto_parallel(args),
            "weight_sparsity": False,
            "weight_streaming": args.weight_streaming,
            "plugin_config": plugins,
            "use_strip_plan": False,
            "max_encoder_input_len": args.max_encoder_input_len,
            "monitor_memory": args.monitor_memory,
            "use_mrope": False,
        },
    }


def _plugins(fields: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """The fields with the command line's values: enable and disable become what they mean."""
    made = dict(fields)
    for name, default in fields.items():
        value = getattr(args, name, default)
        if isinstance(default, bool):
            made[name] = value in {True, "enable"}
        else:
            made[name] = None if value == "disable" else value
    return made


def _context_fmha_type(args: argparse.Namespace) -> int:
    if args.enable_context_fmha_fp32_acc:
        return 2
    return 1 if args.enable_context_fmha else 0


def _lora(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "lora_dir": [],
        "lora_ckpt_source": args.lora_ckpt_source,
        "max_lora_rank": args.max_lora_rank,
        "lora_target_modules": args.lora_target_modules or [],
        "trtllm_modules_to_hf_modules": {},
    }


def _auto_parallel(args: argparse.Namespace) -> dict[str, Any]:
    """The part that names the cluster; the release asks the GPU when no key is given."""
    return {
        "world_size": args.auto_parallel,
        "gpus_per_node": args.gpus_per_node,
        "cluster_key": args.cluster_key,
        "cluster_info": None,
    }
