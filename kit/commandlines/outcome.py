"""What comes of holding words against options: faults, doubts, what was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Kind = Literal[
    "unknown-option",
    "ambiguous-option",
    "missing-value",
    "unexpected-value",
    "invalid-value",
    "invalid-choice",
    "missing-option",
    "missing-argument",
    "unexpected-argument",
    "check",
]


class Fault(NamedTuple):
    """What a parser refuses. `place` is that of the word, None where one is missing.

    `certain`: false where the table marks the row that decides as uncertain.
    """

    kind: Kind
    option: str
    detail: str
    place: int | None = None
    certain: bool = True


class Given(NamedTuple):
    """An option that is on the line: its row, how it is written, its place."""

    row: Mapping[str, Any]
    written: str
    place: int


class Outcome:
    """What came of a line: faults, what could not be known, what was assumed, what was given.

    `values` by dest, as after parsing; `helped`: `--help` ends the script before anything else.
    """

    __slots__ = ("assumed", "doubts", "faults", "given", "helped", "values")

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self.doubts: list[str] = []
        self.assumed: list[str] = []
        self.given: list[Given] = []
        self.values: dict[str, Any] = {}
        self.helped = False

    def join(self, inner: Outcome, offset: int) -> None:
        """Add what came of a subcommand, whose first word stands at `offset`."""
        for fault in inner.faults:
            place = None if fault.place is None else fault.place + offset
            self.faults.append(fault._replace(place=place))
        self.doubts += inner.doubts
        self.assumed += inner.assumed
        self.given += inner.given
        self.helped |= inner.helped
