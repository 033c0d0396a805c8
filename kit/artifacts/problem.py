"""What a reader found wrong: plain data, so that a command can list it and a rule can judge it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with an artifact.

    Attributes:
        name: the kind of it in small letters, with hyphens: `rank-missing`, `placeholder-left` …
        message: for people: where, what, and what it means.
        is_corrupt: whether the thing itself is damaged; the others can be read and do not fit.
    """

    name: str
    message: str
    is_corrupt: bool = False


def few(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
