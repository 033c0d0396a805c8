"""NVIDIA GPUs in containers: by CDI, or by the parts that a CDI document would name.

The Container Device Interface describes what a device needs inside a container: nodes, libraries,
variables (https://github.com/cncf-tags/container-device-interface, version 0.5.0). NVIDIA's toolkit
writes it with `nvidia-ctk cdi generate`; where the toolkit is missing the kit works out the same
and hands it to the engine piece by piece, which needs no right to write anywhere.
"""

from __future__ import annotations

import shutil
import stat
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.errors import environment_error
from kit.images import process

KIND = "nvidia.com/gpu"
FOLDERS = (Path("/etc/cdi"), Path("/var/run/cdi"))
TARGET = "/usr/local/nvidia/lib64"
"""Where driver libraries stand inside the container."""
_SHARED_NODES = (
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
)
_LIBRARY_FOLDERS = (
    "/usr/local/nvidia/lib64",
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/run/nvidia/driver/usr/lib/x86_64-linux-gnu",
)
_PROGRAMS = ("nvidia-smi", "nvidia-debugdump", "nvidia-cuda-mps-control")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this host, as `nvidia-smi` lists it."""

    index: int
    uuid: str
    minor: int
    name: str


def smi() -> str | None:
    """The `nvidia-smi` of this host, on PATH or where drivers of containers put it."""
    return shutil.which("nvidia-smi") or shutil.which("nvidia-smi", path="/usr/local/nvidia/bin")


def gpus() -> tuple[str, list[Gpu]]:
    """Driver version and GPUs of this host.

    Raises:
        KitError: no driver, or it does not answer (exit 3).
    """
    program = smi()
    if program is None:
        raise environment_error(
            "no NVIDIA driver on this host: nvidia-smi was not found",
        )
    done = process.capture([program, "-q", "-x"])
    if done.returncode != 0:
        raise environment_error(f"nvidia-smi failed: {(done.stderr or done.stdout).strip()}")
    tree = ET.fromstring(done.stdout)  # noqa: S314  # the driver's own answer
    found = [
        Gpu(index, _text(gpu, "uuid"), int(_text(gpu, "minor_number")), _text(gpu, "product_name"))
        for index, gpu in enumerate(tree.iter("gpu"))
    ]
    return _text(tree, "driver_version"), found


def check(wanted: list[str]) -> None:
    """Refuse indices and UUIDs that this host lacks: engines say it badly or not at all.

    Slices (`MIG-…`) are left to an engine that has NVIDIA's toolkit.

    Raises:
        KitError: no driver, no such GPU, or a slice that only the toolkit can give (exit 3).
    """
    _, devices = gpus()
    known = {str(gpu.index) for gpu in devices} | {gpu.uuid for gpu in devices}
    for name in wanted:
        if name.startswith("MIG-"):
            if not is_specified() and shutil.which("nvidia-container-runtime") is None:
                raise environment_error(
                    f"GPU slice {name}: needs NVIDIA's container toolkit, which this host lacks"
                )
        elif name not in known:
            listed = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in devices) or "none"
            raise environment_error(f"no GPU {name!r} on this host; it has {listed}")


def is_specified() -> bool:
    """Whether a CDI specification of NVIDIA's toolkit is there for engines to read."""
    return any(
        KIND in path.read_text(errors="replace")
        for folder in FOLDERS
        if folder.is_dir()
        for path in folder.glob("*")
    )


@dataclass(frozen=True, slots=True)
class Edits:
    """What a CDI document does to a container, for an engine that does not read CDI."""

    nodes: tuple[str, ...]
    mounts: tuple[tuple[str, str], ...]
    environment: tuple[tuple[str, str], ...]


def edits(wanted: list[str]) -> Edits:
    """The edits for devices that `check` accepts."""
    document = specification(*gpus())
    named = {row["name"]: row["containerEdits"] for row in document["devices"]}
    every = document["containerEdits"]
    nodes = [node for name in wanted for node in named[name]["deviceNodes"]]
    return Edits(
        tuple(dict.fromkeys(node["path"] for node in [*nodes, *every["deviceNodes"]])),
        tuple((row["containerPath"], row["hostPath"]) for row in every["mounts"]),
        tuple(tuple(text.split("=", 1)) for text in every["env"]),
    )


def specification(driver: str, devices: list[Gpu]) -> dict[str, Any]:
    """A CDI document: each GPU by index and by UUID, and all of them together."""
    named: list[dict[str, Any]] = []
    for gpu in devices:
        edits = {"deviceNodes": [{"path": f"/dev/nvidia{gpu.minor}"}]}
        named += [{"name": name, "containerEdits": edits} for name in (str(gpu.index), gpu.uuid)]
    every = [{"path": f"/dev/nvidia{gpu.minor}"} for gpu in devices]
    named.append({"name": "all", "containerEdits": {"deviceNodes": every}})
    nodes = [{"path": path} for path in _SHARED_NODES if _is_device(Path(path))]
    return {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "devices": named,
        "containerEdits": {
            "deviceNodes": nodes,
            "env": [f"LD_LIBRARY_PATH={TARGET}", "NVIDIA_VISIBLE_DEVICES=void"],
            "mounts": _mounts(driver),
        },
    }


def _mounts(driver: str) -> list[dict[str, Any]]:
    """Every library of exactly this driver version under each of its names, and its programs."""
    pairs: dict[str, str] = {}
    for folder in map(Path, _LIBRARY_FOLDERS):
        for library in sorted(folder.glob("lib*.so*")) if folder.is_dir() else []:
            real = library.resolve()
            if real.name.endswith(f".so.{driver}"):
                pairs.setdefault(f"{TARGET}/{library.name}", str(real))
    for program in _PROGRAMS:
        found = shutil.which(program) or shutil.which(program, path="/usr/local/nvidia/bin")
        if found:
            pairs[f"/usr/bin/{program}"] = str(Path(found).resolve())
    options = ["ro", "nosuid", "nodev", "bind"]
    return [
        {"hostPath": source, "containerPath": target, "options": options}
        for target, source in sorted(pairs.items())
    ]


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False


def _text(element: ET.Element, tag: str) -> str:
    return (element.findtext(tag) or "").strip()
