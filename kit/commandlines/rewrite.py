"""A command rewritten for another release, where every problem has a mechanical answer."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from kit import data
from kit.commandlines import history

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.commandlines.evaluate import Evaluation
    from kit.commandlines.launcher import Launch
    from kit.commandlines.outcome import Fault
    from kit.commandlines.shell import Word


class _Edit(NamedTuple):
    """Words `first` to `last` (not included) are replaced."""

    first: int
    last: int
    words: tuple[str, ...]


def rewritten(words: tuple[Word, ...], launch: Launch, found: Evaluation) -> str | None:
    """The command with every proven problem mended; None where one needs a decision.

    The result is text that the caller holds against the release again before showing it.
    """
    edits: list[_Edit] = []
    for fault in found.faults:
        edit = _edit(fault, launch, found)
        if edit is None:
            return None
        edits.append(edit)
    raw = [word.raw for word in words]
    for edit in sorted(edits, key=lambda edit: -edit.first):
        raw[edit.first : edit.last] = edit.words
    return " ".join(raw)


def _edit(fault: Fault, launch: Launch, found: Evaluation) -> _Edit | None:
    row = history.renamed(found.script, fault.option, found.release)
    if fault.place is None or row is None or "rewrite" not in row:
        return None
    rewrite: Mapping[str, Any] = row["rewrite"]
    place = fault.place
    end = place + 1
    while end < len(launch.arguments) and not _is_option(launch.arguments[end]):
        end += 1
    offset = launch.first + 1
    written = launch.arguments[place].raw
    _, equals, value = written.partition("=")
    values = tuple(word.raw for word in launch.arguments[place + 1 : end])
    if "drop" in rewrite:
        return _Edit(offset + place, offset + end, ())
    if "plus" in rewrite:
        number = value if equals else values[0] if len(values) == 1 else ""
        total = _sum(number, str(rewrite["plus"]), found)
        if total is None:
            return None
        return _Edit(offset + place, offset + end, (str(rewrite["name"]), str(total)))
    if fault.kind == "unknown-option" and any(
        rewrite["name"] in given.row["flags"] for given in found.outcome.given
    ):
        return None  # both the old and the new option are on the line
    if fault.kind not in {"unknown-option", "missing-value"}:
        return None
    if equals:
        return _Edit(offset + place, offset + end, (f"{rewrite['name']}={value}", *values))
    if not values and "bare" in rewrite:
        values = (str(rewrite["bare"]),)
    return _Edit(offset + place, offset + end, (str(rewrite["name"]), *values))


def _sum(number: str, other: str, found: Evaluation) -> int | None:
    """The value plus that of another option: as given, or its default."""
    row = data.option(found.script, other, found.release)
    added = found.outcome.values.get(row["dest"]) if row is not None else None
    if not re.fullmatch(r"\d+", number) or not isinstance(added, int):
        return None
    return int(number) + added


def _is_option(word: Word) -> bool:
    return re.match(r"-[A-Za-z-]", word.known) is not None
