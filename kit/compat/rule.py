"""What a rule of compatibility is, and what it answers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kit.compat.facts import Facts

Status = Literal["ok", "mismatch", "unknown", "warning"]


@dataclass(frozen=True, slots=True)
class Result:
    """What a comparison found.

    Attributes:
        status: `warning` is to be seen and changes no verdict, `unknown` could not be decided.
        component: what was compared.
        expected: what would fit; None where that is not known.
        found: what is there; None where that is not known.
        where: the place of what was found.
        message: a sentence that names both sides and what to change; empty for the usual one.
        hint: the next command to type; None for the rule's own explanation.
        source: where the expectation comes from; None for the rule's sources.
    """

    status: Status
    component: str
    expected: str | None
    found: str | None
    where: str
    message: str = ""
    hint: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says about one component; the attributes of `Result`, and the rule's name."""

    rule: str
    status: Status
    component: str
    expected: str | None
    found: str | None
    where: str
    source: str
    hint: str | None
    message: str


@dataclass(frozen=True, slots=True)
class Rule:
    """A comparison with its name, what it holds, and where that comes from.

    A rule that lacks one of its two sides says nothing; one that has both but cannot tell says
    `unknown`.
    """

    name: str
    about: str
    sources: tuple[str, ...]
    compare: Callable[[Facts], Iterable[Result]]

    def check(self, facts: Facts) -> list[Finding]:
        """Apply the rule; empty where it has nothing to compare."""
        return [
            Finding(
                self.name,
                result.status,
                result.component,
                result.expected,
                result.found,
                result.where,
                result.source or "; ".join(self.sources),
                None
                if result.status == "ok"
                else result.hint or f"kit verify-compat --explain {self.name}",
                result.message,
            )
            for result in self.compare(facts)
        ]


def same(
    component: str,
    expected: str | None,
    found: str | None,
    where: str,
    hint: str | None = None,
    source: str | None = None,
) -> Result:
    """Whether both are equal; `unknown` without an expectation."""
    if expected is None:
        return Result("unknown", component, None, found, where, "", hint, source)
    status: Status = "ok" if expected == found else "mismatch"
    return Result(status, component, expected, found, where, "", hint, source)


def either(names: list[str]) -> str:
    """`24.01`, `24.01 or 24.02`, `23.12, 24.01 or 24.02`."""
    return " or ".join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""
