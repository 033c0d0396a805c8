"""Greedy generation, one sequence after the other.

No padding and no batching in the arithmetic, so a prompt's tokens do not depend on its neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from .engine import LlamaShape, ModelShape
    from .gpt2 import Cache
    from .tensors import Array


@dataclass(frozen=True, slots=True)
class Generated:
    """One sequence: what was generated (without the end token) and the logits on the way.

    context_logits is [prompt, vocabulary]; generation_logits and log_probs have one entry per
    generated token, the end token's included.
    """

    prompt: list[int]
    tokens: list[int]
    context_logits: Array
    generation_logits: Array
    log_probs: Array


class Model(Protocol):
    """One rank's share of a model that can be asked for logits."""

    @property
    def shape(self) -> ModelShape | LlamaShape:
        """Sizes."""
        ...

    def cache(self, capacity: int) -> Cache:
        """An empty cache."""
        ...

    def logits(self, tokens: list[int], cache: Cache, *, last_only: bool) -> Array:
        """Logits after each new token, or after the last one only."""
        ...


def generate(model: Model, prompt: list[int], max_output_len: int, end_id: int | None) -> Generated:
    """Take the likeliest token until the end token or the length; ties go to the lower id."""
    cache = model.cache(len(prompt) + max_output_len)
    context = model.logits(prompt, cache, last_only=False)
    vocabulary = model.shape.vocab_size
    tokens: list[int] = []
    rows: list[Array] = []
    log_probs: list[float] = []
    row = context[-1]
    while len(rows) < max_output_len:
        token = int(np.argmax(row[:vocabulary]))
        rows.append(row)
        log_probs.append(_log_softmax(row[:vocabulary], token))
        if token == end_id:
            break
        tokens.append(token)
        if len(rows) < max_output_len:
            row = model.logits([token], cache, last_only=True)[-1]
    return Generated(
        prompt=prompt,
        tokens=tokens,
        context_logits=context,
        generation_logits=np.stack(rows) if rows else context[:0],
        log_probs=np.array(log_probs, dtype=np.float32),
    )


def _log_softmax(row: Array, token: int) -> float:
    shifted = row - row.max()
    return float(shifted[token] - np.log(np.exp(shifted).sum()))
