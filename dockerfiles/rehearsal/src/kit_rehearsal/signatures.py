"""Which release's Python API a script talks to, and what its calls take: the kit's table.

The releases swallow names that they do not know in `**kwargs`; here they are refused, so that a
misspelled one is found.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import options
from .errors import BackendError
from .releases import RELEASES, Span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLE = "KIT_REHEARSAL_RELEASE"
FIRST = "0.9.0"
_KNOWN = Span(FIRST)


def release() -> str:
    """The release whose tree this process works in, or that $KIT_REHEARSAL_RELEASE names.

    Raises:
        BackendError: neither says one that has this API.
    """
    named = os.environ.get(VARIABLE)
    places = [named] if named else [part for part in Path.cwd().parts if part in RELEASES]
    if not places:
        raise BackendError(f"{Path.cwd()} is in no release's tree; go there or set {VARIABLE}")
    found = places[-1]
    if found not in RELEASES or not _KNOWN.holds(found):
        raise BackendError(
            f"the Python API of release {found} is not known: it was read for {FIRST} to "
            f"{RELEASES[-1]}"
        )
    return found


def bound(name: str, given: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by their names, as the release takes them.

    Raises:
        BackendError: the release has no such call.
        TypeError: too many arguments, one twice, or one that the release has not.
    """
    found = _row("calls", name)
    if found is None:
        raise BackendError(f"release {release()}: {name.replace('.', ' has no ')}")
    positional = found["positional"]
    if len(given) > len(positional):
        raise TypeError(
            f"release {release()}: {name} takes {len(positional)} arguments by their place, "
            f"found {len(given)}"
        )
    said = dict(zip(positional, given, strict=False))
    for key in sorted(named):
        if key in said:
            raise TypeError(f"release {release()}: {name} got multiple values for argument {key}")
        if key not in {*positional, *found["named"]}:
            raise TypeError(f"release {release()}: {name} has no argument {key}")
    return {**said, **named}


def check_import(module: str) -> None:
    """ImportError where the release has nothing in that module that scripts import."""
    rows = [row for row in _table()["imports"] if row["module"] == module]
    if not any(options.covers(row["releases"], release()) for row in rows):
        raise ImportError(f"release {release()} has no {module}")


def build_fields() -> set[str]:
    """The fields of the release's BuildConfig."""
    rows = _table()["fields"]
    return {row["name"] for row in rows if options.covers(row["releases"], release())}


def calibrating_ranks() -> tuple[int, ...]:
    """The ranks that a mapping may have where `quantize` calibrates; both where nobody knows."""
    for row in _table()["ranks"]:
        if options.covers(row["releases"], release()):
            return (0, -1) if row["rank"] is None else (row["rank"],)
    raise AssertionError(release())  # the table has every release since the first


def _row(kind: str, name: str) -> dict[str, Any] | None:
    for row in _table()[kind]:
        if row["name"] == name and options.covers(row["releases"], release()):
            found: dict[str, Any] = row
            return found
    return None


def _table() -> dict[str, Any]:
    table: dict[str, Any] = options.table()["python_api"]
    return table
