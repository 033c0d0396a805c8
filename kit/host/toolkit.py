"""NVIDIA's container toolkit and the CDI specifications that engines read."""

from __future__ import annotations

import getpass
import os
import re
from typing import TYPE_CHECKING, Any

from kit.errors import KitError
from kit.host import privacy, programs
from kit.host.facts import CdiFile, Toolkit
from kit.host.system import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDERS = ("etc/cdi", "var/run/cdi")
"""Where engines look by default (cncf-tags/container-device-interface, SPEC.md)."""
_LARGEST = 4 << 20
_MISSING = 8
"""How many absent paths are named."""


def toolkit(root: Path = ROOT) -> Toolkit | None:
    """The toolkit, and CDI files that anybody wrote; None where there is neither.

    `subordinate_ids` says whether this user may map more ids than its own, which rootless Podman
    needs; None for root.
    """
    program = programs.find("nvidia-ctk")
    version = parse_version(programs.ask([program, "--version"]).text) if program else None
    runtime = programs.find("nvidia-container-runtime") is not None
    files = tuple(
        cdi_file(path, root)
        for folder in FOLDERS
        if (root / folder).is_dir()
        for path in sorted((root / folder).iterdir())
        if path.suffix in (".json", ".yaml", ".yml")
    )
    if program is None and not runtime and not files:
        return None
    return Toolkit(version, runtime, files, subordinate_ids(root))


def parse_version(text: str) -> str | None:
    """`1.17.3` of `NVIDIA Container Toolkit CLI version 1.17.3`."""
    found = re.search(r"Toolkit CLI version (\d+\.\d+\S*)", text)
    return found.group(1) if found else None


def cdi_file(path: Path, root: Path = ROOT) -> CdiFile:
    """One specification: kind, devices, and the nodes and files it names that are not there.

    A specification outlives the driver that it was made for: after an update it names libraries
    that are gone, and engines refuse every container with a GPU.
    """
    from kit import document

    name = privacy.path(f"/{path.relative_to(root)}")
    try:
        if path.stat().st_size > _LARGEST:
            return CdiFile(name, None, (), (), f"larger than {_LARGEST} bytes")
        section = document.load(path)
        kind = section.optional_text("kind")
        devices = section.plain("devices")
        every = section.plain("containerEdits")
    except OSError as error:
        return CdiFile(name, None, (), (), error.strerror)
    except KitError as error:
        return CdiFile(name, None, (), (), privacy.message(str(error)))
    rows = [row for row in devices if isinstance(row, dict)] if isinstance(devices, list) else []
    named = [
        place
        for edits in [every, *(row.get("containerEdits") for row in rows)]
        for place in _places(edits)
    ]
    missing = [place for place in dict.fromkeys(named) if not (root / place.lstrip("/")).exists()]
    return CdiFile(
        name=name,
        kind=kind,
        devices=tuple(privacy.path(str(row["name"])) for row in rows if "name" in row),
        missing=tuple(privacy.path(place) for place in missing[:_MISSING]),
        problem=None if kind else "names no kind of devices",
    )


def subordinate_ids(root: Path = ROOT) -> bool | None:
    """Whether /etc/subuid has a range for this user; None for root, who needs none."""
    if os.geteuid() == 0:
        return None
    try:
        names = {getpass.getuser(), str(os.geteuid())}
    except (KeyError, OSError):
        names = {str(os.geteuid())}
    try:
        lines = (root / "etc/subuid").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(line.partition(":")[0].strip() in names for line in lines)


def _places(edits: Any) -> Iterator[str]:
    """Paths on the host that container edits name: of device nodes and of mounts."""
    if not isinstance(edits, dict):
        return
    for key, host in (("deviceNodes", "path"), ("mounts", "hostPath")):
        rows = edits.get(key)
        for row in rows if isinstance(rows, list) else []:
            place = (row.get("hostPath") or row.get(host)) if isinstance(row, dict) else None
            if isinstance(place, str) and place.startswith("/"):
                yield place
