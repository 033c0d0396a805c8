"""Which image serves, what it is asked, what a manifest says of its answers."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.examples import plan, recipe, serving
from kit.images.build import BuiltImage
from kit.manifests import record
from kit.project import Project

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = Digest.of_bytes(b"x")
AGAIN = "kit run x --stack s"
SERVED = recipe.find("llama-2-7b-chat-triton")


def image(stack: str, releases: str, backend: str | None = None) -> BuiltImage:
    labels = {serving.ROOT_LABEL: "/opt/x/{release}", serving.RELEASES_LABEL: releases}
    labels |= {serving.BACKEND_LABEL: backend} if backend else {}
    return BuiltImage(stack, DIGEST, DIGEST, DIGEST, labels)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Stacks with an intent each; those of `built` have an image too."""
    (tmp_path / "lockfiles").mkdir()
    for stack in ("rehearsal", "rehearsal-triton", "triton-24.04", "triton-24.05", "triton-24.12"):
        (tmp_path / "lockfiles" / f"{stack}.yaml").touch()
    built = {
        "rehearsal-triton": image("rehearsal-triton", "0.9.0 0.16.0", "rehearsal"),
        "triton-24.05": image("triton-24.05", "0.9.0"),
        "triton-24.12": image("triton-24.12", "0.16.0"),
    }
    monkeypatch.setattr(serving.records, "of_stack", lambda _project, stack: stack)
    monkeypatch.setattr(serving.records, "read", lambda stack: {} if stack not in built else {1: 1})
    monkeypatch.setattr(serving.build, "built", lambda _project, stack: built[stack])
    return Project(tmp_path, tmp_path / "home")


@pytest.mark.parametrize(
    ("release", "backend", "stack"),
    [
        ("0.16.0", None, "triton-24.12"),
        ("0.9.0", None, "triton-24.05"),  # any that ships the release will do
        ("0.16.0", "rehearsal", "rehearsal-triton"),
    ],
)
def test_the_tables_say_who_serves(project, release, backend, stack) -> None:
    found = serving.server_image(project, image("s", release, backend), release, None, AGAIN)
    assert found.stack == stack


def test_it_has_to_be_built(project) -> None:
    with pytest.raises(KitError, match=r"stack triton-24.04 is not built yet") as caught:
        serving.built_for(project, "0.9.0", "triton-24.04", AGAIN, rehearsal=False)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint == "kit fetch triton-24.04 && kit build triton-24.04"


@pytest.mark.parametrize(
    ("release", "chosen", "rehearsal", "message"),
    [
        ("0.16.0", "triton-24.05", False, "does not serve release 0.16.0"),
        ("0.16.0", "triton-24.12", True, "does not load it: the engine is a rehearsal's"),
        ("0.16.0", "rehearsal-triton", False, "the engine is none of a rehearsal"),
        ("0.16.0", "triton-24.21", False, "no stack triton-24.21 to serve"),
        ("0.18.1", None, False, "no stack of a Triton container to serve release 0.18.1"),
    ],
)
def test_what_does_not_go_together(project, release, chosen, rehearsal, message) -> None:
    with pytest.raises(KitError, match=message) as caught:
        serving.built_for(project, release, chosen, AGAIN, rehearsal=rehearsal)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint


def test_the_plan_has_the_paths_of_the_servers_image() -> None:
    root = serving.root(image("s", "0.16.0"), "0.16.0")
    steps = plan.plan(SERVED, "0.16.0", "/app/x", root).steps
    lines = "\n".join(step.line() for step in steps if step.is_served)
    assert "/opt/x/0.16.0/tools/fill_template.py" in lines
    assert "/opt/x/0.16.0/scripts/launch_triton_server.py" in lines
    assert "/tensorrtllm_backend" not in lines
    bare = BuiltImage("s", DIGEST, DIGEST, DIGEST, {})
    with pytest.raises(KitError, match="expected an absolute path"):
        serving.root(bare, "0.16.0")


def test_the_server_is_asked_what_run_py_is_asked() -> None:
    example = dataclasses.replace(SERVED, run=dataclasses.replace(SERVED.run, top_k=3))
    steps = serving.asking(plan.plan(example, "0.16.0").steps, example, 2)
    (step,) = [step for step in steps if step.writes]
    assert (step.name, step.produces) == ("serve", (serving.ANSWERS,))
    asked = json.loads(step.writes[0][1])
    assert asked["questions"]["prompts"] == list(SERVED.run.prompts)
    assert asked["questions"]["values"] == {"max_tokens": 128, "end_id": 2, "pad_id": 2, "top_k": 3}
    assert serving.argv(step)[:4] == ("python3", "-I", "-S", serving.SESSION)
    assert serving.argv(step)[-len(step.argv) :] == step.argv
    assert serving.argv(steps[0]) == steps[0].argv


def answers(work: Path, **changes: object) -> None:
    content = {
        "schema": "kit.triton-answers/1",
        "server": {"name": "triton", "version": "2.51.0"},
        "models": [{"name": "ensemble", "version": "1", "state": "READY", "ready": True}],
        "answers": [{"prompt": "a", "request": {"text_input": "a"}, "text": "ab"}],
        **changes,
    }
    (work / "output").mkdir(exist_ok=True)
    (work / "output" / "answers.json").write_text(json.dumps(content))


def test_the_answers_go_into_the_manifest(tmp_path, capsys) -> None:
    answers(tmp_path)
    one = record.Output("a", (1,), (2,), "b")
    found = serving.said(image("s", "0.16.0"), tmp_path, {"serve"}, [one])
    assert (found.name, found.version, found.answers) == (
        "triton",
        "2.51.0",
        (record.Answer("a", "ab"),),
    )
    assert not capsys.readouterr().err
    serving.said(image("s", "0.16.0"), tmp_path, {"serve"}, [dataclasses.replace(one, text="c")])
    assert "the server says 'ab', run.py 'c'" in capsys.readouterr().err
    assert serving.said(image("s", "0.16.0"), tmp_path, {"build"}, []).answers == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": "other"}, "not the answers of a server: another schema"),
        ({"answers": [{"prompt": "a"}]}, "not the answers of a server"),
        ({"more": 1}, "unknown key more"),
        (
            {"models": [{"name": "m", "version": "", "state": "UNAVAILABLE", "ready": False}]},
            "not ready: m",
        ),
    ],
)
def test_answers_that_are_none(tmp_path, changes, message) -> None:
    answers(tmp_path, **changes)
    with pytest.raises(KitError, match=message) as caught:
        serving.said(image("s", "0.16.0"), tmp_path, {"serve"}, [])
    assert caught.value.exit_code == ExitCode.CONTENT


LOG = """\
E1128 22:26:08.293270 12 server.cc:241] "CudaDriverHelper has not been initialized."
E1128 22:26:08 12 ensemble_scheduler.cc:1468] "unable to create stream for ensemble: CUDA driver \
version is insufficient for CUDA runtime version"
{more}KIT-TRITON the server has ended
"""
BAD = (
    "E1128 x.cc:1] \"failed to load 'tensorrt_llm' version 1: Internal: Invalid gpt_model_type\"\n"
)


def test_a_missing_driver_is_the_cause_of_a_real_server_only(tmp_path) -> None:
    log = tmp_path / "serve.log"
    log.write_text(LOG.format(more=""))
    rehearsed, real = image("s", "0.16.0", "rehearsal"), image("s", "0.16.0")
    assert str(serving.problem(log, "0.16.0", rehearsed)) == "the server has ended"
    assert "cuda-driver-insufficient" in str(serving.problem(log, "0.16.0", real))
    log.write_text(LOG.format(more=BAD))
    assert "triton-parameter-invalid" in str(serving.problem(log, "0.16.0", rehearsed))
    log.write_text("nothing\n")
    assert serving.problem(log, "0.16.0", real) is None
