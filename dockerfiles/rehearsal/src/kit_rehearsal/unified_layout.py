"""The checkpoint of 0.9.0 and later: `config.json` and `rank<r>.safetensors`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import BackendError
from .files import read_json, write_bytes, write_json
from .tensors import pack, unpack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .tensors import Array

GPT = ("GPTForCausalLM", "GPT2LMHeadModel")
LLAMA = ("LlamaForCausalLM",)


def write(
    directory: Path, config: dict[str, Any], rank_weights: Callable[[int], dict[str, Array]]
) -> None:
    """One file per rank, then config.json: a folder without it is not a checkpoint yet."""
    for rank in range(config["mapping"]["tp_size"]):
        data = pack(rank_weights(rank), config["dtype"])
        write_bytes(directory / f"rank{rank}.safetensors", data)
    write_json(directory / "config.json", config, indent=4)


def read_config(directory: Path) -> dict[str, Any]:
    """config.json, checked for what a build needs."""
    config = read_json(directory / "config.json")
    if config.get("architecture") not in {*GPT, *LLAMA}:
        raise BackendError(
            f"{directory}: expected a GPT-2 or LLaMA checkpoint, found {config.get('architecture')}"
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
