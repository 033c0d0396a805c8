"""Which stack is meant when none is named, and why."""

import pytest

from kit.commands import stacks
from kit.errors import environment_error
from kit.images import cdi
from kit.project import Project

GPU = cdi.Gpu(0, "GPU-0", 0, "a GPU")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "lockfiles").mkdir()
    for name in ("rehearsal", "trtllm-0.9.0", "trtllm-0.16.0", "trtllm-main", "triton-24.12"):
        (tmp_path / "lockfiles" / f"{name}.yaml").touch()
    return Project(tmp_path, tmp_path)


def test_the_newest_release_where_there_is_a_gpu(place, monkeypatch, capsys):
    monkeypatch.setattr(cdi, "gpus", lambda: ("550.1", [GPU]))
    assert stacks.choose(place, None) == "trtllm-0.16.0"
    said = capsys.readouterr().err
    assert said.splitlines() == [
        "stack trtllm-0.16.0: the newest TensorRT-LLM, since this host has an NVIDIA GPU"
    ]


def test_a_gpu_but_no_release(place, monkeypatch, capsys):
    monkeypatch.setattr(cdi, "gpus", lambda: ("550.1", [GPU]))
    for path in place.root.glob("lockfiles/trtllm-0*"):
        path.unlink()
    assert stacks.choose(place, None) == "rehearsal"
    assert "there is no trtllm-* stack" in capsys.readouterr().err


def test_no_gpu_that_answers(place, monkeypatch, capsys):
    def broken():
        raise environment_error("nvidia-smi failed: no communication with the driver")

    monkeypatch.setattr(cdi, "gpus", broken)
    assert stacks.choose(place, None) == "rehearsal"
    said = capsys.readouterr().err
    assert said == "stack rehearsal: nvidia-smi failed: no communication with the driver\n"
    monkeypatch.setattr(cdi, "gpus", lambda: ("550.1", []))
    assert stacks.choose(place, None) == "rehearsal"
    assert "no GPU" in capsys.readouterr().err


def test_a_named_stack_needs_no_reason(place, capsys):
    assert stacks.choose(place, "triton-24.12") == "triton-24.12"
    assert capsys.readouterr().err == ""
