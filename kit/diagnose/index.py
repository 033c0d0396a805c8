"""Which patterns can match at all: those whose words are there."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kit.diagnose.symptoms import Pattern


class Index:
    """Patterns by the words that they cannot do without.

    Attributes:
        words: all of them.
        numeric: those of patterns that depend on a number.
    """

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self._patterns = list(patterns)
        self._arrange()

    def _arrange(self) -> None:
        self._is_stale = False
        self._by_word: dict[bytes, list[Pattern]] = {}
        for pattern in self._patterns:
            for word in pattern.anchors[0]:
                self._by_word.setdefault(word, []).append(pattern)
        self.words = frozenset(
            word for one in self._patterns for group in one.anchors for word in group
        )
        self.numeric = frozenset(
            word for one in self._patterns if one.numeric for word in one.anchors[0]
        )

    def wanted(
        self, present: frozenset[bytes], words: list[bytes], data: bytes
    ) -> dict[bytes, list[Pattern]]:
        """The patterns that words and bytes allow, by those words of each that are rarest here."""
        if self._is_stale:
            self._arrange()
        possible = {
            id(pattern): pattern
            for word in present & self._by_word.keys()
            for pattern in self._by_word[word]
            if not any(present.isdisjoint(group) for group in pattern.anchors)
            and pattern.literal in data
        }
        if not possible:
            return {}
        choices = any(len(pattern.anchors) > 1 for pattern in possible.values())
        times = Counter(filter(present.__contains__, words)) if choices else Counter()
        found: dict[bytes, list[Pattern]] = {}
        for pattern in possible.values():
            rarest = min(pattern.anchors, key=lambda group: sum(times[word] for word in group))
            for word in present.intersection(rarest):
                found.setdefault(word, []).append(pattern)
        return found

    def drop(self, done: Callable[[Pattern], bool]) -> None:
        """Look for these no longer, from the next block on."""
        self._patterns = [pattern for pattern in self._patterns if not done(pattern)]
        self._is_stale = True
