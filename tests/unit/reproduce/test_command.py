"""`kit reproduce` as it is typed; the engine runs processes instead of containers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kit import cli, images, project
from kit.errors import ExitCode
from kit.reproduce import again

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.reproduce.conftest import Pair


@pytest.fixture
def local(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Pair:
    monkeypatch.setattr(project, "find", lambda: pair.site.project)
    monkeypatch.setattr(images, "select", lambda _home: pair.site.engine)
    monkeypatch.setattr(again, "image_of", lambda _project, _manifest: pair.site.image)
    return pair


def test_a_level_that_is_reached(
    local: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    words = ["reproduce", str(local.folder), "--require", "L8", "--report", str(report)]
    assert cli.run([*words, "--output", str(tmp_path / "runs")]) == ExitCode.OK
    said = capsys.readouterr()
    assert said.out.startswith("gpt2-tiny with TensorRT-LLM 0.16.0: reproduced to L8")
    assert f"report: {report}" in said.err
    assert report.read_text().startswith("<!DOCTYPE html>")
    assert list((tmp_path / "runs" / "gpt2-tiny" / "0.16.0").glob("*-1/manifest.json"))


def test_a_level_that_is_not_reached(local: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    local.change_record(lambda manifest: manifest["outputs"][0].update(token_ids=[5]))
    assert cli.run(["reproduce", str(local.path), "--require", "6"]) == ExitCode.CONTENT
    said = capsys.readouterr()
    assert "L6  same tokens: failed" in said.out
    assert "error: L6 was asked for" in said.err
    assert "L5 was reached" in said.err
    assert "try: kit manifest diff" in said.err


def test_without_a_level_whatever_fails_is_a_failure(
    local: Pair, capsys: pytest.CaptureFixture[str]
) -> None:
    local.change_record(lambda manifest: manifest["outputs"][0].update(token_ids=[5]))
    assert cli.run(["reproduce", str(local.path), "--json"]) == ExitCode.CONTENT
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["ok"], answer["required"]) == ("kit.reproduce/1", False, None)
    assert [level["name"] for level in answer["levels"] if level["state"] == "failed"] == ["L6"]
    assert cli.run(["reproduce", str(local.path), "--require", "L3"]) == ExitCode.OK


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["nowhere"], 2, "there is no manifest"),
        (["{path}", "--require", "L9"], 2, "from L0 to L8"),
        (["{path}", "--gpus", "first"], 2, "neither an index nor a UUID"),
        (["{path}", "--model", "/nowhere"], 2, "/nowhere"),
        (["{path}", "--config", "/nowhere.yaml"], 2, "/nowhere.yaml"),
    ],
)
def test_wrong_requests(
    local: Pair, capsys: pytest.CaptureFixture[str], words: list[str], code: int, text: str
) -> None:
    given = [word.replace("{path}", str(local.path)) for word in words]
    assert cli.run(["reproduce", *given]) == code
    assert text in capsys.readouterr().err
