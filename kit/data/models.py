"""Models that examples name, and what is known of them unfetched: `models.json`."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("models.json")


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `models.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def find(name: str, repository: str | None = None) -> dict[str, Any] | None:
    """The row of a repository, or, where none is given, of the name that recipes use."""
    rows: list[dict[str, Any]] = table()["models"]
    for row in rows:
        known = row["repository"] == repository if repository else name.lower() in row["names"]
        if known:
            return row
    return None
