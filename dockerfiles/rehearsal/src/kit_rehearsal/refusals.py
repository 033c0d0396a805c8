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

CONVERT = {}
CONVERT_LLAMA = {
    "enable_fp8": "FP8",
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
    "cp_size": "context parallelism",
    "remove_duplicated_kv_heads": "key-value heads without copies",
    "rotary_scaling": "scaled rotary embeddings",
    "enable_pos_shift": "StreamingLLM",
    "hf_lora_dir": "LoRA",
}
BUILD = {
    "build_config": "builds from a build_config file",
    "model_cls_file": "models of the user's own class",
    "lora_dir": "LoRA",
    "lora_plugin": "LoRA",
    "dora_plugin": "LoRA",
    "moe_num_experts": "mixtures of experts",
    "rotary_scaling": "scaled rotary embeddings",
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
BUILD_LLAMA = {
    **BUILD,
    "meta_ckpt_dir": "Meta's own checkpoints",
    "quant_ckpt_path": "quantized checkpoints",
    "hf_lora_dir": "LoRA",
    "visualize": "drawings of the network",
}
QUANTIZE = {
    "autoq_format": "searches for a quantization",
    "auto_quantize_bits": "searches for a quantization",
    "weight_compression": "searches for a quantization",
    "medusa_model_dir": "speculative decoding",
    "quant_medusa_head": "speculative decoding",
    "cp_size": "context parallelism",
    "quantize_lm_head": "quantized output embeddings",
}
RUN = {
    "num_return_sequences": "several sequences per prompt",
    "repetition_penalty": "penalties",
    "presence_penalty": "penalties",
    "frequency_penalty": "penalties",
    "beam_search_diversity_rate": "beam search",
    "no_repeat_ngram_size": "n-gram blocking",
    "sink_token_length": "StreamingLLM",
    "max_attention_window_size": "attention windows",
    "max_kv_cache_len": "attention windows",
    "streaming": "streaming",
    "run_profiling": "profiles",
    "input_token_extra_ids": "prompt tuning",
    "input_token_extra_ids_file": "prompt tuning",
    "multimodal_input_file": "multimodal input",
    "lora_dir": "LoRA",
    "lora_task_uids": "LoRA",
    "draft_engine_dir": "speculative decoding",
    "draft_target_model_config": "speculative decoding",
    "prompt_lookup_config": "speculative decoding",
    "medusa_choices": "speculative decoding",
    "eagle_choices": "speculative decoding",
    "eagle_posterior_threshold": "speculative decoding",
    "lookahead_config": "speculative decoding",
    "return_all_generated_tokens": "streaming",
}
SUMMARIZE = {
    **RUN,
    "eval_task": "other tasks than summaries",
    "eval_type": "other tasks than summaries",
    "max_kv_cache_length": "attention windows",
    "stop_words": "stop words of summaries",
    "bad_words": "bad words of summaries",
    "prompt_table_path": "prompt tuning of summaries",
    "prompt_tasks": "prompt tuning of summaries",
    "num_prepend_vtokens": "prompt tuning of summaries",
}
# Values that mean something other than a deviation, whatever the default is.
_HARMLESS: dict[str, tuple[Any, ...]] = {
    "num_return_sequences": (1,),
    "lora_plugin": ("disable",),
    # On by default from 0.19.0 on, where it does nothing to a model that is not FP8.
    "use_fp8_context_fmha": ("disable",),
}
_OTHER_VARIANTS = (
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
    "weight_only_precision": {
        "int4_gptq": "GPTQ",
        "int8_gptq": "GPTQ",
        "int4_awq": "AWQ checkpoints of others",
    },
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
