"""config.json of an engine directory, with the keys of each release.

Until 0.8.0 examples/gpt/build.py: builder_config and plugin_config, sorted. From 0.9.0 on
trtllm-build: version, pretrained_config and build_config in the order of the release's classes
(tensorrt_llm/builder.py and commands/build.py of 0.5.0 to 0.16.0).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import BACKEND, VERSION, model_config, plugin_config, scheme
from .releases import Field, Span, record

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from .family_build import FamilyModel

_BUILDER = (
    Field("apply_query_key_layer_scaling", value=False),
    Field("fp8", value=False, before="0.6.0"),
    Field("gather_all_token_logits", before="0.8.0"),
    Field("gather_context_logits", since="0.8.0"),
    Field("gather_generation_logits", since="0.8.0"),
    Field("hidden_act"),
    Field("hidden_size"),
    Field("int8", value=False),
    Field("lora_target_modules", since="0.7.0"),
    Field("max_batch_size"),
    Field("max_beam_width", since="0.6.0"),
    Field("max_draft_len", since="0.6.0"),
    Field("max_input_len"),
    Field("max_lora_rank", since="0.8.0"),
    Field("max_num_tokens"),
    Field("max_output_len"),
    Field("max_position_embeddings"),
    Field("max_prompt_embedding_table_size", since="0.6.0"),
    Field("multi_query_mode", value=False, before="0.6.0"),
    Field("name", "gpt"),
    Field("num_heads"),
    Field("num_kv_heads"),
    Field("num_layers"),
    Field("parallel_build"),
    Field("precision"),
    Field("quant_mode", 0, since="0.6.0"),
    Field("strongly_typed", since="0.8.0"),
    Field("tensor_parallel"),
    Field("use_parallel_embedding"),
    Field("use_prompt_tuning", value=False, before="0.6.0"),
    Field("use_refit", value=False),
    Field("vocab_size"),
)
_BUILDER_LLAMA = (
    Field("fp8", value=False, before="0.7.0"),
    Field("gather_all_token_logits", since="0.6.0"),
    Field("hidden_act"),
    Field("hidden_size"),
    Field("int8", value=False),
    Field("lora_target_modules", since="0.7.0"),
    Field("max_batch_size"),
    Field("max_beam_width", since="0.6.0"),
    Field("max_input_len"),
    Field("max_num_tokens"),
    Field("max_output_len"),
    Field("max_position_embeddings"),
    Field("max_prompt_embedding_table_size", since="0.6.0"),
    Field("name", "llama"),
    Field("num_heads"),
    Field("num_kv_heads"),
    Field("num_layers"),
    Field("parallel_build"),
    Field("pipeline_parallel"),
    Field("precision"),
    Field("quant_mode", 0),
    Field("tensor_parallel"),
    Field("use_refit", value=False),
    Field("vocab_size"),
)
# Of 0.8.0 what a tree shortly before it has, and what its own options add (inferred).
_BUILD = (
    Field("max_input_len"),
    Field("max_output_len", before="0.11.0"),
    Field("max_seq_len", since="0.11.0"),
    # Not an option: trtllm-build leaves it out of what it hands on, which meant null until 0.14.0.
    Field("opt_batch_size", since="0.10.0", before="0.15.0"),
    Field("opt_batch_size", 8, since="0.15.0"),
    Field("max_batch_size"),
    Field("max_beam_width"),
    Field("max_num_tokens"),
    Field("opt_num_tokens", since="0.9.0"),
    Field("max_prompt_embedding_table_size"),
    Field("kv_cache_type", since="0.13.0"),
    Field("gather_context_logits"),
    Field("gather_generation_logits"),
    # An option until 0.10.0, from then on always so.
    Field("strongly_typed", value=True),
    Field("builder_opt", before="0.14.0"),
    Field("force_num_profiles", since="0.12.0"),
    Field("profiling_verbosity"),
    Field("enable_debug_output"),
    Field("max_draft_len", since="0.9.0"),
    Field("speculative_decoding_mode", 1, since="0.10.0"),
    Field("use_refit", value=False, since="0.9.0"),
    Field("input_timing_cache", since="0.9.0"),
    Field("output_timing_cache", since="0.9.0"),
    Field("lora_config", since="0.9.0"),
    # inferred: the options behind it are gone with 1.2.0.
    Field("auto_parallel_config", since="0.9.0", before="1.2.0"),
    Field("weight_sparsity", since="0.9.0"),
    Field("weight_streaming", since="0.10.0"),
    Field("plugin_config"),
    Field("use_strip_plan", value=False, since="0.10.0"),
    Field("max_encoder_input_len", since="0.10.0"),
    # A flag until 0.12.0; then an option whose word (enable, disable) is recorded as it stands.
    Field("use_fused_mlp", since="0.9.0"),
    Field("monitor_memory", since="0.15.0"),
    Field("use_mrope", value=False, since="0.16.0"),
)
_FORCED_PROFILES = Span("0.12.0", "0.15.0")
_OF_BUILDING = (
    "builder_force_num_profiles",
    "builder_opt",
    "enable_debug_output",
    "monitor_memory",
    "use_inflight_batching",
    "weight_streaming",
)


def of_build_py(release: str, args: argparse.Namespace, model: FamilyModel) -> dict[str, Any]:
    """These releases record no version, so `backend` is added."""
    shape, plan = model.shape, scheme.of_build(args)
    known = {
        **vars(args),
        "hidden_act": shape.activation,
        "fp8": plan.algorithm == scheme.FP8,
        "int8": plan.kv_cache == "int8" or plan.is_plugin,
        "hidden_size": shape.hidden_size,
        "max_position_embeddings": shape.n_positions,
        "multi_query_mode": shape.n_kv_head == 1 < shape.n_head,
        "name": model.name,
        "num_heads": shape.n_head,
        "num_kv_heads": shape.n_kv_head,
        "num_layers": shape.n_layer,
        "pipeline_parallel": getattr(args, "pp_size", 1),
        "precision": model.dtype,
        "quant_mode": plan.mode,
        "tensor_parallel": getattr(args, "tp_size", args.world_size),
        "use_prompt_tuning": getattr(args, "max_prompt_embedding_table_size", 0) > 0,
        "vocab_size": shape.vocab_size,
    }
    rows = _BUILDER if model.name == "gpt" else _BUILDER_LLAMA
    plugins = plugin_config.of_build_py(release, args, model.dtype, model.name)
    return {
        "backend": f"{BACKEND} {VERSION}",
        "builder_config": record(rows, release, known),
        "plugin_config": plugins,
        "rehearsal": _rehearsal(model.origin, args, plugins),
    }


def _rehearsal(origin: str, args: argparse.Namespace, plugins: Mapping[str, Any]) -> dict[str, Any]:
    """What only the rehearsal says.

    `weights` is where they are from; `not_computed` names what is on and is recorded only, since it
    chooses kernels, memory or ways of building and no number depends on it.
    """
    options = [name for name in _OF_BUILDING if getattr(args, name, None)]
    return {
        "weights": origin,
        "not_computed": sorted([*options, *plugin_config.kernels(plugins)]),
    }


def build_fields(release: str) -> list[str]:
    """The fields of the release's BuildConfig."""
    return list(record(_BUILD, release, {}))


def of_trtllm_build(
    release: str,
    args: argparse.Namespace,
    checkpoint: Mapping[str, Any],
    origin: str = "checkpoint",
) -> dict[str, Any]:
    """The version carries the rehearsal's label; `origin` is that of the weights."""
    plugins = plugin_config.of_trtllm_build(release, args, checkpoint)
    known = {
        **{
            name: value for name, value in vars(args).items() if name != "speculative_decoding_mode"
        },
        "lora_config": {
            "lora_dir": [],
            "lora_ckpt_source": "hf",
            "max_lora_rank": 64,
            "lora_target_modules": [],
            "trtllm_modules_to_hf_modules": {},
        },
        "plugin_config": plugins,
    }
    if _FORCED_PROFILES.holds(release):
        known["force_num_profiles"] = getattr(args, "builder_force_num_profiles", None)
    if hasattr(args, "auto_parallel"):
        known["auto_parallel_config"] = _auto_parallel(args)
    return {
        "version": f"{release}+rehearsal",
        "pretrained_config": model_config.of_engine(release, args, checkpoint),
        "build_config": record(_BUILD, release, known),
        "rehearsal": _rehearsal(origin, args, plugins),
    }


def _auto_parallel(args: argparse.Namespace) -> dict[str, Any]:
    """The part that names the cluster; the release asks the GPU when no key is given."""
    return {
        "world_size": args.auto_parallel,
        "gpus_per_node": args.gpus_per_node,
        "cluster_key": args.cluster_key,
        "cluster_info": None,
    }
