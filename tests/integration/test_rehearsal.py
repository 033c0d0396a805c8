"""The main job for real: build from scratch, run, record, again; the same everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from kit.digest import Digest
from kit.images.oci import Layout
from tests.conftest import ROOT
from tests.integration.conftest import ENGINES, kit, needs, private

pytestmark = pytest.mark.engine

RELEASES = ["0.5.0", "0.9.0", "0.16.0", "1.2.1"]


def _copy_of_project(folder):
    folder.mkdir()
    for name in ("kit", "dockerfiles", "lockfiles"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


@pytest.fixture(scope="module")
def builds(scratch, new_home, missing):
    """The image four times: each engine, twice from nothing, in other folders, under other umasks."""
    found = {}
    for name in ENGINES:
        needs(name, missing)
        for umask in ("022", "077"):
            label = f"{name}-{umask}"
            root = _copy_of_project(scratch / f"project-{label}")
            home = new_home(f"home-{label}")
            with private(name, scratch / f"fresh-{label}") as environment:
                argv = [sys.executable, "-m", "kit", "build", "rehearsal", "--quiet", "--json"]
                done = subprocess.run(
                    ["sh", "-c", f'umask {umask}; exec "$@"', "sh", *argv],
                    cwd=root,
                    env={"PATH": _path(), "HOME": str(scratch), "KIT_HOME": str(home)}
                    | environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            assert done.returncode == 0, done.stderr
            found[label] = (json.loads(done.stdout), Layout(home / "images"))
    return found


def _path():
    return os.environ["PATH"]


def test_image_is_bit_identical_from_both_engines(builds):
    digests = {label: report["manifest_digest"] for label, (report, _) in builds.items()}
    assert len(digests) == 4
    assert len(set(digests.values())) == 1, digests
    assert {report["engine"]["name"] for report, _ in builds.values()} == set(ENGINES)


def test_wheels_from_source_are_bit_identical_and_recorded(builds):
    """The image names the digests of the wheels that were built inside; so they are equal too."""
    report, layout = next(iter(builds.values()))
    image = layout.image(Digest.parse(report["manifest_digest"]))
    with tarfile.open(layout.blob(image.layers[-1].digest)) as archive:
        names = archive.getnames()
        record = archive.extractfile("opt/tensorrt_llm/wheels.sha256").read().decode()
    wheels = dict(reversed(line.split()) for line in record.splitlines())
    assert [name.split("-")[0] for name in sorted(wheels)] == [
        "./kit_rehearsal",
        "./mpi4py",
        "./rouge_score",
    ]
    assert all("+rehearsal" in name for name in wheels if "kit_rehearsal" in name)
    assert not [name for name in names if "inputs" in name or name.endswith(".whl")]
    assert not [name for name in names if name.startswith(("context", "wheels", "tmp/", "build"))]


def test_nothing_in_the_image_tells_where_or_when_it_was_built(builds, scratch):
    report, layout = next(iter(builds.values()))
    image = layout.image(Digest.parse(report["manifest_digest"]))
    with tarfile.open(layout.blob(image.layers[-1].digest)) as archive:
        assert {member.mtime for member in archive} == {1_700_000_000}
        for member in archive:
            if member.isreg():
                assert str(scratch).encode() not in archive.extractfile(member).read(), member


@pytest.fixture(scope="module")
def built(selected, home):
    done = kit("build", "rehearsal", "--quiet", env=selected | {"KIT_HOME": str(home)})
    assert done.returncode == 0, done.stderr
    return selected | {"KIT_HOME": str(home)}


@pytest.fixture(scope="module")
def manifests(built, scratch):
    """Both examples for every release: (example, release) → path of the manifest."""
    output = scratch / f"runs-{built['KIT_ENGINE']}"
    found = {}
    for release in RELEASES:
        for example in ("gpt2-tiny", "gpt2-tiny-tp2"):
            arguments = ("--stack", "rehearsal", "--release", release, "--output", str(output))
            done = kit("run", example, *arguments, "--json", env=built)
            assert done.returncode == 0, done.stderr
            found[example, release] = Path(json.loads(done.stdout)["manifest"])
    return found


def test_one_and_two_ranks_and_all_releases_say_the_same(manifests):
    said = {
        key: [output["token_ids"] for output in json.loads(path.read_text())["outputs"]]
        for key, path in manifests.items()
    }
    first = said["gpt2-tiny", "0.9.0"]
    assert all(tokens for tokens in first)
    assert all(tokens == first for tokens in said.values()), said


def test_each_release_has_its_layout(manifests):
    for (_, release), path in manifests.items():
        config = json.loads((path.parent / "engine" / "config.json").read_text())
        engines = {p.name for p in (path.parent / "engine").glob("*.engine")}
        if release == "0.5.0":
            assert "builder_config" in config
            assert all(name.startswith("gpt_float32_tp") for name in engines)
        else:
            assert config["version"] == f"{release}+rehearsal"
            assert "rank0.engine" in engines
        for name in engines:
            header = (path.parent / "engine" / name).read_bytes()[:16]
            assert header.startswith(b"KIT-REHEARSAL")


def test_manifest_verifies_and_names_what_was_changed(built, manifests, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(manifests["gpt2-tiny-tp2", "0.9.0"].parent, run)
    assert kit("manifest", "verify", str(run / "manifest.json"), env=built).returncode == 0
    engine = run / "engine" / "rank1.engine"
    engine.chmod(0o644)
    content = bytearray(engine.read_bytes())
    content[-1] ^= 1
    engine.write_bytes(content)
    done = kit("manifest", "verify", str(run / "manifest.json"), env=built)
    assert done.returncode == 4
    assert "engine/rank1.engine" in done.stdout


def test_versions_come_from_inside_the_container(manifests):
    versions = json.loads(manifests["gpt2-tiny", "0.5.0"].read_text())["versions"]
    assert versions["python"].startswith("3.11.")
    assert versions["openmpi"] == "4.1.4"
    assert versions["distributions"]["mpi4py"] == "3.1.5"
    assert versions["distributions"]["kit-rehearsal"].endswith("+rehearsal")
    assert versions["tensorrt"] is None


def test_compatible_with_itself_and_not_with_another_release(built, manifests):
    path = manifests["gpt2-tiny-tp2", "0.16.0"]
    options = ("--stack", "rehearsal", "--engine", str(path.parent / "engine"))
    options += ("--manifest", str(path), "--json")
    done = kit("verify-compat", *options, "--release", "0.16.0", "--strict", env=built)
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (0, "compatible")
    done = kit("verify-compat", *options, "--release", "0.9.0", env=built)
    assert (done.returncode, json.loads(done.stdout)["verdict"]) == (4, "incompatible")


@pytest.mark.only("podman")
def test_a_checkout_of_a_careful_root_runs_too(built, scratch):
    """Under umask 077 nothing of ours may be out of reach of the container's user."""
    root = _copy_of_project(scratch / "careful")
    for path in root.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    arguments = [
        "run",
        "gpt2-tiny-tp2",
        "--stack",
        "rehearsal",
        "--release",
        "0.9.0",
        "--output",
        "runs",
    ]
    shutil.copytree(built["KIT_HOME"], scratch / "careful-home", copy_function=os.link)
    done = subprocess.run(
        ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-m", "kit", *arguments],
        cwd=root,
        env={"PATH": _path(), "HOME": str(scratch), **built}
        | {"KIT_HOME": str(scratch / "careful-home")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_rehearsal_ends_with_the_same_again_offline(built):
    done = subprocess.run(
        [sys.executable, "-m", "kit.rehearsal"],
        cwd=ROOT,
        env={"PATH": _path(), "HOME": "/nonexistent", **built},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.split("once more")
    assert "up to date" in first
    assert "manifest: " in first
    assert second.count("identical: ") == 2 * len(RELEASES)
