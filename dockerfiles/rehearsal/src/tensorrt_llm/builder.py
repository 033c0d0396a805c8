"""Building, at the place where the releases have it."""

from __future__ import annotations

from kit_rehearsal.api import BuildConfig, Engine, build

__all__ = ["BuildConfig", "Engine", "build"]
