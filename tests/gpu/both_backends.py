"""TensorRT's logits beside NumPy's, for networks of every kind: runs inside the image, on a GPU.

Prints a line of JSON for each: name, type, largest difference as a share of the largest logit, and
whether the greedy tokens of both are the same.
"""

import json
from pathlib import Path

import numpy as np
from kit_rehearsal import tensorrt_backend
from kit_rehearsal.communicator import SingleRank
from kit_rehearsal.decoder import Decoder
from kit_rehearsal.engine import Engine, Shape, read
from kit_rehearsal.generation import generate

KINDS = {
    "gpt": Shape(2, 4, 4, 32, 128, 512, 300, 64, "layer", 1e-5, "gelu"),
    "llama": Shape(2, 4, 2, 32, 128, 344, 300, 64, "rms", 1e-5, "silu", rotary_dim=32),
    "neox": Shape(2, 4, 4, 32, 128, 344, 300, 64, "layer", 1e-5, "relu", rotary_dim=16),
}


def weights(shape):
    noise = np.random.default_rng(1)

    def drawn(*sizes, around=0.0):
        values = around + 0.05 * noise.standard_normal(sizes)
        return values.astype(np.float16).astype(np.float32)

    hidden, has_bias = shape.hidden_size, shape.norm == "layer"
    queries, kv = shape.n_head * shape.head_size, shape.n_kv_head * shape.head_size
    made = {"transformer.vocab_embedding.weight": 10 * drawn(shape.vocab_size, hidden)}
    if shape.rotary_dim:
        made["lm_head.weight"] = drawn(shape.vocab_size, hidden)
    else:
        made["transformer.position_embedding.weight"] = drawn(shape.n_positions, hidden)
    norms = ["transformer.ln_f"]
    matrices = {}
    for layer in range(shape.n_layer):
        name = f"transformer.layers.{layer}."
        norms += [f"{name}input_layernorm", f"{name}post_layernorm"]
        matrices[f"{name}attention.qkv"] = (queries + 2 * kv, hidden)
        matrices[f"{name}attention.dense"] = (hidden, queries)
        matrices[f"{name}mlp.fc"] = (shape.inner_size, hidden)
        matrices[f"{name}mlp.proj"] = (hidden, shape.inner_size)
        if shape.activation == "silu":
            matrices[f"{name}mlp.gate"] = (shape.inner_size, hidden)
    for name in norms:
        made[f"{name}.weight"] = drawn(hidden, around=1.0)
        if has_bias:
            made[f"{name}.bias"] = drawn(hidden)
    for name, sizes in matrices.items():
        made[f"{name}.weight"] = drawn(*sizes)
        if has_bias:
            made[f"{name}.bias"] = drawn(sizes[0])
    return made


def main():
    prompt = [int(token) for token in np.random.default_rng(2).integers(0, 300, 20)]
    for name, shape in KINDS.items():
        for dtype in ("float32", "float16"):
            given = Engine("0.16.0", 0, 1, 1, dtype, shape, weights(shape))
            path = Path("/tmp") / "rank0.engine"
            tensorrt_backend.built(given, None).write(path)
            model, peer = tensorrt_backend.PlanModel(read(path)), Decoder(given, SingleRank())
            found = model.logits(prompt, model.cache(40), last_only=False)
            expected = peer.logits(prompt, peer.cache(40), last_only=False)
            said = [generate(one, prompt, 20, None).tokens for one in (model, peer)]
            distance = float(np.abs(found - expected).max() / np.abs(expected).max())
            told = {"name": name, "dtype": dtype, "distance": distance, "same": said[0] == said[1]}
            print(json.dumps(told))


if __name__ == "__main__":
    main()
