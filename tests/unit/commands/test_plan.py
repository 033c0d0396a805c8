"""`kit plan`: what it prints of the memory that an example needs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit import cli
from kit.errors import ExitCode

MEMORY = ("plan", "llama-2-7b-chat-tp2", "--release", "0.16.0", "--memory")


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.run([*arguments, "--json"]) == ExitCode.OK
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_memory_as_a_table_with_its_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(list(MEMORY)) == ExitCode.OK
    said = capsys.readouterr().out
    header, _, row = said.splitlines()[:3]
    assert header.split()[:4] == ["STAGE", "RANKS", "LAYERS", "WEIGHTS"]
    assert row.split()[:6] == ["0", "0,", "1", "32", "6.4", "GB"]
    assert "32000 rows * 4096 * 2 bytes, whole on every rank" in said
    assert "meta-llama/Llama-2-7b-chat-hf" in said


def test_memory_beside_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    found = printed(capsys, *MEMORY, "--gpu", "H100 80GB", "--kv-fraction", "0.2")
    assert found["schema"] == "kit.plan/1"
    assert [step["name"] for step in found["steps"]] == ["convert", "build", "run"]
    memory = found["memory"]
    assert memory["gpu"] == {"name": "H100 80GB", "bytes": 80 << 30, "reason": None}
    (stage,) = memory["stages"]
    assert stage["ranks"] == [0, 1]
    assert stage["kv_cache"]["pool"]["fraction"] == 0.2
    assert stage["weights"]["bytes"] < stage["total"]["bytes_at_least"]
    assert stage["total"]["bytes_at_least"] < stage["served"]["bytes_at_least"]
    assert "memory" not in printed(capsys, *MEMORY[:-1])


def test_a_model_that_nobody_knows_has_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    unknown = ("plan", "gpt-next-8b-prompt-tuning", "--release", "0.7.1", "--memory")
    found = printed(capsys, *unknown)
    assert found["memory"]["stages"] is None
    assert "--model" in found["memory"]["reason"]
    assert cli.run(list(unknown)) == ExitCode.OK
    assert capsys.readouterr().out.startswith("not known: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*MEMORY, "--shell"), "--memory and --shell: expected one of them"),
        ((*MEMORY[:-1], "--gpu", "H100"), "--gpu is of --memory"),
        ((*MEMORY[:-1], "--kv-fraction", "0.5"), "--kv-fraction is of --memory"),
        ((*MEMORY, "--gpu", "H1O0"), "unknown GPU 'H1O0'"),
        ((*MEMORY, "--kv-fraction", "0"), "expected more than 0 and at most 1, found 0"),
        (("plan", "cpp-runtime", "--release", "0.16.0", "--memory"), "builds a program"),
    ],
)
def test_what_cannot_be_asked(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    assert cli.run(list(arguments)) == ExitCode.USAGE
    assert said in capsys.readouterr().err


def test_positions_that_are_outgrown_are_noted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["plan", "gpt2-embedding-hidden", "--release", "0.7.1"]) == ExitCode.OK
    said = capsys.readouterr()
    assert "warning: " in said.err
    assert "the model has 1024 positions" in said.err
    assert "warning" not in said.out
