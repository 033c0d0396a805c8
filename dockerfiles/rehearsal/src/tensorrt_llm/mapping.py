"""The mapping of ranks, at the place where the releases have it."""

from __future__ import annotations

from kit_rehearsal.api import Mapping

__all__ = ["Mapping"]
