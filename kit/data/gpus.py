"""GPUs, their compute capability, and the precisions it carries: `gpus.json`."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("gpus.json")
_CAPABILITY = re.compile(r"(?:sm_?|compute_?|cc)?\s*([1-9][0-9]?)\.?([0-9])[a-z]?", re.IGNORECASE)
_BRANDS = frozenset({"nvidia", "tesla", "geforce", "grid"})
_JOINED = re.compile(r"\b(rtx)(?=[0-9])")


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `gpus.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def named(compute_capability: str) -> list[str]:
    """The GPUs of a compute capability such as `8.9`."""
    return [
        row["name"] for row in table()["gpus"] if row["compute_capability"] == compute_capability
    ]


def find(name: str) -> dict[str, Any] | None:
    """The row of a GPU by its name, also as nvidia-smi or a cluster key spells it.

    `NVIDIA H100 80GB HBM3` and `H100-SXM` are H100, `RTX4090` is GeForce RTX 4090, `GRID A100-10C`
    is a slice of an A100: a name of the table has to stand, word for word, at the start, so that
    `L40S` is not taken for `L4`; of several the longest decides.
    `GB10 (DGX Spark)` goes by either name; the first row has a name that two rows share.
    """
    words = _words(name)
    best: tuple[int, dict[str, Any]] | None = None
    for row in table()["gpus"]:
        for spelling in row["name"].rstrip(")").split(" ("):
            wanted = _words(spelling)
            if words[: len(wanted)] == wanted and (best is None or len(wanted) > best[0]):
                best = len(wanted), row
    return best[1] if best else None


def capability(text: str) -> str | None:
    """`9.0` of `9.0`, `90`, `sm_90` or `compute_90`; None for another text."""
    match = _CAPABILITY.fullmatch(text.strip())
    return f"{match.group(1)}.{match.group(2)}" if match else None


def capabilities() -> list[str]:
    """Every compute capability of the table, lowest first."""
    return sorted({row["compute_capability"] for row in table()["gpus"]}, key=rank)


def rank(compute_capability: str) -> tuple[int, int]:
    """To compare two capabilities: (8, 9) is more than (8, 6)."""
    major, _, minor = compute_capability.partition(".")
    return int(major), int(minor or 0)


def architecture(compute_capability: str) -> str | None:
    """`Hopper` for `9.0`; None where the table has no such GPU."""
    found = (
        row["architecture"]
        for row in table()["gpus"]
        if row["compute_capability"] == compute_capability
    )
    return next(found, None)


def precisions() -> list[dict[str, Any]]:
    """The rows of the precision table: precision, releases, minimum, listed, source."""
    rows: list[dict[str, Any]] = table()["precisions"]
    return rows


def _words(name: str) -> list[str]:
    words = re.split(r"[^a-z0-9]+", _JOINED.sub(r"\1 ", name.lower()))
    return [word for word in words if word and word not in _BRANDS]
