"""Generation, one sequence after the other: greedy, drawn, or by beam search.

No padding and no batching in the arithmetic, so a prompt's tokens do not depend on its neighbours.
Every rank has the same logits and chooses the same tokens.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .sampling import GREEDY, NO_WORDS, Chooser, Sampling, Words, log_softmax

if TYPE_CHECKING:
    from .engine import Shape
    from .kv_cache import KvCache
    from .tensors import Array


@dataclass(frozen=True)
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
    def shape(self) -> Shape:
        """Sizes."""
        ...

    def cache(self, capacity: int) -> KvCache:
        """An empty cache."""
        ...

    def logits(
        self,
        tokens: list[int],
        cache: KvCache,
        *,
        last_only: bool,
        virtual: Array | None = None,
    ) -> Array:
        """Logits after each new token, or after the last one only.

        `virtual` has the vectors of the tokens beyond the vocabulary, in their order.
        """
        ...


def sequences(
    model: Model,
    prompt: list[int],
    max_output_len: int,
    end_id: int | None,
    sampling: Sampling = GREEDY,
    virtual: Array | None = None,
    words: Words = NO_WORDS,
) -> list[Generated]:
    """What is generated for a prompt: one sequence, or the beams, best first."""
    if sampling.num_beams == 1:
        return [generate(model, prompt, max_output_len, end_id, sampling, virtual, words)]
    return beams(model, prompt, max_output_len, end_id, sampling, virtual)


def generate(
    model: Model,
    prompt: list[int],
    max_output_len: int,
    end_id: int | None,
    sampling: Sampling = GREEDY,
    virtual: Array | None = None,
    words: Words = NO_WORDS,
) -> Generated:
    """Choose token after token until the end token, a stop word or the length."""
    cache = model.cache(len(prompt) + max_output_len)
    context = model.logits(prompt, cache, last_only=False, virtual=virtual)
    vocabulary = model.shape.vocab_size
    chooser = Chooser(sampling, words)
    tokens: list[int] = []
    rows: list[Array] = []
    log_probs: list[float] = []
    row = context[-1]
    while len(rows) < max_output_len:
        token = chooser.choose(row[:vocabulary], [*prompt, *tokens])
        rows.append(row)
        log_probs.append(float(log_softmax(row[:vocabulary])[token]))
        if token == end_id:
            break
        tokens.append(token)
        if words.ends(tokens):
            break
        if len(rows) < max_output_len:
            row = model.logits([token], cache, last_only=True)[-1]
    return Generated(
        prompt=prompt,
        tokens=tokens,
        context_logits=context,
        generation_logits=np.stack(rows) if rows else context[:0],
        log_probs=np.array(log_probs, dtype=np.float32),
    )


@dataclass(frozen=True)
class _Beam:
    """A sequence that is looked at: its tokens, their log probabilities, the logits before each."""

    tokens: list[int]
    log_probs: list[float]
    rows: list[Array]
    cache: KvCache

    @property
    def total(self) -> float:
        return sum(self.log_probs)


def beams(
    model: Model,
    prompt: list[int],
    max_output_len: int,
    end_id: int | None,
    sampling: Sampling,
    virtual: Array | None = None,
) -> list[Generated]:
    """The best sequences of a beam search, best first.

    Of the candidates of a step the best that do not end go on; one that ends is kept when it is
    among the first `num_beams`. Ties go to the earlier beam and the lower token.
    """
    width, vocabulary = sampling.num_beams, model.shape.vocab_size
    cache = model.cache(len(prompt) + max_output_len)
    context = model.logits(prompt, cache, last_only=False, virtual=virtual)
    running = [_Beam([], [], [], cache)]
    last = [context[-1]]
    finished: list[tuple[float, _Beam]] = []
    for step in range(1, max_output_len + 1):
        going: list[_Beam] = []
        for rank, beam in enumerate(_extended(running, last, vocabulary, 2 * width)):
            if beam.tokens[-1] == end_id:
                if rank < width:
                    finished.append((_score(beam, sampling), beam))
            elif len(going) < width:
                going.append(beam)
        finished = sorted(finished, key=lambda one: -one[0])[:width]
        # Two children of one parent go different ways from here on.
        running = [replace(beam, cache=copy.deepcopy(beam.cache)) for beam in going]
        if step == max_output_len or _is_done(finished, running, sampling):
            break
        last = [model.logits(b.tokens[-1:], b.cache, last_only=True)[-1] for b in running]
    if len(finished) < width or not sampling.early_stopping:
        finished += [(_score(beam, sampling), beam) for beam in running]
        finished = sorted(finished, key=lambda one: -one[0])[:width]
    return [
        Generated(
            prompt=prompt,
            tokens=beam.tokens[:-1] if beam.tokens[-1:] == [end_id] else beam.tokens,
            context_logits=context,
            generation_logits=np.stack(beam.rows),
            log_probs=np.array(beam.log_probs, dtype=np.float32),
        )
        for _, beam in finished
    ]


def _extended(running: list[_Beam], last: list[Array], vocabulary: int, count: int) -> list[_Beam]:
    """The best sequences that are one token longer, best first, still with their parents' cache."""
    logs = np.stack([log_softmax(row[:vocabulary]) for row in last])
    totals = np.array([beam.total for beam in running])[:, None] + logs
    made = []
    for place in np.argsort(-totals.ravel(), kind="stable")[:count]:
        parent, token = divmod(int(place), vocabulary)
        old = running[parent]
        made.append(
            _Beam(
                tokens=[*old.tokens, token],
                log_probs=[*old.log_probs, float(logs[parent, token])],
                rows=[*old.rows, last[parent]],
                cache=old.cache,
            )
        )
    return made


def _score(beam: _Beam, sampling: Sampling) -> float:
    return beam.total / float(len(beam.tokens) ** sampling.length_penalty)


def _is_done(finished: list[tuple[float, _Beam]], running: list[_Beam], sampling: Sampling) -> bool:
    if len(finished) < sampling.num_beams:
        return False
    if sampling.early_stopping:
        return True
    # No beam can become better than the worst finished one by going on at its best.
    return max(_score(beam, sampling) for beam in running) <= finished[-1][0]
