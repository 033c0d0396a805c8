"""Stages on a pulled base: alone, resumable, the same from both engines, the base untouched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid

import pytest

from kit.digest import Digest
from kit.errors import ExitCode
from kit.images.engine import RunRequest
from kit.images.index import base_index
from kit.images.media_types import LAYER, LAYER_GZIP, MANIFEST
from kit.images.oci import Layout
from kit.images.pulled import pulled
from kit.locks import lock as locks
from kit.locks.oci import write_layout
from kit.store import Store
from tests.conftest import ROOT
from tests.integration.conftest import ENGINES, kit, needs, private
from tests.integration.images.staged import (
    EPOCH,
    Site,
    base_image,
    config,
    layer_paths,
    push,
)
from tests.stand_in.file_server import FileServer
from tests.stand_in.git_server import GitServer
from tests.stand_in.registry import DockerRegistry

pytestmark = pytest.mark.engine
STAGES = ["devel", "wheel", "release"]


@pytest.fixture(scope="session")
def registry(scratch, missing):
    for program in ("docker-registry", "skopeo"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed")
    with DockerRegistry(scratch / "staged-registry") as found:
        yield found


@pytest.fixture(scope="session")
def site(scratch, place, registry):
    """The project, locked and fetched; servers are gone afterwards."""
    made = Site(scratch / "staged")
    made.family()
    image = base_image(scratch / "staged-base", place)
    reference = push(image, registry.host, "24.11-py3")
    with FileServer() as files, GitServer(scratch / "staged-git") as git:
        files.put("/tool", b"tool\n")
        files.put("/part", b"part\n")
        commit = git.repository("tree.git").commit(
            {"main.c": b"int main;\n", "3rdparty/x": b"x"},
            programs={"build.sh": b"#!/bin/sh\necho built\n"},
        )
        made.intent(reference, files.url, f"{git.url}/tree.git", commit)
        made.write(
            "lockfiles/docker-form.yaml",
            "schema: kit.intent/1\nstack: docker-form\nfamily: staged\nplatform: linux/amd64\n"
            "epoch: 1\nimages:\n"
            f"- {{name: base, reference: '{push(image, registry.host, 'docker', 'v2s2')}'}}\n",
        )
        for stack in ("staged", "docker-form"):
            for command in ("lock", "fetch"):
                done = _kit(made, scratch / "staged-home", {}, command, stack)
                assert done.returncode == 0, done.stderr
    return made


def _environment(site, home, engine):
    return {**engine, "KIT_ROOT": str(site.root), "KIT_HOME": str(home)}


def _kit(site, home, engine, *arguments):
    return kit(*arguments, env=_environment(site, home, engine))


@pytest.fixture(scope="session")
def fresh_home(scratch, site):
    """Homes with the fetched inputs and nothing else."""

    def make(name):
        home = scratch / f"staged-{name}"
        shutil.copytree(scratch / "staged-home" / "store", home / "store", copy_function=os.link)
        return home

    return make


@pytest.fixture(scope="session")
def builds(scratch, site, fresh_home, missing):
    """The image from each engine, twice from nothing."""
    found = {}
    for name in ENGINES:
        needs(name, missing)
        with private(name, scratch / f"staged-storage-{name}") as engine:
            for attempt in ("first", "second"):
                home = fresh_home(f"{name}-{attempt}")
                options = ("--rebuild",) if attempt == "second" else ()
                done = _kit(site, home, engine, "build", "staged", "--json", *options)
                assert done.returncode == 0, done.stderr
                found[name, attempt] = (json.loads(done.stdout), Layout(home / "images"))
    return found


def test_the_same_from_both_engines_and_again(builds):
    digests = {label: report["manifest_digest"] for label, (report, _) in builds.items()}
    assert len(set(digests.values())) == 1, digests
    for report, _ in builds.values():
        assert [stage["stage"] for stage in report["stages"]] == STAGES
        assert not any(stage["was_current"] for stage in report["stages"])


def test_blobs_of_the_base_are_the_registrys_own(builds, site):
    report, layout = next(iter(builds.values()))
    image = layout.image(Digest.parse(report["manifest_digest"]))
    lock = (site.root / "lockfiles/staged.lock.yaml").read_text()
    assert [layer.media_type for layer in image.layers] == [LAYER_GZIP] * 5 + [LAYER] * 2
    for layer in image.layers[:5]:
        assert layer.digest.hex in lock
        assert Digest.of_file(layout.blob(layer.digest)) == layer.digest


def test_layers_hold_what_the_stages_did_and_nothing_else(builds):
    report, layout = next(iter(builds.values()))
    image = layout.image(Digest.parse(report["manifest_digest"]))
    devel = layer_paths(layout, image.layers[5])
    assert sorted(devel) == [
        "opt/base/.wh.gone",
        "opt/base/folder/.wh.a",
        "opt/base/folder/again/deep/.wh.c",
        "opt/base/folder/d",
        "opt/base/one",
        "opt/tool",
        "opt/tool/again",
        "opt/tool/bin",
        "opt/tool/bin/tool",
        "opt/tool/version",
    ]
    assert devel["opt/tool/version"].linkname == "opt/tool/again"
    assert {member.mtime for member in devel.values()} == {EPOCH}
    release = layer_paths(layout, image.layers[6])
    assert sorted(release) == [
        "app",
        "app/tensorrt_llm",
        "app/tensorrt_llm/said",
        "app/tensorrt_llm/x.whl",
        "opt/tool/.wh.again",
    ]


def test_configuration_goes_on_from_the_base(builds):
    report, layout = next(iter(builds.values()))
    found = config(layout, Digest.parse(report["manifest_digest"]))
    assert found["config"]["Env"] == [
        "CUDA_VERSION=99",
        "PATH=/opt/tool/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG=C.UTF-8",
        "ADDED=1",
    ]
    labels = found["config"]["Labels"]
    assert labels["com.example.version"] == "24"
    assert labels["org.trtllm-kit.stack"] == "staged"
    assert labels["org.trtllm-kit.releases"] == "0.16.0"
    assert "org.trtllm-kit.arguments" not in labels
    assert found["config"]["ExposedPorts"] == {"8888/tcp": {}}
    assert [line["created_by"] for line in found["history"]] == [
        *("packages", "files", "nothing", "whiteouts", "ENV", "nothing"),
        *("kit: stage devel", "kit: build staged"),
    ]


@pytest.fixture(scope="module")
def staged_home(selected, fresh_home):
    """For builds by the engine of the session."""
    return fresh_home(f"shared-{selected['KIT_ENGINE']}")


@pytest.fixture(scope="module")
def built(selected, staged_home, site):
    done = _kit(site, staged_home, selected, "build", "staged", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _states(report):
    return [(stage["stage"], stage["was_current"]) for stage in report["stages"]]


@pytest.mark.parametrize("stack", ["staged", "docker-form"])
def test_pulled_image_is_loaded_as_it_is(scratch, site, engine, stack, tmp_path):
    """Gzipped layers, one of them twice, under manifests of OCI and of Docker."""
    lock = locks.load(site.root / "lockfiles" / f"{stack}.lock.yaml")
    store = Store(scratch / "staged-home" / "store")
    layout = Layout(tmp_path / "images")
    image = layout.image(write_layout(lock.select(kind="oci"), store, layout, "base:1"))
    assert (image.media_type == MANIFEST) == (stack == "staged")
    name = f"localhost/kit-test/pulled-{stack}:1"
    assert engine.load(image, name).removeprefix("sha256:") == image.image_id.hex
    assert engine.load(image, name).removeprefix("sha256:") == image.image_id.hex, "once more"
    request = RunRequest(image=name, argv=("sh", "-c", "cat /opt/base/two; ls /opt/base"))
    said = []
    assert engine.run(request, said.append) == 0
    assert said == ["oneemptied", "folder", "gone", "one", "same", "two"]
    again = pulled(layout, lock, store, "base", "localhost/kit-test/again:1")
    assert (again.image_id, again.layers) == (image.image_id, image.layers)
    assert again.media_type == MANIFEST
    entries = base_index(layout, again)
    below = sorted(path for path in entries if path.startswith("opt/base/folder"))
    assert below == [
        "opt/base/folder",
        "opt/base/folder/a",
        "opt/base/folder/again",
        "opt/base/folder/again/deep",
        "opt/base/folder/again/deep/c",
    ]
    engine.remove(name)


@pytest.mark.parametrize("stage", STAGES)
def test_killed_in_a_stage_goes_on_there(selected, site, fresh_home, stage):
    staged_home = fresh_home(f"killed-{selected['KIT_ENGINE']}-{stage}")
    environment = {**os.environ, **_environment(site, staged_home, selected)}
    argv = [sys.executable, "-m", "kit", "build", "staged"]
    # Whatever Docker has cached of other tests would leave nothing to be killed.
    first = subprocess.Popen(
        [*argv, "--rebuild"], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert any(f"{stage} begins" in line for line in first.stderr if "echo" not in line)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert not list((staged_home / "images" / "builds").glob("*"))
    again = _kit(site, staged_home, selected, "build", "staged", "--quiet", "--json")
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    done = STAGES.index(stage)
    assert _states(report) == [(name, place < done) for place, name in enumerate(STAGES)]
    assert not list((staged_home / "contexts").glob("*"))
    assert not list((staged_home / "images").glob("spool-*"))


def test_nothing_to_do(built, site, staged_home, selected):
    assert not built["was_current"]
    reference = built["reference"]
    argv = [selected["KIT_ENGINE"], "image"]
    environment = {**os.environ, **selected}
    for _ in ("as it was left", "removed from the engine since"):
        subprocess.run([*argv, "inspect", reference], env=environment, check=True)
        subprocess.run([*argv, "rm", reference], env=environment, check=True)
        done = _kit(site, staged_home, selected, "build", "staged", "--json")
        assert json.loads(done.stdout)["was_current"]
    done = _kit(site, staged_home, selected, "build", "staged", "--json")
    report = json.loads(done.stdout)
    assert report["was_current"]
    assert _states(report) == [(name, True) for name in STAGES]
    assert report["manifest_digest"] == built["manifest_digest"]


def test_what_a_stage_does_not_read_builds_it_not_again(built, site, staged_home, selected):
    """A comment changes nothing; a file of one stage changes that one and those on it."""
    assert built
    folder = site.root / "dockerfiles" / "staged"
    kept = {name: (folder / name).read_text() for name in ("Dockerfile", "install/release.sh")}
    try:
        (folder / "Dockerfile").write_text(kept["Dockerfile"].replace("Nor does", "Nor did"))
        done = _kit(site, staged_home, selected, "build", "staged", "--json")
        assert json.loads(done.stdout)["was_current"]
        script = folder / "install" / "release.sh"
        script.write_text(kept["install/release.sh"].replace("release begins", "begins"))
        done = _kit(site, staged_home, selected, "build", "staged", "--quiet", "--json")
        states = _states(json.loads(done.stdout))
        assert states == [("devel", True), ("wheel", True), ("release", False)]
    finally:
        for name, text in kept.items():
            (folder / name).write_text(text)


def test_compiler_cache_is_counted_and_a_proof_never_reads_it(built, site, staged_home, selected):
    assert built
    colour = uuid.uuid4().hex  # Podman's cache outlives its storage
    for options in ((), ("--rebuild",)):
        arguments = ("--arg", f"COLOUR={colour}", "--target", "wheel", *options)
        done = _kit(site, staged_home, selected, "build", "staged", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        wheel = json.loads(done.stdout)["stages"][-1]
        assert wheel["ccache"] == {"direct_cache_hit": 0, "cache_miss": 1}
    script = site.root / "dockerfiles" / "staged" / "install" / "wheel.sh"
    kept = script.read_text()
    try:
        script.write_text(kept + "# changed\n")
        arguments = ("--arg", f"COLOUR={colour}", "--target", "wheel", "--quiet")
        done = _kit(site, staged_home, selected, "build", "staged", *arguments)
    finally:
        script.write_text(kept)
    assert "1 of 1 from the cache" in done.stderr


def test_other_arguments_are_built_and_labelled(built, site, staged_home, selected):
    done = _kit(site, staged_home, selected, "build", "staged", "--json", "--arg", "TOOL=8")
    assert done.returncode == ExitCode.CONTENT  # the wheel stage holds the tool to 7
    assert "stage wheel of staged failed" in done.stderr
    arguments = ("--arg", "COLOUR=green", "--jobs", "3")
    done = _kit(site, staged_home, selected, "build", "staged", "--json", *arguments)
    report = json.loads(done.stdout)
    assert _states(report) == [("devel", True), ("wheel", False), ("release", False)]
    assert report["manifest_digest"] != built["manifest_digest"]
    assert "3 jobs" in done.stderr
    layout = Layout(staged_home / "images")
    labels = config(layout, Digest.parse(report["manifest_digest"]))["config"]["Labels"]
    assert json.loads(labels["org.trtllm-kit.arguments"]) == {"COLOUR": "green"}
    done = _kit(site, staged_home, selected, "build", "staged", "--json", "--arg", "TOOL=7")
    assert json.loads(done.stdout)["manifest_digest"] == built["manifest_digest"], "no change"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--arg", "COLOR=red"), "the Dockerfile has no such ARG; did you mean COLOUR?"),
        (("--arg", "COLOUR"), "expected NAME=VALUE"),
        (("--arg", "JOBS=3"), "say it by --jobs 3"),
        (("--arg", "SOURCE_DATE_EPOCH=3"), "no such ARG"),
        (("--target", "weel"), "no such stage; did you mean wheel"),
        (("--jobs", "0"), "expected one or more"),
    ],
)
def test_what_makes_no_sense_is_said(site, staged_home, selected, arguments, said):
    done = _kit(site, staged_home, selected, "build", "staged", *arguments)
    assert done.returncode == ExitCode.USAGE
    assert said in done.stderr


def test_failed_stage_says_why_and_where_the_log_is(built, site, staged_home, selected):
    assert built
    done = _kit(site, staged_home, selected, "build", "staged", "--quiet", "--arg", "COLOUR=broken")
    assert done.returncode == ExitCode.CONTENT
    log = staged_home / "logs" / "build-staged-wheel.log"
    assert "Killed signal terminated program cc1plus" in log.read_text()
    assert "error: stage wheel of staged failed: " in done.stderr
    assert f"log: {log}" in done.stderr
    assert "  fix: " in done.stderr
    assert "try: kit build staged" in done.stderr
    assert not list((staged_home / "contexts").glob("*"))


def test_image_of_a_stage_is_there_by_name(built, site, staged_home, selected):
    assert built
    done = _kit(site, staged_home, selected, "build", "staged", "--target", "devel", "--json")
    report = json.loads(done.stdout)
    assert report["reference"] == "localhost/trtllm-kit/staged-devel:latest"
    argv = [selected["KIT_ENGINE"], "image", "inspect", report["reference"]]
    inspected = subprocess.run(
        argv, env={**os.environ, **selected}, capture_output=True, text=True, check=True
    )
    found = json.loads(inspected.stdout)[0]
    assert found["Id"].removeprefix("sha256:") == report["image_id"].removeprefix("sha256:")
    assert found["Config"]["Labels"]["org.trtllm-kit.stack"] == "staged"
    assert _kit(site, staged_home, selected, "build", "staged", "--json").returncode == 0


def test_dry_run_needs_neither_engine_nor_store(site, tmp_path):
    nothing = {"KIT_ENGINE": "docker", "DOCKER_HOST": f"unix://{tmp_path}/none"}
    done = _kit(site, tmp_path / "home", nothing, "build", "staged", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    steps = json.loads(done.stdout)["steps"]
    assert [(step["stage"], step["done"], step["inputs"]) for step in steps] == [
        *(("devel", False, 1), ("wheel", False, 2), ("release", False, 1)),
    ]
    assert steps[0]["arguments"] == {"SOURCE_DATE_EPOCH": str(EPOCH), "TOOL": "7"}
    assert steps[1]["arguments"]["COLOUR"] == "red"
    assert not (tmp_path / "home").exists()
    lock = site.root / "lockfiles" / "staged.lock.yaml"
    kept = lock.read_text()
    try:
        lock.write_text(
            kept + 'unresolved:\n- {kind: deb, group: devel, name: "*", version: "", '
            'location: "", reason: the repository is out of reach}\n'
        )
        done = _kit(site, tmp_path / "home", nothing, "build", "staged", "--dry-run")
        assert done.returncode == 0
        assert "the repository is out of reach" in done.stderr
        assert "stage wheel on devel: to be built" in done.stdout
        done = _kit(site, tmp_path / "home", {}, "build", "staged")
        assert done.returncode == ExitCode.CONTENT
    finally:
        lock.write_text(kept)
