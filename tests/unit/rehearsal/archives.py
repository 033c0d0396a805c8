"""Tiny NeMo archives: a GPT-Next with random weights, its tokenizer, prompt tables."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml

from tests.conftest import peer

if TYPE_CHECKING:
    from pathlib import Path

LAYERS, HEADS, HIDDEN, INNER, POSITIONS = 4, 4, 32, 48, 96
CONFIG: dict[str, Any] = {
    "num_layers": LAYERS,
    "num_attention_heads": HEADS,
    "hidden_size": HIDDEN,
    "ffn_hidden_size": INNER,
    "max_position_embeddings": POSITIONS,
    "layernorm_epsilon": 1e-5,
    "activation": "fast-swiglu",
    "normalization": "layernorm1p",
    "bias": False,
    "position_embedding_type": "rope",
    "rotary_percentage": 0.5,
    "share_embeddings_and_output_weights": False,
    "tokenizer": {
        "library": "sentencepiece",
        "type": None,
        "model": "nemo:0123abcd_tokenizer.model",
        "vocab_file": None,
        "merge_file": None,
    },
}


@dataclass
class GptNext:
    """The whole network, under Megatron's names, and its configuration."""

    vocabulary: int
    config: dict[str, Any] = field(default_factory=lambda: {**CONFIG})
    seed: int = 5

    def __post_init__(self) -> None:
        torch = peer("torch")
        torch.manual_seed(self.seed)
        inner = INNER * (2 if "swiglu" in self.config["activation"] else 1)
        bias = self.config["bias"]

        def made(*sizes: int):
            return torch.randn(*sizes) * 0.3

        self.weights = {"embedding.word_embeddings.weight": made(self.vocabulary, HIDDEN)}
        if self.config["position_embedding_type"] != "rope":
            self.weights["embedding.position_embeddings.weight"] = made(POSITIONS, HIDDEN)
        if not self.config["share_embeddings_and_output_weights"]:
            self.weights["output_layer.weight"] = made(self.vocabulary, HIDDEN)
        for name in ("weight", "bias"):
            self.weights[f"encoder.final_layernorm.{name}"] = made(HIDDEN) * 0.3
        for layer in range(LAYERS):
            place = f"encoder.layers.{layer}."
            for norm in ("input_layernorm", "post_attention_layernorm"):
                for name in ("weight", "bias"):
                    self.weights[f"{place}{norm}.{name}"] = made(HIDDEN) * 0.3
            for name, sizes in {
                "self_attention.query_key_value": (3 * HIDDEN, HIDDEN),
                "self_attention.dense": (HIDDEN, HIDDEN),
                "mlp.dense_h_to_4h": (inner, HIDDEN),
                "mlp.dense_4h_to_h": (HIDDEN, INNER),
            }.items():
                self.weights[f"{place}{name}.weight"] = made(*sizes)
                if bias:
                    self.weights[f"{place}{name}.bias"] = made(sizes[0]) * 0.3

    def logits(self, ids: list[int]):
        """After every token, computed in the plainest way there is."""
        torch = peer("torch")
        functional = torch.nn.functional
        config, weights = self.config, self.weights
        plus = 1.0 if config["normalization"] == "layernorm1p" else 0.0

        def norm(x, name):
            scale, shift = weights[f"{name}.weight"] + plus, weights[f"{name}.bias"]
            return functional.layer_norm(x, (HIDDEN,), scale, shift, config["layernorm_epsilon"])

        def linear(x, name):
            return functional.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

        x = weights["embedding.word_embeddings.weight"][torch.tensor(ids)]
        if "embedding.position_embeddings.weight" in weights:
            x = x + weights["embedding.position_embeddings.weight"][: len(ids)]
        mask = torch.full((len(ids), len(ids)), float("-inf")).triu(1)
        for layer in range(LAYERS):
            place = f"encoder.layers.{layer}."
            mixed = linear(
                norm(x, place + "input_layernorm"), place + "self_attention.query_key_value"
            )
            heads = mixed.reshape(len(ids), HEADS, 3, HIDDEN // HEADS).permute(2, 1, 0, 3)
            query, key, value = heads
            if config["position_embedding_type"] == "rope":
                query, key = self._turned(query), self._turned(key)
            scores = query @ key.transpose(1, 2) / (HIDDEN // HEADS) ** 0.5 + mask
            heads = (scores.softmax(-1) @ value).transpose(0, 1).reshape(len(ids), HIDDEN)
            x = x + linear(heads, place + "self_attention.dense")
            inner = linear(norm(x, place + "post_attention_layernorm"), place + "mlp.dense_h_to_4h")
            if "swiglu" in config["activation"]:
                first, second = inner.chunk(2, -1)
                inner = functional.silu(first) * second
            else:
                inner = functional.gelu(inner, approximate="tanh")
            x = x + linear(inner, place + "mlp.dense_4h_to_h")
        table = weights.get("output_layer.weight", weights["embedding.word_embeddings.weight"])
        return norm(x, "encoder.final_layernorm") @ table.T

    def greedy(self, ids: list[int], count: int) -> list[int]:
        made = list(ids)
        for _ in range(count):
            made.append(int(self.logits(made)[-1].argmax()))
        return made[len(ids) :]

    def _turned(self, x):
        torch = peer("torch")
        width = int(HIDDEN // HEADS * self.config["rotary_percentage"])
        rates = 10000.0 ** (-torch.arange(0, width, 2).float() / width)
        angles = torch.arange(x.shape[1]).float()[:, None] * rates
        angles = torch.cat([angles, angles], -1)
        part, rest = x[..., :width], x[..., width:]
        first, second = part.chunk(2, -1)
        part = part * angles.cos() + torch.cat([-second, first], -1) * angles.sin()
        return torch.cat([part, rest], -1)

    def save(self, path: Path, tokenizer: bytes, tp: int = 1, pp: int = 1, mode: str = "w") -> Path:
        """The archive as a training on tp x pp ranks leaves it."""
        config = {
            **self.config,
            "tensor_model_parallel_size": tp,
            "pipeline_model_parallel_size": pp,
        }
        files = {"./model_config.yaml": yaml.safe_dump(config).encode()}
        files["./0123abcd_tokenizer.model"] = tokenizer
        for rank in range(tp):
            for stage in range(pp):
                folder = f"mp_rank_{rank:02d}/" if tp > 1 else ""
                folder = f"tp_rank_{rank:02d}_pp_rank_{stage:03d}/" if pp > 1 else folder
                part = self._part(rank, stage, tp, pp)
                files[f"./{folder}model_weights.ckpt"] = stored(part)
        return archived(path, files, mode)

    def _part(self, rank: int, stage: int, tp: int, pp: int) -> dict[str, Any]:
        part = {}
        for name, value in self.weights.items():
            if name.startswith("encoder.layers."):
                number, _, rest = name.removeprefix("encoder.layers.").partition(".")
                of = int(number) // (LAYERS // pp)
                local = f"encoder.layers.{int(number) % (LAYERS // pp)}.{rest}"
            else:
                of, local = (0 if name.startswith("embedding") else pp - 1), name
            if of == stage:
                part[f"model.language_model.{local}"] = self._cut(name, value, rank, tp)
        return part

    def _cut(self, name: str, value, rank: int, tp: int):
        if "word_embeddings" in name or "output_layer" in name or "query_key_value" in name:
            return value.chunk(tp)[rank].clone()
        if "dense_h_to_4h" in name:
            halves = value.chunk(2) if "swiglu" in self.config["activation"] else (value,)
            return peer("torch").cat([half.chunk(tp)[rank] for half in halves])
        if name.endswith(("dense.weight", "4h_to_h.weight")):
            return value.chunk(tp, 1)[rank].clone()
        return value


def stored(value: Any) -> bytes:
    data = io.BytesIO()
    peer("torch").save(value, data)
    return data.getvalue()


def archived(path: Path, files: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def sentencepiece_model(text: str, vocabulary: int = 96) -> bytes:
    """A real SentencePiece model, with the control tokens that T5's tokenizer expects."""
    trainer = peer("sentencepiece").SentencePieceTrainer
    model = io.BytesIO()
    trainer.train(
        sentence_iterator=iter(text.splitlines()), model_writer=model, vocab_size=vocabulary,
        model_type="bpe", bos_id=1, eos_id=2, unk_id=0, pad_id=3, character_coverage=1.0,
        num_threads=1, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()
