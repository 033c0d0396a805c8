"""Which stack can run which example: by its releases and the models that it locks."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from kit.data import releases
from kit.examples import catalogue, places, recipe
from kit.examples.options import Options
from kit.project import Project
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TINY = recipe.find("gpt2-tiny")


def found(project: Project) -> dict[str, places.Stack]:
    return {stack.name: stack for stack in places.stacks(project)}


def test_of_this_project(tmp_path: Path) -> None:
    stacks = found(Project(ROOT, tmp_path))
    program = catalogue.find("cpp-runtime")
    for release in releases.versions():
        assert stacks[f"trtllm-{release}"].releases == (release,)
        assert stacks[f"trtllm-{release}"].able(program) == (release,)
    assert stacks["rehearsal"].able(TINY) == tuple(releases.versions())
    assert stacks["rehearsal"].able(program) == ()
    assert list(stacks)[-1] != "rehearsal"


def test_a_model_that_is_locked_makes_an_example_able(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path)
    (tmp_path / "lockfiles").mkdir()
    text = (
        "schema: kit.intent/1\nstack: mine\nfamily: trtllm\nplatform: linux/amd64\nepoch: 0\n"
        'release: "0.16.0"\n'
    )
    (tmp_path / "lockfiles" / "mine.yaml").write_text(text)
    assert found(project)["mine"].able(TINY) == ()
    text += "models:\n  - name: gpt2-tiny\n    directory: models/gpt2-tiny\n"
    (tmp_path / "lockfiles" / "mine.yaml").write_text(text)
    mine = found(project)["mine"]
    assert mine.able(TINY) == ("0.16.0",)
    assert mine.able(dataclasses.replace(TINY, releases=("0.9.0",))) == ()
    assert mine.able(dataclasses.replace(TINY, options=Options(strongly_typed=True))) == ()


def test_a_stack_of_no_release_is_none(tmp_path: Path) -> None:
    (tmp_path / "lockfiles").mkdir()
    (tmp_path / "lockfiles" / "empty.yaml").write_text(
        "schema: kit.intent/1\nstack: empty\nfamily: none\nplatform: linux/amd64\nepoch: 0\n"
    )
    assert places.stacks(Project(tmp_path, tmp_path)) == []
