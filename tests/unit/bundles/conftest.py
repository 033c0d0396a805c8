"""One small signed bundle for the whole session, and copies of it to spoil."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from kit.bundles import create
from tests.unit.bundles import making


@pytest.fixture(scope="session", autouse=True)
def ssh_keygen(missing):
    if shutil.which("ssh-keygen") is None:
        missing("ssh-keygen is not installed")


@pytest.fixture
def place(tmp_path):
    return making.project(tmp_path)


@pytest.fixture(scope="session")
def sender(tmp_path_factory):
    """The sender's key."""
    return making.key(tmp_path_factory.mktemp("keys"), "sender")


@pytest.fixture(scope="session")
def original(tmp_path_factory, sender):
    """A signed bundle of seven parts that nobody changes."""
    folder = tmp_path_factory.mktemp("original")
    data = making.noise(folder / "data", [0, 1, 511, 512, 513, 9000, 20_000, 33_000, 700])
    settings = create.Settings("test", part_size=12_000, key=sender, jobs=2)
    making.make(making.project(folder), folder / "bundle", data, settings=settings)
    return folder / "bundle"


@pytest.fixture
def bundle(original, tmp_path):
    """A copy of it."""
    subprocess.run(["cp", "-r", original, tmp_path / "bundle"], check=True)
    return tmp_path / "bundle"
