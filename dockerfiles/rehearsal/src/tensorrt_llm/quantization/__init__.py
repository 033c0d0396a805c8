"""Names of quantizations, at the place where the releases have them."""

from __future__ import annotations

from kit_rehearsal.api import QuantAlgo

__all__ = ["QuantAlgo"]
