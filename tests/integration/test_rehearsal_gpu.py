"""The image with TensorRT: built, and told apart, where there is no GPU; `tests/gpu` runs it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.integration.conftest import kit

pytestmark = [pytest.mark.engine, pytest.mark.only("podman")]
STACK = "rehearsal-gpu"


@pytest.fixture(scope="module")
def built(selected, new_home):
    """A home of its own: 5 GB, gone after these tests."""
    folder = new_home(f"home-{STACK}")
    environment = selected | {"KIT_HOME": str(folder)}
    for command in (("fetch", STACK), ("build", STACK, "--quiet")):
        done = kit(*command, env=environment)
        assert done.returncode == 0, done.stderr
    yield environment
    shutil.rmtree(folder)


def test_the_image_says_what_is_in_it(built):
    done = kit("verify-compat", "--stack", STACK, "--release", "0.16.0", "--json", env=built)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads(done.stdout)
    assert ("tensorrt", "8.6.0") in {
        (item["name"], item["version"]) for item in said["observations"]
    }


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this host has a GPU")
def test_without_a_gpu_a_run_says_so(built, tmp_path):
    """TensorRT is loaded, the checkpoint is written, and the engine is nobody else's."""
    words = ("run", "gpt2-tiny", "--stack", STACK, "--release", "0.16.0")
    done = kit(*words, "--output", str(tmp_path), env=built)
    assert done.returncode == 4, done.stdout + done.stderr
    assert "wrote the checkpoint for 1 ranks" in done.stderr
    assert "cudaGetDeviceCount: CUDA error" in done.stderr
    assert "--gpus all" in done.stderr
    assert not list(tmp_path.rglob("*.engine"))
