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
        write(tmp_path, name)
    return Project(tmp_path, tmp_path)


def write(root, name, more=""):
    (root / "lockfiles" / f"{name}.yaml").write_text(
        f"schema: kit.intent/1\nstack: {name}\nfamily: trtllm\nplatform: linux/amd64\n"
        f"epoch: 0\n{more}"
    )


def test_the_newest_release_where_there_is_a_gpu(place, monkeypatch, capsys):
    monkeypatch.setattr(cdi, "gpus", lambda: ("550.1", [GPU]))
    assert stacks.choose(place, None) == "trtllm-0.16.0"
    said = capsys.readouterr().err
    assert said == (
        "stack trtllm-0.16.0: the newest TensorRT-LLM whose inputs are all known, since this "
        "host has an NVIDIA GPU\n"
    )


def test_a_release_whose_inputs_nobody_can_name_is_passed_over(place, monkeypatch, capsys):
    monkeypatch.setattr(cdi, "gpus", lambda: ("550.1", [GPU]))
    gap = "gaps: [{name: conan, group: wheel, reason: not public}]\n"
    write(place.root, "trtllm-1.2.1", gap)
    assert stacks.choose(place, None) == "trtllm-0.16.0"
    write(place.root, "trtllm-0.16.0", gap)
    write(place.root, "trtllm-0.9.0", gap)
    assert stacks.choose(place, None) == "rehearsal"
    assert "needs files that its intent does not name" in capsys.readouterr().err


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
