"""What this host is: system, processor, memory, GPUs. No host name, no user name."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

_GPU_FIELDS = ("name", "compute_cap", "memory.total", "driver_version")


def host_facts() -> dict[str, Any]:
    """The host as a manifest records it; `gpus` is empty and `driver` null without NVIDIA GPUs."""
    gpus, driver = _gpus()
    return {
        "os": _operating_system(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": gpus,
        "driver": driver,
    }


def _operating_system() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return platform.system()
    return release.get("PRETTY_NAME", release["NAME"])


def _cpu_model() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return None


def _gpus() -> tuple[list[dict[str, Any]], str | None]:
    from kit.images import cdi

    program = cdi.smi()
    if program is None:
        return [], None
    command = [program, f"--query-gpu={','.join(_GPU_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return [], None
    rows = [
        [cell.strip() for cell in line.split(",")]
        for line in (done.stdout.splitlines() if done.returncode == 0 else [])
    ]
    complete = [row for row in rows if len(row) == len(_GPU_FIELDS)]
    gpus = [
        {
            "name": name,
            "compute_capability": capability,
            # Of a MIG device nvidia-smi says `[N/A]`.
            "memory_bytes": int(memory) << 20 if memory.isdecimal() else None,
        }
        for name, capability, memory, _driver in complete
    ]
    return gpus, complete[0][3] if complete else None
