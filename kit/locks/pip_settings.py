"""Which package indexes pip would use here: its configuration decides, the kit names none."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from kit.errors import environment_error

_DEFAULT_INDEX = re.compile(r"Base URL of the Python Package Index \(default\s+(\S+?)\)")


@dataclass(frozen=True, slots=True)
class PipSettings:
    """Where to look for distributions, in this order.

    Attributes:
        indexes: URLs of simple indexes, no slash at their end; may hold a login.
        folders: folders with distributions (`find-links`).
        certificates: a file with certificate authorities.
    """

    indexes: tuple[str, ...]
    folders: tuple[Path, ...]
    certificates: str | None


def load() -> PipSettings:
    """Read what pip would read: its environment variables and configuration files.

    Raises:
        KitError: neither an index is configured nor a pip here that knows the default (exit 3).
    """
    settings = _configured()
    indexes: list[str] = []
    if settings.get("no-index", "").lower() not in ("1", "true", "yes", "on"):
        indexes.append(settings.get("index-url") or _default_index())
        indexes += settings.get("extra-index-url", "").split()
    folders = []
    for place in settings.get("find-links", "").split():
        path = Path(place.removeprefix("file://")).expanduser()
        if path.is_dir():
            folders.append(path.absolute())
    return PipSettings(
        indexes=tuple(dict.fromkeys(url.rstrip("/") for url in indexes)),
        folders=tuple(folders),
        certificates=settings.get("cert"),
    )


def _configured() -> dict[str, str]:
    """Option → value; the environment beats `[install]`, which beats `[global]`."""
    found: dict[str, str] = {}
    pip = _pip()
    if pip is not None:
        done = subprocess.run(
            [*pip, "config", "list"],
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
        )
        pairs = [line.partition("=") for line in done.stdout.splitlines()]
        for section in ("global", "install"):
            for key, _, value in pairs:
                if key.startswith(f"{section}."):
                    found[key.partition(".")[2]] = str(ast.literal_eval(value))
    for name, value in os.environ.items():
        if name.startswith("PIP_") and value:
            found[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return found


def _default_index() -> str:
    """The index that pip asks when nothing is configured, by its own words."""
    pip = _pip()
    if pip is not None:
        done = subprocess.run(
            [*pip, "install", "--help"],
            capture_output=True,
            text=True,
            check=False,
            env=_environment() | {"PIP_INDEX_URL": ""},
        )
        if match := _DEFAULT_INDEX.search(" ".join(done.stdout.split())):
            return match[1]
    raise environment_error(
        "no Python package index is known: PIP_INDEX_URL is not set, and there is no pip to ask",
        hint="export PIP_INDEX_URL=<URL of a simple index>",
    )


def _pip() -> list[str] | None:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip"]
    program = shutil.which("pip3") or shutil.which("pip")
    return [program] if program else None


def _environment() -> dict[str, str]:
    return {**os.environ, "COLUMNS": "200", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "NO_COLOR": "1"}
