"""Container engines: what Docker's daemon and Podman say of themselves."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.host import programs
from kit.host.facts import Engine

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCKER_SOCKET = Path("/var/run/docker.sock")
_BUILDKIT_BY_DEFAULT = 23
"""From this version on the `docker` command builds with BuildKit through its buildx plugin only."""
_SNAP = ("/snap/", "/var/snap/", "/var/lib/snapd/")


def podman() -> tuple[Engine | None, Path | None, str | None]:
    """Podman, its storage, and what it does not say; no engine where there is none on PATH."""
    if programs.find("podman") is None:
        return None, None, None
    asked = programs.ask(["podman", "info", "--format", "json"])
    if asked.problem is None:
        try:
            return (*parse_podman(json.loads(asked.out)), None)
        except ValueError as error:
            return _silent("podman"), None, f"podman info: {error}"
    return _silent("podman"), None, asked.problem


def docker() -> tuple[Engine | None, Path | None, str | None]:
    """Docker's daemon; no engine where there is neither a daemon's address nor a command.

    The daemon is asked through its API, as the kit itself does: there may be no command.
    """
    command = programs.find("docker")
    if not DOCKER_SOCKET.exists() and "DOCKER_HOST" not in os.environ:
        if command is None:
            return None, None, None
        return _silent("docker"), None, "docker: there is a command, but no daemon's socket"
    import docker as api
    from docker.errors import DockerException

    address = os.environ.get("DOCKER_HOST") or f"unix://{DOCKER_SOCKET}"
    try:
        from docker.utils import kwargs_from_env

        options = kwargs_from_env(environment={**os.environ, "DOCKER_HOST": address})
        information = api.DockerClient(timeout=max(1, int(programs.SECONDS / 2)), **options).info()
    except (DockerException, OSError, ValueError) as error:
        # The reason stands in the last of the errors that were wrapped into one another.
        reason = re.search(r"(\w*Error\(\d+, '[^']+'\)|[Tt]imed out)", str(error))
        said = reason.group(1) if reason else type(error).__name__
        return _silent("docker"), None, f"docker: the daemon does not answer: {said}"
    engine, root = parse_docker(information, command, buildkit())
    # The storage of a daemon elsewhere says nothing about the disks here.
    return engine, root if address.startswith("unix://") else None, None


def buildkit() -> str | None:
    """The `docker` command on PATH that builds with BuildKit, as the kit looks for it."""
    for folder in os.get_exec_path():
        command = programs.find_in(folder, "docker")
        if command is None:
            continue
        version = parse_docker_version(programs.ask([command, "--version"]).out)
        if version is None:
            continue
        if int(version.partition(".")[0]) < _BUILDKIT_BY_DEFAULT:
            return f"docker {version}"
        found = programs.ask([command, "buildx", "version"])
        if found.problem is None:
            plugin = re.search(r"\bv?(\d+\.\d+\.\d+\S*)", found.out)
            return f"docker {version}, buildx {plugin.group(1) if plugin else 'unnamed'}"
    return None


def parse_docker_version(text: str) -> str | None:
    """`28.2.2` of `Docker version 28.2.2, build e6534b4`."""
    found = re.search(r"Docker version (\d+\.\d+[^,\s]*)", text)
    return found.group(1) if found else None


def parse_docker(
    information: Mapping[str, Any], command: str | None, builder: str | None
) -> tuple[Engine, Path | None]:
    """Read what the daemon answers to /info (`docker info --format '{{json .}}'`)."""
    root = _text(information, "DockerRootDir")
    security = [str(item) for item in information.get("SecurityOptions") or []]
    snap = (root or "").startswith(_SNAP) or (
        command is not None and os.path.realpath(command).startswith(_SNAP)
    )
    engine = Engine(
        name="docker",
        is_default=False,
        version=_text(information, "ServerVersion"),
        builder=builder,
        rootless=any(option.partition(",")[0] == "name=rootless" for option in security),
        storage=_text(information, "Driver"),
        cgroup_driver=_text(information, "CgroupDriver"),
        cgroup_version=_version(_text(information, "CgroupVersion")),
        runtimes=tuple(sorted(str(name) for name in information.get("Runtimes") or {})),
        # Daemons before 25 have no such key; one that reads none has an empty list.
        cdi=bool(information.get("CDISpecDirs")),
        snap=snap,
    )
    return engine, Path(root) if root else None


def parse_podman(information: Mapping[str, Any]) -> tuple[Engine, Path | None]:
    """Read `podman info --format json`; ValueError where it is no such document."""
    host, store, version = (_section(information, name) for name in ("host", "store", "version"))
    security, runtime = (_section(host, name) for name in ("security", "ociRuntime"))
    root = _text(store, "graphRoot")
    said = _text(version, "Version")
    engine = Engine(
        name="podman",
        is_default=False,
        version=said,
        builder=f"buildah {_text(host, 'buildahVersion') or 'unnamed'}",
        rootless=bool(security.get("rootless")),
        storage=_text(store, "graphDriverName"),
        cgroup_driver=_text(host, "cgroupManager"),
        cgroup_version=_version((_text(host, "cgroupVersion") or "").removeprefix("v")),
        runtimes=tuple(name for name in [_text(runtime, "name")] if name),
        # From 4.1 on (containers/podman 4.1.0: CDI devices by --device).
        cdi=None if said is None else _numbers(said) >= (4, 1),
        snap=False,
    )
    return engine, Path(root) if root else None


def _silent(name: str) -> Engine:
    """An engine that is there and does not answer."""
    assert name in ("docker", "podman")
    return Engine(
        name="docker" if name == "docker" else "podman",
        is_default=False,
        version=None,
        builder=None,
        rootless=None,
        storage=None,
        cgroup_driver=None,
        cgroup_version=None,
        runtimes=(),
        cdi=None,
        snap=False,
    )


def _section(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = document.get(key) if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ValueError(f"{key}: expected an object")  # noqa: TRY004 - about the JSON
    return found


def _text(document: Mapping[str, Any], key: str) -> str | None:
    found = document.get(key)
    return found if isinstance(found, str) and found else None


def _version(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
