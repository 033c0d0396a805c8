"""Ranks that compute one model together."""

from __future__ import annotations

import os
from functools import reduce
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .errors import BackendError

if TYPE_CHECKING:
    from .tensors import Array

# Open MPI, MPICH and Slurm's own launcher, in this order.
_SIZE_VARIABLES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


class Communicator(Protocol):
    """What tensor parallelism needs of the other ranks."""

    rank: int
    size: int

    def gather(self, part: Array) -> list[Array]:
        """The parts of all ranks, in rank order, on every rank."""
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

    def abort(self) -> None:
        """Nobody to end."""


class MpiRanks:
    """The ranks of MPI's world."""

    def __init__(self) -> None:
        try:
            from mpi4py import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
                MPI,
            )
        except ImportError as error:
            raise BackendError(
                f"started on several ranks, but mpi4py is missing: {error}"
            ) from error
        self._world: Any = MPI.COMM_WORLD
        self.rank: int = self._world.Get_rank()
        self.size: int = self._world.Get_size()

    def gather(self, part: Array) -> list[Array]:
        """All parts, in rank order."""
        parts = np.empty((self.size, *part.shape), dtype=np.float32)
        self._world.Allgather(np.ascontiguousarray(part), parts)
        return list(parts)

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
