"""`kit doctor`: is this host able, and what it is, for others to check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit import console, project
from kit.errors import ExitCode, usage_error
from kit.files import write_json
from kit.host.checks import checks, is_able
from kit.host.gather import gather

if TYPE_CHECKING:
    import argparse

    from kit.host.check import Check


def run(options: argparse.Namespace) -> int:
    """Print every check; exit 3 when something stands in the way of the kit's work."""
    target = _target(options.export) if options.export is not None else None
    facts = gather(project.find())
    found = checks(facts, gpu=options.gpu)
    if target is not None:
        write_json(target, facts.to_dict())
        console.note(f"facts of this host: {options.export}")
    able = is_able(found)
    if options.json:
        listed = [check.to_dict() for check in found]
        console.envelope("doctor", ok=able, host=facts.to_dict(), checks=listed)
    else:
        console.result(table(found))
        console.result(sentence(found, has_gpu=bool(facts.gpus)))
    return ExitCode.OK if able else ExitCode.ENVIRONMENT


def _target(named: str) -> Path:
    """Where the facts go: a file is replaced as a whole, and nothing else may be.

    Raises:
        KitError: a folder, a pipe or a device of that name is there (exit 2).
    """
    path = Path(named)
    try:
        is_other = not named or not path.is_file()
        path.lstat()
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        is_other = not named  # to write it is going to say what is wrong
    except (OSError, ValueError):  # a name that is too long, a circle of links
        is_other = True
    if is_other:
        hint = "kit doctor --export host.json"
        raise usage_error(f"--export {named!r}: expected the name of a file", hint=hint)
    return path


def table(found: list[Check]) -> str:
    """Every check in a row, and below it what to do about those that are not well."""
    text = console.table(
        [[check.status, check.name, check.found] for check in found], ["STATUS", "CHECK", "FOUND"]
    )
    for check in found:
        if check.status != "ok":
            text += f"\n\n{check.status}: {check.name}"
            text += f"\n  expected: {check.expected}" if check.expected else ""
            text += f"\n  try: {check.advice}" if check.advice else ""
    return text + "\n"


def sentence(found: list[Check], *, has_gpu: bool) -> str:
    """What it comes down to."""
    stopping = [check.name for check in found if check.status == "problem"]
    if stopping:
        return f"not able: {', '.join(stopping)}"
    others = sum(check.status != "ok" for check in found)
    where = "with GPUs" if has_gpu else "without a GPU: the rehearsal only"
    return f"able, {where}" + (f"; {others} things to look at" if others else "")
