"""What srun starts on a node, as a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kit.digest import Digest

if TYPE_CHECKING:
    from pathlib import Path

DIGEST = str(Digest.of_bytes(b"image"))


def answer(marks: dict[str, str], home: Path, path: str, **changes: Any) -> dict[str, Any]:
    """What `check` says; `path` has the programs that this node has."""
    question = {
        "marks": marks,
        "read": [str(home)],
        "root": str(home),
        "home": str(home),
        "stack": "rehearsal",
        "digest": DIGEST,
        "image_id": DIGEST,
        "gpus": "none",
        "ranks": 2,
        **changes,
    }
    done = subprocess.run(
        [sys.executable, "-m", "kit.slurm.node", "check", json.dumps(question)],
        env={**os.environ, "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n2", "PATH": path}
        | {"KIT_ENGINE": "podman"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert len(done.stdout.splitlines()) == 1, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["node"] == "n2"
    assert done.returncode == found.get("exit_code", 0)
    return found


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A Podman that has every image."""
    folder = tmp_path / "bin"
    folder.mkdir()
    podman = folder / "podman"
    podman.write_text("#!/bin/sh\ncase $1 in --version) echo podman version 9.9;; esac\n")
    podman.chmod(0o755)
    return folder


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    path = tmp_path / "mark"
    path.write_text("word")
    return path


def test_a_node_that_is_ready(tmp_path: Path, programs: Path, mark: Path) -> None:
    found = answer({str(mark): "word"}, tmp_path, str(programs))
    assert (found["engine"], found["imported"]) == ("podman 9.9", False)
    assert found["facts"]["cores"] >= 1


def test_storage_that_is_not_shared(tmp_path: Path, programs: Path, mark: Path) -> None:
    found = answer({str(mark): "another word"}, tmp_path, str(programs))
    assert found["exit_code"] == 3
    assert "does not see the storage of the job's first node" in found["message"]
    found = answer({str(tmp_path / "none"): "word"}, tmp_path, str(programs))
    assert f"{tmp_path}/none: No such file or directory" in found["message"]
    assert "KIT_HOME" in found["hint"]


def test_a_node_without_an_engine(tmp_path: Path, mark: Path) -> None:
    found = answer({str(mark): "word"}, tmp_path, str(tmp_path))
    assert found["exit_code"] == 3
    assert "KIT_ENGINE=podman: not installed" in found["message"]


def test_a_node_with_too_few_gpus(tmp_path: Path, programs: Path, mark: Path) -> None:
    found = answer({str(mark): "word"}, tmp_path, str(programs), gpus="all", ranks=100)
    assert found["exit_code"] == 2
    assert "GPUs for 100 ranks" in found["message"]


def test_a_model_that_only_the_first_node_has(tmp_path: Path, programs: Path, mark: Path) -> None:
    found = answer({str(mark): "word"}, tmp_path, str(programs), read=[str(tmp_path / "model")])
    assert found["exit_code"] == 3
    assert f"does not see {tmp_path}/model" in found["message"]
