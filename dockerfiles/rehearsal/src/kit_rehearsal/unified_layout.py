"""The checkpoint of releases 0.9.0 and 0.16.0: `config.json` and `rank<r>.safetensors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import BACKEND, VERSION
from .errors import BackendError
from .files import read_json, write_bytes, write_json
from .huggingface import intermediate_size
from .split import check_split, rank_weights
from .tensors import pack, unpack

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from .huggingface import HuggingFaceModel
    from .tensors import Array

_PRODUCER = {"name": BACKEND, "version": VERSION}


def config_0_9(model: HuggingFaceModel, args: argparse.Namespace) -> dict[str, Any]:
    """config.json in 0.9.0's order; `producer` is the honest addition."""
    source = model.config
    return {
        "architecture": "GPTForCausalLM",
        "dtype": args.dtype,
        "num_hidden_layers": source["n_layer"],
        "num_attention_heads": source["n_head"],
        "num_key_value_heads": source["n_head"],
        "hidden_size": source["n_embd"],
        "intermediate_size": intermediate_size(source),
        "norm_epsilon": source["layer_norm_epsilon"],
        "vocab_size": source["vocab_size"],
        "position_embedding_type": "learned_absolute",
        "max_position_embeddings": source["n_positions"],
        "hidden_act": source["activation_function"],
        "use_parallel_embedding": args.use_parallel_embedding,
        "embedding_sharding_dim": args.embedding_sharding_dim,
        "share_embedding_table": args.use_embedding_sharing,
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None},
        "mapping": {"world_size": args.tp_size, "tp_size": args.tp_size, "pp_size": 1},
        "bias": True,
        "apply_query_key_layer_scaling": False,
        "rotary_pct": 1.0,
        "rotary_base": 10000.0,
        "rotary_scaling": None,
        "producer": _PRODUCER,
    }


def config_0_16(model: HuggingFaceModel, args: argparse.Namespace) -> dict[str, Any]:
    """config.json of 0.16.0; `producer` is the honest addition."""
    source = model.config
    architectures = source.get("architectures") or ["GPT2LMHeadModel"]
    return {
        "architecture": architectures[0],
        "dtype": args.dtype,
        "vocab_size": source["vocab_size"],
        "hidden_size": source["n_embd"],
        "num_hidden_layers": source["n_layer"],
        "num_attention_heads": source["n_head"],
        "hidden_act": source["activation_function"],
        "logits_dtype": "float32",
        "norm_epsilon": source["layer_norm_epsilon"],
        "position_embedding_type": "learned_absolute",
        "num_key_value_heads": source["n_head"],
        "intermediate_size": intermediate_size(source),
        "max_position_embeddings": source["n_positions"],
        "mapping": {
            "world_size": args.tp_size,
            "gpus_per_node": 8,
            "cp_size": 1,
            "tp_size": args.tp_size,
            "pp_size": 1,
            "moe_tp_size": args.tp_size,
            "moe_ep_size": 1,
        },
        "quantization": {
            "quant_algo": None,
            "kv_cache_quant_algo": None,
            "group_size": 128,
            "smoothquant_val": 0.5,
            "clamp_val": None,
            "has_zero_point": False,
            "pre_quant_scale": False,
            "exclude_modules": None,
        },
        "use_parallel_embedding": args.use_parallel_embedding,
        "embedding_sharding_dim": args.embedding_sharding_dim,
        "head_size": source["n_embd"] // source["n_head"],
        "qk_layernorm": False,
        "gpt_variant": "gpt2",
        "bias": True,
        "q_scaling": 1,
        "embedding_scale": None,
        "apply_query_key_layer_scaling": False,
        "rotary_pct": 1.0,
        "rotary_base": 10000.0,
        "rotary_scaling": None,
        "inner_layernorm": False,
        "norm_before_bmm1": False,
        "producer": _PRODUCER,
    }


def write(
    directory: Path, model: HuggingFaceModel, config: dict[str, Any], *, share_embedding: bool
) -> None:
    """One file per rank, then config.json: a folder without it is not a checkpoint yet."""
    tp_size = config["mapping"]["tp_size"]
    check_split(config["num_attention_heads"], config["intermediate_size"], tp_size)
    for rank in range(tp_size):
        weights = rank_weights(model, rank, tp_size, share_embedding=share_embedding)
        write_bytes(directory / f"rank{rank}.safetensors", pack(weights, config["dtype"]))
    write_json(directory / "config.json", config, indent=4)


def read_config(directory: Path) -> dict[str, Any]:
    """config.json, checked for what a build needs."""
    config = read_json(directory / "config.json")
    if config.get("architecture") not in {"GPTForCausalLM", "GPT2LMHeadModel"}:
        raise BackendError(
            f"{directory}: expected a GPT-2 checkpoint, found {config.get('architecture')}"
        )
    for key in ("dtype", "mapping", "vocab_size", "num_attention_heads", "num_hidden_layers"):
        if key not in config:
            raise BackendError(f"{directory / 'config.json'}: no {key}")
    return config


def read_rank(directory: Path, rank: int) -> dict[str, Array]:
    """The weights of one rank."""
    path = directory / f"rank{rank}.safetensors"
    try:
        return unpack(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise BackendError(f"{path}: no such file") from None
