"""From findings to an answer: the first cause, its numbers by name, the fix for the release."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

from kit.diagnose.lines import redacted
from kit.diagnose.naming import named
from kit.diagnose.scan import Finding, Scanner
from kit.diagnose.source import blocks
from kit.diagnose.symptoms import GENERAL, SPECIFIC, patterns
from kit.errors import environment_error, usage_error

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

_ANSWERS = frozenset({"cause", "warning", "consequence"})
_MOST_EVIDENCE = 5
_LONGEST_VALUE = 200


@dataclass(frozen=True, slots=True)
class Number:
    """A value of the message: its name there, itself, and what it stands for."""

    name: str
    value: str
    meaning: str | None

    def __str__(self) -> str:
        return f"{self.name} {self.value}" + (f" = {self.meaning}" if self.meaning else "")


@dataclass(frozen=True, slots=True)
class Match:
    """One known failure in the log.

    Attributes:
        id: of the symptom.
        category: the part of the stack at fault.
        kind: `cause`, `warning` (harmless by itself) or `consequence` (of something that the log
            does not show, or of a match before it).
        cause: why it happened, its numbers named.
        fix: what to do, for the release where one is known.
        line: where it stands first.
        evidence: the lines that show it, `line N: …`.
        numbers: the values of the message.
        source: where the knowledge is from.
    """

    id: str
    category: str
    kind: Literal["cause", "warning", "consequence"]
    cause: str
    fix: str
    line: int
    evidence: str
    numbers: tuple[Number, ...]
    source: str

    def to_dict(self) -> dict[str, Any]:
        """As `--json` has it."""
        return {
            "id": self.id,
            "category": self.category,
            "kind": self.kind,
            "cause": self.cause,
            "fix": self.fix,
            "line": self.line,
            "evidence": self.evidence,
            "numbers": {
                number.name: {"value": number.value, "meaning": number.meaning}
                for number in self.numbers
            },
            "source": self.source,
        }


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a log says went wrong.

    Attributes:
        matches: best first; only consequences where no cause is known; empty: unknown.
        consequences: what followed from the matches.
        suspects: lines that look like a failure, for the eyes of a person.
        release: the TensorRT-LLM release that the fixes are for.
        release_from: where that was read; None without a release.
    """

    matches: tuple[Match, ...]
    consequences: tuple[Match, ...]
    suspects: tuple[str, ...]
    release: str | None
    release_from: str | None


def diagnose(log: Path | None, release: str | None = None) -> Diagnosis:
    """Read a log (standard input where it is None) once, of any size, and say what it shows.

    Args:
        log: a file.
        release: the fixes are for this one; else for the one that the log names, if it does.

    Raises:
        KitError: no such file, an unknown release (exit 2), an unreadable one (3), no text (4).
    """
    from kit.data.releases import recorded

    release = recorded(release) if release is not None else None
    scanner = Scanner(patterns())
    with _opened(log) as stream:
        for block in blocks(stream, str(log) if log else "standard input"):
            scanner.feed(block)
    return conclude(scanner.finish(), release)


def conclude(findings: list[Finding], release: str | None = None) -> Diagnosis:
    """Order findings into an answer; `release` as in `diagnose`."""
    origin = "--release" if release else None
    if release is None:
        release, origin = _release_of(findings)
    known = _without_covered(
        [one for one in findings if one.symptom.kind in _ANSWERS and not _is_harmless(one)]
    )
    followed = {id(one) for one in known if _follows(one, known)}
    causes = [one for one in known if id(one) not in followed]
    causes.sort(key=_order)
    answer = [_match(one, release) for one in causes]
    after = [_match(one, release, "consequence") for one in known if id(one) in followed]
    if not answer:
        answer, after = after, []
    suspects = [one for one in findings if one.symptom.kind == "suspect"]
    return Diagnosis(
        matches=tuple(answer),
        consequences=tuple(after),
        suspects=tuple(dict.fromkeys(_evidence(one) for one in suspects))[:_MOST_EVIDENCE],
        release=release,
        release_from=origin,
    )


def _is_harmless(finding: Finding) -> bool:
    """A line that calls itself information is no failure, unless it is known word by word."""
    return finding.severity == "info" and finding.symptom.specificity < SPECIFIC


def _without_covered(findings: list[Finding]) -> list[Finding]:
    """Of those that speak of the same lines, the most specific."""
    return [one for one in findings if not any(_covers(other, one) for other in findings)]


def _covers(other: Finding, one: Finding) -> bool:
    if other is one or other.symptom is one.symptom:
        return False
    # Lines that follow each other and speak of one part of the stack are one message.
    near = 1 if other.symptom.category == one.symptom.category else 0
    apart = other.line > one.last_line + near or one.line > other.last_line + near
    return not apart and _weight(other) > _weight(one)


def _weight(finding: Finding) -> tuple[bool, int]:
    return finding.symptom.kind != "consequence", finding.symptom.specificity


def _follows(one: Finding, known: list[Finding]) -> bool:
    """Whether it is a consequence: by its nature, or because another one before explains it."""
    if one.symptom.kind == "consequence":
        return any(other.symptom.kind != "consequence" for other in known)
    names = {one.symptom.id, f"category:{one.symptom.category}"}
    return any(
        other.line <= one.line
        and other.symptom is not one.symptom
        and not names.isdisjoint(other.symptom.explains)
        for other in known
    )


def _order(finding: Finding) -> tuple[bool, bool, bool, bool, int, int]:
    symptom = finding.symptom
    return (
        symptom.kind == "consequence",
        symptom.kind == "warning",
        finding.severity in {"warning", "info"},
        symptom.kind == "cause" and symptom.specificity < GENERAL,
        finding.line,
        -symptom.specificity,
    )


def _match(
    finding: Finding, release: str | None, kind: Literal["consequence"] | None = None
) -> Match:
    symptom = finding.symptom
    numbers = tuple(
        Number(name, value, _meaning(symptom.numbers.get(name), value))
        for name, value in (
            (name, redacted(value.strip())[:_LONGEST_VALUE])
            for name, value in finding.groups.items()
        )
    )
    meant = "; ".join(str(number) for number in numbers if number.meaning)
    own: Literal["cause", "warning", "consequence"] = "cause"
    if symptom.kind == "consequence":
        own = "consequence"
    elif symptom.kind == "warning" or (
        finding.severity == "warning" and symptom.specificity < SPECIFIC
    ):
        own = "warning"
    return Match(
        id=symptom.id,
        category=symptom.category,
        kind=kind or own,
        cause=f"{symptom.cause} Here: {meant}." if meant else symptom.cause,
        fix=" ".join(filter(None, [symptom.fix_for(release), _facts(symptom.facts, release)])),
        line=finding.line,
        evidence=_evidence(finding),
        numbers=numbers,
        source=symptom.source,
    )


def _meaning(kind: str | None, value: str) -> str | None:
    return named(kind, value) if kind is not None else None


def _evidence(finding: Finding) -> str:
    lines = finding.evidence[:_MOST_EVIDENCE]
    return "\n".join(f"line {number}: {text}" for number, text in lines)


def _facts(fields: tuple[str, ...], release: str | None) -> str:
    """What the tables say of the release in the matter."""
    from kit.data.releases import value

    if release is None:
        return ""
    told = [
        f"{_FIELDS[name]} {', '.join(found) if isinstance(found, list) else found}"
        for name in fields
        if (found := value(release, name)) is not None
    ]
    return f"TensorRT-LLM {release} has {'; '.join(told)}." if told else ""


_FIELDS = {
    "tensorrt": "TensorRT",
    "triton_container": "Triton container",
    "cuda": "CUDA",
    "cuda_driver_min": "driver at least",
    "python": "Python",
    "torch_requirement": "requirement",
    "transformers_requirement": "requirement",
    "nccl": "NCCL",
    "quantization_toolkit": "quantization toolkit",
    "compute_capabilities_supported": "compute capabilities",
}


def _release_of(findings: list[Finding]) -> tuple[str | None, str | None]:
    """The release that the log names first, and the line."""
    from kit.data import releases, triton

    for finding in findings:
        if finding.symptom.kind != "release":
            continue
        found = finding.groups.get("release")
        if found is None and (container := finding.groups.get("container")):
            row = triton.row(container)
            found = row["tensorrt_llm"] if row else None
        if found is not None and found in releases.order():
            return found, f"the log, line {finding.line}"
    return None, None


def _opened(log: Path | None) -> AbstractContextManager[IO[bytes]]:
    if log is None:
        return nullcontext(sys.stdin.buffer)
    try:
        return log.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise usage_error(
            f"no such log: {log}", hint="kit diagnose - reads it from a pipe"
        ) from error
    except IsADirectoryError as error:
        raise usage_error(
            f"{log} is a directory, expected a log", hint=f"kit diagnose {log}/<file>"
        ) from error
    except PermissionError as error:
        raise environment_error(f"may not read {log}", hint=f"namei -l {log}") from error
