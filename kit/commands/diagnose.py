"""`kit diagnose`: what a log says went wrong first, and what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit.console import envelope, result
from kit.diagnose.diagnosis import diagnose

if TYPE_CHECKING:
    import argparse

    from kit.diagnose.diagnosis import Diagnosis, Match

_SHOWN = 5
UNKNOWN = "unknown: no known failure found"


def run(options: argparse.Namespace) -> int:
    """Print causes with fix and evidence, or that none is known; exit 0 either way."""
    log = None if options.log in {None, "-"} else Path(options.log)
    diagnosis = diagnose(log, options.release)
    if options.json:
        envelope(
            "diagnose",
            ok=True,
            matches=[match.to_dict() for match in diagnosis.matches],
            consequences=[match.to_dict() for match in diagnosis.consequences],
            suspects=list(diagnosis.suspects),
            release={"version": diagnosis.release, "from": diagnosis.release_from},
        )
    else:
        result("\n".join(_text(diagnosis)))
    return 0


def _text(diagnosis: Diagnosis) -> list[str]:
    text = []
    for place, match in enumerate(diagnosis.matches[:_SHOWN], start=1):
        text += [*_paragraph(place, match), ""]
    if left := len(diagnosis.matches) - _SHOWN:
        text += [f"and {left} more: --json lists them", ""] if left > 0 else []
    if not diagnosis.matches:
        text.append(UNKNOWN)
    known = any(match.kind == "cause" for match in diagnosis.matches)
    if diagnosis.suspects and not known:
        text += ["lines that look like a failure:", *map(_indented, diagnosis.suspects)]
    if diagnosis.consequences:
        text.append("what followed:")
        text += [
            f"  line {match.line}: {match.id} ({match.category})"
            for match in diagnosis.consequences[:_SHOWN]
        ]
    if diagnosis.release:
        text.append(
            f"fixes are for TensorRT-LLM {diagnosis.release}, read from {diagnosis.release_from}"
        )
    elif diagnosis.matches:
        text.append("the log names no release of TensorRT-LLM: --release R makes the fix exact")
    return text


def _paragraph(place: int, match: Match) -> list[str]:
    label = "" if match.kind == "cause" else f", {match.kind}"
    return [
        f"{place}. {match.id} ({match.category}{label})",
        f"   cause:    {match.cause}",
        f"   fix:      {match.fix}",
        *(f"   {number}" for number in match.numbers if number.meaning is None),
        "   evidence: " + match.evidence.replace("\n", "\n             "),
        f"   source:   {match.source}",
    ]


def _indented(line: str) -> str:
    return "  " + line.replace("\n", "\n  ")
