from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.unit.examples.local import Site

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A fresh project with an engine over plain processes."""
    return Site.make(tmp_path)
