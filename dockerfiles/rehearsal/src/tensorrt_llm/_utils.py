"""Ranks, at the place where the releases have them."""

from __future__ import annotations

from kit_rehearsal.api import mpi_barrier, mpi_rank, mpi_world_size

__all__ = ["mpi_barrier", "mpi_rank", "mpi_world_size"]
