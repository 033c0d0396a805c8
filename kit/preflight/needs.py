"""What a build takes of a host, and what it refuses: `needs.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kit.data import ranges, releases

TABLE = Path(__file__).with_name("needs.json")


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of something, and who says so; None where nobody does, for the reason in `hole`."""

    bytes: int | None
    source: str | None
    hole: str | None


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `needs.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def disk(release: str) -> Need:
    """Bytes of disk that building the image of a release takes."""
    return _need("disk", release)


def memory_per_job(release: str) -> Need:
    """Bytes of memory that one compiler of a release takes."""
    return _need("memory_per_job", release)


def refusal(release: str, capability: str) -> str | None:
    """Why the build of a release refuses a compute capability; None if it is not known to."""
    for row in table()["refused_architectures"]:
        if capability in row["capabilities"] and _holds(row, release):
            return str(row["source"])
    return None


def _need(kind: str, release: str) -> Need:
    for row in table()[kind]:
        if _holds(row, release):
            return Need(row["bytes"], row.get("source"), row.get("hole"))
    return Need(None, None, f"no table has it for release {release}")


def _holds(row: dict[str, Any], release: str) -> bool:
    order = releases.order()
    return release in order and release in ranges.spread(row["releases"], order)
