from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError, content_error
from kit.examples import run as runner
from kit.images.build import LOCK_LABEL
from kit.images.engine import Gpus
from kit.images.oci import Layout
from kit.manifests import record
from kit.reproduce import again, page, text
from tests.unit.examples.local import Site

if TYPE_CHECKING:
    from pathlib import Path

    from kit.examples.taken import Choices
    from tests.unit.reproduce.conftest import Pair


def test_it_runs_again_apart_from_other_runs(unified: Pair) -> None:
    found = unified.found
    assert found.ladder.reached is not None
    assert str(found.ladder.reached) == "L8"
    assert found.again_path is not None
    runs = unified.site.project.runs
    assert found.again_path.is_relative_to(runs / again.FOLDER)
    assert found.again is not None
    assert not any(command.reused_from for command in found.again.commands)
    content = json.loads(json.dumps(found.to_dict()))
    assert (content["reached"], content["problem"]) == ("L8", None)
    assert [row["name"] for row in content["levels"]] == [f"L{number}" for number in range(9)]
    assert content["manifest_digest"] == str(Digest.of_file(unified.path))


def test_text_begins_with_the_result_and_has_every_level(unified: Pair) -> None:
    lines = text.text(unified.found).splitlines()
    assert lines[0] == "gpt2-tiny with TensorRT-LLM 0.16.0: reproduced to L8, same bytes"
    assert [line.split()[0] for line in lines[2:11]] == [f"L{n}" for n in range(8, -1, -1)]


def test_a_step_that_fails_is_a_result(unified: Pair, tmp_path: Path) -> None:
    site = Site.make(tmp_path / "broken")
    run = unified.copy(tmp_path / "record")
    (site.engine.tree / "0.16.0" / "bin" / "trtllm-build").unlink()
    (site.engine.tree / "0.16.0" / "bin" / "trtllm-build").write_text("#!/bin/sh\nexit 7\n")
    (site.engine.tree / "0.16.0" / "bin" / "trtllm-build").chmod(0o755)
    example = again.example_of(record.read(run.path), None, None, None)
    found = again.reproduce(site.project, site.engine, site.image, run.path, example)
    assert found.again is None
    assert found.problem is not None
    assert "build" in found.problem
    assert [rung.state for rung in found.ladder.rungs] == ["passed", *["unchecked"] * 8]
    assert str(found.ladder.reached) == "L0"
    assert "the run stopped" in text.text(found)
    assert "the run stopped" in page.page(found)
    assert found.result["level"] == "L0"


def test_steps_that_were_left_out_are_left_out_again(tmp_path: Path) -> None:
    site = Site.make(tmp_path)
    path = site.run(only=("convert", "build"))
    example = again.example_of(record.read(path), None, None, None)
    found = again.reproduce(site.project, site.engine, site.image, path, example)
    assert found.again is not None
    assert [command.name for command in found.again.commands] == ["convert", "build"]
    assert found.ladder.rungs[6].state == "absent"
    assert str(found.ladder.reached) == "L8"


def test_a_recipe_of_somebodys_own_has_to_be_given(unified: Pair, tmp_path: Path) -> None:
    manifest = record.read(unified.path)
    own = replace(manifest, example=replace(manifest.example, name="my-model"))
    with pytest.raises(KitError, match="no example of this kit") as caught:
        again.example_of(own, None, None, None)
    assert "--config" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("recorded", "asked"),
    [("none", ""), ("all", "all"), ("1,2", "1,2"), ("GPU-0123456789ab,GPU-0123456789cd", "0,1")],
)
def test_as_many_gpus_as_the_record_had(unified: Pair, recorded: str, asked: str) -> None:
    manifest = replace(record.read(unified.path), gpus=recorded)
    assert again._gpus(manifest) == Gpus.parse(asked)


def test_the_very_image_of_the_record_is_taken(unified: Pair, tmp_path: Path) -> None:
    site = Site.make(tmp_path)
    manifest = record.read(unified.path)
    lock = Digest.of_bytes(b"another lock")
    image = Layout(site.project.images).write_image(
        name="localhost/trtllm-kit/rehearsal:latest",
        layers=(),
        settings={"Labels": {LOCK_LABEL: str(lock)}},
        history=(),
        platform="linux/amd64",
        epoch=0,
    )
    named = replace(manifest, image=record.Image(str(image.manifest_digest), str(image.image_id)))
    found = again.image_of(site.project, named)
    assert (found.manifest_digest, found.lock) == (image.manifest_digest, lock)
    with pytest.raises(KitError, match="not built yet") as caught:
        again.image_of(site.project, manifest)
    assert caught.value.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("stack", [None, "own-triton"])
def test_the_server_of_the_record_is_asked_for(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, stack: str | None
) -> None:
    """Not the one that the tables have for the release."""
    seen: list[Choices] = []

    def stops(*given: Any) -> Any:
        seen.append(given[-1])
        raise content_error("far enough")

    monkeypatch.setattr(runner, "run", stops)

    def serve(manifest: dict[str, Any]) -> None:
        if stack is not None:
            manifest["server"] = {"stack": stack, "image": manifest["image"]}

    pair.change_record(serve)
    example = again.example_of(record.read(pair.path), None, None, None)
    again.reproduce(pair.site.project, pair.site.engine, pair.site.image, pair.path, example)
    assert [choices.triton_stack for choices in seen] == [stack]
