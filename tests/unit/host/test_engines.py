from __future__ import annotations

import json
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from kit.host import engines
from tests.unit.host import recordings as said


def test_docker_without_gpus():
    engine, root = engines.parse_docker(said.DOCKER, "/usr/bin/docker", "docker 20.10.24")
    assert root == Path("/var/lib/docker")
    assert (engine.name, engine.version, engine.builder) == (
        "docker", "20.10.24+dfsg1", "docker 20.10.24",
    )  # fmt: skip
    assert (engine.storage, engine.cgroup_driver, engine.cgroup_version) == (
        "overlay2", "cgroupfs", 1,
    )  # fmt: skip
    assert (engine.rootless, engine.cdi, engine.snap) == (False, False, False)
    assert "nvidia" not in engine.runtimes


def test_docker_with_gpus():
    engine, _ = engines.parse_docker(said.DOCKER_WITH_GPUS, None, None)
    assert engine.runtimes == ("nvidia", "runc")
    assert (engine.rootless, engine.cdi, engine.cgroup_driver, engine.cgroup_version) == (
        True, True, "systemd", 2,
    )  # fmt: skip


def test_docker_of_a_snap(tmp_path):
    assert engines.parse_docker(said.DOCKER_SNAP, None, None)[0].snap
    assert engines.parse_docker(said.DOCKER, "/snap/bin/docker", None)[0].snap


def test_nothing_but_what_is_asked_for_is_kept():
    engine, _ = engines.parse_docker(said.DOCKER, None, None)
    assert "gpu-node-17" not in repr(engine)
    assert "secret" not in repr(engine)


def test_podman():
    engine, root = engines.parse_podman(said.PODMAN)
    assert root == Path("/var/lib/containers/storage")
    assert (engine.version, engine.builder, engine.storage) == (
        "4.3.1",
        "buildah 1.28.2",
        "overlay",
    )
    assert (engine.rootless, engine.cgroup_driver, engine.cgroup_version) == (False, "cgroupfs", 1)
    assert (engine.runtimes, engine.cdi) == (("crun",), True)
    engine, _ = engines.parse_podman(said.PODMAN_ROOTLESS)
    assert (engine.rootless, engine.cgroup_version) == (True, 2)


def test_podman_before_cdi():
    old = {**said.PODMAN, "version": {"Version": "3.4.4"}}
    assert engines.parse_podman(old)[0].cdi is False


@pytest.mark.parametrize("damaged", [{}, {"host": []}, {**said.PODMAN, "store": None}, [], None])
def test_podman_that_says_something_else(damaged):
    with pytest.raises(ValueError, match="expected an object"):
        engines.parse_podman(damaged)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Docker version 28.2.2, build e6534b4\n", "28.2.2"),
        ("Docker version 20.10.24+dfsg1, build 297e128\n", "20.10.24+dfsg1"),
        ("podman version 4.3.1\n", None),
        ("", None),
    ],
)
def test_docker_version(text, expected):
    assert engines.parse_docker_version(text) == expected


class Daemon(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


class Api(BaseHTTPRequestHandler):
    """As much of Docker's API as its information takes."""

    protocol_version = "HTTP/1.1"
    information = said.DOCKER_WITH_GPUS

    def do_GET(self):
        version = {"Version": "28.2.2", "ApiVersion": "1.50"}
        answer = self.information if self.path.endswith("/info") else version
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def address_string(self):
        return "local"

    def log_message(self, *arguments):
        pass


@pytest.fixture
def socket(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    path = tmp_path / "docker.sock"
    with Daemon(str(path), Api) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


def test_a_daemon_is_asked_through_its_api(socket, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    engine, root, problem = engines.docker()
    assert problem is None
    assert engine is not None
    assert (engine.version, engine.builder, root) == ("28.2.2", None, Path("/var/lib/docker"))


def test_a_daemon_that_is_gone(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nobody.sock")
    engine, _, problem = engines.docker()
    assert engine is not None
    assert engine.version is None
    assert "does not answer" in (problem or "")
    assert str(tmp_path) not in (problem or "")


def test_no_engine_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(engines, "DOCKER_SOCKET", tmp_path / "none.sock")
    assert engines.docker() == (None, None, None)
    assert engines.podman() == (None, None, None)


def _program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "buildx", "expected"),
    [
        ("20.10.24", "exit 1", "docker 20.10.24"),
        ("28.2.2", "exit 1", None),
        ("28.2.2", "echo github.com/docker/buildx v0.24.0 d0e5e86", "docker 28.2.2, buildx 0.24.0"),
    ],
)
def test_buildkit(tmp_path, monkeypatch, version, buildx, expected):
    _program(
        tmp_path / "docker",
        f'case "$1" in --version) echo "Docker version {version}, build e6534b4";; *) {buildx};; esac',
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert engines.buildkit() == expected
