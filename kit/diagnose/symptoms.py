"""The table of known failures, `kit/data/symptoms.json`, and what its rows mean."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

TABLE = Path(__file__).parents[1] / "data" / "symptoms.json"

Kind = Literal["cause", "warning", "consequence", "release", "suspect"]

_FOLD = bytes(
    byte + 32 if 65 <= byte <= 90 else byte if 97 <= byte <= 122 or byte == 10 else 32
    for byte in range(256)
)
_DELETED = b"0123456789\0"


def fold(text: bytes) -> bytes:
    """Only small letters: digits gone, everything else a space, so that like lines are equal."""
    return text.translate(_FOLD, _DELETED)


@dataclass(frozen=True, slots=True)
class Pattern:
    """One wording of a symptom.

    Attributes:
        text: a regular expression without regard to case; a space in it is any white space, so
            that a message may go on in the next line.
        anchors: folded words; in every text that it matches stands one of each group. The first
            group has the rarest ones.
        symptom: what it is a wording of.
        place: which of that symptom's wordings it is.
        numeric: whether it depends on a number, which `fold` leaves out.
        literal: bytes that stand in every text it matches, for one whose words are common.
    """

    text: str
    anchors: tuple[tuple[bytes, ...], ...]
    symptom: Symptom
    place: int
    numeric: bool
    literal: bytes

    def search(self, text: str) -> re.Match[str] | None:
        """The first place of a text that says this."""
        return _compiled(self.text).search(text)


@dataclass(frozen=True, slots=True)
class Fix:
    """What to do in the releases from `since` on and before `before`."""

    since: str | None
    before: str | None
    text: str


@dataclass(frozen=True, slots=True)
class Symptom:
    """A failure that is known by what it writes.

    Attributes:
        id: its name.
        category: the part of the stack that is at fault.
        kind: a cause; a warning, harmless by itself; a consequence of something else; a line that
            tells the release; a line that only looks like a failure.
        specificity: 1 a whole class of errors … 9 one message; of two that match the same lines
            the higher one counts, and below `GENERAL` it stands behind the others.
        cause: why it happens.
        fix: the next thing to do.
        fixes: what to do instead in some releases.
        facts: fields of `kit/data/releases.json` that the fix is about.
        numbers: named group of a pattern → what its value is (`kit.diagnose.naming`).
        explains: symptoms (`id`) or categories (`category:…`) that follow from this one.
        source: where it is from.
    """

    id: str
    category: str
    kind: Kind
    specificity: int
    cause: str
    fix: str
    fixes: tuple[Fix, ...]
    facts: tuple[str, ...]
    numbers: dict[str, str]
    explains: frozenset[str]
    source: str

    def fix_for(self, release: str | None) -> str:
        """What to do in a release; the general answer where it is not known."""
        from kit.data.releases import between

        if release is not None:
            for fix in self.fixes:
                if between(release, fix.since, fix.before):
                    return fix.text
        return self.fix


GENERAL = 3
"""Symptoms of less specificity are classes: named only behind the specific ones."""
SPECIFIC = 6
"""Symptoms from here on are one message: a failure whatever the line says of its weight."""


@lru_cache(maxsize=1)
def patterns() -> tuple[Pattern, ...]:
    """Every wording of every symptom."""
    return tuple(
        pattern
        for row in json.loads(TABLE.read_bytes())["symptoms"]
        for pattern in _patterns(row, _symptom(row))
    )


def _symptom(row: dict[str, Any]) -> Symptom:
    return Symptom(
        id=row["id"],
        category=row["category"],
        kind=row.get("kind", "cause"),
        specificity=row.get("specificity", 5),
        cause=row.get("cause", ""),
        fix=row.get("fix", ""),
        fixes=tuple(
            Fix(fix.get("since"), fix.get("before"), fix["fix"]) for fix in row.get("fixes", ())
        ),
        facts=tuple(row.get("facts", ())),
        numbers=row.get("numbers", {}),
        explains=frozenset(row.get("explains", ())),
        source=row.get("source", ""),
    )


def _patterns(row: dict[str, Any], symptom: Symptom) -> list[Pattern]:
    return [
        Pattern(
            one["text"],
            tuple(tuple(word.encode() for word in group) for group in one["anchors"]),
            symptom,
            place,
            one.get("numeric", False),
            one.get("literal", "").encode(),
        )
        for place, one in enumerate(row["patterns"])
    ]


@cache
def _compiled(text: str) -> re.Pattern[str]:
    # A pattern that begins or ends with letters begins or ends a word: anchors are whole words.
    before = r"(?<![A-Za-z])" if text[0].isalpha() or text[0] == "(" else ""
    after = r"(?![A-Za-z])" if _ENDS_A_WORD.search(text) else ""
    spaced = _SPACE.sub(lambda found: r"\s*" if found.group(1) in {"?", "*"} else r"\s+", text)
    expression = f"{before}(?:{spaced}){after}"
    return re.compile(expression, re.IGNORECASE | re.MULTILINE)


_SPACE = re.compile(r"(?<!\\) ([?*+]?)")
_ENDS_A_WORD = re.compile(r"(?<!\\)[A-Za-z)]$")
