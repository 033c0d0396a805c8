"""Tables with source and date. This module reads the one of the command lines, `cli.json`.

The same file goes into the rehearsal's wheel, so that what the kit writes and what the reference
backend accepts come from one place.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

CLI_TABLE = Path(__file__).with_name("cli.json")

_ABSENT: dict[str, Any] = {
    "type": None,
    "nargs": None,
    "choices": None,
    "const": None,
    "default": None,
    "required": False,
    "group": None,
}


@lru_cache(maxsize=1)
def cli_table() -> dict[str, Any]:
    """The table as it stands in `cli.json`; shared, not to be changed by the caller."""
    table: dict[str, Any] = json.loads(CLI_TABLE.read_text(encoding="utf-8"))
    return table


def scripts(release: str) -> list[str]:
    """The scripts that the table has for a release."""
    return [name for name, script in cli_table()["scripts"].items() if release in script["sources"]]


def options(script: str, release: str) -> list[dict[str, Any]]:
    """The options of one script in one release, absent keys filled in.

    Empty when the release does not have the script; KeyError for a script or release that the
    table does not know at all.
    """
    rows = cli_table()["scripts"][script]["options"]
    return [{**_ABSENT, **row} for row in rows if covers(row["releases"], release)]


def post_checks(script: str, release: str) -> list[dict[str, Any]]:
    """What the script of that release asserts after parsing: `when` (all of them) and `must`."""
    rows = cli_table()["scripts"][script]["post_checks"]
    return [dict(row) for row in rows if covers(row["releases"], release)]


def covers(ranges: list[str], release: str) -> bool:
    """Whether release ranges such as `0.9.0..0.16.0` hold a release; KeyError if it is unknown."""
    order = _order()
    place = order[release]
    bounds = (text.partition("..") for text in ranges)
    return any(order[first] <= place <= order[last or first] for first, _, last in bounds)


@lru_cache(maxsize=1)
def _order() -> dict[str, int]:
    return {release: place for place, release in enumerate(cli_table()["releases"])}
