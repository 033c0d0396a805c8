"""Bundles of every released version of the format are read for ever; these are never made anew."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit.bundles import verifier
from tests.unit.bundles import making

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.tar"))


@pytest.fixture(params=GOLDEN, ids=lambda path: path.stem)
def golden(request, tmp_path):
    """`one`, its delta `two`, what went into that, and the sender's key."""
    (tmp_path / "golden").mkdir()
    subprocess.run(["tar", "-xf", request.param, "-C", tmp_path / "golden"], check=True)
    return tmp_path / "golden"


def test_old_bundles_verify_and_load(golden, tmp_path):
    key = verifier.public_key((golden / "golden.pub").read_text(), "golden.pub")
    place = making.project(tmp_path)
    for name in ("one", "two"):
        report = verifier.check(golden / name, [key])
        assert report.problems == ()
        assert report.pinned
        ((_, where),) = making.take(place, golden / name, key).places
    assert making.tree(where) == making.tree(golden / "data")


def _runs(python):
    """Whether this is a Python, and not what stands in for one that is not installed."""
    words = [python or "false", "-c", "pass"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_their_own_verifiers_still_run(golden):
    """On every Python of this host."""
    others = [shutil.which(f"python3.{minor}") for minor in range(8, 15)]
    for python in {sys.executable, *filter(_runs, others)}:
        for name in ("one", "two"):
            words = [python, "-I", "-S", "verify.py", "--key", str(golden / "golden.pub")]
            done = subprocess.run(
                words, cwd=golden / name, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (python, done.stdout, done.stderr)
