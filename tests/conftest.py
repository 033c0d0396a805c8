"""What all tests share: which engines are there, and when a missing one is a failure."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items):
    """GPU tests run where there is a GPU, and say so elsewhere."""
    if Path("/dev/nvidiactl").exists():
        return
    skip = pytest.mark.skip(reason="no NVIDIA GPU on this host (/dev/nvidiactl is absent)")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(scope="session")
def missing():
    """Skip for want of something; in CI, where everything can be installed, fail instead."""

    def decide(reason):
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return decide
