"""A model of argparse over the table of options, for words that are only partly known.

It says what `argparse.ArgumentParser.parse_args` would refuse: prefixes of long options, `--a=b`,
`-x5`, `-abc`, nargs, negative numbers, `--`, choices, types, required options. A test holds it
against real parsers made from the same table. Unlike argparse it goes on after the first fault.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from kit.commandlines import values
from kit.commandlines.outcome import Fault, Given, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.commandlines.outcome import Kind
    from kit.commandlines.shell import Word

_NEGATIVE_NUMBER = re.compile(r"-\d+|-\d*\.\d+")
_HELP: dict[str, Any] = {"flags": ["-h", "--help"], "dest": "help", "action": "help"}
_VALUED = frozenset({"store", "append"})


class _Match(NamedTuple):
    """How a word names an option: the row, the option string, a value after `=` or run on."""

    row: Mapping[str, Any]
    flag: str
    explicit: str | None = None
    opaque: bool = False
    certain: bool = True


def parse(
    rows: Sequence[Mapping[str, Any]], words: Sequence[Word], *, appended: bool = False
) -> Outcome:
    """Hold words against the options of one script of one release.

    `appended`: whatever started the script adds words of its own at the end.
    """
    return _Parse(rows, words, appended=appended).outcome()


class _Parse:
    def __init__(
        self, rows: Sequence[Mapping[str, Any]], words: Sequence[Word], *, appended: bool
    ) -> None:
        self._words = words
        self._appended = appended
        self._options = [row for row in rows if row["flags"]]
        self._positionals = [row for row in rows if not row["flags"]]
        self._flags: dict[str, Mapping[str, Any]] = dict.fromkeys(_HELP["flags"], _HELP)
        for row in self._options:
            self._flags.update(dict.fromkeys(row["flags"], row))
        self._doubtful = {flag for row in self._options for flag in row.get("flags_uncertain", ())}
        for row in self._options:
            for flag in row.get("flags_uncertain", ()):
                self._flags.setdefault(flag, row)
        self._numbers = any(_NEGATIVE_NUMBER.fullmatch(flag) for flag in self._flags)
        self._result = Outcome()
        self._seen: set[str] = set()
        self._open = appended  # whether unknown words may have brought whatever is missing
        self._extras: list[int] = []
        self._refused: set[int] = set()

    def outcome(self) -> Outcome:
        for row in [*self._options, *self._positionals]:
            self._result.values[row["dest"]] = row.get("default")
        matches, pattern = self._classify()
        self._walk(matches, pattern)
        if self._result.helped:
            # What is left over is looked at after parsing, which the help has ended.
            faults = self._result.faults
            faults[:] = [fault for fault in faults if fault.kind != "unknown-option"]
        else:
            self._leftovers(pattern)
            self._missing()
        if self._appended:
            self._result.doubts.append("the launcher adds words that cannot be told")
        return self._result

    # What each word is: O an option, A a value, - the two dashes, S any number of unknown words.

    def _classify(self) -> tuple[dict[int, _Match], str]:
        matches: dict[int, _Match] = {}
        pattern = ""
        wants_one = False
        for place, word in enumerate(self._words):
            if "-" in pattern:
                pattern += "A"
                continue
            if word.opaque and word.splits and not word.known:
                pattern += "A" if wants_one else "S"
                wants_one = False
                continue
            if not word.opaque and word.text == "--":
                pattern += "-"
                continue
            match = self._option(place, word)
            wants_one = False
            if match is None:
                pattern += "A"
                continue
            pattern += "O"
            if isinstance(match, _Match):
                matches[place] = match
                row = match.row
                valued = row["action"] in _VALUED
                wants_one = valued and match.explicit is None and row.get("nargs") != 0
        return matches, pattern

    def _option(self, place: int, word: Word) -> _Match | Literal[True] | None:
        """The option that a word names; True where it is one, but none that is known; or None."""
        text = word.known
        if not text.startswith("-") or (text == "-" and not word.opaque):
            return None
        if word.opaque and "=" not in text:
            return self._half_known(place, word)
        if not word.opaque and text in self._flags:
            return self._match(text)
        name, equals, value = word.text.partition("=")
        if equals and name in self._flags:
            return self._match(name, value, opaque=word.opaque)
        found = self._prefixes(word.text, opaque=word.opaque)
        if len(found) > 1:
            names = ", ".join(sorted(match.flag for match in found))
            certain = all(match.certain for match in found)
            self._refused.add(place)
            self._fault("ambiguous-option", name, f"could be {names}", place, certain=certain)
            return True
        if found:
            return found[0]
        if not word.opaque and _NEGATIVE_NUMBER.fullmatch(text) and not self._numbers:
            return None
        if " " in text:
            return None
        self._refused.add(place)
        self._fault("unknown-option", name, "", place)
        return True

    def _half_known(self, place: int, word: Word) -> Literal[True] | None:
        """`--use_$X`, `-$X`: an option whose name is not known, or a value that begins so."""
        if " " in word.known:
            return None
        self._result.doubts.append(f"which option {word.raw} is cannot be told")
        self._refused.add(place)
        self._open = True
        return True

    def _match(self, flag: str, value: str | None = None, *, opaque: bool = False) -> _Match:
        row = self._flags[flag]
        certain = "uncertain" not in row and flag not in self._doubtful
        return _Match(row, flag, value, opaque, certain)

    def _prefixes(self, text: str, *, opaque: bool) -> list[_Match]:
        name, equals, value = text.partition("=")
        explicit = value if equals else None
        if text.startswith("--"):
            return [
                self._match(flag, explicit, opaque=opaque)
                for flag in self._flags
                if flag.startswith(name)
            ]
        found = []
        for flag in self._flags:
            if flag == text[:2]:
                found.append(self._match(flag, text[2:], opaque=opaque))
            elif flag.startswith(text):
                found.append(self._match(flag))
        return found

    # argparse's walk over the words

    def _walk(self, matches: dict[int, _Match], pattern: str) -> None:
        positionals = list(self._positionals)
        at = 0
        while not self._result.helped:
            if (following := _next_option(pattern, at)) is None:
                break
            if at != following:
                end = self._take_positionals(positionals, pattern, at)
                if end > at:
                    at = end
                    continue
            if at != following:
                self._extras.extend(range(at, following))
                at = following
            if pattern[at] == "S":
                self._doubt(self._words[at])
                at += 1
                continue
            match = matches.get(at)
            at = at + 1 if match is None else self._take_option(match, pattern, at)
        if self._result.helped:
            return
        at = self._take_positionals(positionals, pattern, at)
        self._extras.extend(range(at, len(pattern)))
        for row in positionals:
            if row.get("nargs") not in {"?", "*"}:
                self._missed("missing-argument", row["dest"], row)

    def _take_option(self, match: _Match, pattern: str, place: int) -> int:
        row = match.row
        if match.explicit is not None:
            return self._take_explicit(match, pattern, place)
        if row["action"] == "help":
            self._result.helped = True
            return place + 1
        count = self._count(row, pattern[place + 1 :])
        if count is None:
            wanted = _wanted(row)
            self._note_given(match, place)
            self._fault("missing-value", match.flag, f"expects {wanted}", place, row=match)
            return place + 1
        end = place + 1 + count
        self._use(match, place, range(place + 1, end))
        return end

    def _take_explicit(self, match: _Match, pattern: str, place: int) -> int:
        row, explicit = match.row, match.explicit or ""
        takes_one = row["action"] in _VALUED and self._count(row, "A") == 1
        if takes_one:
            self._use(match, place, (), explicit, opaque=match.opaque)
            return place + 1
        takes_none = row["action"] not in _VALUED
        if takes_none and match.flag[1:2] != "-" and explicit and not match.opaque:
            if row["action"] == "help":
                self._result.helped = True
                return place + 1
            self._note_given(match, place)
            flag = match.flag[0] + explicit[0]  # `-abc`: one-letter options run together
            if flag in self._flags:
                rest = explicit[1:] or None
                return self._take_option(self._match(flag, rest), pattern, place)
        self._note_given(match, place)
        wanted = "no value" if takes_none else _wanted(row)
        self._fault(
            "unexpected-value", match.flag, f"takes {wanted}, not {explicit!r}", place, row=match
        )
        return place + 1

    def _count(self, row: Mapping[str, Any], following: str) -> int | None:
        """How many of the words that follow an option takes; None where they do not suffice."""
        if row["action"] not in _VALUED:
            return 0
        run = len(following) - len(following.lstrip("A"))
        nargs = row.get("nargs")
        if nargs == "?":
            return min(run, 1)
        if nargs == "*":
            return run
        if nargs == "+":
            return run or None
        wanted = 1 if nargs is None else int(nargs)
        return wanted if run >= wanted else None

    def _take_positionals(
        self, positionals: list[Mapping[str, Any]], pattern: str, start: int
    ) -> int:
        rest = pattern[start:]
        for count in range(len(positionals), 0, -1):
            wanted = "".join(_positional_pattern(row) for row in positionals[:count])
            if (match := re.match(wanted, rest)) is None:
                continue
            at = start
            for row, taken in zip(positionals[:count], match.groups(), strict=True):
                places = [at + step for step, mark in enumerate(taken) if mark == "A"]
                if places:
                    self._use(_Match(row, row["dest"]), places[0], places)
                at += len(taken)
            del positionals[:count]
            return at
        return start

    # Values

    def _use(
        self,
        match: _Match,
        place: int,
        places: Sequence[int],
        explicit: str | None = None,
        *,
        opaque: bool = False,
    ) -> None:
        row = match.row
        words = [(self._words[at].text, self._words[at].opaque) for at in places]
        if explicit is not None:
            words = [(explicit, opaque)]
        self._note_given(match, place)
        if row["action"] not in _VALUED:
            constant = {"store_true": True, "store_false": False}
            self._result.values[row["dest"]] = constant.get(row["action"], row.get("const"))
            return
        taken = [self._value(match, place, text, opaque=unknown) for text, unknown in words]
        if not taken:
            self._result.values[row["dest"]] = row.get("const")
        else:
            several = row.get("nargs") not in {None, "?"}
            self._result.values[row["dest"]] = taken if several else taken[0]

    def _value(self, match: _Match, place: int, text: str, *, opaque: bool) -> Any:
        try:
            found = values.UNKNOWN if opaque else values.value(match.row, text)
        except values.RefusedError as refused:
            self._fault(
                refused.kind, match.flag, refused.detail, place, row=match, certain=refused.certain
            )
            return values.UNKNOWN
        if found is values.UNKNOWN:
            self._result.assumed.append(f"{match.flag} {text}")
        return found

    # The end

    def _leftovers(self, pattern: str) -> None:
        doubtful = "S" in pattern
        for place in self._extras:
            word = self._words[place]
            if pattern[place] == "S" or (word.opaque and not self._follows_unknown(pattern, place)):
                self._doubt(word)
            elif pattern[place] == "-":
                # Refused by Python 3.10, which the releases to 0.16.0 came with; later ones differ.
                self._fault("unexpected-argument", "--", "", place, certain=False)
            elif doubtful and pattern.find("S") < place:
                self._result.doubts.append(f"whose value {word.raw} is cannot be told")
            elif not self._follows_unknown(pattern, place):
                self._fault("unexpected-argument", word.text, "", place)

    def _follows_unknown(self, pattern: str, place: int) -> bool:
        """Whether a word would be the value of an option that is a fault already."""
        option = len(pattern[:place].rstrip("A")) - 1
        return option >= 0 and option in self._refused

    def _doubt(self, word: Word) -> None:
        self._open = True
        self._result.doubts.append(f"what {word.raw} becomes, and how many words, cannot be told")

    def _missing(self) -> None:
        for row in self._options:
            if row.get("required") and row["dest"] not in self._seen:
                self._missed("missing-option", max(row["flags"], key=len), row)

    def _missed(self, kind: Kind, name: str, row: Mapping[str, Any]) -> None:
        self._fault(kind, name, "", None, certain=not self._open and "uncertain" not in row)

    def _note_given(self, match: _Match, place: int) -> None:
        self._seen.add(match.row["dest"])
        if match.row["flags"]:
            self._result.given.append(Given(match.row, match.flag, place))
        if not match.certain:
            why = match.row.get("uncertain", "one end of the bracket only spells it so")
            self._result.doubts.append(f"whether it takes {match.flag} cannot be told: {why}")

    def _fault(
        self,
        kind: Kind,
        option: str,
        detail: str,
        place: int | None,
        *,
        row: _Match | None = None,
        certain: bool = True,
    ) -> None:
        sure = certain and (row is None or row.certain)
        self._result.faults.append(Fault(kind, option, detail, place, sure))


def _next_option(pattern: str, start: int) -> int | None:
    return next((at for at in range(start, len(pattern)) if pattern[at] in "OS"), None)


def _wanted(row: Mapping[str, Any]) -> str:
    nargs = row.get("nargs")
    if nargs in {None, "?", 1}:
        return "one value"
    return "one value or more" if nargs == "+" else f"{nargs} values"


def _positional_pattern(row: Mapping[str, Any]) -> str:
    nargs = row.get("nargs")
    patterns = {None: "-*A-*", "?": "-*A?-*", "*": "-*[A-]*", "+": "-*A[A-]*"}
    if isinstance(nargs, int):
        return "(-*" + "-*".join("A" * nargs) + ")"
    return f"({patterns[nargs]})"
