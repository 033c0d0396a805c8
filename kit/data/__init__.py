"""Tables with source and date. This module reads those of the command lines.

`cli.json` has the scripts of the kit's own pipelines, the console commands and the calls of the
Python API. The same file goes into the rehearsal's wheel, so that what the kit writes and what the
reference backend accepts come from one place. `scripts.json` has the other model families' scripts
and the names of all files, `renames.json` what options and scripts became.
"""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

_BESIDE = Path(__file__).with_name("cli.json")
# An installed kit has it once, in the project that it brings along.
_BUNDLED = _BESIDE.parents[1] / "bundled" / "kit" / "data" / "cli.json"
CLI_TABLE = _BESIDE if _BESIDE.exists() else _BUNDLED
SCRIPTS_TABLE = Path(__file__).with_name("scripts.json")
RENAMES_TABLE = Path(__file__).with_name("renames.json")

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
    table: dict[str, Any] = json.loads(CLI_TABLE.read_bytes())
    return table


@lru_cache(maxsize=1)
def scripts_table() -> dict[str, Any]:
    """The other scripts and the files, as they stand in `scripts.json`; shared."""
    table: dict[str, Any] = json.loads(SCRIPTS_TABLE.read_bytes())
    return table


@lru_cache(maxsize=1)
def renames() -> dict[str, Any]:
    """What options, scripts and folders became, as it stands in `renames.json`; shared."""
    table: dict[str, Any] = json.loads(RENAMES_TABLE.read_bytes())
    return table


def release_order() -> list[str]:
    """The releases of the table, oldest first."""
    names: list[str] = cli_table()["releases"]
    return names


def scripts(release: str) -> list[str]:
    """The scripts that the table has for a release."""
    return [name for name, script in cli_table()["scripts"].items() if release in script["sources"]]


def source(script: str, release: str) -> dict[str, str] | None:
    """Where the options of a script were read: `status`, `source`, `commit`, `parse`.

    None where no table has the script for that release. The scripts of `scripts.json` have the
    status `read`: from the source at the release's commit, without running it.
    """
    if (entry := cli_table()["scripts"].get(script)) is not None:
        found: dict[str, str] | None = entry["sources"].get(release)
        return found
    entry = scripts_table()["scripts"].get(script) if script.endswith(".py") else None
    if entry is None or not covers(entry["releases"], release):
        return None
    commit = scripts_table()["commits"][release]
    place = f"NVIDIA/TensorRT-LLM {script}@{commit}"
    return {"status": "read", "source": place, "commit": commit, "parse": "parse_args"}


def options(script: str, release: str) -> list[dict[str, Any]]:
    """The options of one script in one release, absent keys filled in.

    Empty when the release does not have the script; KeyError for a script or release that the
    tables do not know at all.
    """
    rows = _all_options(script)
    return [{**_ABSENT, **row} for row in rows if covers(row["releases"], release)]


def option(script: str, flag: str, release: str) -> dict[str, Any] | None:
    """One option by one of its names, as `options` gives it; None where it is not there."""
    for row in _all_options(script):
        if flag in row["flags"] and covers(row["releases"], release):
            return {**_ABSENT, **row}
    return None


def _all_options(script: str) -> list[dict[str, Any]]:
    entry = cli_table()["scripts"].get(script) or scripts_table()["scripts"][script]
    rows: list[dict[str, Any]] = entry["options"]
    return rows


def post_checks(script: str, release: str) -> list[dict[str, Any]]:
    """What the script of that release asserts after parsing: `when` (all of them) and `must`."""
    rows = cli_table()["scripts"][script]["post_checks"]
    return [dict(row) for row in rows if covers(row["releases"], release)]


def products(script: str, release: str) -> list[dict[str, Any]]:
    """What the script of that release asserts of products: `factors` multiply to `equals`."""
    rows = cli_table()["scripts"][script].get("products", [])
    return [dict(row) for row in rows if covers(row["releases"], release)]


def python_api() -> dict[str, Any]:
    """What scripts of the Python API may say, as it stands in `cli.json`; shared."""
    table: dict[str, Any] = cli_table()["python_api"]
    return table


def calibrating_rank(release: str) -> int | None:
    """The rank that a mapping has where `quantize` of that release calibrates; None: not known.

    Raises:
        KeyError: the release has no such call.
    """
    for row in python_api()["ranks"]:
        if covers(row["releases"], release):
            rank: int | None = row["rank"]
            return rank
    raise KeyError(release)


def commands(release: str) -> list[str]:
    """The console commands that a release installs."""
    rows = cli_table()["console_scripts"]
    return [name for name, ranges in rows.items() if covers(ranges, release)]


def files(release: str) -> list[str] | None:
    """Every Python file that can be run in the tree of a release; None where no tree was read."""
    table = scripts_table()
    if not covers(table["files_known"], release):
        return None
    return [path for path, ranges in table["files"].items() if covers(ranges, release)]


def covers(ranges: list[str], release: str) -> bool:
    """Whether release ranges such as `0.9.0..0.16.0` hold a release; KeyError if it is unknown."""
    place = _order()[release]
    for text in ranges:
        first, last = _bounds(text)
        if first <= place <= last:
            return True
    return False


@cache
def _bounds(text: str) -> tuple[int, int]:
    first, _, last = text.partition("..")
    return _order()[first], _order()[last or first]


@lru_cache(maxsize=1)
def _order() -> dict[str, int]:
    return {release: place for place, release in enumerate(cli_table()["releases"])}
