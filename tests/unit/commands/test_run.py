from __future__ import annotations

from pathlib import Path

import pytest

from kit import arguments
from kit.commands import run
from kit.errors import ExitCode, KitError
from kit.examples.taken import Choices


def chosen(*words: str) -> Choices:
    return run._choices(arguments.parser().parse_args(["run", "gpt2-tiny", "--stack", "s", *words]))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], Choices(reuse=True)),
        (["--no-reuse"], Choices(words=("--no-reuse",))),
        (["--resume"], Choices(reuse=True, resume="latest")),
        (["--resume", "runs/x"], Choices(reuse=True, resume=Path("runs/x"))),
        (["--only", "build"], Choices(reuse=True, only=("build",))),
        (["--only", "build,run"], Choices(reuse=True, only=("build", "run"))),
        (["--only", "build", "--only", "run"], Choices(reuse=True, only=("build", "run"))),
        (
            ["--model", "m", "--dataset", "d", "--allow-pickle"],
            Choices(
                reuse=True,
                allow_pickle=True,
                words=("--model", "m", "--dataset", "d", "--allow-pickle"),
            ),
        ),
    ],
)
def test_choices_are_those_of_the_command_line(words: list[str], expected: Choices) -> None:
    assert chosen(*words) == expected


def test_an_empty_step_is_no_step() -> None:
    with pytest.raises(KitError, match="expected the name of a step") as caught:
        chosen("--only", ",")
    assert caught.value.exit_code == ExitCode.USAGE
