"""Models in Hugging Face's format, `config.json` and safetensors; here those of the GPT family.

GPT-2, StarCoder and SantaCoder. SantaCoder stands there in two ways: as `gpt_bigcode` like
StarCoder, and as `gpt2` with code of its own, whose queries and keys/values are two matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .engine import Shape
from .errors import BackendError, NotComputedError
from .files import read_json
from .split import Network
from .tensors import unpack

if TYPE_CHECKING:
    from pathlib import Path

    from .tensors import Array

# What Hugging Face's GPT2Config and GPTBigCodeConfig mean by an absent key.
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
_BIGCODE_DEFAULTS = {"activation_function": "gelu_pytorch_tanh", "multi_query": True}
_ACTIVATIONS = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu")
_NORMS = {
    "ln_1": "input_layernorm",
    "ln_2": "post_layernorm",
}
_MATRICES = {
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.dense",
    "mlp.c_fc": "mlp.fc",
    "mlp.c_proj": "mlp.proj",
}


def read_config(directory: Path) -> dict[str, Any]:
    """The configuration with the family's defaults; BackendError for another model."""
    found = read_json(directory / "config.json")
    kind = found.get("model_type")
    if kind not in {"gpt2", "gpt_bigcode"}:
        raise NotComputedError(f"models of type {kind}", str(directory))
    more = _BIGCODE_DEFAULTS if kind == "gpt_bigcode" else {}
    config = {**DEFAULTS, **more, **found}
    if kind == "gpt_bigcode" and not config["multi_query"]:
        raise NotComputedError("multi_query = False", str(directory / "config.json"))
    expected = {
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "tie_word_embeddings": (True,),
        "activation_function": _ACTIVATIONS,
    }
    for key, values in expected.items():
        if config[key] not in values:
            raise NotComputedError(f"{key} = {config[key]}", str(directory / "config.json"))
    if config["n_embd"] % config["n_head"]:
        raise BackendError(
            f"{directory}: n_embd {config['n_embd']} is no multiple of n_head {config['n_head']}"
        )
    return config


def is_multi_query(config: dict[str, Any]) -> bool:
    """Whether all heads share one key and one value."""
    if config.get("model_type") == "gpt_bigcode":
        return bool(config["multi_query"])
    return config.get("attention_head_type") == "multiquery"  # SantaCoder's own code


def variant_of(config: dict[str, Any]) -> str:
    """What the releases call such a model: gpt2, santacoder or starcoder."""
    if config["model_type"] == "gpt_bigcode":
        return "starcoder"
    return "santacoder" if is_multi_query(config) else "gpt2"


def read_model(directory: Path) -> Network:
    """The whole model."""
    config = read_config(directory)
    shape = shape_of(config)
    source = {
        name.removeprefix("transformer."): value for name, value in read_weights(directory).items()
    }
    turned = config["model_type"] == "gpt2"  # GPT-2's matrices are [in, out]
    if turned and is_multi_query(config):
        _join_queries(source, shape.n_layer, directory)
    check_shapes(_shapes(shape, turned=turned), source, directory)
    weights = {
        "transformer.vocab_embedding.weight": source["wte.weight"],
        "transformer.position_embedding.weight": source["wpe.weight"],
        "transformer.ln_f.weight": source["ln_f.weight"],
        "transformer.ln_f.bias": source["ln_f.bias"],
    }
    for layer in range(shape.n_layer):
        old, new = f"h.{layer}.", f"transformer.layers.{layer}."
        for theirs, ours in {**_NORMS, **_MATRICES}.items():
            matrix = source[f"{old}{theirs}.weight"]
            weights[f"{new}{ours}.weight"] = matrix.T if turned and matrix.ndim > 1 else matrix
            weights[f"{new}{ours}.bias"] = source[f"{old}{theirs}.bias"]
    return Network(shape, weights, config)


def shape_of(config: dict[str, Any]) -> Shape:
    """What a configuration of the family says of the network."""
    return Shape(
        n_layer=config["n_layer"],
        n_head=config["n_head"],
        n_kv_head=1 if is_multi_query(config) else config["n_head"],
        head_size=config["n_embd"] // config["n_head"],
        hidden_size=config["n_embd"],
        inner_size=intermediate_size(config),
        vocab_size=config["vocab_size"],
        n_positions=config["n_positions"],
        norm="layer",
        norm_epsilon=config["layer_norm_epsilon"],
        activation=config["activation_function"],
    )


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
        if name in weights and weights[name].dtype != np.float32:
            raise NotComputedError("models that are quantized already", f"{directory}: {name}")
        found = weights[name].shape if name in weights else None
        if found != shape:
            raise BackendError(f"{directory}: {name}: expected shape {shape}, found {found}")


def intermediate_size(config: dict[str, Any]) -> int:
    """Width of the MLP: n_inner, or four times the hidden size."""
    return int(config["n_inner"] or 4 * config["n_embd"])


def _join_queries(source: dict[str, Array], n_layer: int, directory: Path) -> None:
    """SantaCoder's q_attn and kv_attn, [in, out], as the one c_attn of the others."""
    for layer in range(n_layer):
        name = f"h.{layer}.attn."
        for kind in ("weight", "bias"):
            try:
                parts = [source.pop(f"{name}{part}.{kind}") for part in ("q_attn", "kv_attn")]
            except KeyError as error:
                raise BackendError(f"{directory}: no tensor {error}") from None
            source[f"{name}c_attn.{kind}"] = np.concatenate(parts, axis=-1)


def _shapes(shape: Shape, *, turned: bool) -> dict[str, tuple[int, ...]]:
    hidden, inner = shape.hidden_size, shape.inner_size
    qkv = (shape.n_head + 2 * shape.n_kv_head) * shape.head_size
    expected: dict[str, tuple[int, ...]] = {
        "wte.weight": (shape.vocab_size, hidden),
        "wpe.weight": (shape.n_positions, hidden),
        "ln_f.weight": (hidden,),
        "ln_f.bias": (hidden,),
    }
    matrices = {
        "attn.c_attn": (qkv, hidden),
        "attn.c_proj": (hidden, hidden),
        "mlp.c_fc": (inner, hidden),
        "mlp.c_proj": (hidden, inner),
    }
    for layer in range(shape.n_layer):
        for name, (out, into) in matrices.items():
            expected[f"h.{layer}.{name}.weight"] = (into, out) if turned else (out, into)
            expected[f"h.{layer}.{name}.bias"] = (out,)
        for name in _NORMS:
            expected[f"h.{layer}.{name}.weight"] = expected[f"h.{layer}.{name}.bias"] = (hidden,)
    return expected
