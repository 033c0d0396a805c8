"""What a manifest records of its host: system, processor, memory, GPUs; no host or user name."""

from __future__ import annotations

import os
from typing import Any

from kit.host import gpus, programs, system

_FIELDS = ("name", "compute_cap", "memory.total", "driver_version")
_SECONDS = 30
"""A driver without persistence mode starts every GPU anew for each question."""


def host_facts() -> dict[str, Any]:
    """The host as a manifest records it; `gpus` is empty and `driver` null without NVIDIA GPUs."""
    devices, driver = _gpus()
    machine = system.system()
    processor = system.processor()
    return {
        "os": machine.name,
        "kernel": machine.kernel,
        "architecture": machine.architecture,
        "cpu": processor.model,
        "cores": processor.cores,
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpus": devices,
        "driver": driver,
    }


def _gpus() -> tuple[list[dict[str, Any]], str | None]:
    from kit.images import cdi

    program = cdi.smi()
    if program is None:
        return [], None
    said = programs.ask(gpus.query_command(program, _FIELDS), _SECONDS)
    rows = gpus.parse_query(said.out, _FIELDS) if said.problem is None else []
    devices = [
        {
            "name": row["name"],
            "compute_capability": row["compute_cap"],
            # Of a MIG device nvidia-smi says `[N/A]`.
            "memory_bytes": gpus.mebibytes(row["memory.total"]),
        }
        for row in rows
    ]
    return devices, rows[0]["driver_version"] if rows else None
