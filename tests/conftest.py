"""What all tests share: which engines are there, and when a missing one is a failure."""

from __future__ import annotations

import importlib
import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A test run that was started in the background ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def peer(module):
    """A package that results are compared with: skip without it, but in CI it has to be there."""
    if os.environ.get("CI") == "true":
        return importlib.import_module(module)
    return pytest.importorskip(module, reason=f"{module} is not installed: make oracle")


def pytest_collection_modifyitems(config, items):
    """GPU tests run where there is a GPU, and say so elsewhere; `only` picks one engine."""
    others = [item for item in items if _is_for_another_engine(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]
    if Path("/dev/nvidiactl").exists():
        return
    skip = pytest.mark.skip(reason="no NVIDIA GPU on this host (/dev/nvidiactl is absent)")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file runs in one process; of what shares engines and a filled store, everything does."""
    from xdist.scheduler import LoadScopeScheduling

    class Grouped(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            path = nodeid.partition("::")[0]
            shares = path.rpartition("/")[0] in _SHARING and path not in _APART
            return "engines" if shares else path

    return Grouped(config, log)


_SHARING = ("tests/integration", "tests/integration/images")
_APART = ("tests/integration/test_preflight.py", "tests/integration/test_stacks.py")
"""What lies there and has all of its own."""


def _is_for_another_engine(item):
    marker = item.get_closest_marker("only")
    return marker is not None and item.callspec.params["selected"] not in marker.args


@pytest.fixture(scope="session")
def missing():
    """Skip for want of something; in CI, where everything can be installed, fail instead."""

    def decide(reason):
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)

    return decide
