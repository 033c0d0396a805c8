"""The real stacks, built from miniatures of everything that they are made from.

The committed intents, the real Dockerfiles and the real engines; what NVIDIA, Ubuntu and the Python
index serve is served from loopback under the same addresses. See `tests/stand_in/upstreams.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from kit.digest import Digest
from kit.images.oci import Layout
from tests.conftest import ROOT
from tests.integration.conftest import ENGINES, needs, private
from tests.stand_in.debian_repository import missing_tools
from tests.stand_in.file_server import FileServer
from tests.stand_in.upstreams import Upstreams

pytestmark = pytest.mark.engine

RELEASES = ["0.5.0", "0.9.0", "0.16.0", "1.2.1"]
TRITON = "triton-24.12"
STACKS = [*(f"trtllm-{release}" for release in RELEASES), TRITON]
TWICE = {
    "podman": ["trtllm-0.5.0", "trtllm-0.16.0"],
    "docker": ["trtllm-0.9.0", "trtllm-1.2.1"],
}
"""What each engine builds a second time, from nothing and past the compilers' cache."""


class Site:
    """A copy of the project whose intents fit the miniatures, and how to run the kit there."""

    def __init__(self, scratch, upstreams):
        self.scratch = scratch
        self.root = scratch / "stacks-project"
        for name in ("kit", "dockerfiles"):
            ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
            shutil.copytree(ROOT / name, self.root / name, ignore=ignored)
        (self.root / "lockfiles").mkdir()
        for stack in STACKS:
            intent = yaml.safe_load((ROOT / "lockfiles" / f"{stack}.yaml").read_text())
            text = yaml.safe_dump(upstreams.provide(intent), sort_keys=False)
            (self.root / "lockfiles" / f"{stack}.yaml").write_text(text)
        self.upstreams = upstreams.environment

    def home(self, engine):
        return self.scratch / f"stacks-home-{engine}"

    def kit(self, *arguments, storage, online=False, code=0, **variables):
        """Run the command line there; it has to end with `code`."""
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.scratch), **storage}
        environment |= {"KIT_ROOT": str(self.root), "PYTHONPATH": str(ROOT)}
        environment["KIT_HOME"] = str(self.home(storage["KIT_ENGINE"]))
        environment["KIT_ACCEPT_LICENCES"] = self.upstreams["KIT_ACCEPT_LICENCES"]
        environment |= self.upstreams if online else {}
        done = subprocess.run(
            [sys.executable, "-m", "kit", *arguments],
            env=environment | variables,
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, f"kit {' '.join(arguments)}\n{done.stdout}\n{done.stderr}"
        return done


@pytest.fixture(scope="module")
def storages(scratch, missing):
    """Both engines on fresh storage: name → the environment that selects it."""
    with contextlib.ExitStack() as stack:
        found = {}
        for engine in ENGINES:
            needs(engine, missing)
            folder = scratch / f"stacks-{engine}"
            found[engine] = stack.enter_context(private(engine, folder))
        yield found


@pytest.fixture(scope="module")
def site(scratch, missing):
    for tool in [*missing_tools(), *("skopeo", "docker-registry", "git", "cc", "ar")]:
        if shutil.which(tool) is None:
            missing(f"{tool} is not installed")
    cache = Path(os.environ.get("KIT_TEST_CACHE") or scratch / "stacks-cache")
    folder = scratch / "stacks-upstreams"
    folder.mkdir()
    with Upstreams(folder, cache) as upstreams:
        yield Site(scratch, upstreams)


@pytest.fixture(scope="module")
def locked(site, storages):
    """Every stack locked and fetched by the connected side; the other home has the same store."""
    storage = storages["podman"]
    for stack in STACKS:
        site.kit("lock", stack, storage=storage, online=True)
        site.kit("fetch", stack, storage=storage, online=True)
    store = site.home("podman") / "store"
    shutil.copytree(store, site.home("docker") / "store", copy_function=os.link)
    return site


@pytest.fixture(scope="module")
def builds(locked, storages):
    """Every stack from both engines, from one of them twice: (engine, stack, turn) → the report."""

    def build(engine):
        found = {}
        again = [(stack, 2, "--rebuild") for stack in TWICE[engine]]
        for stack, turn, *more in [*((stack, 1) for stack in STACKS), *again]:
            argv = ("build", stack, "--quiet", "--json", *more)
            done = locked.kit(*argv, storage=storages[engine])
            found[engine, stack, turn] = json.loads(done.stdout)
        return found

    with ThreadPoolExecutor(len(ENGINES)) as pool:
        return {key: value for part in pool.map(build, ENGINES) for key, value in part.items()}


def _digests(builds, stack):
    return {key: row["manifest_digest"] for key, row in builds.items() if key[1] == stack}


def _members(site, builds, stack):
    """The topmost layers of the stack's image, as open archives."""
    layout = Layout(site.home("podman") / "images")
    image = layout.image(Digest.parse(builds["podman", stack, 1]["manifest_digest"]))
    for layer in image.layers:
        with tarfile.open(layout.blob(layer.digest)) as archive:
            yield from ((archive, member) for member in archive)


@pytest.mark.parametrize("stack", STACKS)
def test_both_engines_give_the_same_image(builds, stack):
    digests = _digests(builds, stack)
    assert {engine for engine, _, _ in digests} == set(ENGINES)
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("release", RELEASES)
def test_a_second_build_from_nothing_gives_the_same_image(builds, release):
    digests = _digests(builds, f"trtllm-{release}")
    assert [turn for _, _, turn in sorted(digests)].count(2) == 1
    assert len(set(digests.values())) == 1, digests


@pytest.mark.parametrize("release", RELEASES)
def test_the_image_holds_the_release_and_nothing_of_its_build(locked, builds, release):
    tops, found = set(), {}
    for archive, member in _members(locked, builds, f"trtllm-{release}"):
        tops.add(member.name.split("/")[0])
        if member.name == "app/tensorrt_llm/wheels.sha256":
            found["wheel"] = archive.extractfile(member).read().decode()
        if member.name.endswith("libs/libnvinfer_plugin_tensorrt_llm.so") and member.isreg():
            found["plugin"] = archive.extractfile(member).read()
        if member.name.startswith("app/tensorrt_llm/examples/") and member.isreg():
            found["example"] = member
    assert f"tensorrt_llm-{release}+standin-" in found["wheel"]
    assert b"/tmp/" not in found["plugin"]
    assert found["example"].mode & 0o222 == 0o222
    assert not tops & {"src", "out", "context", "wheel", "ccache", "build"}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("engine", ENGINES)
def test_the_image_says_that_it_is_a_stand_in(locked, storages, builds, engine, stack):
    assert (engine, stack, 1) in builds
    image = f"localhost/trtllm-kit/{stack}:latest"
    argv = ("verify-compat", "--image", image, "--json", "--strict")
    done = locked.kit(*argv, storage=storages[engine], code=4)
    report = json.loads(done.stdout)
    assert report["verdict"] != "compatible"
    assert "stand-in" in done.stdout


@pytest.fixture(scope="module")
def runs(locked, storages, builds):
    """The example in the image of every release: release → manifest."""
    assert builds
    found = {}
    for place, release in enumerate(RELEASES):
        storage = storages[ENGINES[place % len(ENGINES)]]
        output = locked.scratch / "stacks-runs"
        argv = ("run", "gpt2-tiny", "--stack", f"trtllm-{release}", "--output", str(output))
        done = locked.kit(*argv, "--json", storage=storage)
        found[release] = json.loads(Path(json.loads(done.stdout)["manifest"]).read_text())
    return found


def test_every_release_runs_the_example_and_says_the_same(runs):
    said = {
        release: [output["token_ids"] for output in manifest["outputs"]]
        for release, manifest in runs.items()
    }
    assert all(tokens for tokens in said["0.9.0"])
    assert all(tokens == said["0.9.0"] for tokens in said.values()), said


@pytest.mark.parametrize("release", RELEASES)
def test_versions_come_from_inside_the_image(runs, release):
    distributions = runs[release]["versions"]["distributions"]
    assert distributions["tensorrt-llm"] == f"{release}+standin"
    assert distributions["torch"].endswith("+standin")


@pytest.mark.parametrize(("release", "engine"), list(zip(RELEASES, ENGINES * 2, strict=True)))
def test_a_program_links_against_the_runtime_of_the_image(
    locked, storages, builds, release, engine
):
    assert (engine, f"trtllm-{release}", 1) in builds
    output = locked.scratch / "stacks-runs"
    argv = ("run", "cpp-runtime", "--stack", f"trtllm-{release}", "--output", str(output))
    done = locked.kit(*argv, "--json", storage=storages[engine])
    folder = Path(json.loads(done.stdout)["manifest"]).parent
    said = (folder / "output" / "runtime.txt").read_text()
    assert "plugins registered" in said
    if release in ("0.16.0", "1.2.1"):
        assert f"tensorrt_llm_library {release}+standin" in said


def test_a_server_has_the_templates_of_its_backend(locked, builds):
    names = {member.name for _, member in _members(locked, builds, TRITON)}
    assert "app/all_models/inflight_batcher_llm/tensorrt_llm/config.pbtxt" in names
    assert "app/scripts/launch_triton_server.py" in names


@pytest.mark.parametrize("engine", ENGINES)
def test_a_step_that_asks_the_network_fails(locked, storages, builds, engine):
    """A server that listens on every address of this host is out of reach for a step."""
    assert builds
    script = locked.root / "dockerfiles" / "triton" / "install" / "release.sh"
    before = script.read_text()
    with FileServer() as server:
        server.put("/secret", b"something")
        ask = (
            f"set -e\npython3 -c 'import urllib.request as r; r.urlopen(\"{server.url}/secret\")'\n"
        )
        script.write_text(ask + before)
        try:
            done = locked.kit("build", TRITON, storage=storages[engine], code=4)
        finally:
            script.write_text(before)
        assert server.requests == []
    assert "Connection refused" in done.stderr


def test_a_lock_that_was_never_resolved_is_refused(locked, storages, tmp_path):
    """The committed locks of what only NVIDIA can serve pin what tables know, and say so."""
    stack = "trtllm-0.16.0"
    root = tmp_path / "project"
    shutil.copytree(ROOT / "dockerfiles", root / "dockerfiles")
    shutil.copytree(ROOT / "lockfiles", root / "lockfiles")
    for command in ("fetch", "build"):
        variables = {"KIT_ROOT": str(root)}
        done = locked.kit(command, stack, storage=storages["podman"], code=4, **variables)
        assert f"kit lock {stack}" in done.stderr


@pytest.mark.parametrize("command", ["fetch", "build --rebuild"])
def test_licences_have_to_be_accepted(locked, storages, command):
    variables = {"KIT_ACCEPT_LICENCES": ""}
    argv = (*command.split(), "trtllm-0.9.0")
    done = locked.kit(*argv, storage=storages["podman"], code=3, **variables)
    assert "nvidia-tensorrt" in done.stderr


def test_locking_again_gives_the_same_lock(locked, storages):
    path = locked.root / "lockfiles" / f"{TRITON}.lock.yaml"
    before = path.read_bytes()
    locked.kit("lock", TRITON, storage=storages["podman"], online=True)
    assert path.read_bytes() == before
