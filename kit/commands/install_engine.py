"""`make setup`: see to it that this host has a container engine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from kit import images, project
from kit.cli import guarded
from kit.console import note
from kit.errors import ExitCode, KitError, environment_error

PACKAGES = ("podman", "buildah", "crun", "runc")
_DEBIAN = {"debian", "ubuntu"}


def main() -> int:
    """Install Podman where that is one safe command; else say which one to type (exit 3)."""
    try:
        images.select(project.find().home)
    except KitError as error:
        if error.exit_code is not ExitCode.ENVIRONMENT or "KIT_ENGINE" in os.environ:
            raise
    else:
        return ExitCode.OK
    line = f"apt-get install --yes --no-install-recommends {' '.join(PACKAGES)}"
    if not _is_debian():
        raise environment_error("no container engine", "install Podman, e.g. dnf install podman")
    if os.geteuid() != 0:
        raise environment_error("no container engine", f"sudo {line} uidmap slirp4netns")
    note("no container engine: installing Podman")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "--quiet"], line.split()):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise environment_error(f"{' '.join(command)} failed: {done.stderr.strip()}")
    if shutil.which("podman") is None:
        raise environment_error("Podman was installed, but is not on PATH")
    return ExitCode.OK


def _is_debian() -> bool:
    release = Path("/etc/os-release")
    lines = release.read_text().splitlines() if release.exists() else []
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    known = {values.get("ID", ""), *values.get("ID_LIKE", "").strip('"').split()}
    return bool(known & _DEBIAN) and shutil.which("apt-get") is not None


if __name__ == "__main__":
    sys.exit(guarded(main))
