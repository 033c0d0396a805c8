"""One answer of `kit doctor`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "problem", "unknown"]


@dataclass(frozen=True, slots=True)
class Check:
    """One answer: `found` and `expected` are for people, `advice` is what to type or to change."""

    name: str
    status: Status
    found: str
    expected: str | None = None
    advice: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)
