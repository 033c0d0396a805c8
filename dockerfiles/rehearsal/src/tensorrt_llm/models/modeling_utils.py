"""The configuration of a quantization, at the place where the releases have it."""

from __future__ import annotations

from kit_rehearsal.api import QuantConfig

__all__ = ["QuantConfig"]
