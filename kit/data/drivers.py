"""NVIDIA drivers and the CUDA that they run: `drivers.json`."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("drivers.json")


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `drivers.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def numbers(version: str) -> tuple[int, ...]:
    """To compare versions: (535, 104, 5); stops at the first part that is no number."""
    found = []
    for part in version.split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)


def of_toolkit(cuda: str) -> tuple[str, str] | None:
    """The driver that comes with a CUDA toolkit, and the source; None where no row fits.

    A toolkit without its own row, such as 12.3.2, has the driver of the last one before it with
    the same minor version.
    """
    wanted = numbers(cuda)
    best: tuple[tuple[int, ...], dict[str, Any]] | None = None
    for row in table()["toolkit"]:
        have = numbers(row["cuda"])
        # A bare 12.3 is its first release.
        fits = have[:2] == wanted[:2] and have <= (wanted if len(wanted) > 2 else (*wanted, 0))
        if fits and (best is None or have > best[0]):
            best = have, row
    return (best[1]["driver"], best[1]["source"]) if best else None


def minor_version(cuda: str) -> tuple[str, str] | None:
    """The lowest driver that runs any toolkit of that major version, and the source."""
    major = f"{cuda.partition('.')[0]}.x"
    for row in table()["minor_version_compatibility"]:
        if row["cuda"] == major:
            return row["driver"], row["source"]
    return None


def forward(cuda: str) -> dict[str, Any] | None:
    """The row of older drivers that run a CUDA through cuda-compat on data-center GPUs.

    `branches` is None where that is not known; None altogether for a CUDA without a row.
    """
    minor = ".".join(cuda.split(".")[:2])
    found = (row for row in table()["forward_compatibility"] if row["cuda"] == minor)
    return next(found, None)
