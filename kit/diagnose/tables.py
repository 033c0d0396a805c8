"""Text that was wrapped: cells of printed tables, lines cut at the width of a terminal."""

from __future__ import annotations

from dataclasses import dataclass, field

from kit.diagnose.lines import without_prefixes

MOST_ROWS = 400
"""Rows of one record, so that a log that is a table all through takes no memory."""
_BORDERS = "|│┃"


@dataclass(frozen=True, slots=True)
class Joined:
    """A text put together again; `texts` are the ways it may have been one, likeliest first."""

    first_line: int
    last_line: int
    texts: tuple[str, ...]


def cells(text: str) -> list[str] | None:
    """The cells of a row `| a | b |` with their padding; None if the text is no such row."""
    if len(text) < 3 or text[0] not in _BORDERS or text[-1] not in _BORDERS:
        return None
    for border in _BORDERS[1:]:
        text = text.replace(border, "|")
    return text[1:-1].split("|")


@dataclass(slots=True)
class TableJoiner:
    """Rows in, whole records out: the cells of a column belong together until the next record."""

    rows: list[list[str]] = field(default_factory=list)
    first_line: int = 0
    last_line: int = 0

    def add(self, number: int, row: list[str]) -> Joined | None:
        """Take the row of line `number`; the record before it, if this row begins a new one."""
        done = None
        if self.rows and (
            len(row) != len(self.rows[0])
            or number != self.last_line + 1
            or len(self.rows) >= MOST_ROWS
            or self._begins(row)
        ):
            done = self.flush()
        if not self.rows:
            self.first_line = number
        self.rows.append(row)
        self.last_line = number
        return done

    def flush(self) -> Joined | None:
        """The record that is under way; None where it is no more than one row."""
        rows, self.rows = self.rows, []
        if len(rows) < 2:
            return None
        columns = list(zip(*rows, strict=True))
        texts = dict.fromkeys(
            " | ".join(_join(list(column), cut=cut) for column in columns).strip(" |")
            for cut in (True, False)
        )
        return Joined(self.first_line, self.last_line, tuple(texts))

    def _begins(self, row: list[str]) -> bool:
        """A table of several columns begins a record where its first two cells are filled."""
        return len(row) > 1 and all(cell.strip() for cell in row[:2])


def _join(column: list[str], *, cut: bool) -> str:
    """The pieces of a cell; with `cut`, one that fills its width goes on without a space."""
    text = ""
    full = False
    for cell in column:
        inner = cell[1:-1] if cell[:1] == " " else cell
        piece = inner.strip()
        if not piece:
            continue
        glued = cut and full and not inner.startswith(" ")
        text = text + piece if glued or not text else f"{text} {piece}"
        full = not inner.endswith(" ")
    return text


def unwrapped(first_line: int, texts: list[str], width: int) -> list[Joined]:
    """Runs of lines that all fill `width`, with the line after each, put together again.

    Nothing where a single line has that width, or where the next one begins with what only the
    first line of a message has: a time, a level in brackets.
    """
    found: list[Joined] = []
    if sum(len(text) == width for text in texts) < 2 and width not in _TERMINALS:
        return found
    start: int | None = None
    for place, text in enumerate(texts):
        begins = text[:1] in _OPENING or without_prefixes(text) != text.strip()
        if start is not None and (len(text) != width or begins):
            last = place - 1 if begins or not text else place
            if 0 < last - start < MOST_WRAPPED:
                whole = "".join(texts[start : last + 1])
                found.append(Joined(first_line + start, first_line + last, (whole,)))
            start = None
        if start is None and len(text) == width:
            start = place
    if start is not None and 0 < len(texts) - 1 - start < MOST_WRAPPED:
        whole = "".join(texts[start:])
        found.append(Joined(first_line + start, first_line + len(texts) - 1, (whole,)))
    return found


MOST_WRAPPED = 12
"""Lines of one wrapped text; where longer runs have one width, nothing was wrapped."""
_TERMINALS = frozenset({80, 100, 120, 132, 160, 200})
_OPENING = frozenset({"[", "+", "|"})
