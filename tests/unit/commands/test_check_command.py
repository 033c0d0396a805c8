"""`kit check-command`: exit codes, text and envelope."""

from __future__ import annotations

import argparse
import json

import pytest

from kit.commands.check_command import run
from kit.errors import ExitCode, KitError

GOOD = "trtllm-build --checkpoint_dir x"
BAD = "trtllm-build --checkpoint_dir x --max_output_len 5"


def options(*command: str, release: str | None = "0.16.0", **given) -> argparse.Namespace:
    wanted = {"release": release, "any": False, "json": False, "script": None, **given}
    return argparse.Namespace(command=list(command), **wanted)


@pytest.mark.parametrize(
    ("command", "code"), [(GOOD, 0), (BAD, 4), (f"{GOOD} $X", 3), ("ls", 3), (f"{GOOD}; {BAD}", 4)]
)
def test_exit_codes(command: str, code: int) -> None:
    assert run(options(command)) == code


def test_words_are_as_a_shell_has_split_them(capsys) -> None:
    assert run(options("--", "trtllm-build", "--checkpoint_dir", "a b; $X")) == 0
    assert run(options("trtllm-build", "--checkpoint_dir", "x", "y z")) == 4
    assert "no place for 'y z'" in capsys.readouterr().out


def test_text(capsys) -> None:
    run(options(BAD))
    assert capsys.readouterr().out.splitlines() == [
        f"rejected: {BAD}",
        "  --max_output_len was removed in 0.12.0: use --max_seq_len = input + output",
        "  try: trtllm-build --checkpoint_dir x --max_seq_len 1029",
    ]


def test_envelope(capsys) -> None:
    assert run(options(BAD, json=True)) == 4
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["ok"]) == ("kit.check-command/1", False)
    assert (answer["release"], answer["verdict"]) == ("0.16.0", "rejected")
    [command] = answer["commands"]
    assert (command["name"], command["script"]) == (BAD, "trtllm-build")
    [problem] = command["problems"]
    assert problem["option"] == "--max_output_len"
    assert problem["kind"] == "unknown-option"
    assert (problem["since"], problem["became"]) == ("0.12.0", "--max_seq_len")
    assert "tensorrt_llm/commands/build.py@" in problem["source"]


def test_any(capsys) -> None:
    assert run(options(BAD, release=None, any=True, json=True)) == 0
    answer = json.loads(capsys.readouterr().out)
    accepting = [row["name"] for row in answer["releases"] if row["verdict"] == "accepted"]
    assert accepting == ["0.7.0", "0.7.1", "0.8.0", "0.9.0", "0.10.0", "0.11.0"]
    assert run(options("ls", release=None, any=True)) == 3
    assert "undecidable: 0.5.0" in capsys.readouterr().out


def test_any_with_no_release(capsys) -> None:
    text = "trtllm-build --checkpoint_dir x --max_output_len 5 --max_seq_len 6 --multiple_profiles"
    assert run(options(text, release=None, any=True)) == 4


def test_wrong_usage() -> None:
    for wrong in (
        options(GOOD, release=None),
        options(GOOD, release="0.99.0"),
        options(),
        options("--"),
        options(" "),
    ):
        with pytest.raises(KitError) as raised:
            run(wrong)
        assert raised.value.exit_code is ExitCode.USAGE


def test_release_with_its_letter() -> None:
    assert run(options(GOOD, release="v0.16.0")) == 0
