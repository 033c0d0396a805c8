"""What the type, the choices and the range of an option say to one value."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.commandlines.outcome import Kind

_PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]*|\d*[xX]+")
"""`N`, `TP_SIZE`, `XX`: what documentation writes for a number."""
_NUMBERS = {"int": "a whole number", "float": "a number"}
_TRUE = frozenset({"yes", "true", "t", "1"})
_CACHE_TYPES = frozenset({"continuous", "paged", "disabled"})
_SHOWN = 16
"""How many choices a message lists."""


class Unknown:
    """A value that only the running shell, or the script, knows."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


class RefusedError(Exception):
    """A value that the option does not take."""

    def __init__(self, kind: Kind, detail: str, *, certain: bool = True) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.certain = certain


def value(row: Mapping[str, Any], text: str) -> Any:
    """The value as the script gets it; UNKNOWN for a placeholder and for what no table decides.

    Raises:
        RefusedError: the option's type, choices or range refuse it.
    """
    kind = row.get("type")
    if kind == "unchecked" or row.get("choices_unrecorded"):
        return UNKNOWN
    try:
        converted = _converted(kind, text)
    except ValueError:
        if kind in _NUMBERS and _PLACEHOLDER.fullmatch(text):
            return UNKNOWN
        wanted = _NUMBERS.get(str(kind), str(kind))
        raise RefusedError("invalid-value", f"expects {wanted}, not {text!r}") from None
    choices = row.get("choices")
    if choices is not None and converted not in choices:
        detail = f"takes {_shown(choices, text)}, not {text!r}"
        certain = text not in row.get("choices_uncertain", ())
        raise RefusedError("invalid-choice", detail, certain=certain)
    low, high = row.get("range", (None, None))
    if (low is not None and converted < low) or (high is not None and converted > high):
        raise RefusedError("invalid-value", f"takes {low} to {high or 'any'}, not {text}")
    return converted


def _converted(kind: str | None, text: str) -> Any:
    """A value as argparse converts it; ValueError where the type refuses the text."""
    if kind == "int":
        return int(text)
    if kind == "float":
        return float(text)
    if kind == "bool-word":
        return text.lower() in _TRUE
    if kind == "KVCacheType":
        if text.lower() not in _CACHE_TYPES:
            raise ValueError(text)
        return text.upper()
    return text


def _shown(choices: Sequence[Any], text: str) -> str:
    """The choices for people: all of them, or of many those that are spelled alike."""
    names = [str(choice) for choice in dict.fromkeys(choices)]
    if len(names) <= _SHOWN:
        return ", ".join(names)
    import difflib

    close = difflib.get_close_matches(text, names, n=3) or names[:3]
    return f"{', '.join(close)} or {len(names) - len(close)} more"
