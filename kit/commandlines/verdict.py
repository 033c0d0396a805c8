"""What is said of command lines: accepted, rejected or undecidable, and why."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Verdict = Literal["accepted", "rejected", "undecidable"]

_WORST: tuple[Verdict, ...] = ("rejected", "undecidable", "accepted")


class Problem(NamedTuple):
    """One thing that a release refuses.

    `since`: the first release that does; `became`: what to write instead; `source`: where that
    release's options were read.
    """

    option: str
    kind: str
    message: str
    since: str | None = None
    became: str | None = None
    source: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys of the envelope."""
        return {
            "option": self.option,
            "kind": self.kind,
            "message": self.message,
            "since": self.since,
            "became": self.became,
            "source": self.source,
        }


class Answer(NamedTuple):
    """What a release says to one command; `reasons` say why nothing can be said."""

    name: str
    script: str | None
    verdict: Verdict
    problems: tuple[Problem, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    suggestion: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The keys of the envelope."""
        return {
            "name": self.name,
            "script": self.script,
            "verdict": self.verdict,
            "problems": [problem.to_dict() for problem in self.problems],
            "reasons": list(self.reasons),
            "notes": list(self.notes),
            "suggestion": self.suggestion,
        }

    def text(self) -> str:
        """The lines for people."""
        head = f"{self.verdict}: {self.name}"
        lines = [head, *(f"  {problem.message}" for problem in self.problems)]
        lines += [f"  {reason}" for reason in self.reasons]
        lines += [f"  note: {note}" for note in self.notes]
        if self.suggestion is not None:
            lines.append(f"  try: {self.suggestion}")
        return "\n".join(lines)


def worst(verdicts: list[Verdict]) -> Verdict:
    """The verdict on a text with several commands: the worst decides."""
    return next((verdict for verdict in _WORST if verdict in verdicts), "undecidable")
