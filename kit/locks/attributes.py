"""`.gitattributes`: which files of a tree are kept in Git LFS; and globs as git reads them.

The rules are those of gitattributes(5) and gitignore(5). git itself can be asked only where there
is a repository; a tree has to be unpacked where there is none.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from typing import TypeAlias

from kit.errors import content_error

_RULES_LIMIT = 5000
_PATTERN_LIMIT = 1024
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"\s*')
_ESCAPE = re.compile(r"\\([0-7]{3}|.)")
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_CLASS = re.compile(r"\[([!^]?)(\]?(?:\\.|\[:[a-z]+:\]|[^\]\\])*)\]")
_MEMBER = re.compile(r"\[:([a-z]+):\]|(\\.|.)(?:-(\\.|[^\]]))?", re.DOTALL)
_NAMED = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t-\\r",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}
_NEVER = r"(?!)"

Value: TypeAlias = "str | bool | None"
"""`x=text`, `x` and `-x`, or `!x`: not specified."""


@dataclass(frozen=True, slots=True)
class _Rule:
    glob: Glob
    folder: str
    assignments: tuple[tuple[str, Value], ...]


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern: without `/` it fits a name in any folder, with one the whole path."""

    pattern: str

    def fits(self, path: str) -> bool:
        """Whether it fits a path, which is relative to where the pattern stands."""
        if self.pattern.endswith("/"):  # fits folders only
            return False
        parts = path.split("/")
        if "/" not in self.pattern:
            return _name(self.pattern).fullmatch(parts[-1]) is not None
        wanted = self.pattern.removeprefix("/").split("/")
        # All places in the pattern that the parts so far may have led to.
        places = _onward(wanted, {0})
        for part in parts:
            reached = set()
            for place in places:
                if place == len(wanted):
                    continue
                if wanted[place] == "**":
                    reached |= {place, place + 1} if place == len(wanted) - 1 else {place}
                elif _name(wanted[place]).fullmatch(part):
                    reached.add(place + 1)
            places = _onward(wanted, reached)
        return len(wanted) in places


@dataclass(slots=True)
class Attributes:
    """All `.gitattributes` of one tree."""

    _rules: list[_Rule] = field(default_factory=list)
    _macros: dict[str, tuple[tuple[str, Value], ...]] = field(default_factory=dict)

    def add(self, path: str, content: str) -> None:
        """Take in the file at `path`; the order of files does not matter.

        Raises:
            KitError: more rules than any tree has (exit 4).
        """
        folder = path.rpartition("/")[0]
        for line in content.splitlines():
            pattern, words = _split(line.strip(" \t\r"))
            if not pattern or pattern.startswith(("#", "!")) or len(pattern) > _PATTERN_LIMIT:
                continue
            assignments = tuple(_assigned(word) for word in words)
            if pattern.startswith("[attr]"):
                if not folder:
                    self._macros[pattern.removeprefix("[attr]")] = assignments
                continue
            self._rules.append(_Rule(Glob(pattern), folder, assignments))
            if len(self._rules) > _RULES_LIMIT:
                raise content_error(f"{path}: more than {_RULES_LIMIT} rules: no source tree")
        # The deepest folder decides, in it the last line: sorting keeps the order of lines.
        self._rules.sort(key=lambda rule: rule.folder.count("/") + bool(rule.folder))

    def is_lfs(self, path: str) -> bool:
        """Whether `filter=lfs` holds for a path."""
        decided: dict[str, Value] = {}
        for rule in reversed(self._rules):
            if rule.folder and not path.startswith(f"{rule.folder}/"):
                continue
            if rule.glob.fits(path[len(rule.folder) + bool(rule.folder) :]):
                self._decide(rule.assignments, decided)
        return decided.get("filter") == "lfs"

    def _decide(
        self, assignments: tuple[tuple[str, Value], ...], decided: dict[str, Value]
    ) -> None:
        for name, value in reversed(assignments):
            if name not in decided:
                decided[name] = value
                if value is True:
                    self._decide(self._macros.get(name, ()), decided)


def _onward(wanted: list[str], places: set[int]) -> set[int]:
    """`**/` may stand for no folder at all."""
    found = set(places)
    for place in sorted(places):
        after = place
        while after < len(wanted) - 1 and wanted[after] == "**":
            after += 1
            found.add(after)
    return found


@functools.lru_cache(maxsize=1024)
def _name(pattern: str) -> re.Pattern[str]:
    """The expression for one name between two slashes."""
    stretches, place = [""], 0
    while place < len(pattern):
        character = pattern[place]
        if character == "*":
            stretches.append("")
        elif character == "?":
            stretches[-1] += "."
        elif character == "[":
            match = _CLASS.match(pattern, place)
            if match is None:
                return re.compile(_NEVER)
            stretches[-1] += _class(match[1], match[2])
            place = match.end() - 1
        elif character == "\\":
            place += 1
            if place == len(pattern):
                return re.compile(_NEVER)
            stretches[-1] += re.escape(pattern[place])
        else:
            stretches[-1] += re.escape(character)
        place += 1
    first, *rest = stretches
    if not rest:
        return re.compile(first, re.DOTALL)
    # What stands between two stars is taken where it is found first and never looked for again
    # (a lookahead is not gone back into), so that a hostile pattern takes no time.
    middle = "".join(
        f"(?=(?P<g{number}>.*?{stretch}))(?P=g{number})"
        for number, stretch in enumerate(rest[:-1])
        if stretch
    )
    return re.compile(f"{first}{middle}.*{rest[-1]}", re.DOTALL)


def _class(negated: str, members: str) -> str:
    found = ""
    for named, first, last in _MEMBER.findall(members):
        if named:
            if named not in _NAMED:
                return _NEVER
            found += _NAMED[named]
            continue
        low, high = first[-1], (last or first)[-1]
        if low <= high:
            found += f"{re.escape(low)}-{re.escape(high)}"
    if not found:
        return "." if negated else _NEVER
    return f"[{'^' if negated else ''}{found}]"


def _split(line: str) -> tuple[str, list[str]]:
    """Pattern and attributes; a pattern with blanks stands in quotes, as in C."""
    if match := _QUOTED.match(line):
        return _ESCAPE.sub(_unescaped, match[1]), line[match.end() :].split()
    pattern, *words = line.split() or [""]
    return pattern, words


def _unescaped(match: re.Match[str]) -> str:
    text = match[1]
    return chr(int(text, 8)) if text.isdigit() else _ESCAPES.get(text, text)


def _assigned(word: str) -> tuple[str, Value]:
    if word.startswith("-"):
        return word[1:], False
    if word.startswith("!"):
        return word[1:], None
    name, equals, value = word.partition("=")
    return name, value if equals else True
