"""The ladder of reproduction: nine claims from "it arrived" to "the same bytes", and which hold.

Levels are no single chain. Platform (L4) and structure (L5) say what to expect: on another GPU the
build request (L3) and behaviour within bounds (L7) can still be claimed, token for token (L6) and
byte for byte (L8) not. What no level can do without are the inputs (L0 to L3).
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kit.errors import usage_error

State = Literal["passed", "failed", "differs", "unchecked", "absent"]
"""`differs` is no failure: nobody promises that level here. `absent`: nothing to compare."""

WORDS: dict[State, str] = {
    "passed": "passed",
    "failed": "failed",
    "differs": "differs, which is no failure",
    "unchecked": "not checked",
    "absent": "nothing to compare",
}


@dataclass(frozen=True, slots=True)
class Level:
    """One claim; `needs` are the levels without which it means nothing."""

    number: int
    name: str
    claim: str
    needs: tuple[int, ...]

    def __str__(self) -> str:
        return f"L{self.number}"


_INPUTS = (0, 1, 2, 3)
LEVELS = (
    Level(0, "received as sent", "every file that is here is what its record names", ()),
    Level(1, "same inputs", "lock, image, model, data, recipe and commands are equal", (0,)),
    Level(2, "same checkpoint", "every tensor of the converted model is equal", (0, 1)),
    Level(3, "same build request", "the engine's resolved configuration is equal", (0, 1, 2)),
    Level(4, "same platform", "GPU, memory, driver branch and CUDA are equal", _INPUTS),
    Level(
        5, "same structure", "the engine's parts are equal, as far as a file shows them", _INPUTS
    ),
    Level(6, "same tokens", "the engine says the same, token for token", _INPUTS),
    Level(7, "same within bounds", "logits and scores are within their bounds", _INPUTS),
    Level(8, "same bytes", "the engine files are bit-identical", (*_INPUTS, 6)),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not the same, both values said; None stands for absent.

    `counts` is False for what may differ: it is told, and changes nothing.
    """

    what: str
    recorded: str | None
    found: str | None
    note: str = ""
    counts: bool = True

    def to_dict(self) -> dict[str, Any]:
        """A row of the JSON envelope."""
        return {"name": self.what, **asdict(self)}

    def __str__(self) -> str:
        shown = (value if value is not None else "absent" for value in (self.recorded, self.found))
        text = f"{self.what}: {' → '.join(shown)}"
        return f"{text} ({self.note})" if self.note else text


@dataclass(frozen=True, slots=True)
class Measured:
    """What measuring gave: what is within its bounds, what nobody can say, what is out of them.

    `told` is what speaks neither for nor against.
    """

    evidence: tuple[str, ...]
    gaps: tuple[str, ...]
    differences: tuple[Difference, ...]
    told: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rung:
    """What was found on one level: state, why, what was looked at, and all differences."""

    level: Level
    state: State
    reason: str
    evidence: tuple[str, ...] = ()
    differences: tuple[Difference, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A row of the JSON envelope."""
        return {
            "name": str(self.level),
            "title": self.level.name,
            "claim": self.level.claim,
            "state": self.state,
            "reason": self.reason,
            "evidence": list(self.evidence),
            "differences": [item.to_dict() for item in self.differences],
        }


@dataclass(frozen=True, slots=True)
class Ladder:
    """All nine rungs, and which levels can be claimed on this platform at all."""

    rungs: tuple[Rung, ...]
    claimable: tuple[int, ...]

    def holds(self, number: int) -> bool:
        """Whether a level's claim is true: it passed, and so did all that it needs."""
        if self.rungs[number].state != "passed":
            return False
        return all(
            self.rungs[below].state in ("passed", "absent") for below in LEVELS[number].needs
        )

    @property
    def reached(self) -> Level | None:
        """The highest level that holds; None if not even the first does."""
        return next((level for level in reversed(LEVELS) if self.holds(level.number)), None)

    @property
    def failed(self) -> tuple[Rung, ...]:
        """Levels on which something is not what it has to be."""
        return tuple(rung for rung in self.rungs if rung.state == "failed")


def parse(text: str) -> Level:
    """The level that `L6` or `6` names; anything else is an error (exit 2)."""
    match = re.fullmatch(r"[Ll]?([0-8])", text.strip())
    if not match:
        raise usage_error(
            f"--require {text}: expected a level from L0 to L8",
            hint="kit reproduce MANIFEST --require L6",
        )
    return LEVELS[int(match[1])]
