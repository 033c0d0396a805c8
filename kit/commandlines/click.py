"""A model of click, for the commands that use it: unlike argparse it takes no shortened names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit.commandlines import values
from kit.commandlines.outcome import Fault, Given, Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.commandlines.outcome import Kind
    from kit.commandlines.shell import Word

_AT_MOST_ONE = frozenset({"RequiredMutuallyExclusiveOptionGroup", "MutuallyExclusiveOptionGroup"})
_AT_LEAST_ONE = frozenset({"RequiredMutuallyExclusiveOptionGroup", "RequiredAnyOptionGroup"})
_ALL = frozenset({"AllOptionGroup", "RequiredAllOptionGroup"})


def parse(
    rows: Sequence[Mapping[str, Any]], words: Sequence[Word], *, stop: bool = False
) -> tuple[Outcome, int]:
    """Hold words against a command's options; also the place after what was read.

    `stop`: the command has subcommands, and the first word that is no option names one.
    """
    return _Parse(rows, words, stop=stop).outcome()


class _Parse:
    def __init__(
        self, rows: Sequence[Mapping[str, Any]], words: Sequence[Word], *, stop: bool
    ) -> None:
        self._rows = rows
        self._words = words
        self._stop = stop
        self._flags = {flag: row for row in rows for flag in row["flags"]}
        self._result = Outcome()
        self._arguments = 0
        self._open = False

    def outcome(self) -> tuple[Outcome, int]:
        at = 0
        while at < len(self._words) and not self._result.helped:
            word = self._words[at]
            if not word.known and word.opaque and word.splits:
                self._open = True
                self._result.doubts.append(
                    f"what {word.raw} becomes, and how many words, cannot be told"
                )
            elif word.known.startswith("-") and word.text != "-":
                at = self._option(at)
                continue
            elif self._stop:
                break
            else:
                self._arguments += 1
                self._argument(at)
            at += 1
        if not self._result.helped:
            self._missing()
            if not self._result.faults:
                self._groups()
        return self._result, at

    def _option(self, at: int) -> int:
        word = self._words[at]
        name, equals, value = word.known.partition("=")
        if name == "--help":
            self._result.helped = True
            return at + 1
        row = self._flags.get(name)
        if row is None and not name.startswith("--") and name[:2] in self._flags:
            name, equals, value = name[:2], name[2:], name[2:] + equals + value
            row = self._flags[name]
        if row is None:
            if word.opaque and not equals:
                self._result.doubts.append(f"which option {word.raw} is cannot be told")
                self._open = True
            else:
                self._fault("unknown-option", name, "", at)
                if not equals and at + 1 < len(self._words) and _is_value(self._words[at + 1]):
                    return at + 2
            return at + 1
        if row["action"] != "store":
            self._result.given.append(Given(row, name, at))
            if equals:
                self._fault("unexpected-value", name, f"takes no value, not {value!r}", at)
            return at + 1
        if equals:
            self._value(row, name, at, value, opaque=word.opaque)
            return at + 1
        if at + 1 == len(self._words):
            self._result.given.append(Given(row, name, at))
            self._fault("missing-value", name, "expects one value", at)
            return at + 1
        following = self._words[at + 1]
        self._value(row, name, at, following.text, opaque=following.opaque)
        return at + 2

    def _value(
        self, row: Mapping[str, Any], name: str, at: int, text: str, *, opaque: bool
    ) -> None:
        self._result.given.append(Given(row, name, at))
        try:
            found = values.UNKNOWN if opaque else values.value(row, text)
        except values.RefusedError as refused:
            self._fault(refused.kind, name, refused.detail, at)
        else:
            if found is values.UNKNOWN:
                self._result.assumed.append(f"{name} {text}")

    def _argument(self, at: int) -> None:
        if self._arguments > sum(not row["flags"] for row in self._rows):
            self._fault("unexpected-argument", self._words[at].text, "", at, certain=not self._open)

    def _missing(self) -> None:
        seen = {given.row["dest"] for given in self._result.given}
        for row in self._rows:
            if row["flags"] and row.get("required") and row["dest"] not in seen:
                name = max(row["flags"], key=len)
                self._fault("missing-option", name, "", None, certain=not self._open)
        arguments = [row["dest"] for row in self._rows if not row["flags"]]
        for name in arguments[self._arguments :]:
            self._fault("missing-argument", name, "", None, certain=not self._open)

    def _groups(self) -> None:
        groups: dict[tuple[str, str], list[str]] = {}
        for row in self._rows:
            if row.get("group_rule"):
                groups.setdefault((row["group"], row["group_rule"]), []).append(row["dest"])
        seen = {given.row["dest"] for given in self._result.given}
        for (_, rule), members in groups.items():
            count = sum(member in seen for member in members)
            names = " ".join(f"--{member}" for member in members)
            if rule in _AT_MOST_ONE and count > 1:
                self._fault("check", names, "exclude each other", None)
            if rule in _AT_LEAST_ONE and count == 0:
                self._fault("check", names, "one of them is needed", None, certain=not self._open)
            if rule in _ALL and 0 < count < len(members):
                self._fault("check", names, "all or none", None, certain=not self._open)

    def _fault(
        self, kind: Kind, option: str, detail: str, place: int | None, *, certain: bool = True
    ) -> None:
        self._result.faults.append(Fault(kind, option, detail, place, certain))


def _is_value(word: Word) -> bool:
    return not word.text.startswith("-")
