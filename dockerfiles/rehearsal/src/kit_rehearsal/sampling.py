"""How the next token is chosen: the likeliest, or drawn with temperature, top-k and top-p."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import BackendError, NotComputedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .tensors import Array


@dataclass(frozen=True)
class Sampling:
    """What a request says of it, as TensorRT-LLM means it.

    Attributes:
        top_k: how many of the likeliest tokens may be drawn; 0 for all.
        top_p: the share of probability from which is drawn; 0 for all of it.
        random_seed: each sequence draws from a generator of its own with this seed, so that its
            tokens depend on neither its neighbours nor the rank.
        num_beams: more than 1 is a beam search, which draws nothing.
        length_penalty: a beam's score is its log probability over its length to this power.
        early_stopping: of the beam search: 1 ends it once there are enough finished beams, 0 when
            no better one can be expected.
    """

    temperature: float = 1.0
    top_k: int = 1
    top_p: float = 0.0
    random_seed: int = 0
    num_beams: int = 1
    length_penalty: float = 1.0
    early_stopping: int = 1

    def __post_init__(self) -> None:
        for name, value, well, wanted in (
            ("temperature", self.temperature, self.temperature > 0, "more than 0"),
            ("top_k", self.top_k, self.top_k >= 0, "0 or more"),
            ("top_p", self.top_p, 0 <= self.top_p <= 1, "0 to 1"),
            ("num_beams", self.num_beams, self.num_beams >= 1, "1 or more"),
        ):
            if not well:
                raise BackendError(f"--{name} {value}: expected {wanted}")
        if self.early_stopping not in {0, 1}:
            asked = f"--early_stopping {self.early_stopping}"
            raise NotComputedError("beam searches that never stop early", asked)

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn: neither top-k nor top-p leaves a choice."""
        return self.top_k == 1 or (self.top_k == 0 and self.top_p == 0)


GREEDY = Sampling()


@dataclass(frozen=True)
class Words:
    """Token sequences of a request: after one of `stop` it ends, one of `bad` is never said."""

    stop: tuple[tuple[int, ...], ...] = ()
    bad: tuple[tuple[int, ...], ...] = ()

    def ends(self, tokens: Sequence[int]) -> bool:
        """Whether the generated tokens end with a stop word."""
        return any(word and tuple(tokens[-len(word) :]) == word for word in self.stop)

    def allowed(self, row: Array, before: Sequence[int]) -> Array:
        """The logits, those of tokens that would complete a bad word at minus infinity."""
        banned = [
            word[-1]
            for word in self.bad
            if word and tuple(before[len(before) - len(word) + 1 :]) == word[:-1]
        ]
        if not banned:
            return row
        row = row.copy()
        row[banned] = -np.inf
        return row


NO_WORDS = Words()


class Chooser:
    """Chooses one sequence's tokens, always the same for the same logits."""

    def __init__(self, sampling: Sampling, words: Words = NO_WORDS) -> None:
        self._sampling = sampling
        self._words = words
        self._random = np.random.Generator(np.random.PCG64(sampling.random_seed))

    def choose(self, row: Array, before: Sequence[int]) -> int:
        """The token after those before, for their logits; ties go to the lower id."""
        row = self._words.allowed(row, before)
        if self._sampling.is_greedy:
            return int(np.argmax(row))
        order, shares = self._candidates(row)
        place = np.searchsorted(np.cumsum(shares), self._random.random() * shares.sum(), "right")
        return int(order[min(int(place), len(order) - 1)])

    def _candidates(self, row: Array) -> tuple[np.typing.NDArray[np.intp], Array]:
        """Tokens that may be drawn, likeliest first, with their probabilities."""
        sampling = self._sampling
        order = np.argsort(-row, kind="stable")
        if sampling.top_k:
            order = order[: sampling.top_k]
        shares = np.exp((row[order] - row[order[0]]).astype(np.float64) / sampling.temperature)
        shares /= shares.sum()
        if sampling.top_p:
            # The fewest that have the share together, the one that reaches it among them.
            keep = int(np.searchsorted(np.cumsum(shares), sampling.top_p, "left")) + 1
            order, shares = order[:keep], shares[:keep]
        return order, shares


def log_softmax(row: Array) -> Array:
    """Log probabilities of logits."""
    shifted = row - row.max()
    logs: Array = shifted - np.log(np.exp(shifted).sum())
    return logs
