"""LLaMA in Hugging Face's format, and how it is cut for tensor parallelism.

A TensorRT-LLM checkpoint calls `gate_proj` mlp.fc and `up_proj` mlp.gate (its models/llama/convert
of every release). q, k and v are one matrix, cut by heads; where there are fewer key-value heads
than ranks, ranks keep copies of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BackendError, NotComputedError
from .files import read_json
from .huggingface import HuggingFaceModel, check_shapes, read_weights
from .split import check_split, split_vocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from .tensors import Array

# What Hugging Face's LlamaConfig means by an absent key.
DEFAULTS: dict[str, Any] = {
    "attention_bias": False,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 2048,
    "mlp_bias": False,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": None,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration with LLaMA's defaults; BackendError for another model."""
    path = directory / "config.json"
    config = {**DEFAULTS, **read_json(path)}
    if config.get("model_type") != "llama":
        raise NotComputedError(f"models of type {config.get('model_type')} as LLaMA", str(path))
    rope = config.get("rope_parameters") or {}  # newer files have both of rope's keys in it
    config["rope_theta"] = rope.get("rope_theta", config["rope_theta"])
    scaling = config["rope_scaling"] or rope
    if scaling.get("rope_type", scaling.get("type", "default")) != "default":
        raise NotComputedError(f"rope_scaling = {scaling}", str(path))
    for key, value in {"attention_bias": False, "hidden_act": "silu", "mlp_bias": False}.items():
        if config[key] != value:
            raise NotComputedError(f"{key} = {config[key]}", str(path))
    config["num_key_value_heads"] = config["num_key_value_heads"] or config["num_attention_heads"]
    for whole, part in (
        ("hidden_size", "num_attention_heads"),
        ("num_attention_heads", "num_key_value_heads"),
    ):
        if config[whole] % config[part]:
            raise BackendError(
                f"{path}: {whole} {config[whole]} is no multiple of {part} {config[part]}"
            )
    if config.get("head_dim") not in {None, head_size(config)}:
        raise NotComputedError(f"head_dim = {config['head_dim']}", str(path))
    return config


def read_model(directory: Path) -> HuggingFaceModel:
    """Configuration and weights; names are without the leading `model.`."""
    config = read_config(directory)
    weights = {name.removeprefix("model."): v for name, v in read_weights(directory).items()}
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = config["num_key_value_heads"] * head_size(config)
    expected: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": (config["vocab_size"], hidden),
        "norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        expected["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        shapes = {
            "input_layernorm.weight": (hidden,),
            "self_attn.q_proj.weight": (hidden, hidden),
            "self_attn.k_proj.weight": (kv, hidden),
            "self_attn.v_proj.weight": (kv, hidden),
            "self_attn.o_proj.weight": (hidden, hidden),
            "post_attention_layernorm.weight": (hidden,),
            "mlp.gate_proj.weight": (inner, hidden),
            "mlp.up_proj.weight": (inner, hidden),
            "mlp.down_proj.weight": (hidden, inner),
        }
        expected.update({f"layers.{layer}.{name}": shape for name, shape in shapes.items()})
    check_shapes(expected, weights, directory)
    return HuggingFaceModel(config, weights)


def head_size(config: dict[str, Any]) -> int:
    """Width of an attention head."""
    return int(config["hidden_size"] // config["num_attention_heads"])


def check_ranks(config: dict[str, Any], tp_size: int) -> None:
    """BackendError when heads or MLP cannot be shared evenly by the ranks."""
    check_split(config["num_attention_heads"], config["intermediate_size"], tp_size)
    heads = config["num_key_value_heads"]
    if heads % tp_size and tp_size % heads:
        raise BackendError(f"{heads} key-value heads cannot be shared evenly by {tp_size} ranks")


def rank_weights(
    model: HuggingFaceModel, rank: int, tp_size: int, *, share_embedding: bool = False
) -> dict[str, Array]:
    """The tensors of one rank's checkpoint."""
    source, config = model.weights, model.config
    embedding = source["embed_tokens.weight"]
    weights: dict[str, Array] = {
        "transformer.vocab_embedding.weight": embedding,
        "transformer.ln_f.weight": source["norm.weight"],
    }
    if not share_embedding:
        head = embedding if config["tie_word_embeddings"] else source["lm_head.weight"]
        weights["lm_head.weight"] = split_vocabulary(head, rank, tp_size)
    for layer in range(config["num_hidden_layers"]):
        old, new = f"layers.{layer}.", f"transformer.layers.{layer}."
        attention = old + "self_attn."
        keys, values = (
            _key_value_part(source[f"{attention}{name}_proj.weight"], config, rank, tp_size)
            for name in "kv"
        )
        queries = np.split(source[attention + "q_proj.weight"], tp_size)[rank]
        weights[new + "attention.qkv.weight"] = np.concatenate([queries, keys, values])
        dense = np.split(source[attention + "o_proj.weight"], tp_size, axis=1)[rank]
        weights[new + "attention.dense.weight"] = dense
        weights[new + "input_layernorm.weight"] = source[old + "input_layernorm.weight"]
        post = source[old + "post_attention_layernorm.weight"]
        weights[new + "post_layernorm.weight"] = post
        for theirs, ours, axis in (("gate", "fc", 0), ("up", "gate", 0), ("down", "proj", 1)):
            whole = source[f"{old}mlp.{theirs}_proj.weight"]
            weights[f"{new}mlp.{ours}.weight"] = np.split(whole, tp_size, axis=axis)[rank]
    return weights


def _key_value_part(matrix: Array, config: dict[str, Any], rank: int, tp_size: int) -> Array:
    heads = config["num_key_value_heads"]
    parts = min(heads, tp_size)
    part: Array = np.split(matrix, parts)[rank * parts // tp_size]
    return part
