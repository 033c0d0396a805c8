"""One command held against one script of one release: what its parser says, and its checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kit import data
from kit.commandlines import history
from kit.commandlines.outcome import Fault, Outcome
from kit.commandlines.parse import parse
from kit.commandlines.values import UNKNOWN, Unknown

if TYPE_CHECKING:
    from kit.commandlines.launcher import Launch
    from kit.commandlines.verdict import Verdict


class Evaluation(NamedTuple):
    """What one script of one release says; `faults` are those that are proven."""

    script: str
    release: str
    verdict: Verdict
    outcome: Outcome
    faults: tuple[Fault, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def evaluate(script: str, release: str, launch: Launch) -> Evaluation:
    """Hold a command's arguments against a script that the table has for that release."""
    script, outcome = read(script, release, launch)
    source = data.source(script, release)
    if source is None:  # a subcommand that the release does not have
        fault = Fault("unexpected-argument", script.rpartition(" ")[2], "", None)
        return Evaluation(script, release, "rejected", outcome, (fault,))
    status = source["status"]
    checks, warnings = _checks(script, release, outcome)
    faults = [*outcome.faults, *checks]
    proven = tuple(fault for fault in faults if _is_proven(fault, script, release, status))
    if proven:
        return Evaluation(script, release, "rejected", outcome, proven)
    reasons = [*outcome.doubts]
    reasons += [_unproven(fault, script, release, status) for fault in faults]
    if not faults and status == "nearest":
        reasons.append(f"{script} was not read at {release}; {_nearest_read(script)} accepts this")
    notes = [*_assumed(outcome), *warnings]
    if reasons:
        unique = tuple(dict.fromkeys(reasons))
        return Evaluation(script, release, "undecidable", outcome, (), unique, tuple(notes))
    return Evaluation(script, release, "accepted", outcome, (), (), tuple(notes))


def read(script: str, release: str, launch: Launch) -> tuple[str, Outcome]:
    """Parse a command's arguments as that script's parser does; the subcommand where one is."""
    source = data.source(script, release)
    rows = data.options(script, release)
    if source is None or source["parse"] != "click":
        return script, parse(rows, launch.arguments, appended=launch.appended)
    from kit.commandlines import click

    commands = [name for name in data.scripts(release) if name.startswith(f"{script} ")]
    outcome, at = click.parse(rows, launch.arguments, stop=bool(commands))
    if not commands or outcome.helped:
        return script, outcome
    if at == len(launch.arguments):
        if not outcome.doubts:
            names = " or ".join(name.rpartition(" ")[2] for name in commands)
            outcome.faults.append(Fault("missing-argument", names, "", None))
        return script, outcome
    word = launch.arguments[at]
    name = f"{script} {word.text}"
    if word.opaque or name not in commands:
        if word.opaque:
            outcome.doubts.append(f"which subcommand {word.raw} is cannot be told")
        else:
            outcome.faults.append(Fault("unexpected-argument", word.text, "", at))
        return script, outcome
    inner, _ = click.parse(data.options(name, release), launch.arguments[at + 1 :])
    outcome.join(inner, at + 1)
    return name, outcome


def _is_proven(fault: Fault, script: str, release: str, status: str) -> bool:
    if not fault.certain:
        return False
    if status in history.READ:
        return True
    if status == "bracketed" and fault.kind == "unknown-option":
        # Gone at both ends of the bracket, and there before it.
        return history.had(script, fault.option, release)
    return False


def _unproven(fault: Fault, script: str, release: str, status: str) -> str:
    what = words(fault, script, release)
    if not fault.certain:
        return f"{what}: cannot be told"
    why = {
        "bracketed": "known only from releases before and after it",
        "nearest": f"known only from {_nearest_read(script)}",
    }.get(status, status)
    return f"{what}; but {script} of {release} is {why}"


def _nearest_read(script: str) -> str:
    read_at = [
        release
        for release in data.release_order()
        if (data.source(script, release) or {}).get("status") in history.READ
    ]
    if not read_at:  # its folder has moved
        return "its older place"
    return read_at[-1]


def _assumed(outcome: Outcome) -> list[str]:
    if not outcome.assumed:
        return []
    shown = ", ".join(dict.fromkeys(outcome.assumed))
    return [f"as far as it can be told: taken for valid values: {shown}"]


def _checks(script: str, release: str, outcome: Outcome) -> tuple[list[Fault], list[str]]:
    """What the script asserts after parsing and does not hold: faults, and warnings.

    A warning where the script may set the value itself before it looks.
    """
    if outcome.faults or outcome.helped:
        return [], []
    values: dict[str, Any] = dict(outcome.values)
    if outcome.doubts:
        given = {row.row["dest"] for row in outcome.given}
        values.update({name: UNKNOWN for name in values if name not in given})
    faults: list[Fault] = []
    warnings: list[str] = []
    if script not in data.cli_table()["scripts"]:
        return [], []
    from kit.commandlines import conditions

    for row in data.post_checks(script, release):
        if not all(conditions.holds(text, values) for text in row["when"]):
            continue
        if conditions.holds(row["must"], values) is not False:
            continue
        named = sorted(
            set().union(*(conditions.names(text) for text in [*row["when"], row["must"]]))
        )
        options = " ".join(f"--{name}" for name in named)
        when = " and ".join(row["when"])
        needs = "is refused" if row["must"] == "False" else f"needs {row['must']}"
        detail = f"{when}: {needs}" if when else needs
        if row["tainted"]:
            warnings.append(f"the script checks: {detail}")
        else:
            faults.append(Fault("check", options, detail))
    for row in data.products(script, release):
        factors = [values.get(name) for name in row["factors"]]
        total = values.get(row["equals"])
        if any(isinstance(value, Unknown) for value in [*factors, total]):
            continue
        product = 1
        for factor in factors:
            product *= int(factor or 0)
        if product != total:
            names = " * ".join(f"--{name}" for name in row["factors"])
            detail = f"{names} must be --{row['equals']}: {product} is not {total}"
            faults.append(Fault("check", f"--{row['equals']}", detail))
    return faults, warnings


def words(fault: Fault, script: str, release: str) -> str:
    """A fault in words: what the script of that release says to it."""
    name = f"{script} of {release}"
    option, detail = fault.option, fault.detail
    return {
        "unknown-option": f"{name} has no {option}",
        "ambiguous-option": f"{option} is ambiguous in {name}: {detail}",
        "missing-option": f"{name} needs {option}",
        "missing-argument": f"{name} needs the argument {option}",
        "unexpected-argument": f"{name} has no place for {option!r}",
        "check": f"{name} checks after parsing: {detail}",
    }.get(fault.kind, f"{option} of {name} {detail}")
