from __future__ import annotations

import argparse
import io
import json
import sys
from typing import TYPE_CHECKING

import pytest

from kit.commands.diagnose import UNKNOWN, run
from kit.errors import ExitCode, KitError

if TYPE_CHECKING:
    from pathlib import Path

LOG = "ok\nCurrent Version: 226, Serialized Engine Version: 228\n"


def _options(log: str | None, *, as_json: bool = False, release: str | None = None):
    return argparse.Namespace(log=log, json=as_json, release=release, debug=False)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "x.log"
    path.write_text(LOG, encoding="utf-8")
    return path


def test_text(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_options(str(log))) == 0
    out = capsys.readouterr().out
    assert "1. trt-serialization-version-mismatch (trtllm-vs-triton)" in out
    assert "evidence: line 2: Current Version: 226" in out
    assert "--release R" in out


def test_json(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(_options(str(log), as_json=True, release="0.16.0")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["schema"] == "kit.diagnose/1"
    assert document["ok"] is True
    (match,) = document["matches"]
    assert {"id", "category", "cause", "fix", "evidence", "source"} <= match.keys()
    assert document["release"] == {"version": "0.16.0", "from": "--release"}


@pytest.mark.parametrize("name", [None, "-"])
def test_standard_input(
    name: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(LOG.encode())))
    assert run(_options(name)) == 0
    assert "trt-serialization" in capsys.readouterr().out


def test_unknown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.log"
    path.write_text("fine\n[ERROR] nobody knows this one\n", encoding="utf-8")
    assert run(_options(str(path))) == 0
    out = capsys.readouterr().out
    assert UNKNOWN in out
    assert "line 2: [ERROR] nobody knows this one" in out


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path / "absent.log", ExitCode.USAGE),
        (lambda path: path, ExitCode.USAGE),
        (lambda path: _written(path / "x.bin", bytes(range(256)) * 99), ExitCode.CONTENT),
    ],
)
def test_no_log(make, code: ExitCode, tmp_path: Path) -> None:
    with pytest.raises(KitError) as caught:
        run(_options(str(make(tmp_path))))
    assert caught.value.exit_code == code
    assert caught.value.hint


def test_an_unknown_release_is_refused(log: Path) -> None:
    with pytest.raises(KitError) as caught:
        run(_options(str(log), release="0.99.0"))
    assert caught.value.exit_code == ExitCode.USAGE


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
