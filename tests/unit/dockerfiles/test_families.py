"""The families of Dockerfile against the stacks that are built from them, without an engine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from kit.images import build, dockerfile, stages
from kit.images.build import Choices
from kit.images.family import load_family
from kit.project import Project

ROOT = Path(__file__).resolve().parents[3]
FAMILIES = ROOT / "dockerfiles"
STACKS = sorted(
    path.stem
    for path in (ROOT / "lockfiles").glob("*.yaml")
    if path.stem.startswith(("trtllm-", "triton-")) and not path.stem.endswith(".lock")
)
SCRIPTS = sorted(
    path for family in ("trtllm", "triton") for path in (FAMILIES / family).glob("install/*.sh")
)
OWN = set(stages.OWN_ARGUMENTS)
# What the intents of a family may say; a name more here is one that nobody fills in.
CONTRACT = {
    "trtllm": {
        *("RELEASE", "GIT_COMMIT", "BASE_TAG", "BUILD_WHEEL_ARGS", "CUDA_ARCHS", "CUDA_VERSION"),
        *("PYTHON_VERSION", "PYTORCH_VERSION", "TENSORRT_VERSION", "CUDNN_VERSION"),
        *("NCCL_VERSION", "CUBLAS_VERSION", "NVRTC_VERSION", "CMAKE_VERSION", "CCACHE_VERSION"),
        *("MPI4PY_VERSION", "POLYGRAPHY_VERSION"),
    },
    "triton": {
        *("RELEASE", "RELEASE_CANDIDATE", "GIT_COMMIT", "BASE_TAG", "CUDA_VERSION"),
        "PYTHON_VERSION",
        *("PYTORCH_VERSION", "TENSORRT_VERSION", "TRITON_VERSION", "TEMPLATES"),
    },
}


def read(name):
    folder = FAMILIES / name
    family = load_family(folder / "family.yaml")
    return family, dockerfile.read(folder / "Dockerfile", family.bases)


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_arguments_are_those_that_the_intents_may_have(name):
    _, file = read(name)
    assert set(file.arguments) - OWN == CONTRACT[name]


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_every_stage_has_its_scripts_and_mounts_its_context(name):
    family, file = read(name)
    assert [stage.name for stage in family.stages] == list(file.stages)
    for stage in family.stages:
        runs = [step for step in file.stages[stage.name].steps if step.name == "RUN"]
        assert len(runs) == 1
        assert {"type": "bind", "source": ".", "target": "/context"} in runs[0].mounts()
        script = f"install/{stage.name}.sh"
        assert runs[0].words == ("bash", f"/context/{script}")
        assert script in stage.reads


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_can_be_planned(stack, tmp_path):
    # Raises for an argument that the Dockerfile lacks, a group that the lock lacks.
    wanted, lock, recipe = build.opened(Project(ROOT, tmp_path), stack, Choices())
    plans = recipe.plan(lock, recipe.default_target)
    values = {name: value for plan in plans for name, value in plan.values.items()}
    assert values["RELEASE"] == wanted.release
    assert {name: values[name] for name, _ in wanted.arguments} == dict(wanted.arguments)


@pytest.mark.parametrize("stack", [name for name in STACKS if name.startswith("trtllm-")])
def test_sources_that_cmake_fetches_reach_the_wheel(stack, tmp_path):
    wanted, lock, recipe = build.opened(Project(ROOT, tmp_path), stack, Choices())
    wheel = next(plan for plan in recipe.plan(lock, "wheel") if plan.name == "wheel")
    assert set(wheel.sources) == {source.name for source in wanted.sources}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: f"{path.parts[-3]}-{path.name}")
def test_scripts_are_bash_and_know_every_variable(script):
    subprocess.run(["bash", "-n", script], check=True)
    text = script.read_text(encoding="utf-8")
    assert "http" not in text
    named = set(re.findall(r"\$\{?([A-Z][A-Z0-9]*_VERSION)\b", text)) - {"TRITON_SERVER_VERSION"}
    assert named <= CONTRACT[script.parts[-3]]


def test_every_argument_is_read_by_a_script():
    for name, wanted in CONTRACT.items():
        scripts = [path.read_text(encoding="utf-8") for path in SCRIPTS if path.parts[-3] == name]
        text = "\n".join([*scripts, (FAMILIES / name / "Dockerfile").read_text(encoding="utf-8")])
        unread = {word for word in wanted if not re.search(rf"\$\{{?{word}\b", text)}
        # Held against the image by nobody: the base is pinned by its digest.
        assert unread <= {"CUDA_VERSION", "PYTHON_VERSION", "PYTORCH_VERSION"}
        assert name == "triton" or not unread


def test_the_rehearsal_on_a_gpu_says_which_plans_it_loads():
    """The label beside the wheel of the lock: 8.6.0 was built once, as 12."""
    _, file = read("rehearsal-gpu")
    text = " ".join(step.text for step in file.stages["release"].steps)
    assert 'org.trtllm-kit.tensorrt="8.6.0.12"' in text
    lock = (ROOT / "lockfiles" / "rehearsal-gpu.yaml").read_text()
    assert "tensorrt==8.6.0\n" in lock
