"""How tensors are cut for tensor parallelism, and what they are called on a rank.

The names are those of a TensorRT-LLM checkpoint (`transformer.layers.0.attention.qkv.weight` …);
matrices are [out, in]. Column-parallel: qkv (by heads within q, k and v) and fc; row-parallel:
dense and proj; by vocabulary: lm_head, padded with zero rows to a multiple of the ranks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import BackendError

if TYPE_CHECKING:
    from .huggingface import HuggingFaceModel
    from .tensors import Array


def check_split(n_head: int, inner: int, tp_size: int) -> None:
    """BackendError when heads or MLP cannot be shared evenly."""
    if tp_size < 1:
        raise BackendError(f"tensor parallelism {tp_size}: expected 1 or more")
    for what, number in (("attention heads", n_head), ("MLP columns", inner)):
        if number % tp_size:
            raise BackendError(f"{number} {what} cannot be shared evenly by {tp_size} ranks")


def padded_vocabulary(vocab_size: int, tp_size: int) -> int:
    """The vocabulary rounded up to a multiple of the ranks."""
    return -(-vocab_size // tp_size) * tp_size


def split_vocabulary(weight: Array, rank: int, tp_size: int) -> Array:
    """One rank's rows of the output embedding, zero rows at the end where it is padded."""
    missing = padded_vocabulary(len(weight), tp_size) - len(weight)
    return np.split(np.pad(weight, ((0, missing), (0, 0))), tp_size)[rank]


def split_qkv(matrix: Array, rank: int, tp_size: int) -> Array:
    """One rank's columns of a [..., 3 * hidden] array, taken from q, k and v alike."""
    hidden = matrix.shape[-1] // 3
    thirds = matrix.reshape(*matrix.shape[:-1], 3, hidden)
    part = np.split(thirds, tp_size, axis=-1)[rank]
    return part.reshape(*matrix.shape[:-1], -1)


def rank_weights(
    model: HuggingFaceModel, rank: int, tp_size: int, *, share_embedding: bool = False
) -> dict[str, Array]:
    """The tensors of one rank's checkpoint."""
    source = model.weights
    weights: dict[str, Array] = {
        "transformer.vocab_embedding.weight": source["wte.weight"],
        "transformer.position_embedding.weight": source["wpe.weight"],
        "transformer.ln_f.weight": source["ln_f.weight"],
        "transformer.ln_f.bias": source["ln_f.bias"],
    }
    if not share_embedding:
        weights["lm_head.weight"] = split_vocabulary(source["wte.weight"], rank, tp_size)
    for layer in range(model.config["n_layer"]):
        old, new = f"h.{layer}.", f"transformer.layers.{layer}."
        qkv = split_qkv(source[old + "attn.c_attn.weight"], rank, tp_size)
        weights[new + "input_layernorm.weight"] = source[old + "ln_1.weight"]
        weights[new + "input_layernorm.bias"] = source[old + "ln_1.bias"]
        weights[new + "attention.qkv.weight"] = qkv.T
        weights[new + "attention.qkv.bias"] = split_qkv(
            source[old + "attn.c_attn.bias"], rank, tp_size
        )
        dense = np.split(source[old + "attn.c_proj.weight"], tp_size, axis=0)[rank]
        weights[new + "attention.dense.weight"] = dense.T
        weights[new + "attention.dense.bias"] = source[old + "attn.c_proj.bias"]
        weights[new + "post_layernorm.weight"] = source[old + "ln_2.weight"]
        weights[new + "post_layernorm.bias"] = source[old + "ln_2.bias"]
        fc = np.split(source[old + "mlp.c_fc.weight"], tp_size, axis=1)[rank]
        weights[new + "mlp.fc.weight"] = fc.T
        weights[new + "mlp.fc.bias"] = np.split(source[old + "mlp.c_fc.bias"], tp_size)[rank]
        proj = np.split(source[old + "mlp.c_proj.weight"], tp_size, axis=0)[rank]
        weights[new + "mlp.proj.weight"] = proj.T
        weights[new + "mlp.proj.bias"] = source[old + "mlp.c_proj.bias"]
    return weights
