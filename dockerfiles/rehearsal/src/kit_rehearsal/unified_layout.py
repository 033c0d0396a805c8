"""The checkpoint of 0.9.0 and later: `config.json` and `rank<r>.safetensors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .engine import Shape
from .errors import BackendError, NotComputedError
from .files import read_json, write_bytes, write_json
from .tensors import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from .engine import EmbeddingCut
    from .tensors import Array

GPT = (
    "GPTForCausalLM",
    "GPT2LMHeadModel",
    "GPT2LMHeadCustomModel",  # SantaCoder's own code
    "GPTBigCodeForCausalLM",
)
LLAMA = ("LlamaForCausalLM",)
_NEEDED = (
    *("dtype", "hidden_act", "hidden_size", "mapping", "max_position_embeddings", "norm_epsilon"),
    *("num_attention_heads", "num_hidden_layers", "position_embedding_type", "quantization"),
    "vocab_size",
)


def write(
    directory: Path, config: dict[str, Any], rank_weights: Callable[[int], dict[str, Array]]
) -> None:
    """One file per rank, then config.json: a folder without it is not a checkpoint yet."""
    for rank in range(config["mapping"]["world_size"]):
        data = pack(rank_weights(rank), config["dtype"])
        write_bytes(directory / f"rank{rank}.safetensors", data)
    write_json(directory / "config.json", config, indent=4)


def read_config(path: Path) -> dict[str, Any]:
    """A checkpoint's config.json, checked for what a build needs."""
    config = read_json(path)
    found = config.get("architecture")
    if found not in {*GPT, *LLAMA}:
        raise BackendError(f"{path}: expected the architecture of a GPT or LLaMA, found {found}")
    for key in _NEEDED:
        if key not in config:
            raise BackendError(f"{path}: no {key}")
    return config


def read_rank(directory: Path, rank: int) -> dict[str, Array]:
    """The weights of one rank."""
    path = directory / f"rank{rank}.safetensors"
    try:
        return unpack(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise BackendError(f"{path}: no such file") from None


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The network that a checkpoint's config.json describes."""
    heads, hidden = config["num_attention_heads"], config["hidden_size"]
    head_size = config.get("head_size") or hidden // heads
    is_llama = config["architecture"] in LLAMA
    positions = config["position_embedding_type"]
    if positions not in {"learned_absolute", "rope_gpt_neox"}:
        raise NotComputedError(f"positions of type {positions}", "the checkpoint's config.json")
    if config.get("rotary_scaling") is not None:
        raise NotComputedError("scaled rotary embeddings", "the checkpoint's config.json")
    turned = positions != "learned_absolute"
    # LLaMA has no share of its own: all of a head is turned.
    rotary_pct = 1.0 if is_llama else config.get("rotary_pct", 1.0)
    cut: EmbeddingCut = "whole"
    if config.get("use_parallel_embedding") and config["mapping"]["tp_size"] > 1:
        cut = "hidden" if config.get("embedding_sharding_dim", 0) else "vocabulary"
    return Shape(
        n_layer=config["num_hidden_layers"],
        n_head=heads,
        n_kv_head=config.get("num_key_value_heads") or heads,
        head_size=head_size,
        hidden_size=hidden,
        inner_size=config.get("intermediate_size") or 4 * hidden,
        vocab_size=config["vocab_size"],
        n_positions=config["max_position_embeddings"],
        norm="rms" if is_llama else "layer",
        norm_epsilon=config["norm_epsilon"],
        activation=config["hidden_act"],
        rotary_dim=int(head_size * rotary_pct) if turned else 0,
        rotary_base=config.get("rotary_base", 10000.0),
        embedding=cut,
    )
