"""What people want to know of a verdict: since when, what it became, which defaults moved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit import data
from kit.commandlines import history
from kit.commandlines.evaluate import read, words
from kit.commandlines.verdict import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from kit.commandlines.evaluate import Evaluation
    from kit.commandlines.launcher import Launch
    from kit.commandlines.outcome import Fault

    _FaultsAt = Callable[[str], set[tuple[str, str]]]

_EXPLAINED = 30
"""How many problems of one command are told; nobody reads on, and each takes all releases."""


def problems(found: Evaluation, launch: Launch) -> tuple[Problem, ...]:
    """The proven faults for people: what, since when, what it became."""
    known: dict[str, set[tuple[str, str]]] = {}

    def faults_at(release: str) -> set[tuple[str, str]]:
        if release not in known:
            _, outcome = read(found.script.partition(" ")[0], release, launch)
            known[release] = {(fault.kind, fault.option) for fault in outcome.faults}
        return known[release]

    distinct = {(fault.kind, fault.option, fault.detail): fault for fault in found.faults}
    told = list(distinct.values())[:_EXPLAINED]
    return tuple(_problem(found, fault, faults_at) for fault in told)


def moved_defaults(found: Evaluation) -> list[str]:
    """Options left out whose default has moved in a way that changes what the line builds."""
    script, release = found.script, found.release
    if found.outcome.helped:
        return []
    given = {row.row["dest"] for row in found.outcome.given}
    moves = []
    for flag in data.renames()["defaults"].get(script, ()):
        now = data.option(script, flag, release)
        if now is None or now["dest"] in given:
            continue

        def holds(other: str, flag: str = flag, now: Mapping[str, Any] = now) -> bool:
            row = data.option(script, flag, other)
            return row is not None and row["default"] == now["default"]

        since = history.past(script, release, holds).since
        if since is None:
            continue
        order = data.release_order()
        before = data.option(script, flag, order[order.index(since) - 1])
        if before is not None:
            was, is_ = _shown(before["default"]), _shown(now["default"])
            moves.append(f"{flag} {is_} since {since} (before: {was})")
    return [f"defaults that moved: {', '.join(moves)}"] if moves else []


def _shown(value: object) -> str:
    return "none" if value is None else str(value)


def _problem(found: Evaluation, fault: Fault, faults_at: _FaultsAt) -> Problem:
    script, release = found.script, found.release
    source = data.source(script, release)

    def holds(other: str) -> bool:
        return (fault.kind, fault.option) in faults_at(other)

    is_check = fault.kind == "check"
    past = history.Past() if is_check else history.past(script, release, holds)
    row = history.renamed(script, fault.option, release)
    became = None if row is None or row["new"] is None else str(row["new"])
    message = words(fault, script, release)
    if fault.kind == "unknown-option" and past.since is not None:
        message = f"{fault.option} was removed in {past.since}"
    elif past.since is not None:
        message += f" (since {past.since})"
    elif past.until is not None and fault.kind in {"unknown-option", "invalid-choice"}:
        message += f"; it comes with {past.until}"
    elif past.until is not None and fault.kind in {"missing-option", "missing-argument"}:
        message += f"; no longer needed from {past.until} on"
    if row is not None:
        message += _replacement(became, row.get("note"))
    elif fault.kind == "unknown-option":
        message += _hint(script, fault.option, release)
    place = None if source is None else source["source"]
    return Problem(fault.option, fault.kind, message, past.since, became, place)


def _replacement(became: str | None, note: str | None) -> str:
    if became is None:
        return f": {note}" if note else ""
    if not note:
        return f": use {became}"
    return f": use {became} {note}" if note.startswith("=") else f": use {became} ({note})"


def _hint(script: str, option: str, release: str) -> str:
    close = history.nearest(script, option, release)
    if close is not None:
        return f"; did you mean {close}?"
    others = history.elsewhere(script, option, release)
    verb = "takes" if len(others) == 1 else "take"
    return f"; {' and '.join(others)} of {release} {verb} it" if others else ""
