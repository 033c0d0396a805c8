"""Runs are made again without any network, and what was changed in a record is found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kit.reproduce.ladder import LEVELS
from tests.conftest import ROOT
from tests.integration.conftest import kit

pytestmark = pytest.mark.engine

RUNS = [("gpt2-tiny", "0.5.0"), ("gpt2-tiny-tp2", "0.9.0"), ("gpt2-tiny", "0.16.0")]


@pytest.fixture(scope="module")
def built(selected, home):
    done = kit("build", "rehearsal", "--quiet", env=selected | {"KIT_HOME": str(home)})
    assert done.returncode == 0, done.stderr
    return selected | {"KIT_HOME": str(home)}


@pytest.fixture(scope="module")
def manifests(built, scratch):
    found = {}
    for example, release in RUNS:
        output = scratch / f"recorded-{built['KIT_ENGINE']}"
        arguments = ("--stack", "rehearsal", "--release", release, "--output", str(output))
        done = kit("run", example, *arguments, "--json", env=built)
        assert done.returncode == 0, done.stderr
        found[example, release] = Path(json.loads(done.stdout)["manifest"])
    return found


@pytest.fixture
def offline(built, scratch, missing):
    """Run `kit reproduce` in a network namespace that has no interface but its own loopback."""
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        missing("no right to make a network namespace")

    def reproduce(manifest, *arguments, root=ROOT):
        output = scratch / f"again-{built['KIT_ENGINE']}"
        argv = ["unshare", "--net", sys.executable, "-m", "kit", "reproduce", str(manifest)]
        return subprocess.run(
            [*argv, "--output", str(output), *arguments],
            cwd=root,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **built},
            capture_output=True,
            text=True,
            check=False,
        )

    return reproduce


@pytest.fixture
def record(manifests, tmp_path):
    """A copy of a recorded run that a test may change."""
    shutil.copytree(manifests["gpt2-tiny", "0.16.0"].parent, tmp_path / "record")
    return tmp_path / "record"


def change(record, path, place, mask):
    """Flip bits of a recorded file, with a record that vouches for it."""
    file = record / path
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    content[place] ^= mask
    file.write_bytes(content)
    document = json.loads((record / "manifest.json").read_text())
    for item in document["artifacts"]:
        if item["path"] == path:
            item["sha256"] = hashlib.sha256(content).hexdigest()
    (record / "manifest.json").write_text(json.dumps(document))


@pytest.mark.parametrize("run", RUNS, ids="-".join)
def test_the_same_to_the_byte_without_a_network(manifests, offline, tmp_path, run):
    report = tmp_path / "report.html"
    done = offline(manifests[run], "--require", "L8", "--report", str(report), "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["schema"], answer["ok"], answer["reached"]) == ("kit.reproduce/1", True, "L8")
    assert {level["state"] for level in answer["levels"]} == {"passed"}
    assert answer["again"] != str(manifests[run])
    assert "reproduced to L8" in report.read_text()


def test_of_a_manifest_alone(record, offline, tmp_path):
    shutil.copy(record / "manifest.json", tmp_path / "alone.json")
    done = offline(tmp_path / "alone.json", "--require", "L8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].endswith("reproduced to L8, same bytes")


def test_what_was_changed_is_found_on_its_level_with_both_values(record, offline):
    change(record, "checkpoint/rank0.safetensors", -3, 0x10)
    change(record, "engine/rank0.engine", -3, 0x10)
    document = json.loads((record / "manifest.json").read_text())
    token = document["outputs"][0]["token_ids"][5]
    document["outputs"][0]["token_ids"][5] = token + 1
    (record / "manifest.json").write_text(json.dumps(document))
    done = offline(record, "--require", "L6", "--json")
    assert done.returncode == 4
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["reached"], answer["required"]) == (False, "L1", "L6")
    levels = {level["name"]: level for level in answer["levels"]}
    assert [name for name, level in levels.items() if level["state"] == "failed"] == [
        "L2",
        "L6",
        "L8",
    ]
    for name, text in (("L2", "1 of "), ("L6", "first 5 of 24"), ("L8", "1 bytes differ")):
        (found,) = levels[name]["differences"]
        assert text in found["note"]
        assert None not in (found["recorded"], found["found"])
    (found,) = levels["L6"]["differences"]
    assert str(token + 1) in found["recorded"].split()
    assert str(token) in found["found"].split()


def test_a_file_that_was_altered_on_the_way(record, offline):
    engine = record / "engine" / "rank0.engine"
    engine.chmod(0o644)
    engine.write_bytes(engine.read_bytes()[:-1] + b"x")
    done = offline(record)
    assert done.returncode == 4
    assert "not reproduced, L0 failed" in done.stdout
    assert "engine/rank0.engine" in done.stdout


def test_another_lock_than_the_records(record, offline, scratch, built):
    root = scratch / f"other-lock-{built['KIT_ENGINE']}"
    for name in ("kit", "dockerfiles", "lockfiles"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, root / name, ignore=ignored)
    path = root / "lockfiles" / "rehearsal.lock.yaml"
    path.write_text(path.read_text().replace('version: "3.134"', 'version: "3.135"', 1))
    done = offline(record, "--require", "L1", "--json", root=root)
    assert done.returncode == 4, done.stderr
    answer = json.loads(done.stdout)
    assert answer["reached"] == "L0"
    (found,) = answer["levels"][1]["differences"]
    assert "lock" in found["name"]
    assert found["recorded"] != found["found"]


def test_all_levels_are_told_in_the_order_of_the_ladder(record, offline):
    done = offline(record, "--gpus", "none")
    assert done.returncode == 0, done.stderr
    told = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  L")]
    assert told == [str(level) for level in reversed(LEVELS)]
