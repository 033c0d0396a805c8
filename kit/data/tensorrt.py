"""TensorRT on the Python index, and the serialization tags of its plans: `tensorrt.json`."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("tensorrt.json")


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `tensorrt.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def serialization_tag(tag: int) -> tuple[str, ...]:
    """The TensorRT versions whose plans were seen with a tag; tags are neither unique nor ordered.

    Empty for a tag that nobody has reported.
    """
    return tuple(
        str(version) for row in table()["tags"] if row["tag"] == tag for version in row["tensorrt"]
    )


def same(one: str, other: str) -> bool | None:
    """Whether two spellings are one TensorRT: a plan loads only in exactly its own.

    `9.2.0.post12.dev5` is `9.2.0.5`. None where it cannot be told: the numbers of one are those
    that the other begins with, as `10.7.0` and `10.7.0.23`, or one is no version, as `8.6.x`.
    """
    first, second = parts(one), parts(other)
    shared = min(len(first), len(second))
    if first[:shared] != second[:shared]:
        return False
    return True if shared and len(first) == len(second) else None


def parts(version: str) -> tuple[int, ...]:
    """The numbers of a version, at most four: (9, 2, 0, 5); empty for something else."""
    base, _, dev = version.partition(".post12.dev")
    numbers = base.partition("-")[0].partition("+")[0].partition(".post")[0].split(".")
    if not all(number.isdecimal() for number in numbers):
        return ()
    found = tuple(int(number) for number in numbers)[:4]
    return (*found, int(dev)) if dev.isdecimal() and len(found) == 3 else found
