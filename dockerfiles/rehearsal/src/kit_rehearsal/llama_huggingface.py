"""LLaMA in Hugging Face's format.

A TensorRT-LLM checkpoint calls `gate_proj` mlp.fc and `up_proj` mlp.gate (its models/llama/convert
of every release); q, k and v are one matrix.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .engine import Shape
from .errors import BackendError, NotComputedError
from .files import read_json
from .huggingface import check_shapes, read_weights
from .split import Network

if TYPE_CHECKING:
    from pathlib import Path

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

_NAMES = {
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_layernorm",
    "self_attn.o_proj": "attention.dense",
    "mlp.gate_proj": "mlp.fc",
    "mlp.up_proj": "mlp.gate",
    "mlp.down_proj": "mlp.proj",
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


def read_model(directory: Path) -> Network:
    """The whole model."""
    config = read_config(directory)
    source = {name.removeprefix("model."): v for name, v in read_weights(directory).items()}
    shape = shape_of(config)
    check_shapes(_shapes(shape, tied=config["tie_word_embeddings"]), source, directory)
    weights = {
        "transformer.vocab_embedding.weight": source["embed_tokens.weight"],
        "transformer.ln_f.weight": source["norm.weight"],
    }
    if not config["tie_word_embeddings"]:
        weights["lm_head.weight"] = source["lm_head.weight"]
    for layer in range(shape.n_layer):
        old, new = f"layers.{layer}.", f"transformer.layers.{layer}."
        for theirs, ours in _NAMES.items():
            weights[f"{new}{ours}.weight"] = source[f"{old}{theirs}.weight"]
        attention = [source[f"{old}self_attn.{one}_proj.weight"] for one in "qkv"]
        weights[f"{new}attention.qkv.weight"] = np.concatenate(attention)
    return Network(shape, weights, config)


def shape_of(config: dict[str, Any]) -> Shape:
    """What a configuration of the family says of the network."""
    return Shape(
        n_layer=config["num_hidden_layers"],
        n_head=config["num_attention_heads"],
        n_kv_head=config["num_key_value_heads"],
        head_size=head_size(config),
        hidden_size=config["hidden_size"],
        inner_size=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        n_positions=config["max_position_embeddings"],
        norm="rms",
        norm_epsilon=config["rms_norm_eps"],
        activation=config["hidden_act"],
        rotary_dim=head_size(config),
        rotary_base=config["rope_theta"],
    )


def head_size(config: dict[str, Any]) -> int:
    """Width of an attention head."""
    return int(config["hidden_size"] // config["num_attention_heads"])


def _shapes(shape: Shape, *, tied: bool) -> dict[str, tuple[int, ...]]:
    hidden, inner = shape.hidden_size, shape.inner_size
    kv = shape.n_kv_head * shape.head_size
    table = (shape.vocab_size, hidden)
    expected: dict[str, tuple[int, ...]] = {
        "embed_tokens.weight": table,
        "norm.weight": (hidden,),
        **({} if tied else {"lm_head.weight": table}),
    }
    matrices = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
        "input_layernorm": (hidden,),
        "post_attention_layernorm": (hidden,),
    }
    for layer in range(shape.n_layer):
        for name, size in matrices.items():
            expected[f"layers.{layer}.{name}.weight"] = size
    return expected
