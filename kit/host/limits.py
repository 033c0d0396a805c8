"""Disks, shared memory and the limits of processes."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

from kit.host import privacy
from kit.host.facts import UNLIMITED, Disk, Limit

if TYPE_CHECKING:
    from pathlib import Path

_KINDS = {
    "memlock": resource.RLIMIT_MEMLOCK,
    "stack": resource.RLIMIT_STACK,
    "nofile": resource.RLIMIT_NOFILE,
    "nproc": resource.RLIMIT_NPROC,
}


def disk(name: str, place: Path) -> Disk:
    """Room on the disk of a folder that need not exist yet; OSError where the system refuses."""
    folder = next(path for path in (place, *place.parents) if path.exists())
    found = os.statvfs(folder)
    return Disk(
        name=name,
        path=privacy.path(place),
        total_bytes=found.f_blocks * found.f_frsize,
        free_bytes=found.f_bavail * found.f_frsize,
        # Some file systems (btrfs, overlay over one) make inodes as they need them and count none.
        free_inodes=found.f_favail if found.f_files else None,
    )


def limits() -> tuple[Limit, ...]:
    """What `ulimit -l -s -n -u` show: memlock and stack in bytes."""
    return tuple(
        Limit(name, *(_number(value) for value in resource.getrlimit(kind)))
        for name, kind in _KINDS.items()
    )


def _number(value: int) -> int:
    return UNLIMITED if value == resource.RLIM_INFINITY else value
