"""The releases in their order, and tables of what holds for a span of them.

Whatever differs between releases stands in a row with its span; no code asks for one release.
What a release writes into its files was read in NVIDIA/TensorRT-LLM at the tags v0.5.0 to v0.16.0.
Later trees could not be had: 0.17.0 and later write what 0.16.0 wrote, but for what the options of
their own trtllm-build (`kit/data/cli.json`) say. Rows that rest on that are marked `inferred`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RELEASES = (
    *("0.5.0", "0.6.0", "0.6.1", "0.7.0", "0.7.1", "0.8.0", "0.9.0", "0.10.0", "0.11.0"),
    *("0.12.0", "0.13.0", "0.14.0", "0.15.0", "0.16.0", "0.17.0", "0.18.0", "0.18.1", "0.18.2"),
    *("0.19.0", "0.20.0", "0.21.0", "1.0.0", "1.1.0", "1.2.0", "1.2.1"),
)
PLACES = {release: place for place, release in enumerate(RELEASES)}


@dataclass(frozen=True)
class Span:
    """The releases from `since` on and older than `before`; without them, all."""

    since: str | None = None
    before: str | None = None

    def holds(self, release: str) -> bool:
        """Whether a release is in it."""
        place = PLACES[release]
        first = 0 if self.since is None else PLACES[self.since]
        return first <= place < (len(RELEASES) if self.before is None else PLACES[self.before])


@dataclass(frozen=True)
class Field:
    """An entry of a file in the releases of its span.

    `value` is what stands there when neither the command line nor the model says anything.
    """

    name: str
    value: Any = None
    since: str | None = None
    before: str | None = None


def record(rows: Iterable[Field], release: str, known: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a release in the rows' order: what is known, else the row's own value."""
    return {
        row.name: known.get(row.name, row.value)
        for row in rows
        if Span(row.since, row.before).holds(release)
    }
