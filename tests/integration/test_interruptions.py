"""Killed at any moment, engines that stop, disks that are full: one error, then success."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kit.errors import ExitCode, KitError
from kit.images.docker import Docker
from kit.images.engine import RunRequest
from kit.images.podman import Podman
from tests.conftest import ROOT
from tests.integration.conftest import Daemon, kill_everything_with, kit, private_podman

pytestmark = pytest.mark.engine


def _start(*arguments, env):
    """A `kit` whose stderr can be waited on."""
    return subprocess.Popen(
        [sys.executable, "-m", "kit", *arguments],
        cwd=ROOT,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for(process, text):
    seen = []
    for line in process.stderr:
        seen.append(line)
        if text in line:
            return
    pytest.fail(f"{text!r} never came:\n{''.join(seen)}")


def _containers(env):
    argv = ["podman", "ps", "--all", "--quiet"]
    if env["KIT_ENGINE"] == "docker":
        argv = ["docker", "ps", "--all", "--quiet"]
    done = subprocess.run(
        argv, env={**os.environ, **env}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_build_stopped_in_a_step_then_the_same_command_again(selected, new_home, how):
    name = selected["KIT_ENGINE"]
    env = selected | {"KIT_HOME": str(new_home(f"stopped-{name}-{how.name}"))}
    process = _start("build", "rehearsal", "--rebuild", env=env)  # whatever Docker has cached
    _wait_for(process, "wheels.sh")
    time.sleep(1)
    process.send_signal(how)
    process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130)
    home = Path(env["KIT_HOME"])
    assert not list((home / "images" / "builds").glob("*"))
    again = kit("build", "rehearsal", "--quiet", "--json", env=env)
    assert again.returncode == 0, again.stderr
    report = json.loads(again.stdout)
    assert not report["was_current"]
    assert not list((home / "contexts").glob("*"))
    assert (
        kit("build", "rehearsal", "--quiet", env=env).stdout.strip() == (report["manifest_digest"])
    )


@pytest.fixture(scope="module")
def built(selected, home):
    env = selected | {"KIT_HOME": str(home)}
    done = kit("build", "rehearsal", "--quiet", env=env)
    assert done.returncode == 0, done.stderr
    return env


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_run_stopped_in_a_step_then_the_same_command_again(built, tmp_path, how):
    arguments = ("run", "gpt2-tiny-tp2", "--stack", "rehearsal", "--release", "0.9.0")
    arguments += ("--output", str(tmp_path))
    process = _start(*arguments, env=built)
    _wait_for(process, "[convert]")
    process.send_signal(how)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), said
    assert not list(tmp_path.rglob("manifest.json"))
    done = kit(*arguments, env=built)
    assert done.returncode == 0, done.stderr
    manifest = Path(done.stdout.strip())
    assert kit("manifest", "verify", str(manifest), env=built).returncode == 0
    left = [path.name for path in manifest.parent.parent.iterdir() if path.is_dir()]
    assert left == [manifest.parent.name], "the stopped run is cleared away"
    deadline = time.monotonic() + 30
    while _containers(built) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert _containers(built) == []


def test_disk_that_is_full_during_build(selected, new_home, missing):
    if os.geteuid() != 0:
        missing("mounting a small disk needs root")
    folder = new_home(f"full-{selected['KIT_ENGINE']}")
    small = folder / "images"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(small)]
    if subprocess.run(mount, check=False).returncode != 0:
        missing("this host does not let us mount a tmpfs")
    env = selected | {"KIT_HOME": str(folder)}
    try:
        done = kit("build", "rehearsal", "--quiet", env=env)
        assert done.returncode == ExitCode.ENVIRONMENT
        assert "disk full" in done.stderr
        assert "Traceback" not in done.stderr
        assert [p for p in small.rglob("*") if p.is_file() and p.stat().st_size > 1_000_000] == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


@pytest.mark.only("podman")
def test_disk_that_is_full_during_run(built, tmp_path, missing):
    if os.geteuid() != 0:
        missing("mounting a small disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False).returncode != 0:
        missing("this host does not let us mount a tmpfs")
    arguments = ("run", "gpt2-tiny", "--stack", "rehearsal", "--release", "0.9.0")
    arguments += ("--output", str(tmp_path))
    try:
        done = kit(*arguments, env=built)
        assert done.returncode in (ExitCode.ENVIRONMENT, ExitCode.CONTENT), done.stderr
        assert "No space left" in done.stderr or "disk full" in done.stderr
        assert "Traceback" not in done.stderr.split("error: ")[-1]
        assert not list(tmp_path.rglob("manifest.json"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path)], check=True)
        assert kit(*arguments, env=built).returncode == 0
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.only("podman")
def test_podman_that_stops_in_the_middle(home, built):
    engine = Podman(home)
    record = json.loads((home / "images" / "builds" / "rehearsal.json").read_text())
    assert record["manifest_digest"]
    image = kit("build", "rehearsal", "--quiet", "--json", env=built)
    reference = json.loads(image.stdout)["image_id"].removeprefix("sha256:")

    def kill(_line):
        kill_everything_with("MARK=kit-engine-stops")

    request = RunRequest(
        image=reference,
        argv=("sh", "-c", "echo started; sleep 60"),
        environment={"MARK": "kit-engine-stops"},
    )
    with pytest.raises(KitError, match="podman stopped in the middle: killed by SIGKILL") as caught:
        engine.run(request, kill)
    assert caught.value.exit_code is ExitCode.ENVIRONMENT
    assert _containers(built) == []


@pytest.mark.only("docker")
def test_docker_daemon_that_stops_in_the_middle(scratch, home, built, tmp_path):
    daemon = Daemon(scratch / "stopping")
    daemon.start()
    env = daemon.environment | {"KIT_HOME": str(home)}
    arguments = ("run", "gpt2-tiny", "--stack", "rehearsal", "--release", "0.9.0")
    arguments += ("--output", str(tmp_path))
    try:
        process = _start(*arguments, env=env)
        _wait_for(process, "[build]")
        daemon.stop("kill")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == ExitCode.ENVIRONMENT, errors
        assert "docker" in errors
        assert "Traceback" not in errors
        assert not list(tmp_path.rglob("manifest.json"))
        for name in ("pid", "docker.sock"):
            (daemon.folder / name).unlink(missing_ok=True)
        daemon.start()
        done = kit(*arguments, env=env)
        assert done.returncode == 0, done.stderr
    finally:
        daemon.stop()


@pytest.mark.only("docker")
def test_docker_daemon_that_stops_during_build(scratch, selected, new_home):
    daemon = Daemon(scratch / "stopping-build")
    daemon.start()
    env = selected | daemon.environment | {"KIT_HOME": str(new_home("stopping-build-home"))}
    try:
        process = _start("build", "rehearsal", env=env)
        _wait_for(process, "wheels.sh")
        daemon.stop("kill")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == ExitCode.ENVIRONMENT, errors
        assert "docker" in errors
        assert "Traceback" not in errors
        assert not list(Path(env["KIT_HOME"]).glob("images/builds/*"))
    finally:
        daemon.stop()


@pytest.mark.only("podman")
def test_podman_that_stops_during_build(selected, new_home):
    env = selected | {"KIT_HOME": str(new_home("stopping-podman"))}
    process = _start("build", "rehearsal", "--rebuild", env=env)
    _wait_for(process, "wheels.sh")
    kill_everything_with("--build-arg\0SOURCE_DATE_EPOCH")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == ExitCode.ENVIRONMENT, errors
    assert "podman stopped in the middle: killed by SIGKILL" in errors


@pytest.mark.only("podman")
def test_two_builds_at_once_make_one_image(selected, new_home):
    env = selected | {"KIT_HOME": str(new_home(f"twice-{selected['KIT_ENGINE']}"))}
    answers = []

    def build():
        answers.append(kit("build", "rehearsal", "--quiet", "--json", env=env))

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.returncode for answer in answers] == [0, 0], answers
    reports = [json.loads(answer.stdout) for answer in answers]
    assert sorted(report["was_current"] for report in reports) == [False, True]
    assert len({report["manifest_digest"] for report in reports}) == 1


def test_no_engine_at_all(home, tmp_path):
    env = {"KIT_HOME": str(home), "PATH": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/none"}
    env |= {"KIT_ENGINE": ""}
    done = kit("build", "rehearsal", env=env)
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "no container engine" in done.stderr
    assert "try: " in done.stderr


def test_engine_that_is_named_and_not_there(home, tmp_path):
    env = {"KIT_HOME": str(home), "KIT_ENGINE": "docker"}
    done = kit("build", "rehearsal", env=env | {"DOCKER_HOST": f"unix://{tmp_path}/none"})
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "KIT_ENGINE=docker" in done.stderr


def test_reach_does_not_take_a_dead_socket_for_a_daemon(tmp_path):
    assert Docker.reach_at(f"unix://{tmp_path}/none", tmp_path) is None


@pytest.mark.only("podman")
def test_fresh_podman_storage_gets_the_image_from_the_layout(scratch, home, built, tmp_path):
    """A run does not need the storage that the build used: the layout is what is kept."""
    with private_podman(scratch / "empty") as environment:
        arguments = ("--stack", "rehearsal", "--release", "0.16.0", "--output", str(tmp_path))
        env = environment | {"KIT_HOME": str(home)}
        done = kit("run", "gpt2-tiny", *arguments, env=env)
    assert done.returncode == 0, done.stderr
