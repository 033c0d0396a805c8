"""Sequences in flight: each goes on by a token in its turn, new ones join at any time.

A sequence's tokens depend on no other: they are those that run.py gives for it alone.
"""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from kit_rehearsal.engine_directory import check_limits
from kit_rehearsal.errors import BackendError
from kit_rehearsal.generation import Generated, Model, beams
from kit_rehearsal.sampling import Chooser, Sampling, Words, log_softmax

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit_rehearsal.engine_directory import Limits

_PAUSE = 0.002
"""Seconds between two looks for what the first rank wants; MPI itself would spin."""


@dataclass(frozen=True, slots=True)
class Job:
    """What a request asks for."""

    prompt: list[int]
    max_tokens: int
    end_id: int | None
    sampling: Sampling
    words: Words


class Sequence:
    """One sequence that goes on token by token, or a beam search, which is done at once."""

    def __init__(self, model: Model, job: Job) -> None:
        self.job = job
        self.tokens: list[int] = []
        self.result: list[Generated] | None = None
        self._model = model
        if job.sampling.num_beams > 1:
            return
        self._chooser = Chooser(job.sampling, job.words)
        self._cache = model.cache(len(job.prompt) + job.max_tokens)
        self._context = model.logits(job.prompt, self._cache, last_only=False)
        self._row = self._context[-1]
        self._rows: list[Any] = []
        self._log_probs: list[float] = []

    def step(self) -> None:
        """Choose the next token; at the end there is a `result`."""
        job, vocabulary = self.job, self._model.shape.vocab_size
        if job.sampling.num_beams > 1:
            self.result = beams(self._model, job.prompt, job.max_tokens, job.end_id, job.sampling)
            return
        token = self._chooser.choose(self._row[:vocabulary], [*job.prompt, *self.tokens])
        self._rows.append(self._row)
        self._log_probs.append(float(log_softmax(self._row[:vocabulary])[token]))
        if token != job.end_id:
            self.tokens.append(token)
        if token == job.end_id or job.words.ends(self.tokens) or len(self._rows) >= job.max_tokens:
            self.result = [
                Generated(
                    prompt=job.prompt,
                    tokens=self.tokens,
                    context_logits=self._context,
                    generation_logits=np.stack(self._rows),
                    log_probs=np.array(self._log_probs, dtype=np.float32),
                )
            ]
        else:
            self._row = self._model.logits([token], self._cache, last_only=True)[-1]


Action = tuple[Literal["open", "step", "drop", "end"], int, Job | None]
"""What all ranks do alike: open a sequence, go on with it, drop it, end."""


class Crew:
    """The ranks of an engine: the first says what is done, the others do the same."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._world: Any = None
        if size > 1:
            from mpi4py import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
                MPI,
            )

            # Of its own, so that nothing is taken for what the model's ranks send each other.
            self._world = MPI.COMM_WORLD.Dup()

    def tell(self, action: Action) -> None:
        """Say to all others what comes next."""
        for rank in range(1, self._size):
            self._world.send(action, dest=rank)

    def told(self) -> Action:
        """What comes next; waits for it."""
        while not self._world.iprobe(source=0):
            time.sleep(_PAUSE)
        action: Action = self._world.recv(source=0)
        return action


def follow(model: Model, crew: Crew) -> None:
    """Do what the first rank does until it ends."""
    flying: dict[int, Sequence] = {}
    while True:
        what, number, job = crew.told()
        if what == "end":
            return
        if what == "open":
            assert job is not None
            flying[number] = Sequence(model, job)
        elif what == "step":
            flying[number].step()
        else:
            del flying[number]


class Flight:
    """A thread that computes whatever has been asked, in flight together."""

    def __init__(self, model: Model, limits: Limits, crew: Crew) -> None:
        self._model = model
        self._limits = limits
        self._crew = crew
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._fly, daemon=True)
        self._thread.start()

    def ask(
        self, job: Job, on_token: Callable[[int], bool] | None = None
    ) -> Future[list[Generated]]:
        """Ask for sequences; `on_token` hears every token and says whether they are still wanted.

        Raises:
            BackendError: the engine was not built for it.
        """
        vocabulary = self._model.shape.vocab_size
        if any(not 0 <= token < vocabulary for token in job.prompt):
            raise BackendError(f"a token id is not one of the {vocabulary} of the engine")
        check_limits(self._limits, [job.prompt], job.max_tokens, job.sampling.num_beams)
        asked = _Asked(job, on_token, Future())
        self._asked.put(asked)
        return asked.future

    def end(self) -> None:
        """Let the thread and the other ranks end; what is still in flight is given up."""
        self._asked.put(None)
        self._thread.join()

    def _fly(self) -> None:
        flying: dict[int, tuple[_Asked, Sequence]] = {}
        number = 0
        while True:
            # Waits only where there is nothing to do; beyond the engine's batch others wait.
            while len(flying) < self._limits.max_batch_size:
                if flying and self._asked.empty():
                    break
                asked = self._asked.get()
                if asked is None:
                    self._give_up(flying)
                    return
                number += 1
                self._crew.tell(("open", number, asked.job))
                flying[number] = (asked, Sequence(self._model, asked.job))
            self._advance(flying)

    def _give_up(self, flying: dict[int, tuple[_Asked, Sequence]]) -> None:
        for asked, _ in flying.values():
            asked.future.set_exception(BackendError("the server is being stopped"))
        self._crew.tell(("end", 0, None))

    def _advance(self, flying: dict[int, tuple[_Asked, Sequence]]) -> None:
        for number, (asked, sequence) in list(flying.items()):
            before = len(sequence.tokens)
            self._crew.tell(("step", number, None))
            sequence.step()
            wanted = True
            if asked.on_token is not None and len(sequence.tokens) > before:
                wanted = asked.on_token(sequence.tokens[-1])
            if sequence.result is not None or not wanted:
                self._crew.tell(("drop", number, None))
                del flying[number]
                asked.future.set_result(sequence.result or [])


@dataclass(frozen=True, slots=True)
class _Asked:
    job: Job
    on_token: Callable[[int], bool] | None
    future: Future[list[Generated]]
