"""The answer to "do these fit together": findings, and the one sentence that sums them up."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from kit import console
from kit.compat import facts
from kit.compat.rules import RULES
from kit.data import releases
from kit.errors import ExitCode, usage_error

if TYPE_CHECKING:
    from pathlib import Path

    from kit.compat.rules import Finding
    from kit.project import Project

SCHEMA = "kit.verify-compat/1"
Answer = Literal["compatible", "incompatible", "unknown"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules found; a mismatch outweighs what is unknown, that outweighs what agrees."""

    findings: tuple[Finding, ...]

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
        """For people, the member that decides by name."""
        decisive = {"incompatible": "mismatch", "unknown": "unknown", "compatible": "warning"}
        chosen = [item for item in self.findings if item.status == decisive[self.answer]]
        agreed = sum(item.status == "ok" for item in self.findings)
        if not chosen:
            return f"{self.answer}: {agreed} {'check agrees' if agreed == 1 else 'checks agree'}"
        first = chosen[0]
        text = f"{self.answer}: {first.component}: "
        text += f"expected {first.expected}, found {first.found} ({first.where})"
        return text + (f", and {len(chosen) - 1} more" if len(chosen) > 1 else "")

    def table(self) -> str:
        """Every finding in a row."""
        return console.table(
            [
                [
                    finding.status,
                    finding.component,
                    finding.expected or "-",
                    finding.found or "-",
                    finding.where,
                ]
                for finding in self.findings
            ],
            ["STATUS", "COMPONENT", "EXPECTED", "FOUND", "WHERE"],
        )

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON envelope, beside `schema` and `ok`."""
        return {
            "verdict": self.answer,
            "sentence": self.sentence(),
            "findings": [
                {"name": finding.component, **asdict(finding)} for finding in self.findings
            ],
        }


def verify(
    project: Project,
    *,
    release: str | None = None,
    stack: str | None = None,
    engine_dir: Path | None = None,
    manifest: Path | None = None,
    lock: Path | None = None,
) -> Verdict:
    """Whether what is named fits together.

    Raises:
        KitError: nothing is named, a named thing is not there (exit 2) or cannot be read (exit 4).
    """
    if all(item is None for item in (release, stack, engine_dir, manifest, lock)):
        raise usage_error(
            "nothing to compare: name a release, a stack, an engine, a manifest or a lock",
            hint="kit verify-compat --stack rehearsal",
        )
    manifest_path, read = ("", None) if manifest is None else facts.of_manifest(manifest)
    lock_path = lock or (project.lock_path(stack) if stack else None)
    known = facts.Facts(
        release=None if release is None else releases.known(release),
        image=None if stack is None else facts.of_image(project, stack),
        engine=None if engine_dir is None else facts.of_engine(engine_dir),
        manifest=read,
        manifest_path=manifest_path,
        lock=None if lock_path is None else facts.of_lock(lock_path),
    )
    return Verdict(tuple(finding for rule in RULES for finding in rule.check(known)))
