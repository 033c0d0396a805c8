"""What the releases do and the reference backend does not.

A value other than the release's default is refused where it would change the numbers or the set of
files. Options that only steer GPU kernels are accepted and recorded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import NotComputedError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

CONVERT = {
    "smoothquant": "SmoothQuant",
    "calibrate_kv_cache": "INT8 KV caches",
    "int8_kv_cache": "INT8 KV caches",
    "use_weight_only": "weight-only quantization",
    "nemo_ckpt_path": "NeMo checkpoints",
    "pp_size": "pipeline parallelism",
    "model": "GPT variants other than gpt2",
}
CONVERT_LLAMA = {
    "smoothquant": "SmoothQuant",
    "int8_kv_cache": "INT8 KV caches",
    "fp8_kv_cache": "FP8 KV caches",
    "use_weight_only": "weight-only quantization",
    "weight_only_precision": "weight-only quantization",
    "use_fp8": "FP8",
    "use_fp8_rowwise": "FP8",
    "use_meta_fp8_rowwise_recipe": "FP8",
    "use_qserve": "QServe",
    "use_nvfp4": "FP4",
    "ammo_quant_ckpt_path": "quantized checkpoints",
    "modelopt_quant_ckpt_path": "quantized checkpoints",
    "quant_ckpt_path": "quantized checkpoints",
    "meta_ckpt_dir": "Meta's own checkpoints",
    "moe_num_experts": "mixtures of experts",
    "moe_tp_size": "mixtures of experts",
    "moe_ep_size": "mixtures of experts",
    "pp_size": "pipeline parallelism",
    "cp_size": "context parallelism",
    "save_config_only": "checkpoints without weights",
    "remove_duplicated_kv_heads": "key-value heads without copies",
}
BUILD = {
    "use_smooth_quant": "SmoothQuant",
    "use_weight_only": "weight-only quantization",
    "weight_only_precision": "weight-only quantization",
    "int8_kv_cache": "INT8 KV caches",
    "fp8_kv_cache": "FP8 KV caches",
    "enable_fp8": "FP8",
    "multi_query_mode": "multi-query attention",
    "max_prompt_embedding_table_size": "prompt tuning",
    "model_config": "engines without a checkpoint",
    "build_config": "builds from a build_config file",
    "model_cls_file": "models of the user's own class",
    "lora_dir": "LoRA",
    "lora_plugin": "LoRA",
    "dora_plugin": "LoRA",
    "moe_num_experts": "mixtures of experts",
    "rotary_pct": "rotary embeddings of GPT",
    "rotary_scaling": "rotary embeddings of GPT",
    "auto_parallel": "automatic parallelism",
    "weight_sparsity": "sparse weights",
    "strip_plan": "engines without weights",
    "fast_build": "engines with weights in a file beside them",
    "dry_run": "dry runs",
    "visualize_network": "drawings of the network",
    "speculative_decoding_mode": "speculative decoding",
    "max_draft_len": "speculative decoding",
    "gemm_swiglu_plugin": "FP8",
    "fp8_rowwise_gemm_plugin": "FP8",
    "low_latency_gemm_plugin": "FP8",
    "low_latency_gemm_swiglu_plugin": "FP8",
    "use_fp8_context_fmha": "FP8",
    "fuse_fp4_quant": "FP4",
    "streamingllm": "StreamingLLM",
}
RUN = {
    "num_beams": "beam search",
    "num_return_sequences": "several sequences per prompt",
    "temperature": "sampling",
    "top_k": "sampling",
    "repetition_penalty": "penalties",
    "presence_penalty": "penalties",
    "frequency_penalty": "penalties",
    "beam_search_diversity_rate": "beam search",
    "stop_words": "stop words",
    "bad_words": "bad words",
    "no_repeat_ngram_size": "n-gram blocking",
    "sink_token_length": "StreamingLLM",
    "max_attention_window_size": "attention windows",
    "max_kv_cache_len": "attention windows",
    "streaming": "streaming",
    "run_profiling": "profiles",
    "prompt_table": "prompt tuning",
    "prompt_table_path": "prompt tuning",
    "tasks": "prompt tuning",
    "prompt_tasks": "prompt tuning",
    "num_prepend_vtokens": "prompt tuning",
    "input_token_extra_ids": "prompt tuning",
    "input_token_extra_ids_file": "prompt tuning",
    "multimodal_input_file": "multimodal input",
    "lora_dir": "LoRA",
    "lora_task_uids": "LoRA",
    "vocab_file": "SentencePiece tokenizers",
    "draft_engine_dir": "speculative decoding",
    "draft_target_model_config": "speculative decoding",
    "prompt_lookup_config": "speculative decoding",
    "medusa_choices": "speculative decoding",
    "eagle_choices": "speculative decoding",
    "eagle_posterior_threshold": "speculative decoding",
    "lookahead_config": "speculative decoding",
    "return_all_generated_tokens": "streaming",
}
# Values that mean something other than a deviation, whatever the default is.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "num_return_sequences": (1,),
    "lora_plugin": ("disable",),
    # On by default from 0.19.0 on, where it does nothing to a model that is not FP8.
    "use_fp8_context_fmha": ("disable",),
    "model": ("gpt2",),
}
_OTHER_VARIANTS = (
    "santacoder",
    "starcoder",
    "starcoder2",
    "persimmon",
    "fuyu",
    "kosmos-2",
    "jais",
    "nemotron",
)
# Values of otherwise harmless options that would change numbers.
_HARMFUL: dict[str, dict[Any, str]] = {
    "gemm_plugin": {"fp8": "FP8", "nvfp4": "FP4"},
    "logits_dtype": {"float16": "float16 logits"},
    "gpt_variant": dict.fromkeys(_OTHER_VARIANTS, "GPT variants other than gpt2"),
}


def refuse(
    table: Mapping[str, str], args: argparse.Namespace, parser: argparse.ArgumentParser
) -> None:
    """NotComputedError for the first argument that asks for something outside the backend."""
    for dest, what in table.items():
        value = getattr(args, dest, None)
        harmless = (parser.get_default(dest), None, *_HARMLESS.get(dest, ()))
        if value not in harmless:
            raise NotComputedError(what, _spell(dest, value, parser))
    for dest, values in _HARMFUL.items():
        value = getattr(args, dest, None)
        if value in values and value is not None:
            raise NotComputedError(values[value], _spell(dest, value, parser))


def _spell(dest: str, value: Any, parser: argparse.ArgumentParser) -> str:
    flag = f"--{dest}"
    for action in parser._actions:  # noqa: SLF001  argparse has no other list of them
        if action.dest == dest:
            flag = action.option_strings[0]
    return flag if isinstance(value, bool) else f"{flag} {value}"
