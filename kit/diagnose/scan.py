"""The one pass over a log: which known failures does it show, and where first.

A log is large and mostly says the same again. Lines are folded to their letters; those that were
seen before are left out; of the rest only the words are compared with the words that the patterns
cannot do without. Regular expressions see the few lines that are left, each with its neighbours.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kit.diagnose import lines as text_of
from kit.diagnose.index import Index
from kit.diagnose.symptoms import Pattern, Symptom, fold
from kit.diagnose.tables import Joined, TableJoiner, cells, unwrapped

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Sequence

    from kit.diagnose.lines import Severity
    from kit.diagnose.source import Block

NEIGHBOURS = 3
"""Lines before and after one that are looked at with it."""
MOST_FINDINGS = 3
"""Findings of one symptom that differ in what they name."""
MOST_SUSPECTS = 5
"""Lines that only look like a failure: the first ones are shown where nothing is known."""
MOST_HITS = 40
"""Times that a symptom is found before it is no longer looked for."""
MOST_MISSES = 20_000
"""Times that a pattern's words are there and its sentence is not, before it is given up."""
_REMEMBERED = 20_000
_REMEMBERED_LENGTH = 500
_LONG_LINE = 4000
_LONG_OVERLAP = 1000
_EXCERPT = 300
_OFTEN = 32
"""Times that lines of the same known words are compared with patterns."""
_WRAPPED_AT_MOST = 1 << 20
"""Bytes of a log in which wrapped lines are joined: such logs are copies of a terminal."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A symptom that the log shows.

    Attributes:
        symptom: which.
        line: where, counted from 1.
        last_line: where the message ends, or the table row that holds it.
        evidence: the lines, `(number, text)`, as they read without prefixes.
        groups: the named parts of the message.
        severity: what the first of the lines says of itself.
    """

    symptom: Symptom
    line: int
    last_line: int
    evidence: tuple[tuple[int, str], ...]
    groups: dict[str, str]
    severity: Severity | None


@dataclass(slots=True)
class _State:
    hits: int = 0
    mild: int = 0
    misses: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)


class Scanner:
    """Takes blocks, keeps findings; memory does not grow with the log."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        self.findings: list[Finding] = []
        self._index = Index(patterns)
        self._states: dict[str, _State] = {}
        self._seen: set[bytes] = set()
        self._tried: dict[frozenset[bytes], int] = {}
        self._carried: list[bytes] = []
        self._waiting: list[bytes] = []
        self._joiner = TableJoiner()
        self._bytes = 0

    def feed(self, block: Block) -> None:
        """Look at the next block."""
        self._bytes += len(block.data)
        carried, waiting = self._carried, self._waiting
        whole = fold(_readable(block.data))
        folded = whole.split(b"\n")
        unseen = set(folded)
        unseen -= self._seen
        # The last lines wait for those that follow them.
        self._waiting = [line for line in folded[-NEIGHBOURS:] if line in unseen]
        self._carried = _last_lines(block)
        if not block.lines_end:
            self._waiting, self._carried, carried, waiting = [], [], [], []
        if not unseen and not waiting:
            return
        # Few new lines among many old ones: their words alone. Else those of the whole block.
        few = len(unseen) * 2 < len(folded)
        words = b" ".join([*waiting, *unseen] if few else [*waiting, whole]).split()
        present = self._index.words.intersection(words)
        if len(unseen) * 10 < len(folded) * 9:  # lines that never repeat are not worth it
            self._remember(unseen, present)
        wanted = self._index.wanted(present, words, block.data)
        if wanted:
            view = _view(block, carried, folded)
            before = len(view.folded) - len(folded)
            self._look(view, unseen, wanted, before if waiting else 0)
        if block.lines_end:
            self._join(block)

    def finish(self) -> list[Finding]:
        """What was found, in the order of the log."""
        if (record := self._joiner.flush()) is not None:
            self._look_at_joined(record)
        return sorted(self.findings, key=lambda finding: finding.line)

    def _remember(self, unseen: set[bytes], present: frozenset[bytes]) -> None:
        numeric = self._index.numeric
        if not numeric.isdisjoint(present):
            # Lines with the same words and another number are not the same to every pattern.
            unseen = {line for line in unseen if numeric.isdisjoint(line.split())}
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        if len(unseen) < _REMEMBERED:
            self._seen.update(line for line in unseen if len(line) < _REMEMBERED_LENGTH)

    def _look(
        self,
        view: _View,
        unseen: set[bytes],
        wanted: dict[bytes, list[Pattern]],
        waiting: int,
    ) -> None:
        """Try patterns on the lines that are new, and on those before `waiting` once more."""
        wanted_words = frozenset(wanted)
        places = [
            place
            for place, line in enumerate(view.folded)
            if line in unseen or view.long or place < waiting
        ]
        for place in _having(wanted_words, view.folded, places):
            known = self._index.words.intersection(view.folded[place].split())
            found = wanted_words & known
            often = bool(found) and self._often(known)
            for word in found:
                for pattern in tuple(wanted[word]):
                    if often and not pattern.numeric:
                        self._missed(pattern, len(view.raw[place]), tried=False)
                    elif pattern.literal in view.raw[place]:
                        self._try(pattern, view, place)

    def _often(self, known: frozenset[bytes]) -> bool:
        """Whether a line of just these known words was looked at many times; counts this one."""
        times = self._tried.get(known, 0)
        if len(self._tried) > _REMEMBERED:
            self._tried.clear()
        self._tried[known] = times + 1
        return times > _OFTEN

    def _try(self, pattern: Pattern, view: _View, place: int) -> None:
        alone = view.long or pattern.symptom.kind in _OF_ONE_LINE
        around = 0 if alone else NEIGHBOURS
        first, last = max(0, place - around), min(len(view.folded), place + around + 1)
        near = b" ".join(view.folded[first:last])
        if not all(any(word in near for word in group) for group in pattern.anchors):
            return
        texts = [view.text(number) for number in range(first, last)]
        whole, starts = _continued(texts)
        match = pattern.search(whole)
        if match is None:
            self._missed(pattern, len(whole))
            return
        begin = bisect_right(starts, match.start()) - 1
        end = bisect_right(starts, match.start() + len(match.group().rstrip()) - 1)
        evidence = [
            (view.numbers[first + part], _excerpt(texts[part], match.group()))
            for part in range(begin, max(end, begin + 1))
        ]
        self._found(pattern, match, evidence, evidence[-1][0], view.severity(first + begin))

    def _join(self, block: Block) -> None:
        """Put together what was wrapped, and look at that too."""
        for number, line in _rows(block):
            if line.count(b"|") < 2 and _BAR not in line:
                continue
            row = cells(text_of.without_prefixes(text_of.bare(line)))
            if row and (record := self._joiner.add(number, row)):
                self._look_at_joined(record)
        if self._bytes < _WRAPPED_AT_MOST:
            texts = [text_of.bare(line) for line in block.data.split(b"\n")]
            width = max(map(len, texts))
            if width in _WIDTHS:
                for joined in unwrapped(block.first_line, texts, width):
                    self._look_at_joined(joined)

    def _look_at_joined(self, joined: Joined) -> None:
        for text in joined.texts:
            words = fold(text.encode()).split()
            present = self._index.words.intersection(words)
            wanted = self._index.wanted(present, words, text.encode())
            for pattern in {id(one): one for found in wanted.values() for one in found}.values():
                self._try_joined(pattern, joined, text)

    def _try_joined(self, pattern: Pattern, joined: Joined, text: str) -> None:
        for piece in text_of.pieces(text_of.without_prefixes(text)):
            if match := pattern.search(piece):
                evidence = [(joined.first_line, _excerpt(piece, match.group()))]
                self._found(pattern, match, evidence, joined.last_line, text_of.severity(text))
                return

    def _found(
        self,
        pattern: Pattern,
        match: re.Match[str],
        evidence: list[tuple[int, str]],
        last_line: int,
        severity: Severity | None,
    ) -> None:
        symptom = pattern.symptom
        state = self._states.setdefault(symptom.id, _State())
        state.hits += 1
        groups = {name: value for name, value in match.groupdict().items() if value}
        suspect = symptom.kind == "suspect"
        # A warning of the same name before it must not hide the failure.
        mild = not suspect and severity in {"warning", "info"}
        named = evidence[0][1] if suspect else repr((mild, sorted(groups.items())))
        found = Finding(symptom, evidence[0][0], last_line, tuple(evidence), groups, severity)
        most = MOST_SUSPECTS if suspect else MOST_FINDINGS
        state.mild += mild and named not in state.seen
        if mild and state.mild > most:
            return
        if named not in state.seen:
            state.seen[named] = len(self.findings)
            self.findings.append(found)
        elif found.line <= self.findings[state.seen[named]].line <= last_line:
            # Put together from its rows, the message is longer than what one row shows of it.
            self.findings[state.seen[named]] = found
        if len(state.seen) - min(state.mild, most) >= most or state.hits >= MOST_HITS:
            self._index.drop(lambda other: other.symptom is symptom)

    def _missed(self, pattern: Pattern, length: int, *, tried: bool = True) -> None:
        state = self._states.setdefault(f"{pattern.symptom.id} {pattern.place}", _State())
        before = state.misses
        state.misses += (1 + length / _EXCERPT) * (1.0 if tried else _UNTRIED)
        if before < MOST_MISSES <= state.misses:
            self._index.drop(lambda other: other is pattern)


@dataclass(frozen=True, slots=True)
class _View:
    """Lines that are looked at: their numbers, bytes, folded bytes; `long` ones are in pieces."""

    numbers: Sequence[int]
    raw: list[bytes]
    folded: list[bytes]
    long: bool
    _texts: dict[int, str] = field(default_factory=dict)

    def text(self, place: int) -> str:
        """What a line says, without prefixes."""
        if place not in self._texts:
            shown = text_of.bare(self.raw[place]).split("\n")
            self._texts[place] = "\n".join(map(text_of.without_prefixes, shown))
        return self._texts[place]

    def severity(self, place: int) -> Severity | None:
        """What a line says of itself."""
        return text_of.severity(text_of.bare(self.raw[place]))


def _continued(texts: list[str]) -> tuple[str, list[int]]:
    """Lines as one text, and where each begins; one that goes on a sentence follows a space."""
    whole, before = "", ""
    starts: list[int] = []
    for text in texts:
        goes_on = (
            len(before) >= _WRAPPED_FROM
            and before[-1] not in _ENDS
            and text[:1].islower()
            and not text_of.severity(text)
        )
        whole += "" if not starts else " " if goes_on else "\n"
        starts.append(len(whole))
        whole += text
        before = text
    return whole, starts


def _having(words: frozenset[bytes], lines: list[bytes], places: list[int]) -> list[int]:
    """The places of lines that may have one of the words; to split them all costs more."""
    if len(words) > _FEW_WORDS or min(map(len, words)) < _SHORT_WORD:
        return places
    return sorted({place for word in words for place in places if word in lines[place]})


def _view(block: Block, carried: list[bytes], folded: list[bytes]) -> _View:
    raw = block.data.split(b"\n")
    if max(map(len, raw)) <= _LONG_LINE:
        before = [fold(_readable(line)) for line in carried]
        numbers = range(block.first_line - len(carried), block.first_line + len(raw))
        return _View(numbers, carried + raw, before + folded, long=False)
    parts = [
        (block.first_line + place, line[start : start + _LONG_LINE])
        for place, line in enumerate(raw)
        for start in range(0, max(1, len(line) - _LONG_OVERLAP), _LONG_LINE - _LONG_OVERLAP)
    ]
    numbers_of_parts = [number for number, _ in parts]
    texts = [text for _, text in parts]
    return _View(numbers_of_parts, texts, [fold(_readable(text)) for text in texts], long=True)


def _rows(block: Block) -> Iterable[tuple[int, bytes]]:
    """The lines that may be rows of a table, in whatever they are packed, with their numbers."""
    data = block.data
    ends: list[int] = []
    packed = b'\\n"' in data
    for mark in _ROW_ENDS if packed or b"\r" in data or _BAR in data else _ROW_ENDS[:1]:
        place = data.find(mark)
        while place >= 0:
            ends.append(place)
            place = data.find(mark, place + 1)
    if data.endswith((b"|", _BAR)):
        ends.append(len(data) - 1)
    number, counted = block.first_line, 0
    for place in sorted(ends):
        start = data.rfind(b"\n", 0, place) + 1
        number += data.count(b"\n", counted, start)
        counted = start
        end = data.find(b"\n", place)
        yield number, data[start : end if end >= 0 else len(data)]


def _last_lines(block: Block) -> list[bytes]:
    """The last lines of a block, long ones without their middle."""
    start = len(block.data)
    for _ in range(2 * NEIGHBOURS):
        start = block.data.rfind(b"\n", 0, max(start, 0))
        if start < 0:
            break
    return [line[:_LONG_LINE] for line in block.data[start + 1 :].split(b"\n")]


def _readable(data: bytes) -> bytes:
    """Without colours and JSON's line ends, which would grow together with words."""
    escapes = b"\\" in data
    if b"\x1b" in data or (escapes and b"\\u001b" in data):
        data = text_of.ANSI_BYTES.sub(b"", data)
    return data.replace(b"\\n", b"  ") if escapes else data


def _excerpt(text: str, matched: str) -> str:
    """A line cut to a bounded length around what was found in it, secrets taken out."""
    text = text_of.redacted(text.replace("\n", " ").strip())
    if len(text) <= _EXCERPT:
        return text
    place = max(0, text.find(matched[:40]) - _EXCERPT // 4)
    cut = text[place : place + _EXCERPT]
    return ("… " if place else "") + cut + (" …" if place + _EXCERPT < len(text) else "")


_FEW_WORDS = 4
_UNTRIED = 0.1
_WRAPPED_FROM = 40
_ENDS = frozenset(".:;{})")
_SHORT_WORD = 3
_BAR = "│".encode()
_ROW_ENDS = (b"|\n", b"|\r", b'|\\n"', _BAR + b"\n", _BAR + b"\r")
"""A row's last border: before the line's end, or before that of a JSON record's text."""
_WIDTHS = range(60, 301)
_OF_ONE_LINE = frozenset({"suspect", "release"})
