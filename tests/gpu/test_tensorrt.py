"""The rehearsal on a GPU: engines that TensorRT builds, run and reproduced.

Needs the built image of `rehearsal-gpu` in KIT_HOME, an engine and an NVIDIA driver.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kit import images, project
from kit.images import build
from kit.images.engine import Gpus, Mount, RunRequest

pytestmark = pytest.mark.gpu
STACK = "rehearsal-gpu"
# float16: TensorRT's own kernels, other ones at every build.
BOUNDS = {"float32": 1e-5, "float16": 1e-2}


def kit(*words, code=0):
    argv = [sys.executable, "-m", "kit", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def test_tensorrt_and_numpy_have_the_same_logits():
    place = project.find()
    engine = images.select(place.home)
    script = Path(__file__).with_name("both_backends.py")
    lines = []
    request = RunRequest(
        image=build.ready(place, engine, build.built(place, STACK)),
        argv=("python3", "/compare.py"),
        mounts=(Mount(script, "/compare.py"),),
        gpus=Gpus.parse("all"),
    )
    assert engine.run(request, lines.append) == 0, lines
    found = [json.loads(line) for line in lines if line.startswith("{")]
    assert len(found) == 6
    for one in found:
        assert one["distance"] <= BOUNDS[one["dtype"]], one
        assert one["same"] or one["dtype"] == "float16", one


@pytest.mark.parametrize("release", ["0.5.0", "0.9.0", "1.2.1"])
def test_an_engine_of_tensorrt_is_built_run_and_reproduced(tmp_path, release):
    words = ("run", "gpt2-tiny", "--stack", STACK, "--release", release, "--gpus", "all")
    kit(*words, "--output", str(tmp_path / "runs"))
    (manifest,) = tmp_path.glob("runs/gpt2-tiny/*/*/manifest.json")
    said = json.loads(kit("inspect", str(manifest.parent / "engine"), "--json").stdout)
    assert "8.6.0.12" in json.dumps(said)
    page = tmp_path / "report.html"
    told = kit("reproduce", str(manifest), "--require", "L7", "--report", str(page), "--json")
    levels = {row["name"]: row["state"] for row in json.loads(told.stdout)["levels"]}
    # Nobody promises the bytes of a plan.
    assert levels["L8"] in {"passed", "differs"}
    assert page.stat().st_size > 10_000
