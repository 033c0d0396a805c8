"""The answer to "do these fit together": findings, and the one sentence that sums them up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from kit import console
from kit.compat.gather import Request, gather
from kit.compat.observed import observations
from kit.compat.rules import concerned
from kit.console import visible
from kit.errors import ExitCode

if TYPE_CHECKING:
    from kit.compat.facts import Facts
    from kit.compat.rule import Finding, Status
    from kit.observation import Observation
    from kit.project import Project

SCHEMA = "kit.verify-compat/1"
Answer = Literal["compatible", "incompatible", "unknown"]

_DECISIVE: dict[Answer, Status] = {
    "incompatible": "mismatch",
    "unknown": "unknown",
    "compatible": "warning",
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules found; a mismatch outweighs what is unknown, that outweighs what agrees."""

    findings: tuple[Finding, ...]
    observations: tuple[Observation, ...] = ()

    @property
    def answer(self) -> Answer:
        """The word that everything comes down to; nothing compared is `unknown`."""
        found = {finding.status for finding in self.findings}
        if "mismatch" in found:
            return "incompatible"
        return "unknown" if "unknown" in found or "ok" not in found else "compatible"

    def exit_code(self, *, strict: bool = False) -> ExitCode:
        """What the command ends with; `strict` does not let what is unknown pass."""
        passing = {"compatible"} if strict else {"compatible", "unknown"}
        return ExitCode.OK if self.answer in passing else ExitCode.CONTENT

    def sentence(self) -> str:
        """For people: the member that decides by name, and what to change it to."""
        chosen = [item for item in self.findings if item.status == _DECISIVE[self.answer]]
        agreed = sum(item.status == "ok" for item in self.findings)
        if not chosen:
            count = f"{agreed} {'check agrees' if agreed == 1 else 'checks agree'}"
            return f"{self.answer}: {count if self.findings else 'there is nothing to compare'}"
        first = chosen[0]
        usual = f"{first.component}: expected {first.expected or 'something else'}, "
        usual += f"found {first.found or 'nothing that says it'} ({first.where})"
        text = visible(f"{self.answer}: {first.message or usual}")
        return text + (f" (and {len(chosen) - 1} more)" if len(chosen) > 1 else "")

    def table(self) -> str:
        """Every finding in a row."""
        return console.table(
            [
                [
                    finding.status,
                    visible(finding.component),
                    visible(finding.expected or "-"),
                    visible(finding.found or "-"),
                    visible(finding.where),
                ]
                for finding in self.findings
            ],
            ["STATUS", "COMPONENT", "EXPECTED", "FOUND", "WHERE"],
        )

    def seen(self) -> str:
        """Every observation in a row: what is known where there is nothing to compare."""
        rows = [
            [visible(item.component), visible(item.version or "-"), visible(item.where)]
            for item in self.observations
        ]
        return console.table(rows, ["COMPONENT", "VERSION", "WHERE"])

    def notes(self) -> list[str]:
        """One line for every finding that is not plain agreement, beside the one of `sentence`."""
        said = self.sentence()
        told = dict.fromkeys(
            visible(f"{finding.status}: {finding.message}")
            for finding in self.findings
            if finding.status != "ok" and finding.message and visible(finding.message) not in said
        )
        return list(told)

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON envelope, beside `schema` and `ok`."""
        return {
            "verdict": self.answer,
            "sentence": self.sentence(),
            "findings": [
                {"name": finding.component, **asdict(finding)} for finding in self.findings
            ],
            "observations": [
                {"name": item.component, **asdict(item)} for item in self.observations
            ],
        }


def verify(project: Project, request: Request) -> Verdict:
    """Whether what is named fits together.

    Raises:
        KitError: nothing is named, a named thing is not there (exit 2) or cannot be read (exit 4).
    """
    return judge(gather(project, request))


def judge(facts: Facts) -> Verdict:
    """Whether what was gathered fits together."""
    findings = tuple(finding for rule in concerned(facts) for finding in rule.check(facts))
    return Verdict(findings, observations(facts))
