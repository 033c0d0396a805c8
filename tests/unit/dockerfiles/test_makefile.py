"""What the Makefile would do, by `make -n`, for several ways to call it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def commands(*words):
    """The lines of a dry run, what make itself says left out."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "CONTAINER_NAME": "other"}
    done = subprocess.run(
        ["make", "-n", "--no-print-directory", *words],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "warning:" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("target", ["release_build", "devel_build", "wheel_build"])
@pytest.mark.parametrize("named", ["RELEASE=0.16.0", "STACK=trtllm-0.16.0"])
def test_builds_fetch_first(target, named):
    text = commands(target, named)
    assert "kit.commands.stacks trtllm-0.16.0)" in text
    assert text.index("kit fetch $stack") < text.index("kit build $stack")
    stage = target.removesuffix("_build")
    assert (f"--target {stage}" in text) == (stage != "release")


@pytest.mark.parametrize("target", ["release_build", "wheel_build"])
def test_upstreams_variables_become_build_arguments(target):
    text = commands(
        target,
        "RELEASE=0.9.0",
        "CUDA_ARCHS=80-real;90-real",
        "BUILD_WHEEL_ARGS=--clean --trt_root /usr/local/tensorrt",
        "JOBS=8",
    )
    assert "--arg 'CUDA_ARCHS=80-real;90-real'" in text
    assert "--arg 'BUILD_WHEEL_ARGS=--clean --trt_root /usr/local/tensorrt'" in text
    assert "--jobs 8" in text


def test_without_variables_the_lock_decides():
    text = commands("release_build")
    assert "kit.commands.stacks )" in text
    assert "--arg" not in text
    assert "--jobs" not in text


def test_the_wheel_is_left_in_build():
    assert "kit.commands.wheels $stack $image build" in commands("wheel_build", "RELEASE=0.9.0")


@pytest.mark.parametrize("stage", ["release", "devel"])
def test_runs_have_upstreams_flags(stage):
    text = commands(f"{stage}_run", "RELEASE=0.16.0")
    for flag in (
        "--rm -it --ipc=host --ulimit memlock=-1 --ulimit stack=67108864 --tmpfs /tmp:exec",
        'podman) gpus="--device nvidia.com/gpu=all"',
        "*) gpus=--gpus=all",
        f'--hostname "$(hostname)-{stage}" --name "tensorrt_llm-{stage}-$(id -un)"',
    ):
        assert flag in text
    assert ("--target devel" in text) == (stage == "devel")
    assert "--user" not in text
    assert "--volume" not in text


def test_runs_as_the_caller_with_what_the_caller_says():
    text = commands(
        "devel_run",
        "RELEASE=0.16.0",
        "LOCAL_USER=1",
        "GPU_OPTS=--gpus=2",
        "SOURCE_DIR=/some/tree",
        "DOCKER_RUN_ARGS=--env A=b",
        "RUN_CMD=nvidia-smi",
    )
    assert '--user "$(id -u):$(id -g)"' in text
    assert "--env HOME=/tmp" in text
    assert "/tmp:exec --gpus=2 \\" in text
    assert "--volume '/some/tree:/code/tensorrt_llm' --workdir /code/tensorrt_llm" in text
    assert text.rstrip().endswith("--env A=b $2 nvidia-smi")


def test_no_gpu_when_the_caller_says_none():
    assert "/tmp:exec  \\" in commands("release_run", "RELEASE=0.16.0", "GPU_OPTS=")


def test_triton_is_named_by_its_container():
    assert "stack=triton-24.12" in commands("triton_build", "TRITON=24.12")
    assert "stack=triton-25.01" in commands("triton_build", "STACK=triton-25.01")


def test_lockfiles_takes_arguments():
    assert "-m kit.stacks --check" in commands("lockfiles", "ARGS=--check")


@pytest.mark.parametrize("target", ["release_run", "wheel_build", "triton_build"])
def test_recipes_are_shell(target):
    text = commands(target, "RELEASE=0.16.0", "LOCAL_USER=1", "SOURCE_DIR=/x")
    subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_help_lists_them():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for target in ("devel_build", "devel_run", "wheel_build", "release_run", "triton_build"):
        assert f"  {target} " in done.stdout
