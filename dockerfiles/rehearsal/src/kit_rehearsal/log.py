"""Log lines, on stderr so that stdout holds the results only."""

from __future__ import annotations

import sys

from . import BACKEND

_LEVELS = ("internal_error", "error", "warning", "info", "verbose", "debug", "trace")
_threshold = _LEVELS.index("info")


def set_level(name: str) -> None:
    """Show this level and the graver ones; unknown names mean the default."""
    global _threshold  # noqa: PLW0603  one process, one level, as in the release
    _threshold = _LEVELS.index(name) if name in _LEVELS else _LEVELS.index("info")


def info(text: str) -> None:
    """A note on progress."""
    _line("info", "I", text)


def warning(text: str) -> None:
    """Something the user should know."""
    _line("warning", "W", text)


def error(text: str) -> None:
    """The reason why the command ends: shown at every level."""
    _line("internal_error", "E", text)


def _line(level: str, letter: str, text: str) -> None:
    if _LEVELS.index(level) <= _threshold:
        sys.stderr.write(f"[{BACKEND}][{letter}] {text}\n")
