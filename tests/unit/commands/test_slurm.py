"""`kit slurm`: what is printed, written, refused."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from kit import cli
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is built, no job is around, no engine is chosen."""
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT)
    for name in ("KIT_ENGINE", "KIT_ROOT", "CONTAINERS_STORAGE_CONF", "DOCKER_HOST"):
        monkeypatch.delenv(name, raising=False)


ASKED = ("slurm", "gpt-530b-dummy", "--stack", "trtllm-0.16.0", "--release", "v0.16.0")


def test_a_script_for_two_nodes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    further = ("--", "--constraint=h100", "--mem=0")
    given = ("--gpus-per-node", "8", "--time", "2:00:00", "--runs", "a b")
    assert cli.run([*ASKED, *given, *further]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "#!/bin/bash"
    for option in ("--nodes=2", "--gpus-per-node=8", "--time=2:00:00", "--constraint=h100"):
        assert f"#SBATCH {option}" in lines
    assert f"export KIT_HOME={tmp_path}/home" in lines
    assert f"export KIT_ROOT={ROOT}" in lines
    words = shlex.split(lines[-1])
    assert words[:5] == ["exec", sys.executable, "-m", "kit", "run"]
    assert words[5:] == [
        *("gpt-530b-dummy", "--stack", "trtllm-0.16.0", "--release", "0.16.0"),
        *("--output", f"{ROOT}/a b", "--gpus", "all"),
    ]
    assert "warning: stack 'trtllm-0.16.0' is not built yet" in err


def test_an_example_of_one_node_as_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "job.sh"
    asked = ("slurm", "gpt2-tiny", "--stack", "rehearsal", "--release", "0.9.0", "--resume")
    handed_on = ("--triton-stack", "t", "--no-reuse", "--allow-pickle")
    assert cli.run([*asked, *handed_on, "--output", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["schema"], said["ok"], said["job_id"]) == ("kit.slurm/1", True, None)
    assert (said["nodes"], said["ranks"], said["file"]) == (1, 1, str(path))
    assert path.read_text() == said["script"]
    assert path.stat().st_mode & 0o777 == 0o755
    last = said["script"].splitlines()[-1]
    assert last.endswith("--release 0.9.0 --triton-stack t --resume --no-reuse --allow-pickle")


def test_a_recipe_in_a_file_and_options_behind_it(capsys: pytest.CaptureFixture[str]) -> None:
    config = "kit/examples/catalog/gpt2-tiny.yaml"
    asked = ("slurm", "--config", config, "--stack", "rehearsal", "--release", "0.9.0")
    assert cli.run([*asked, "--", "--qos=low"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "#SBATCH --qos=low" in lines
    assert f"run --config {ROOT}/{config} --stack" in lines[-1]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--gpus-per-node", "4"), "every node has 8 ranks"),
        (("--time", "soon"), "--time 'soon': expected minutes"),
        (("--partition", "a b"), "--partition 'a b': expected a name"),
        (("--account", "x\n#SBATCH --uid=0"), "--account"),
        (("--", "--wrap=id"), "the script is the kit's"),
        (("--", "-n4"), "expected an option of sbatch in one word"),
        (("--submit",), "stack 'trtllm-0.16.0' is not built yet"),
    ],
)
def test_what_is_refused(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], why: str
) -> None:
    assert cli.run([*ASKED, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"error: {why}" in err or why in err


def test_a_release_that_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("slurm", "llama-2-7b-chat-python", "--stack", "rehearsal", "--release", "0.5.0")
    assert cli.run([*asked]) == 2
    assert "0.5.0" in capsys.readouterr().err
