from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from kit.data import releases
from kit.examples import dialect, recipe
from kit.examples.plan import plan
from kit.manifests.record import ENVIRONMENT

if TYPE_CHECKING:
    from pathlib import Path

TWO = recipe.find("gpt2-tiny-tp2")


def test_mpi_starts_the_run_only() -> None:
    steps = plan(TWO, "0.16.0").steps
    assert [step.mpi_ranks for step in steps] == [1, 1, 2]
    assert steps[2].argv[:4] == ("mpirun", "-n", "2", "python3")
    assert not any(name.startswith("OMPI") for name in steps[0].env)
    assert plan(recipe.find("gpt2-tiny"), "0.16.0").steps[2].argv[0] == "python3"


def test_steps_run_in_the_root_of_the_image() -> None:
    for step in plan(TWO, "0.9.0", "/opt/tensorrt_llm/0.9.0").steps:
        assert step.cwd == "/opt/tensorrt_llm/0.9.0"
        assert step.path == "/opt/tensorrt_llm/0.9.0/bin"


def test_json_is_complete_and_stable() -> None:
    content = json.loads(json.dumps(plan(TWO, "v0.9.0").to_dict()))
    assert content["release"] == "0.9.0"
    assert content == json.loads(json.dumps(plan(TWO, "0.9.0").to_dict()))
    assert {"name", "argv", "cwd", "env", "mpi_ranks"} <= set(content["steps"][0])


@pytest.mark.parametrize("release", releases.versions())
def test_every_variable_may_be_recorded(release: str) -> None:
    for step in plan(TWO, release).steps:
        assert all(ENVIRONMENT.fullmatch(name) for name in step.env)


def test_table_holds_lines_to_copy() -> None:
    lines = plan(TWO, "0.16.0").table().splitlines()
    assert len(lines) == 2 + 3
    assert "'Alice was'" in lines[-1]
    words = shlex.split(lines[-1])[2:]
    assert words == list(plan(TWO, "0.16.0").steps[2].argv)


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("release", ["0.5.0", "0.9.0", "1.2.1"])
def test_script_runs_exactly_the_plan(tmp_path: Path, shell: str, release: str) -> None:
    """A shell executes the script with commands that write down how they were called."""
    root, seen = tmp_path / "root dir", tmp_path / "seen"
    (root / "bin").mkdir(parents=True)
    for name in ("python3", "trtllm-build", "mpirun"):
        program = root / "bin" / name
        program.write_text(
            f'#!/bin/sh\n{{ pwd; echo "$HOME"; printf "%s\\0" {name} "$@"; echo; }} >> "$SEEN"\n'
        )
        program.chmod(0o755)
    planned = plan(TWO, release, str(root))
    script = planned.script().replace("/kit/work", str(tmp_path / "work"))
    subprocess.run(
        [shell],
        input=script,
        env={"PATH": "/usr/bin:/bin", "SEEN": str(seen)},
        text=True,
        check=True,
    )
    expected = "".join(
        f"{root}\n/tmp\n" + "".join(f"{word}\0" for word in step.argv) + "\n"
        for step in planned.steps
    ).replace("/kit/work", str(tmp_path / "work"))
    assert seen.read_text() == expected
    assert (tmp_path / "work" / "checkpoint").is_dir()


@pytest.mark.parametrize("release", ["0.5.0", "0.8.0", "0.16.0", "1.2.1"])
def test_every_script_is_one_of_a_shell(release: str) -> None:
    for example in recipe.catalog():
        if dialect.refusal(example, release) is None:
            text = plan(example, release).script()
            subprocess.run(["sh", "-n"], input=text, text=True, check=True)


def test_a_plan_says_what_is_the_users_own(tmp_path: Path) -> None:
    example = recipe.with_model(recipe.find("gpt-next-8b-prompt-tuning"), tmp_path)
    assert plan(example, "0.16.0").to_dict()["folders"] == [
        {
            "path": str(tmp_path / "megatron_converted_8b_tp4_pp1.nemo"),
            "mount": "/kit/model/megatron_converted_8b_tp4_pp1.nemo",
        },
        {
            "path": str(tmp_path / "email_composition.nemo"),
            "mount": "/kit/input/email_composition.nemo",
        },
        {"path": str(tmp_path / "input.csv"), "mount": "/kit/input/input.csv"},
    ]
    assert "folders" not in plan(recipe.find("gpt-next-8b-prompt-tuning"), "0.16.0").to_dict()
    both = recipe.with_dataset(recipe.with_model(recipe.find("gpt2-summarize"), tmp_path), tmp_path)
    mounts = [item["mount"] for item in plan(both, "0.16.0").to_dict()["folders"]]
    assert mounts == ["/kit/model", "/kit/dataset"]


@pytest.mark.parametrize(
    ("example", "wanted"),
    [
        (
            "gpt-next-8b-prompt-tuning",
            {
                "/kit/model/megatron_converted_8b_tp4_pp1.nemo": "--model DIR, with "
                "megatron_converted_8b_tp4_pp1.nemo in it",
                "/kit/input/email_composition.nemo": "--model DIR, with email_composition.nemo in it",
                "/kit/input/input.csv": "--model DIR, with input.csv in it",
            },
        ),
        ("gpt-next-2b", {"/kit/model/GPT-2B-001_bf16_tp1.nemo": "--model FILE.nemo"}),
        ("gpt2-summarize", {"/kit/dataset": "--dataset DIR"}),
        ("gpt2-tiny", {}),
    ],
)
def test_a_plan_says_what_is_to_be_given(example: str, wanted: dict[str, str]) -> None:
    made = plan(recipe.find(example), "0.9.0")
    assert dict(made.wanted) == wanted
    assert made.to_dict().get("wanted", []) == [
        {"mount": mount, "option": how} for mount, how in wanted.items()
    ]
    for mount, how in wanted.items():
        assert f"{mount} is to be given: {how}" in made.notes()
        assert f"# {mount} is to be given." in made.script()
