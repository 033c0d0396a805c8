"""Protocol buffers' text format, as Triton's config.pbtxt is written in it.

The language is that of protobuf.dev/reference/protobuf/textformat-spec, read without a schema: a
value stays what the text says it is. Beside it `${name}` is a value: the place that a template
of the Triton backend leaves to be filled in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from kit.errors import content_error

if TYPE_CHECKING:
    from collections.abc import Iterator

SIZE_LIMIT = 1 << 20
"""Characters of the largest text."""
DEPTH_LIMIT = 64
"""Messages inside each other."""

_TOKEN = re.compile(
    r"""
    (?P<blank>(?:[ \t\r\n\f\v]+|\#[^\n]*)+)
  | (?P<text>"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"|'[^'\\\n]*(?:\\[^\n][^'\\\n]*)*')
  | (?P<placeholder>\$\{[A-Za-z_][A-Za-z0-9_]*\})
  | (?P<number>
        0[xX][0-9a-fA-F]+
      | (?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?
    )(?![A-Za-z0-9_.])
  | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
  | (?P<sign>[{}<>\[\]:,;/.-])
    """,
    re.VERBOSE | re.ASCII,
)
_ESCAPE = re.compile(
    r"\\(?:([abfnrtv\\'\"?])|([0-7]{1,3})|[xX]([0-9a-fA-F]{1,2})"
    r"|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.?))",
    re.DOTALL,
)
_ESCAPED = dict(zip("abfnrtv\\'\"?", "\a\b\f\n\r\t\v\\'\"?", strict=True))
_CLOSING = {"{": "}", "<": ">"}
_NEGATIVE = frozenset({"inf", "infinity", "nan"})
_DIGITS_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Word:
    """A name that stands as a value: an enum's, `true`, `false`, `inf`, `nan`; perhaps with `-`."""

    name: str


@dataclass(frozen=True, slots=True)
class Placeholder:
    """`${name}` where a value belongs."""

    name: str


@dataclass(frozen=True, slots=True)
class Message:
    """Fields in the order of the text; a list of values is as many fields of that name."""

    fields: tuple[Field, ...]

    def all(self, name: str) -> tuple[Value, ...]:
        """Every value of a field."""
        return tuple(field.value for field in self.fields if field.name == name)

    def last(self, name: str) -> Value | None:
        """The value of a field that is not repeated: the last one counts."""
        found = self.all(name)
        return found[-1] if found else None

    def messages(self, name: str) -> tuple[Message, ...]:
        """The messages among the values of a field."""
        return tuple(value for value in self.all(name) if isinstance(value, Message))

    def text(self, name: str) -> str | None:
        """The text of a field; None for anything else."""
        found = self.last(name)
        return found if isinstance(found, str) else None

    def integer(self, name: str) -> int | None:
        """The whole number of a field; None for anything else."""
        found = self.last(name)
        return found if type(found) is int else None

    def boolean(self, name: str) -> bool | None:
        """Whether a field is true; None for anything but the spellings of the two."""
        found = self.last(name)
        spelling = found.name if isinstance(found, Word) else found
        if spelling in ("true", "True", "t") or (type(spelling) is int and spelling == 1):
            return True
        if spelling in ("false", "False", "f") or (type(spelling) is int and spelling == 0):
            return False
        return None

    def walk(self) -> Iterator[Field]:
        """Every field, those of inner messages after the one that holds them."""
        for field in self.fields:
            yield field
            if isinstance(field.value, Message):
                yield from field.value.walk()


Value = str | int | float | Word | Placeholder | Message


@dataclass(frozen=True, slots=True)
class Field:
    """One value under its name, and where it stands: line and column count from 1."""

    name: str
    value: Value
    line: int
    column: int


def parse(text: str, name: str) -> Message:
    """The message that `text` is; `name` stands for the file in messages.

    Raises:
        KitError: it is none, with line and column; it is too large or too deep (exit 4).
    """
    if len(text) > SIZE_LIMIT:
        raise content_error(f"{name}: {len(text)} characters: expected at most {SIZE_LIMIT}")
    return _Parser(text, name).whole()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    start: int


class _Parser:
    def __init__(self, text: str, name: str) -> None:
        self._text = text
        self._name = name
        self._seen = (0, 1)  # a place, and its line
        self._tokens = self._split()
        self._token = next(self._tokens)

    def whole(self) -> Message:
        found = self._message("", 0)
        if self._token.kind != "end":
            self._fail("a field's name")
        return found

    def _split(self) -> Iterator[_Token]:
        place = 0
        while place < len(self._text):
            match = _TOKEN.match(self._text, place)
            if match is None:
                self._token = _Token("other", self._text[place], place)
                self._fail("a name, a value or a bracket")
            if match.lastgroup != "blank":
                yield _Token(str(match.lastgroup), match.group(), place)
            place = match.end()
        yield _Token("end", "the end", place)

    def _message(self, closing: str, depth: int) -> Message:
        """Fields up to the closing bracket, or to the end of the text; the bracket stays."""
        if depth > DEPTH_LIMIT:
            self._fail(f"at most {DEPTH_LIMIT} messages inside each other")
        fields: list[Field] = []
        while self._token.text != closing and self._token.kind != "end":
            start = self._token.start
            name = self._field_name()
            colon = self._take_if(":")
            line, column = self._place(start)
            fields += [
                Field(name, value, line, column) for value in self._values(depth, colon=colon)
            ]
            self._take_if(",") or self._take_if(";")
        return Message(tuple(fields))

    def _field_name(self) -> str:
        if self._token.kind == "word":
            return self._take()
        if not self._take_if("["):
            self._fail("a field's name")
        parts = []  # of an extension, or of the type in an Any: [example.com/package.Type]
        while self._token.kind == "word" or self._token.text in ("/", ".", "-"):
            parts.append(self._take())
        if not parts or not self._take_if("]"):
            self._fail("the name of an extension and ]")
        return f"[{''.join(parts)}]"

    def _values(self, depth: int, *, colon: bool) -> Iterator[Value]:
        if not self._take_if("["):
            yield self._value(depth, colon=colon)
            return
        if self._take_if("]"):
            return
        yield self._value(depth, colon=colon)
        while not self._take_if("]"):
            if not self._take_if(","):
                self._fail(", or ]")
            yield self._value(depth, colon=colon)

    def _value(self, depth: int, *, colon: bool) -> Value:
        if self._token.text in _CLOSING:
            closing = _CLOSING[self._take()]
            found = self._message(closing, depth + 1)
            if not self._take_if(closing):
                self._fail(f"a field's name or {closing}")
            return found
        if not colon:
            self._fail("a colon and a value, or a message in brackets")
        return self._scalar()

    def _scalar(self) -> Value:
        if self._token.kind == "text":
            parts = []
            while self._token.kind == "text":
                parts.append(self._unescaped())
            return b"".join(parts).decode("utf-8", errors="surrogateescape")
        if self._token.kind == "placeholder":
            return Placeholder(self._take()[2:-1])
        negative = self._take_if("-")
        if self._token.kind == "word":
            if negative and self._token.text.lower() not in _NEGATIVE:
                self._fail("a number after -")
            return Word(("-" if negative else "") + self._take())
        if self._token.kind != "number":
            self._fail("a value")
        found = self._number()
        return -found if negative else found

    def _number(self) -> int | float:
        digits = self._token.text
        if len(digits) > _DIGITS_LIMIT:
            self._fail(f"a number of at most {_DIGITS_LIMIT} digits")
        lower = digits.lower()
        if lower.startswith("0x"):
            self._take()
            return int(lower, 16)
        if not lower.isdecimal():
            self._take()
            return float(lower.rstrip("f"))
        is_octal = len(lower) > 1 and lower.startswith("0")
        if is_octal and not set(lower) <= set("01234567"):
            self._fail("octal digits after a leading 0")
        self._take()
        return int(lower, 8 if is_octal else 10)

    def _unescaped(self) -> bytes:
        """The bytes of one quoted text; the escapes are those of C, and Unicode's."""
        start, inner = self._token.start, self._token.text[1:-1]
        out, place = bytearray(), 0
        for match in _ESCAPE.finditer(inner):
            out += inner[place : match.start()].encode("utf-8", errors="surrogateescape")
            place = match.end()
            short, octal, hexadecimal, four, eight, other = match.groups()
            code = int(octal, 8) if octal else int(hexadecimal or four or eight or "0", 16)
            if short:
                out += _ESCAPED[short].encode()
            elif other is not None or code > (0xFF if octal or hexadecimal else 0x10FFFF):
                self._token = _Token("other", match.group(), start + 1 + match.start())
                self._fail('an escape such as \\n, \\", \\101 or \\x41')
            elif octal or hexadecimal:
                out.append(code)
            else:
                out += chr(code).encode("utf-8", errors="surrogatepass")
        out += inner[place:].encode("utf-8", errors="surrogateescape")
        self._take()
        return bytes(out)

    def _take(self) -> str:
        text = self._token.text
        self._token = next(self._tokens)
        return text

    def _take_if(self, sign: str) -> bool:
        if self._token.kind != "sign" or self._token.text != sign:
            return False
        self._take()
        return True

    def _place(self, start: int) -> tuple[int, int]:
        place, line = self._seen if self._seen[0] <= start else (0, 1)
        line += self._text.count("\n", place, start)
        self._seen = (start, line)
        return line, start - self._text.rfind("\n", 0, start)

    def _fail(self, expected: str) -> NoReturn:
        line, column = self._place(self._token.start)
        found = self._token.text if self._token.kind == "end" else repr(self._token.text[:40])
        raise content_error(
            f"{self._name}:{line}:{column}: not protobuf text: expected {expected}, found {found}"
        )
