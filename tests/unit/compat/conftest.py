from __future__ import annotations

from tests.unit.examples.conftest import site

__all__ = ["site"]
