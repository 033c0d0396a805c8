"""A field of `releases.json` for one release at a time, kept as ranges of releases."""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def spread(ranges: list[str], order: list[str]) -> list[str]:
    """Every release that ranges such as `0.9.0..0.16.0` hold, as often as they hold it.

    Raises:
        ValueError: a release that is not in `order`.
    """
    found = []
    for text in ranges:
        first, _, last = text.partition("..")
        found += order[order.index(first) : order.index(last or first) + 1]
    return found


def gather(versions: list[str], order: list[str]) -> list[str]:
    """The shortest ranges that hold exactly these releases, oldest first."""
    runs: list[list[int]] = []
    for place in sorted(order.index(version) for version in versions):
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    return [
        order[run[0]] if len(run) == 1 else f"{order[run[0]]}..{order[run[-1]]}" for run in runs
    ]


def find(rows: list[Row], version: str, order: list[str]) -> Row:
    """The row of a release; KeyError if none holds it."""
    for row in rows:
        if version in spread(row["releases"], order):
            return row
    raise KeyError(version)


def replace(rows: list[Row], version: str, told: Row, order: list[str]) -> list[Row]:
    """The rows with what is told of one release: `value` and `source`, or `value` and `hole`.

    The release leaves its row and joins the one that tells the same, or gets its own.
    """
    held = [(spread(row["releases"], order), _told(row)) for row in rows]
    for versions, _ in held:
        if version in versions:
            versions.remove(version)
    for versions, other in held:
        if other == told:
            versions.append(version)
            break
    else:
        held.append(([version], told))
    kept = [(gather(versions, order), other) for versions, other in held if versions]
    kept.sort(key=lambda pair: order.index(pair[0][0].partition("..")[0]))
    return [{"releases": ranges, **other} for ranges, other in kept]


def _told(row: Row) -> Row:
    return {key: value for key, value in row.items() if key != "releases"}
