"""A project of its own for each test, and clients that do not wait long."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from kit.digest import Digest
from kit.locks.http import Client
from kit.locks.lock import Input, Lock
from kit.project import Project
from tests.conftest import ROOT
from tests.stand_in.file_server import FileServer

INTENT = """\
schema: kit.intent/1
stack: small
family: rehearsal
platform: linux/amd64
epoch: 1700000000
"""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch, tmp_path):
    """Loopback is asked directly, and no login of this machine is used."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


@pytest.fixture
def server():
    with FileServer() as found:
        yield found


@pytest.fixture
def client():
    return Client(back_off=0.01, read_timeout=5, connect_timeout=5)


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    (root / "lockfiles").mkdir(parents=True)
    (root / "dockerfiles").mkdir()
    (root / "lockfiles" / "small.yaml").write_text(INTENT)
    return Project(root, tmp_path / "home")


@pytest.fixture
def intend(project):
    """Write more into the intent."""

    def write(text):
        (project.root / "lockfiles" / "small.yaml").write_text(INTENT + text)

    return write


@pytest.fixture
def small_disk(tmp_path):
    """A real disk of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


def noise(size, seed=0):
    return random.Random(seed).randbytes(size)


def file_input(url, content, name="file", group="data"):
    return Input("file", group, name, "", name, url, Digest.of_bytes(content), len(content))


def lock_of(*items):
    return Lock("small", Digest("1" * 64), tuple(sorted(items)))


@pytest.fixture
def start(project):
    """Start `kit` as a process of its own; every one that is left is killed in the end."""
    processes = []

    def run(*command):
        command = command or ("fetch", "small", "--jobs", "4")
        process = subprocess.Popen(
            [sys.executable, "-m", "kit", *command, "--json"],
            cwd=ROOT,
            env={**os.environ, "KIT_ROOT": str(project.root), "KIT_HOME": str(project.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()
