"""Runs that go on with earlier ones: after a failure, a kill, a change, for single steps."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import jsonschema
import pytest

from kit.errors import ExitCode, KitError
from kit.examples import folder as folders
from kit.examples import recipe
from kit.examples.recipe import Run
from kit.manifests import record
from kit.manifests.diff import diff
from kit.manifests.verify import verify
from tests.unit.examples.local import ROOT, Site

if TYPE_CHECKING:
    from pathlib import Path

    from kit.manifests.record import Manifest

RELEASE = "0.16.0"
EXAMPLE = recipe.find("gpt2-tiny")


def spoil(site: Site, script: str = "exit 3") -> str:
    """Make the build step fail; returns what the script was."""
    path = site.engine.tree / RELEASE / "bin" / "trtllm-build"
    real = path.read_text()
    path.write_text(f"#!/bin/sh\n{script}\n")
    return real


def mend(site: Site, real: str) -> None:
    (site.engine.tree / RELEASE / "bin" / "trtllm-build").write_text(real)


def started(site: Site) -> list[str]:
    """The steps that containers were started for, by the last word of their script."""
    names = {"convert_checkpoint.py": "convert", "trtllm-build": "build", "run.py": "run"}
    words = [word.rpartition("/")[2] for request in site.engine.requests for word in request.argv]
    return [names[word] for word in words if word in names]


def place(site: Site) -> Path:
    return site.project.root / "runs" / "gpt2-tiny" / RELEASE


def made_by(manifest: Manifest) -> list[tuple[str, bool]]:
    return [(command.name, command.reused_from is not None) for command in manifest.commands]


@pytest.fixture
def failed(site: Site, capsys: pytest.CaptureFixture[str]) -> Site:
    """A site where the build has failed once and would succeed now."""
    real = spoil(site)
    with pytest.raises(KitError, match="step build ended with exit code 3") as caught:
        site.run()
    assert caught.value.hint is not None
    assert caught.value.hint.endswith(" --resume")
    mend(site, real)
    site.engine.requests.clear()
    capsys.readouterr()
    return site


def test_a_failed_run_is_gone_on_with_and_ends_like_any_other(failed: Site) -> None:
    path = failed.run(resume="latest")
    assert started(failed) == ["build", "run"]
    manifest = record.read(path)
    assert made_by(manifest) == [("convert", True), ("build", False), ("run", False)]
    assert manifest.commands[0].reused_from == f"gpt2-tiny/{RELEASE}/{_failed_name(failed)}"
    assert verify(failed.project, path).ok
    jsonschema.validate(json.loads(path.read_bytes()), json.loads(record.PUBLISHED.read_bytes()))
    # The same as a run from the beginning, byte by byte.
    again = diff(manifest, record.read(failed.run()))
    assert again.ok, again.text()
    # What the failed run had made is gone, its logs are not.
    (kept,) = place(failed).glob("*-failed")
    assert {p.name for p in kept.iterdir()} == {"logs"}


def _failed_name(site: Site) -> str:
    return next(place(site).glob("*-failed")).name


def test_its_containers_may_only_read_what_they_are_given(failed: Site) -> None:
    failed.run(resume="latest")
    for request in failed.engine.requests[-2:]:
        inner = {m.target: m.writable for m in request.mounts if m.target.startswith("/kit/work")}
        assert inner == {"/kit/work": True, "/kit/work/checkpoint": False}


def test_twice_failed_is_still_gone_on_with(failed: Site) -> None:
    real = spoil(failed)
    with pytest.raises(KitError, match="step build"):
        failed.run(resume="latest")
    mend(failed, real)
    failed.engine.requests.clear()
    assert verify(failed.project, failed.run(resume="latest")).ok
    assert started(failed) == ["build", "run"]


@pytest.mark.parametrize("how", ["altered", "truncated", "gone", "link"])
def test_what_is_not_as_recorded_is_made_again(failed: Site, how: str) -> None:
    (weights,) = place(failed).glob("*-failed/work/checkpoint/rank0.safetensors")
    content = weights.read_bytes()
    weights.unlink()
    if how == "altered":
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "truncated":
        weights.write_bytes(content[:-1])
    elif how == "link":
        (weights.parent.parent / "elsewhere").write_bytes(content)
        weights.symlink_to("../elsewhere")
    path = failed.run(resume="latest")
    assert started(failed) == ["convert", "build", "run"]
    assert (path.parent / "checkpoint" / weights.name).read_bytes() == content


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": "kit.run-journal/2"}', "[" * 9999, '{"commands": 1}']
)
def test_a_damaged_journal_is_of_no_use(
    failed: Site, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (journal,) = place(failed).glob("*-failed/journal.json")
    journal.write_text(content)
    assert verify(failed.project, failed.run(resume="latest")).ok
    assert started(failed) == ["convert", "build", "run"]
    journal.write_text(content)
    with pytest.raises(KitError, match=r"journal\.json: cannot be read") as caught:
        failed.run(resume=journal.parent)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_a_changed_command_is_done_again_with_all_that_follow(failed: Site) -> None:
    build = dataclasses.replace(EXAMPLE.build, max_batch_size=8)
    path = failed.run(resume="latest")
    failed.engine.requests.clear()
    larger = dataclasses.replace(EXAMPLE, build=build)
    changed = failed.run(larger, resume=path.parent)
    assert started(failed) == ["build", "run"]
    assert changed != path
    assert verify(failed.project, changed).ok
    assert verify(failed.project, path).ok


def test_another_model_is_converted_again(failed: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (journal,) = place(failed).glob("*-failed/journal.json")
    content = json.loads(journal.read_bytes())
    content["ground"]["model"][0]["sha256"] = "0" * 64
    journal.write_text(json.dumps(content))
    failed.run(resume="latest")
    assert started(failed) == ["convert", "build", "run"]


@pytest.mark.parametrize("field", ["image", "release", "gpus"])
def test_another_ground_keeps_nothing(failed: Site, field: str) -> None:
    (journal,) = place(failed).glob("*-failed/journal.json")
    content = json.loads(journal.read_bytes())
    content["ground"][field] = "other"
    journal.write_text(json.dumps(content))
    failed.run(resume="latest")
    assert started(failed) == ["convert", "build", "run"]


def test_a_finished_run_has_nothing_left_to_do(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    path = site.run()
    site.engine.requests.clear()
    assert site.run(resume=path.parent) == path
    assert started(site) == []
    assert "every step is done" in capsys.readouterr().err


def test_without_anything_to_resume_it_begins(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(site.project, site.run(resume="latest")).ok
    assert "nothing to resume" in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(site: Site, tmp_path: Path) -> None:
    for folder in (tmp_path / "none", tmp_path):
        with pytest.raises(KitError) as caught:
            site.run(resume=folder)
        assert caught.value.exit_code == ExitCode.USAGE


def test_a_plain_run_begins_anew_and_clears_what_was_left(failed: Site) -> None:
    assert verify(failed.project, failed.run()).ok
    assert started(failed) == ["convert", "build", "run"]
    assert not list(place(failed).glob("*-failed/work"))
    assert list(place(failed).glob("*-failed/logs/build.log"))


KILLED = """
import sys
from pathlib import Path
from tests.unit.examples.local import LocalEngine, Site, make_image
from kit.project import Project
base = Path(sys.argv[1])
engine = LocalEngine.__new__(LocalEngine)
engine.tree, engine.requests, engine.name = base / "tree", [], "local"
project = Project(base / "project", base / "home")
how = {"resume": "latest"} if sys.argv[2:] else {}
Site(project, engine, make_image(project)).run(**how)
"""


def killed(base: Path, *words: str, number: int = signal.SIGKILL) -> None:
    """Start a run in a process of its own and kill it in the middle of the build."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(base), *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if "half done" in line:
                break
        os.killpg(process.pid, number)  # as a terminal does for Ctrl-C
        process.wait(30)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_gone_on_with_and_nothing_half_written_is_left(
    site: Site, tmp_path: Path, number: int
) -> None:
    half = f"{site.engine.tree}/mounts/kit-work/engine/half"
    real = spoil(site, f"echo x > {half}; echo half done; exec sleep 60")
    killed(tmp_path, number=number)
    killed(tmp_path, "resume", number=number)
    assert not [p for p in place(site).iterdir() if not p.name.startswith(".")]
    mend(site, real)
    path = site.run(resume="latest")
    assert started(site) == ["build", "run"]
    assert verify(site.project, path).ok
    assert not list(path.parent.rglob("half"))
    assert not list(place(site).glob(".run-*"))


def test_single_steps_one_after_the_other_make_a_whole_run(site: Site) -> None:
    converted = site.run(only=("convert",))
    first = record.read(converted)
    assert made_by(first) == [("convert", False)]
    assert (first.only, first.outputs, first.select("engine")) == (("convert",), (), [])
    second = site.run(only=("build",))
    assert made_by(record.read(second)) == [("convert", True), ("build", False)]
    path = site.run(only=("run",))
    third = record.read(path)
    assert made_by(third) == [("convert", True), ("build", True), ("run", False)]
    assert started(site) == ["convert", "build", "run"]
    # Whoever executed it first is named, not whoever took it over in between.
    assert [command.reused_from for command in third.commands] == [
        f"gpt2-tiny/{RELEASE}/{converted.parent.name}",
        f"gpt2-tiny/{RELEASE}/{second.parent.name}",
        None,
    ]
    whole = record.read(site.run())
    result = diff(third, whole)
    assert result.ok, result.text()
    for run in (path, second):
        assert verify(site.project, run).ok
        jsonschema.validate(json.loads(run.read_bytes()), json.loads(record.PUBLISHED.read_bytes()))
    # Large files lie once on the disk.
    assert (path.parent / "engine" / "rank0.engine").stat().st_nlink == 2


def test_only_the_last_steps_again_with_other_questions(site: Site) -> None:
    site.run()
    site.engine.requests.clear()
    other = dataclasses.replace(EXAMPLE, run=Run(("The Queen said",), 4, None))
    manifest = record.read(site.run(other, only=("run",)))
    assert started(site) == ["run"]
    assert [output.prompt for output in manifest.outputs] == ["The Queen said"]


def test_every_prompt_of_an_old_release_is_run(site: Site) -> None:
    site.run(release="0.5.0")
    manifest = record.read(site.run(release="0.5.0", only=("run",)))
    names = [command.name for command in manifest.commands if command.reused_from is None]
    assert names == ["run-1", "run-2", "run-3"]
    one = record.read(site.run(release="0.5.0", only=("run-2",)))
    assert [output.prompt for output in one.outputs] == list(EXAMPLE.run.prompts[:2])


def test_what_a_step_needs_has_to_be_there(site: Site) -> None:
    with pytest.raises(KitError, match="--only run needs what convert makes") as caught:
        site.run(only=("run",))
    assert caught.value.exit_code == ExitCode.USAGE
    assert str(caught.value.hint).endswith(" --only convert,build,run")
    site.run(only=("convert",))
    with pytest.raises(KitError, match="--only run needs what build makes") as caught:
        site.run(only=("run",))
    assert str(caught.value.hint).endswith(" --only build,run")


@pytest.mark.parametrize(
    ("only", "message", "hint"),
    [
        (("biuld",), "no such step with release 0.16.0; did you mean build?", "--only convert"),
        (("convert", "run"), "leaves out build between them", "--only convert,build,run"),
    ],
)
def test_steps_that_cannot_be_chosen(
    site: Site, only: tuple[str, ...], message: str, hint: str
) -> None:
    with pytest.raises(KitError) as caught:
        site.run(only=only)
    assert message in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE
    assert str(caught.value.hint).endswith(hint)


def test_a_known_checkpoint_is_not_converted_again(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    first = site.run(reuse=True)
    # Another example with the same conversion, and with other prompts.
    other = dataclasses.replace(EXAMPLE, name="other", run=Run(("Alice was",), 4, None))
    site.engine.requests.clear()
    path = site.run(other, reuse=True)
    manifest = record.read(path)
    assert started(site) == ["build", "run"]
    assert manifest.commands[0].reused_from == f"gpt2-tiny/{RELEASE}/{first.parent.name}"
    assert "[convert] taken from gpt2-tiny/" in capsys.readouterr().err
    assert verify(site.project, path).ok
    assert record.read(first).select("checkpoint") == manifest.select("checkpoint")
    # Whoever does not want it gets a conversion.
    site.engine.requests.clear()
    assert made_by(record.read(site.run(other)))[0] == ("convert", False)


def test_a_checkpoint_is_known_whichever_gpu_converted_it(site: Site) -> None:
    site.run(reuse=True, gpus="0")
    assert made_by(record.read(site.run(reuse=True, gpus="1")))[0] == ("convert", True)
    assert made_by(record.read(site.run(reuse=True)))[0] == ("convert", False)


def test_a_checkpoint_of_another_type_is_another_one(site: Site) -> None:
    site.run(reuse=True)
    half = dataclasses.replace(EXAMPLE.checkpoint, dtype="float16")
    manifest = record.read(site.run(dataclasses.replace(EXAMPLE, checkpoint=half), reuse=True))
    assert made_by(manifest)[0] == ("convert", False)


@pytest.mark.parametrize("how", ["altered", "gone", "index"])
def test_a_checkpoint_that_is_not_what_it_was_is_forgotten(site: Site, how: str) -> None:
    first = site.run(reuse=True)
    (index,) = (site.project.home / "checkpoints").glob("*.json")
    if how == "altered":
        weights = first.parent / "checkpoint" / "rank0.safetensors"
        weights.chmod(0o644)
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    elif how == "gone":
        shutil.rmtree(first.parent)
    else:
        index.write_text("[]")
    manifest = record.read(site.run(reuse=True))
    assert made_by(manifest)[0] == ("convert", False)
    assert made_by(record.read(site.run(reuse=True)))[0] == ("convert", True)


def test_more_ranks_than_gpus(site: Site) -> None:
    with pytest.raises(KitError, match="--gpus 0: 1 GPUs for 2 ranks") as caught:
        site.run("gpt2-tiny-tp2", gpus="0")
    assert caught.value.exit_code == ExitCode.USAGE
    assert "--gpus 0,1" in str(caught.value.hint)


def test_runs_are_listed_the_latest_first(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "e" / "0.9.0"
    names = ["20260102T030405Z-2", "20260102T030405Z-10", "20260101T030405Z-1"]
    for name in (*names, "20260102T030405Z-3-failed", ".run-x"):
        (place / name).mkdir(parents=True)
    found = [path.name for path in folders.finished(tmp_path / "runs", "e", "0.9.0")]
    assert found == [names[1], names[0], names[2]]
    assert folders.unfinished(tmp_path / "runs", "e", "0.9.0") == []
