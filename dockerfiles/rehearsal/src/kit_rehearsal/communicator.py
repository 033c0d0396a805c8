"""Ranks that compute one model together."""

from __future__ import annotations

import os
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .tensors import Array

# Open MPI, MPICH and Slurm's own launcher, in this order.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


class Communicator(Protocol):
    """What tensor and pipeline parallelism need of the other ranks."""

    rank: int
    size: int

    def gather(self, part: Array) -> list[Array]:
        """The parts of all ranks, in rank order, on every rank."""
        ...

    def group(self, members: Sequence[int]) -> Communicator:
        """These ranks, this one among them, counted anew; all of them ask for it."""
        ...

    def send(self, values: Array, to: int) -> None:
        """Hand values to a rank, which receives them."""
        ...

    def receive(self, shape: tuple[int, ...], source: int) -> Array:
        """What that rank sends, of that shape."""
        ...

    def abort(self) -> None:
        """End the other ranks after an error on this one."""
        ...


class SingleRank:
    """The only rank there is."""

    rank = 0
    size = 1

    def gather(self, part: Array) -> list[Array]:
        """Its own part."""
        return [part]

    def group(self, members: Sequence[int]) -> Communicator:  # noqa: ARG002
        """Itself."""
        return self

    def send(self, values: Array, to: int) -> None:  # noqa: ARG002
        """There is nobody."""
        raise BackendError(f"no rank {to}: there is a single rank")

    def receive(self, shape: tuple[int, ...], source: int) -> Array:  # noqa: ARG002
        """There is nobody."""
        raise BackendError(f"no rank {source}: there is a single rank")

    def abort(self) -> None:
        """Nobody to end."""


class MpiRanks:
    """The ranks of MPI's world, or of a group of it."""

    def __init__(self, world: Any = None) -> None:
        if world is None:
            try:
                from mpi4py import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
                    MPI,
                )
            except ImportError as error:
                raise BackendError(
                    f"started on several ranks, but mpi4py is missing: {error}"
                ) from error
            world = MPI.COMM_WORLD
        self._world: Any = world
        self.rank: int = self._world.Get_rank()
        self.size: int = self._world.Get_size()

    def gather(self, part: Array) -> list[Array]:
        """All parts, in rank order."""
        parts = np.empty((self.size, *part.shape), dtype=np.float32)
        self._world.Allgather(np.ascontiguousarray(part), parts)
        return list(parts)

    def group(self, members: Sequence[int]) -> Communicator:
        """A communicator of these ranks only."""
        chosen = self._world.Get_group().Incl(list(members))
        return MpiRanks(self._world.Create_group(chosen))

    def send(self, values: Array, to: int) -> None:
        """Blocks until MPI has taken the values."""
        self._world.Send(np.ascontiguousarray(values, dtype=np.float32), dest=to)

    def receive(self, shape: tuple[int, ...], source: int) -> Array:
        """Blocks until they are there."""
        values = np.empty(shape, dtype=np.float32)
        self._world.Recv(values, source=source)
        return values

    def abort(self) -> None:
        """End all ranks."""
        self._world.Abort(1)


def connect() -> Communicator:
    """MPI's world where the launcher started several ranks, else a single rank."""
    sizes = (os.environ.get(name) for name in _SIZE_VARIABLES)
    size = next((int(text) for text in sizes if text and text.isdigit()), 1)
    return MpiRanks() if size > 1 else SingleRank()


def sum_parts(ranks: Communicator, part: Array) -> Array:
    """The sum over all ranks, added in rank order so that every run gives the same bits."""
    return reduce(np.add, ranks.gather(part))
