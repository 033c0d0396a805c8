"""Images and the engines that build and run them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kit.errors import environment_error, usage_error

if TYPE_CHECKING:
    from pathlib import Path

    from kit.images.engine import Engine

ENGINES = ("docker", "podman")


def select(home: Path) -> Engine:
    """The engine that `KIT_ENGINE` names, else a reachable Docker daemon, else Podman.

    Args:
        home: where what was found out about this host is kept.

    Raises:
        KitError: an unknown name (exit 2); none is there (exit 3).
    """
    wanted = os.environ.get("KIT_ENGINE", "")
    if wanted and wanted not in ENGINES:
        raise usage_error(f"KIT_ENGINE={wanted}: expected docker or podman")
    if wanted != "podman":
        from kit.images.docker import Docker

        docker = Docker.reach(home)
        if docker is not None:
            return docker
    if wanted != "docker":
        from kit.images.podman import Podman

        if Podman.is_installed():
            return Podman(home)
    if wanted:
        raise environment_error(
            f"KIT_ENGINE={wanted}: not installed, not running, or out of reach of this user",
            hint=f"{wanted} info",
        )
    raise environment_error(
        "no container engine: neither Docker nor Podman is installed, running and in reach",
        hint="make setup",
    )
