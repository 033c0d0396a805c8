"""The operating system, the processor, the memory, and what cgroups leave of them."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

from kit.host.facts import Memory, Processor, System

ROOT = Path("/")
_ARM = ("implementer", "variant", "part", "revision")
_V1_UNLIMITED = 1 << 60
"""Version 1 says "no limit" with the largest number of whole pages, which is above this."""


def system(root: Path = ROOT) -> System:
    """What os-release, the kernel and the C library say."""
    release = _os_release(root)
    machine = os.uname()
    library, glibc = platform.libc_ver()
    return System(
        name=release.get("PRETTY_NAME") or release.get("NAME") or machine.sysname,
        id=release.get("ID"),
        version=release.get("VERSION_ID"),
        kernel=machine.release,
        architecture=machine.machine,
        glibc=glibc if library == "glibc" and glibc else None,
        container=container(root),
    )


def container(root: Path = ROOT) -> str | None:
    """The container that the kit runs in, by the marks that engines leave; None without one."""
    marks = {"docker": ".dockerenv", "podman": "run/.containerenv"}
    for name, mark in marks.items():
        if (root / mark).exists():
            return name
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    # What an init system was told, readable by root: lxc, systemd-nspawn, oci …
    found = re.search(r"(?:^|\0)container=([\w-]+)", _text(root / "proc/1/environ") or "")
    return found.group(1) if found else None


def processor(root: Path = ROOT) -> Processor:
    """The processor; `usable_cores` counts those that this process may run on."""
    return Processor(
        model=cpu_model(_text(root / "proc/cpuinfo") or ""),
        cores=os.cpu_count() or 1,
        usable_cores=len(os.sched_getaffinity(0)),
        quota_cores=quota(root),
    )


def cpu_model(cpuinfo: str) -> str | None:
    """The first `model name` of /proc/cpuinfo; of Arm, whose kernels give none, the numbers."""
    found: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    if "model name" in found:
        return found["model name"]
    numbers = [f"{key} {found[f'CPU {key}']}" for key in _ARM if f"CPU {key}" in found]
    return f"Arm {', '.join(numbers)}" if numbers else None


def memory(root: Path = ROOT) -> Memory:
    """Main memory, what is left of it, swap, and the cgroup's limit."""
    found = meminfo(_text(root / "proc/meminfo") or "")
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Memory(
        total_bytes=found.get("MemTotal", total),
        available_bytes=found.get("MemAvailable"),
        swap_bytes=found.get("SwapTotal"),
        limit_bytes=memory_limit(root),
        cgroup_version=cgroup_version(root),
    )


def meminfo(text: str) -> dict[str, int]:
    """The lines of /proc/meminfo that count kilobytes, in bytes."""
    rows = re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)
    return {name: int(count) << 10 for name, count in rows}


def cgroup_version(root: Path = ROOT) -> int | None:
    """2 for one tree, 1 for a tree a controller, also where both are mounted; None without any."""
    if (root / "sys/fs/cgroup/cgroup.controllers").exists():
        return 2
    return 1 if (root / "sys/fs/cgroup/memory").is_dir() else None


def memory_limit(root: Path = ROOT) -> int | None:
    """The smallest limit of this process's memory cgroup and those above it; None without one."""
    limits = [_text(folder / "memory.max") for folder in _folders(root, "")]
    limits += [_text(folder / "memory.limit_in_bytes") for folder in _folders(root, "memory")]
    numbers = [int(text) for text in limits if text is not None and text.strip().isdecimal()]
    return min((number for number in numbers if number < _V1_UNLIMITED), default=None)


def quota(root: Path = ROOT) -> float | None:
    """Cores that the cgroup grants on average; None without a limit."""
    shares = [(_text(folder / "cpu.max") or "").split() for folder in _folders(root, "")]
    for folder in _folders(root, "cpu"):
        pair = [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        shares.append([(text or "").strip() for text in pair])
    granted = [
        int(share[0]) / int(share[1])
        for share in shares
        if len(share) == 2 and all(number.isdecimal() and int(number) for number in share)
    ]
    return round(min(granted), 2) if granted else None


def _folders(root: Path, controller: str) -> list[Path]:
    """This process's folder for a controller (empty: version 2) and all above it.

    Inside a container the path of /proc/self/cgroup may not be there: then the mounted top is the
    container's own.
    """
    top = root / "sys/fs/cgroup" / controller
    if not controller and cgroup_version(root) != 2:
        top = root / "sys/fs/cgroup/unified"
    for line in (_text(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            parts = [part for part in path.split("/") if part and part != ".."]
            return [top.joinpath(*parts[:count]) for count in range(len(parts), -1, -1)]
    return [top]


def _os_release(root: Path) -> dict[str, str]:
    text = _text(root / "etc/os-release") or _text(root / "usr/lib/os-release") or ""
    rows = re.findall(r"""^([A-Z_]+)=["']?(.*?)["']?$""", text, re.MULTILINE)
    return {name: value for name, value in rows if value}


def _text(path: Path) -> str | None:
    """A small file of the kernel's or the system's; None where it is not there or not for us."""
    try:
        with path.open("rb") as stream:
            return stream.read(1 << 20).decode(errors="replace")
    except OSError:
        return None
