"""Every generated stack can be planned, and its family reads everything that it brings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit import cli
from kit.images.family import load_family
from kit.locks import intent as intents
from kit.stacks import documents

ROOT = Path(__file__).parents[3]
STACKS = sorted(name.removesuffix(".yaml") for name in documents() if ".lock." not in name)


@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_planned(
    stack: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("KIT_HOME", str(tmp_path))
    monkeypatch.setenv("KIT_ROOT", str(ROOT))
    intent = intents.load(ROOT / "lockfiles" / f"{stack}.yaml")

    code = cli.run(["build", stack, "--dry-run", "--json"])

    answer = json.loads(capsys.readouterr().out)
    given = {**dict(intent.arguments), "SOURCE_DATE_EPOCH": str(intent.epoch)}
    assert (code, answer["stack"]) == (0, stack)
    assert "does not pin everything" in answer["unresolved"]
    assert answer["steps"][-1]["stage"] == "release"
    for step in answer["steps"]:
        assert step["arguments"]["RELEASE"] == intent.release
        jobs = step["arguments"].pop("JOBS", "1")
        assert int(jobs) >= 1, "what this host can bear; the image does not depend on it"
        for name, value in step["arguments"].items():
            assert value == given.get(name, ""), name


@pytest.mark.parametrize("stack", STACKS)
def test_nothing_is_brought_that_no_stage_reads(stack: str) -> None:
    folder = ROOT / "dockerfiles" / stack.partition("-")[0]
    stages = load_family(folder / "family.yaml").stages
    intent = intents.load(ROOT / "lockfiles" / f"{stack}.yaml")
    read = {group for stage in stages for group in stage.groups}

    brought = {tree.name for tree in intent.sources} | {file.group for file in intent.files}
    brought |= {group.name for group in intent.apt.groups} if intent.apt else set()
    brought |= (
        {group.name for group in intent.requirements.groups} if intent.requirements else set()
    )
    assert brought <= read
