"""The checkpoint of 0.5.0 to 0.8.0: `<out>/<tp>-gpu/config.ini` and raw `model.*.bin` files.

Matrices keep Hugging Face's orientation, [in, out]. Tensors that are cut carry the rank in their
name (`model.layers.0.mlp.dense_h_to_4h.weight.1.bin`), the others do not.
"""

from __future__ import annotations

import configparser
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import BACKEND, VERSION
from .errors import BackendError
from .files import write_bytes, write_text
from .split import split_qkv, split_vocabulary
from .tensors import decode, encode

if TYPE_CHECKING:
    from pathlib import Path

    from .huggingface import HuggingFaceModel
    from .tensors import Array

_WHOLE = {
    "input_layernorm.weight": "ln_1.weight",
    "input_layernorm.bias": "ln_1.bias",
    "attention.dense.bias": "attn.c_proj.bias",
    "post_attention_layernorm.weight": "ln_2.weight",
    "post_attention_layernorm.bias": "ln_2.bias",
    "mlp.dense_4h_to_h.bias": "mlp.c_proj.bias",
}
_SPLIT = {
    "attention.query_key_value.weight": "attn.c_attn.weight",
    "attention.query_key_value.bias": "attn.c_attn.bias",
    "attention.dense.weight": "attn.c_proj.weight",
    "mlp.dense_h_to_4h.weight": "mlp.c_fc.weight",
    "mlp.dense_h_to_4h.bias": "mlp.c_fc.bias",
    "mlp.dense_4h_to_h.weight": "mlp.c_proj.weight",
}


@dataclass(frozen=True, slots=True)
class FtConfig:
    """What the build reads from config.ini."""

    n_embd: int
    n_head: int
    n_layer: int
    n_positions: int
    vocab_size: int
    inter_size: int
    hidden_act: str
    dtype: str
    layer_norm_epsilon: float


def write(
    directory: Path, model: HuggingFaceModel, arguments: dict[str, Any], dtype: str, tp_size: int
) -> None:
    """Write the folder; `arguments` are the command's own, which the release records."""
    config = configparser.RawConfigParser()
    entries = {
        **arguments,
        **model.config,
        "storage_dtype": dtype,
        "multi_query_mode": False,
    }
    config["gpt"] = {key: str(value) for key, value in entries.items()}
    config["rehearsal"] = {"backend": BACKEND, "backend_version": VERSION}
    text = io.StringIO()
    config.write(text)

    def save(name: str, values: Array) -> None:
        write_bytes(directory / f"model.{name}.bin", encode(values, dtype))

    weights = model.weights
    save("wpe", weights["wpe.weight"])
    save("wte", weights["wte.weight"])
    save("final_layernorm.weight", weights["ln_f.weight"])
    save("final_layernorm.bias", weights["ln_f.bias"])
    for layer in range(model.config["n_layer"]):
        for name, source in _WHOLE.items():
            save(f"layers.{layer}.{name}", weights[f"h.{layer}.{source}"])
        for name, source in _SPLIT.items():
            for rank in range(tp_size):
                part = _cut(name, weights[f"h.{layer}.{source}"], rank, tp_size)
                save(f"layers.{layer}.{name}.{rank}", part)
    write_text(directory / "config.ini", text.getvalue())


def read_config(directory: Path) -> FtConfig:
    """The model's configuration from config.ini."""
    path = directory / "config.ini"
    parsed = configparser.RawConfigParser()
    if not parsed.read(path, encoding="utf-8"):
        raise BackendError(f"{path}: no such file; --model_dir is the folder <out-dir>/<tp>-gpu")
    try:
        section = parsed["gpt"]
        n_embd = int(section["n_embd"])
        return FtConfig(
            n_embd=n_embd,
            n_head=int(section["n_head"]),
            n_layer=int(section["n_layer"]),
            n_positions=int(section["n_positions"]),
            vocab_size=int(section["vocab_size"]),
            # The release reads intermediate_size, which GPT-2 has not, and ignores n_inner.
            inter_size=int(section.get("intermediate_size", str(4 * n_embd))),
            hidden_act=section["activation_function"],
            dtype=section.get("storage_dtype", "float32"),
            layer_norm_epsilon=float(section.get("layer_norm_epsilon", "1e-05")),
        )
    except (KeyError, ValueError) as error:
        raise BackendError(f"{path}: section gpt: {error}") from error


def read_rank(
    directory: Path, config: FtConfig, rank: int, tp_size: int, *, share_embedding: bool
) -> dict[str, Array]:
    """One rank's weights under the names that engines use, matrices turned to [out, in]."""
    hidden, part = config.n_embd, config.n_embd // tp_size
    inner = config.inter_size // tp_size

    def load(name: str, *shape: int) -> Array:
        path = directory / f"model.{name}.bin"
        try:
            return decode(path.read_bytes(), config.dtype, shape)
        except FileNotFoundError:
            raise BackendError(f"{path}: no such file; was it made for {tp_size} ranks?") from None
        except BackendError as error:
            raise BackendError(f"{path}: {error}") from error

    embedding = load("wte", config.vocab_size, hidden)
    weights: dict[str, Array] = {
        "transformer.vocab_embedding.weight": embedding,
        "transformer.position_embedding.weight": load("wpe", config.n_positions, hidden),
        "transformer.ln_f.weight": load("final_layernorm.weight", hidden),
        "transformer.ln_f.bias": load("final_layernorm.bias", hidden),
    }
    if not share_embedding:
        weights["lm_head.weight"] = split_vocabulary(embedding, rank, tp_size)
    for layer in range(config.n_layer):
        old, new = f"layers.{layer}.", f"transformer.layers.{layer}."
        qkv = old + "attention.query_key_value."
        weights[new + "input_layernorm.weight"] = load(old + "input_layernorm.weight", hidden)
        weights[new + "input_layernorm.bias"] = load(old + "input_layernorm.bias", hidden)
        weights[new + "attention.qkv.weight"] = load(f"{qkv}weight.{rank}", hidden, 3 * part).T
        weights[new + "attention.qkv.bias"] = load(f"{qkv}bias.{rank}", 3 * part)
        dense = load(f"{old}attention.dense.weight.{rank}", part, hidden)
        weights[new + "attention.dense.weight"] = dense.T
        weights[new + "attention.dense.bias"] = load(old + "attention.dense.bias", hidden)
        post = old + "post_attention_layernorm."
        weights[new + "post_layernorm.weight"] = load(post + "weight", hidden)
        weights[new + "post_layernorm.bias"] = load(post + "bias", hidden)
        fc = load(f"{old}mlp.dense_h_to_4h.weight.{rank}", hidden, inner)
        weights[new + "mlp.fc.weight"] = fc.T
        weights[new + "mlp.fc.bias"] = load(f"{old}mlp.dense_h_to_4h.bias.{rank}", inner)
        proj = load(f"{old}mlp.dense_4h_to_h.weight.{rank}", inner, hidden)
        weights[new + "mlp.proj.weight"] = proj.T
        weights[new + "mlp.proj.bias"] = load(old + "mlp.dense_4h_to_h.bias", hidden)
    return weights


def _cut(name: str, values: Array, rank: int, tp_size: int) -> Array:
    if name.startswith("attention.query_key_value"):
        return split_qkv(values, rank, tp_size)
    axis = -1 if name.startswith("mlp.dense_h_to_4h") else 0
    return np.split(values, tp_size, axis=axis)[rank]
