"""Models in Hugging Face's format, `config.json` and safetensors; here GPT-2."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .errors import BackendError, NotComputedError
from .files import read_json
from .tensors import unpack

if TYPE_CHECKING:
    from pathlib import Path

    from .tensors import Array

# What Hugging Face's GPT2Config means by an absent key.
DEFAULTS: dict[str, Any] = {
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-05,
    "n_embd": 768,
    "n_head": 12,
    "n_inner": None,
    "n_layer": 12,
    "n_positions": 1024,
    "scale_attn_by_inverse_layer_idx": False,
    "scale_attn_weights": True,
    "tie_word_embeddings": True,
    "vocab_size": 50257,
}


@dataclass(frozen=True, slots=True)
class HuggingFaceModel:
    """A model: its configuration with defaults filled in, weights in float32 by their names."""

    config: dict[str, Any]
    weights: dict[str, Array]


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration with GPT-2's defaults; BackendError for another model."""
    config = {**DEFAULTS, **read_json(directory / "config.json")}
    if config.get("model_type") != "gpt2":
        raise NotComputedError(f"models of type {config.get('model_type')}", str(directory))
    expected = {
        "activation_function": "gelu_new",
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "tie_word_embeddings": True,
    }
    for key, value in expected.items():
        if config[key] != value:
            raise NotComputedError(f"{key} = {config[key]}", str(directory / "config.json"))
    if config["n_embd"] % config["n_head"]:
        raise BackendError(
            f"{directory}: n_embd {config['n_embd']} is no multiple of n_head {config['n_head']}"
        )
    return config


def read_model(directory: Path) -> HuggingFaceModel:
    """Configuration and weights; names are without the leading `transformer.`."""
    config = read_config(directory)
    weights = {
        name.removeprefix("transformer."): value for name, value in read_weights(directory).items()
    }
    check_shapes(_shapes(config), weights, directory)
    return HuggingFaceModel(config, weights)


def read_weights(directory: Path) -> dict[str, Array]:
    """All tensors of a folder's safetensors files by their names."""
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(read_json(index)["weight_map"].values()))
    else:
        names = ["model.safetensors"]
    weights: dict[str, Array] = {}
    for name in names:
        path = directory / name
        if not path.is_file():
            raise BackendError(f"{path}: no such file; the weights must be safetensors")
        weights.update(unpack(path.read_bytes(), str(path)))
    return weights


def check_shapes(
    expected: dict[str, tuple[int, ...]], weights: dict[str, Array], directory: Path
) -> None:
    """BackendError for the first tensor that is missing or has another shape."""
    for name, shape in expected.items():
        found = weights[name].shape if name in weights else None
        if found != shape:
            raise BackendError(f"{directory}: {name}: expected shape {shape}, found {found}")


def intermediate_size(config: dict[str, Any]) -> int:
    """Width of the MLP: n_inner, or four times the hidden size."""
    return int(config["n_inner"] or 4 * config["n_embd"])


def _shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner = config["n_embd"], intermediate_size(config)
    expected: dict[str, tuple[int, ...]] = {
        "wte.weight": (config["vocab_size"], hidden),
        "wpe.weight": (config["n_positions"], hidden),
        "ln_f.weight": (hidden,),
        "ln_f.bias": (hidden,),
    }
    for layer in range(config["n_layer"]):
        shapes = {
            "ln_1.weight": (hidden,),
            "ln_1.bias": (hidden,),
            "attn.c_attn.weight": (hidden, 3 * hidden),
            "attn.c_attn.bias": (3 * hidden,),
            "attn.c_proj.weight": (hidden, hidden),
            "attn.c_proj.bias": (hidden,),
            "ln_2.weight": (hidden,),
            "ln_2.bias": (hidden,),
            "mlp.c_fc.weight": (hidden, inner),
            "mlp.c_fc.bias": (inner,),
            "mlp.c_proj.weight": (inner, hidden),
            "mlp.c_proj.bias": (hidden,),
        }
        expected.update({f"h.{layer}.{name}": shape for name, shape in shapes.items()})
    return expected
