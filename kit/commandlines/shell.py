"""Shell text, split into simple commands as a shell would, without running anything.

It reads what people paste: scripts, single lines, blocks of documentation with prompts,
`<placeholders>` and a backslash forgotten. What only a running shell knows (variables, command
substitutions, globs) stays as it is written and is marked as unknown.
"""

from __future__ import annotations

import re
from typing import NamedTuple

BLANK_AFTER_BACKSLASH = "a blank after the backslash: a shell would end the command there"
MISSING_BACKSLASH = "a line that begins with an option: is a backslash missing before it?"

_OPERATORS = ("&&", "||", ";;", "|&", ";", "|", "&", "\n", "(", ")")
_BREAKS = frozenset(" \t\n;&|()")
_PLACEHOLDER = re.compile(r"<(?=[^\s<>|&;=(])[^<>|;\n]{0,120}(?<=\S)>")
_BRACES = re.compile(r"\{\{?[A-Za-z_][\w .-]*\}?\}")
_EXPANSION = re.compile(r"\{[^{}\s]*(?:,|\.\.)[^{}\s]*\}")
_VARIABLE = re.compile(r"[A-Za-z_]\w*|[0-9@*#?$!-]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_PROMPT = re.compile(r"(?:\([\w.-]+\)[ \t]*)?(?:[\w.-]+@[\w.-]+[^\s$#]*[$#]|\$|%|!)[ \t]*(?=\S)")
_ELLIPSIS = re.compile(r"\.{3,}|…")
_CONTINUATION = re.compile(r"\\[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_POWERSHELL = "`\n"
"""How a line goes on in PowerShell."""
_DEEPEST = 50
"""How many subshells in each other are told apart."""
_PREFIXES = frozenset({"do", "then", "else", "elif", "if", "while", "until", "!", "{", "time"})
_HEADS = frozenset({"for", "case", "select", "function", "done", "fi", "esac", "}", "[", "[["})


class Word(NamedTuple):
    """One word of a command.

    `text` has the quotes removed and expansions as they are written; `raw` is the source. `known`
    is what stands before the first expansion (all of it where nothing is `opaque`). `splits`: the
    word may become any number of words, none included.
    """

    text: str
    raw: str
    known: str
    opaque: bool = False
    splits: bool = False


class Command(NamedTuple):
    """A simple command: its words after assignments and redirections.

    `scope` tells the subshell it stands in: a tuple that begins with the enclosing one's.
    """

    words: tuple[Word, ...]
    scope: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def split(text: str) -> list[Command]:
    """The simple commands of a text, in order; what is no command is left out."""
    return _Splitter(text.replace("\r\n", "\n").replace("\r", "\n")).commands()


class _Splitter:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._done: list[Command] = []
        self._words: list[Word] = []
        self._notes: list[str] = []
        self._scope: tuple[int, ...] = ()
        self._scopes = 0
        self._deeper = 0
        self._here: list[tuple[str, bool]] = []
        self._after_newline = False  # whether a plain newline ended the last command

    def commands(self) -> list[Command]:
        text = self._text
        self._prompt()
        while self._at < len(text):
            if text[self._at] in " \t":
                self._at += 1
            elif (joined := _CONTINUATION.match(text, self._at)) is not None:
                self._continue(joined)
            elif text.startswith(_POWERSHELL, self._at):
                self._at += len(_POWERSHELL)
            elif text[self._at] == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            elif (operator := self._operator()) is not None:
                self._end(operator)
            elif not self._redirection():
                self._words.append(self._word())
        self._end("")
        return self._done

    def _continue(self, match: re.Match[str]) -> None:
        if match.group() not in {"\\\n", "\\"}:
            self._notes.append(BLANK_AFTER_BACKSLASH)
        self._at = match.end()
        if (prompt := re.compile(r"[ \t]*>[ \t]+").match(self._text, self._at)) is not None:
            self._at = prompt.end()  # the prompt of a continued line

    def _operator(self) -> str | None:
        text, at = self._text, self._at
        if text.startswith("&>", at):
            return None
        return next((mark for mark in _OPERATORS if text.startswith(mark, at)), None)

    def _end(self, operator: str) -> None:
        self._at += len(operator)
        self._finish()
        if operator == "\n":
            self._skip_here_documents()
            self._after_newline = True
            self._prompt()
        elif operator == "(":
            self._open()
        elif operator == ")":
            self._close()
        if operator != "\n":
            self._after_newline = False

    def _open(self) -> None:
        if len(self._scope) == _DEEPEST:
            self._deeper += 1
            return
        self._scopes += 1
        self._scope = (*self._scope, self._scopes)

    def _close(self) -> None:
        if self._deeper:
            self._deeper -= 1
        else:
            self._scope = self._scope[:-1]

    def _finish(self) -> None:
        words, notes = self._words, self._notes
        self._words, self._notes = [], []
        while words and words[0].raw in _PREFIXES:
            del words[0]
        while words and _ASSIGNMENT.match(words[0].raw):
            del words[0]
        if not words or words[0].raw in _HEADS:
            return
        if self._after_newline and self._done and re.match(r"--?[A-Za-z]", words[0].known):
            last = self._done[-1]
            joined = (*last.notes, *notes, MISSING_BACKSLASH)
            self._done[-1] = Command((*last.words, *words), last.scope, joined)
            return
        self._done.append(Command(tuple(words), self._scope, tuple(notes)))

    def _prompt(self) -> None:
        lead = re.compile(r"[ \t]*").match(self._text, self._at)
        start = lead.end() if lead else self._at
        if (match := _PROMPT.match(self._text, start)) is not None:
            mark = match.group().strip()
            blank = match.group()[-1:] in " \t"
            if blank or mark in {"!", "%"}:
                self._at = match.end()

    def _skip_here_documents(self) -> None:
        for delimiter, tabs in self._here:
            while self._at < len(self._text):
                end = self._text.find("\n", self._at)
                end = len(self._text) if end < 0 else end
                line = self._text[self._at : end]
                self._at = min(end + 1, len(self._text))
                if (line.lstrip("\t") if tabs else line) == delimiter:
                    break
        self._here = []

    def _redirection(self) -> bool:
        text = self._text
        match = re.compile(r"(?:\d*|&)(<<<|<<-?|<>|<&|>>|>\||>&|<|>)(?!\()").match(text, self._at)
        if match is None or _PLACEHOLDER.match(text, self._at):
            return False
        self._at = match.end()
        while self._at < len(text) and text[self._at] in " \t":
            self._at += 1
        target = self._word() if self._at < len(text) and text[self._at] not in _BREAKS else None
        if match.group(1) in {"<<", "<<-"} and target is not None:
            self._here.append((target.text, match.group(1) == "<<-"))
        return True

    def _word(self) -> Word:
        text, start = self._text, self._at
        pieces = _Pieces()
        while self._at < len(text) and text[self._at] not in _BREAKS:
            character = text[self._at]
            if character in "<>":
                if (match := _PLACEHOLDER.match(text, self._at)) is None:
                    if self._at > start:
                        break
                    self._at += 1  # `<(`: read as a word of its own
                    pieces.unknown(character, splits=False)
                    continue
                pieces.unknown(match.group(), splits=False)
                self._at = match.end()
            elif character == "'":
                pieces.literal(self._until("'", self._at + 1))
            elif character == '"':
                self._double_quoted(pieces)
            elif character == "\\":
                if _CONTINUATION.match(text, self._at):
                    break
                self._escaped(pieces)
            elif character in "$`":
                if text.startswith(_POWERSHELL, self._at):
                    break
                self._expansion(pieces, quoted=False)
            elif (match := _EXPANSION.match(text, self._at)) is not None:
                pieces.unknown(match.group(), splits=True)
                self._at = match.end()
            elif (match := _BRACES.match(text, self._at)) is not None:
                pieces.unknown(match.group(), splits=False)
                self._at = match.end()
            elif (match := _ELLIPSIS.match(text, self._at)) is not None:
                pieces.unknown(match.group(), splits=True)
                self._at = match.end()
            elif character in "*?" or (character == "[" and self._at == start):
                pieces.unknown(character, splits=True)
                self._at += 1
            else:
                pieces.literal(character)
                self._at += 1
        if self._at == start:
            self._at += 1  # never stand still
        return pieces.word(text[start : self._at])

    def _until(self, quote: str, start: int) -> str:
        end = self._text.find(quote, start)
        end = len(self._text) if end < 0 else end
        self._at = end + 1
        return self._text[start:end]

    def _escaped(self, pieces: _Pieces) -> None:
        following = self._text[self._at + 1 : self._at + 2]
        # A folder of Windows, as in `.\scripts\build_wheel.py`: no shell text escapes a letter.
        if following.isalnum() or pieces.is_windows:
            pieces.is_windows = True
            pieces.literal("/")
            self._at += 1
        else:
            pieces.literal(following)
            self._at += 2

    def _double_quoted(self, pieces: _Pieces) -> None:
        text = self._text
        self._at += 1
        pieces.literal("")
        while self._at < len(text) and text[self._at] != '"':
            character = text[self._at]
            if character == "\\" and text[self._at + 1 : self._at + 2] in set('"\\$`\n'):
                pieces.literal(text[self._at + 1].replace("\n", ""))
                self._at += 2
            elif character in "$`":
                self._expansion(pieces, quoted=True)
            elif (match := _BRACES.match(text, self._at)) is not None:
                pieces.unknown(match.group(), splits=False)
                self._at = match.end()
            else:
                pieces.literal(character)
                self._at += 1
        self._at += 1

    def _expansion(self, pieces: _Pieces, *, quoted: bool) -> None:
        text, start = self._text, self._at
        if text[start] == "`":
            end = text.find("`", start + 1)
            if end < 0:
                pieces.literal("`")
                self._at += 1
                return
            self._at = end + 1
            pieces.unknown(text[start : self._at], splits=not quoted)
            return
        following = text[start + 1 : start + 2]
        if following in {"{", "("}:
            self._at = _balanced(text, start + 1)
        elif following == "'" and not quoted:
            pieces.literal(self._until("'", start + 2))
            return
        elif (match := _VARIABLE.match(text, start + 1)) is not None:
            self._at = match.end()
        else:
            pieces.literal("$")
            self._at += 1
            return
        written = text[start : self._at]
        every = written in {"$@", "${@}"} or written.endswith("[@]}")
        pieces.unknown(written, splits=not quoted or every)


class _Pieces:
    """A word as it grows: literal text, and from the first unknown piece on no longer known."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._known: str | None = None
        self._splits = False
        self.is_windows = False
        """Whether a backslash in the word has parted folders."""

    def literal(self, text: str) -> None:
        self._text.append(text)

    def unknown(self, text: str, *, splits: bool) -> None:
        if self._known is None:
            self._known = "".join(self._text)
        self._text.append(text)
        self._splits |= splits

    def word(self, raw: str) -> Word:
        text = "".join(self._text)
        if self._known is None:
            return Word(text, raw, text)
        return Word(text, raw, self._known, opaque=True, splits=self._splits)


def _balanced(text: str, start: int) -> int:
    """The place after the bracket that closes the one at `start`; the end where none does."""
    closing = {"{": "}", "(": ")"}[text[start]]
    depth, at = 0, start
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 1
        elif character == "'" and closing == ")":
            end = text.find("'", at + 1)
            at = len(text) if end < 0 else end
        elif character == text[start]:
            depth += 1
        elif character == closing:
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return len(text)
