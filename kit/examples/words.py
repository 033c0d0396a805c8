"""Rows of words, and which of them a command line has for a release and a recipe's settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kit.data import releases

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Settings = Mapping[str, Any]
    Values = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Words:
    """Words of a command line for the releases from `since` on and older than `before`.

    `when`: they stand where each of these settings has one of the values; `unless`: where none of
    these has. None among the values is a setting that a recipe does not make. A row without text
    says that the release does so without being told.
    """

    text: str
    since: str | None = None
    before: str | None = None
    when: Values = field(default_factory=dict)
    unless: Values = field(default_factory=dict)

    def hold(self, release: str, settings: Settings) -> bool:
        """Whether they stand in that release's line for those settings."""
        return _hold(self, release, settings)


@dataclass(frozen=True, slots=True)
class Script:
    """One step of a family by one program; where it does not hold, another one does the step."""

    step: str
    rows: tuple[Words, ...]
    since: str | None = None
    before: str | None = None
    when: Values = field(default_factory=dict)
    unless: Values = field(default_factory=dict)

    def hold(self, release: str, settings: Settings) -> bool:
        """Whether that release does the step by this program for those settings."""
        return _hold(self, release, settings)

    def argv(self, release: str, settings: Settings) -> tuple[str, ...]:
        """The words of the rows that hold, filled in."""
        return tuple(self._words(release, settings))

    def _words(self, release: str, settings: Settings) -> Iterator[str]:
        for row in self.rows:
            if row.hold(release, settings):
                for word in row.text.split():
                    # A setting of several words stands alone in its row.
                    value = settings.get(word[1:-1]) if word.startswith("{") else None
                    yield from value if isinstance(value, tuple) else (word.format(**settings),)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a release cannot do in those settings, whatever its parser takes; `reason` says why."""

    reason: str
    since: str | None = None
    before: str | None = None
    when: Values = field(default_factory=dict)
    unless: Values = field(default_factory=dict)

    def hold(self, release: str, settings: Settings) -> bool:
        """Whether it speaks of that release and those settings."""
        return _hold(self, release, settings)


def spelled(scripts: tuple[Script, ...], option: str, release: str, settings: Settings) -> bool:
    """Whether any program that a release uses for those settings has words for `option`."""
    filled = re.compile(rf"\{{{option}[:}}]")
    return any(
        (option in row.when or filled.search(row.text)) and row.hold(release, settings)
        for script in scripts
        if script.hold(release, settings)
        for row in script.rows
    )


def _hold(row: Words | Script | Refusal, release: str, settings: Settings) -> bool:
    return (
        releases.between(release, row.since, row.before)
        and all(settings.get(name) in values for name, values in row.when.items())
        and not any(settings.get(name) in values for name, values in row.unless.items())
    )
