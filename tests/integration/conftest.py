"""Real engines on storage of their own, and one filled store for the whole session."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from kit.images.docker import Docker
from kit.images.podman import Podman
from kit.project import Project
from tests.conftest import ROOT

ENGINES = ["podman", "docker"]


def kit(*arguments, env=None, **options):
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "kit", *arguments],
        env={**os.environ, **(env or {})},
        check=False,
        **{"capture_output": True, "text": True, "cwd": ROOT, **options},
    )


@pytest.fixture(scope="session")
def scratch():
    """A folder on a disk with room, gone at the end, mounts in it too."""
    folder = Path(tempfile.mkdtemp(prefix="kit-test-", dir="/var/tmp"))
    yield folder
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def home(scratch):
    """KIT_HOME with everything that the rehearsal's lock names."""
    folder = scratch / "home"
    done = kit("fetch", "rehearsal", env={"KIT_HOME": str(folder)})
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def new_home(scratch, home):
    """Make further homes that share the fetched inputs and nothing else."""

    def make(name):
        folder = scratch / name
        shutil.copytree(home / "store", folder / "store", copy_function=os.link)
        return folder

    return make


@contextlib.contextmanager
def private_podman(folder):
    """Podman on fresh storage, or on that of the same folder again."""
    folder.mkdir(exist_ok=True)
    configuration = folder / "storage.conf"
    configuration.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
    )
    yield {"KIT_ENGINE": "podman", "CONTAINERS_STORAGE_CONF": str(configuration)}


class Daemon:
    """A dockerd of the test's own: its storage, its socket."""

    def __init__(self, folder):
        self.folder = folder
        self.socket = folder / "docker.sock"
        self.process = None

    def start(self):
        self.folder.mkdir(exist_ok=True)
        argv = ["dockerd", "--iptables=false", "--bridge=none", "--host", f"unix://{self.socket}"]
        for name in ("data-root", "exec-root"):
            argv += [f"--{name}", str(self.folder / name)]
        argv += ["--pidfile", str(self.folder / "pid")]
        log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)
        limit = time.monotonic() + 60
        while Docker.reach_at(f"unix://{self.socket}", self.folder) is None:
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            assert time.monotonic() < limit
            time.sleep(0.2)

    def stop(self, how="terminate"):
        if self.process is not None:
            getattr(self.process, how)()
            self.process.wait(60)
            self.process = None
            if how == "kill":  # what a killed daemon leaves: its containerd, its shims
                kill_everything_with(str(self.folder))
                shutil.rmtree(self.folder / "exec-root", ignore_errors=True)

    @property
    def environment(self):
        return {"KIT_ENGINE": "docker", "DOCKER_HOST": f"unix://{self.socket}"}


def kill_everything_with(text):
    """SIGKILL every process whose command line holds a text."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if text in process.joinpath("cmdline").read_text(errors="replace"):
                os.kill(int(process.name), signal.SIGKILL)


@contextlib.contextmanager
def private_docker(folder):
    """Docker on fresh storage."""
    daemon = Daemon(folder)
    daemon.start()
    try:
        yield daemon.environment
    finally:
        daemon.stop()


def needs(engine, missing):
    """Whether this host can run an engine for tests; in CI it must."""
    program = "podman" if engine == "podman" else "dockerd"
    if shutil.which(program) is None:
        missing(f"{program} is not installed")
    if engine == "docker" and os.geteuid() != 0:
        missing("a dockerd of the test's own needs root")


@contextlib.contextmanager
def private(engine, folder):
    """Either engine on fresh storage: yields the environment that selects it."""
    with (private_podman if engine == "podman" else private_docker)(folder) as environment:
        yield environment


@pytest.fixture(scope="session", params=ENGINES)
def selected(request, scratch, missing):
    """The environment of an engine with storage for this session."""
    needs(request.param, missing)
    with private(request.param, scratch / f"storage-{request.param}") as environment:
        old = {key: os.environ.get(key) for key in environment}
        os.environ.update(environment)
        yield environment
        for key, value in old.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value


@pytest.fixture(scope="session")
def engine(selected, home):
    """The engine itself."""
    if selected["KIT_ENGINE"] == "podman":
        return Podman(home)
    found = Docker.reach(home)
    assert found is not None
    return found


@pytest.fixture(scope="session")
def place(home):
    """The project with the session's home."""
    return Project(ROOT, home)
