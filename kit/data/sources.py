"""What each release is built from: `sources.json`. Versions stand in `releases.json`."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from kit.data import ranges, releases
from kit.data.releases import Fact

TABLE = Path(__file__).with_name("sources.json")
_WORDS = ("source", "inferred", "hole")


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `sources.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def fact(version: str, field: str) -> Fact:
    """What the table says of a stable or post release.

    Raises:
        KeyError: no such field, or a release that the table does not have.
    """
    row = ranges.find(table()["fields"][field], version, releases.order())
    source, inferred, hole = (_told(row.get(key), version) for key in _WORDS)
    return Fact(row["value"], source, inferred, hole)


def value(version: str, field: str) -> Any:
    """The value alone; None where it is not known."""
    return fact(version, field).value


def commit(version: str) -> str | None:
    """The commit to build a release from: that of `releases.json`, or the only candidate for it."""
    found: str | None = releases.value(version, "commit")
    if found is None and len(rows := commits(version)) == 1:
        found = rows[0]["commit"]
    return found


def commits(version: str) -> list[dict[str, Any]]:
    """What public places name as the commit of a release whose commit is not settled, else none.

    Rows of `commit`, `what` the place says, `agree` and `sources`.
    """
    return [row for row in table()["commits"] if row["release"] == version]


def gaps(version: str) -> list[dict[str, str]]:
    """Inputs that the build of a release needs and nobody can name: `name`, `group`, `reason`."""
    return [row for row in table()["gaps"] if _holds(row, version)]


def remarks(version: str) -> list[dict[str, str]]:
    """What a reader of the release's intent has to know: `at` which part, `text`."""
    return [row for row in table()["remarks"] if _holds(row, version)]


def licences() -> list[dict[str, str]]:
    """Terms of what the stacks are made of: `name`, `url`, `for` what."""
    rows: list[dict[str, str]] = table()["licences"]
    return rows


def triton_server(container: str) -> str | None:
    """The version of the Triton server in a container such as `24.12`."""
    rows = (row["version"] for row in table()["triton_servers"] if row["container"] == container)
    return next(rows, None)


def _holds(row: dict[str, Any], version: str) -> bool:
    return version in ranges.spread(row["releases"], releases.order())


def _told(text: str | None, version: str) -> str | None:
    if text is None:
        return None
    text = text.replace("{version}", version)
    return text.replace("{commit}", commit(version) or "") if "{commit}" in text else text
