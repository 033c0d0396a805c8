#!/usr/bin/env python3
"""Train the rehearsal's model: a GPT-2 small enough to be committed, good enough to be read.

Text: "Alice's Adventures in Wonderland" (Lewis Carroll, 1865; public domain), `alice29.txt`.
Everything is seeded and runs on one CPU thread, so two runs on one kind of machine with one
version of torch give the same weights. Other versions give a model that is as good, not the same
bytes; the committed files are the reference.

    python kit/examples/models/train_gpt2_tiny.py --output /tmp/gpt2-tiny
"""

from __future__ import annotations

import argparse
import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel

HERE = Path(__file__).resolve().parent
END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 384
CONTEXT = 256
# Window lengths in turn, so that the model has something to say after a short prompt too.
WINDOWS = (32, 64, 128, 256)
TOKENS_PER_STEP = 2048
SEED = 20


def read_text(path: Path) -> str:
    """The book as running text: one line per paragraph, no indentation, single spaces."""
    paragraphs = re.split(r"\n\s*\n", path.read_text(encoding="ascii"))
    return "\n".join(" ".join(p.split()) for p in paragraphs if p.strip(" *\n")) + "\n"


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level BPE in GPT-2's manner: all 256 bytes, the merges, the end-of-text mark last."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text], trainer)
    tokenizer.add_special_tokens([END_OF_TEXT])
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, output: Path) -> None:
    """tokenizer.json for the fast tokenizers, vocab.json and merges.txt for the others."""
    tokenizer.save(str(output / "tokenizer.json"))
    model = json.loads((output / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    vocabulary = {**model["vocab"], END_OF_TEXT: VOCABULARY - 1}
    ordered = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    write_json(output / "vocab.json", ordered)
    merges = "\n".join(m if isinstance(m, str) else " ".join(m) for m in model["merges"])
    (output / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    write_json(
        output / "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": END_OF_TEXT,
            "clean_up_tokenization_spaces": False,
            "eos_token": END_OF_TEXT,
            "model_max_length": CONTEXT,
            "tokenizer_class": "GPT2Tokenizer",
            "unk_token": END_OF_TEXT,
        },
    )


def write_json(path: Path, value: dict[str, Any]) -> None:
    """JSON with two spaces and a final newline."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def new_model() -> GPT2LMHeadModel:
    """The untrained model: 4 heads, so that 2 and 4 ranks can share it."""
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=CONTEXT,
            n_embd=96,
            n_layer=3,
            n_head=4,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=VOCABULARY - 1,
            eos_token_id=VOCABULARY - 1,
        )
    )


def openings(ids: list[int], tokenizer: Tokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Where prompts would begin: the places after a line's end, and those where a word begins."""
    pieces = [tokenizer.id_to_token(i) for i in range(VOCABULARY)]
    usable = range(1, len(ids) - CONTEXT)
    lines = [i for i in usable if pieces[ids[i - 1]].endswith("Ċ")]
    words = [i for i in usable if pieces[ids[i]].startswith("Ġ")]
    return torch.tensor([0, *lines]), torch.tensor(words)


def train(
    model: GPT2LMHeadModel,
    tokens: torch.Tensor,
    starts: tuple[torch.Tensor, torch.Tensor],
    steps: int,
    rate: float,
) -> float:
    """Minimise the loss on windows of the text; returns the mean over the last hundred steps."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    warm_up = min(100, steps)
    generator = torch.Generator().manual_seed(SEED)
    recent: list[float] = []
    model.train()
    for step in range(steps):
        progress = step / max(1, steps - 1)
        scale = min(1.0, (step + 1) / warm_up) * (0.02 + 0.49 * (1 + math.cos(math.pi * progress)))
        for group in optimizer.param_groups:
            group["lr"] = rate * scale
        length = WINDOWS[step % len(WINDOWS)]
        half = TOKENS_PER_STEP // length // 2
        picked = [
            int(places[i])
            for places in starts
            for i in torch.randint(len(places), (half,), generator=generator).tolist()
        ]
        batch = torch.stack([tokens[s : s + length] for s in picked])
        loss = model(input_ids=batch, labels=batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent = [*recent[-99:], loss.item()]
        if step % 100 == 0:
            print(f"step {step:5d}  loss {sum(recent) / len(recent):.4f}", flush=True)
    return sum(recent) / len(recent)


def save_model(model: GPT2LMHeadModel, output: Path) -> None:
    """model.safetensors in float16, config.json with the key names that older readers know."""
    model.half().save_pretrained(output)
    (output / "model.safetensors").chmod(0o644)
    (output / "generation_config.json").unlink(missing_ok=True)
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))
    config.pop("dtype", None)
    config.update(tie_word_embeddings=True, torch_dtype="float16")
    write_json(output / "config.json", dict(sorted(config.items())))


def main() -> None:
    """Train and write the Hugging Face directory."""
    parser = argparse.ArgumentParser(description="train the rehearsal's GPT-2")
    parser.add_argument("--text", type=Path, default=HERE / "alice29.txt")
    parser.add_argument("--output", type=Path, default=HERE / "gpt2-tiny")
    parser.add_argument("--steps", type=int, default=4500)
    parser.add_argument("--learning-rate", type=float, default=4e-3)
    args = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    torch.use_deterministic_algorithms(mode=True)
    args.output.mkdir(parents=True, exist_ok=True)

    text = read_text(args.text)
    tokenizer = train_tokenizer(text)
    save_tokenizer(tokenizer, args.output)
    ids = tokenizer.encode(text).ids
    tokens = torch.tensor(ids)
    model = new_model()
    print(f"{len(text)} characters, {len(tokens)} tokens, {model.num_parameters()} parameters")
    loss = train(model, tokens, openings(ids, tokenizer), args.steps, args.learning_rate)
    print(f"final loss {loss:.4f}")
    save_model(model, args.output)


if __name__ == "__main__":
    main()
