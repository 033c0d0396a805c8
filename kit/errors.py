"""The one error that users see, and the exit codes that scripts rely on."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitCode(IntEnum):
    """What a `kit` command ends with."""

    OK = 0
    BUG = 1
    USAGE = 2
    ENVIRONMENT = 3
    CONTENT = 4


class KitError(Exception):
    """A failure that is explained: what, where, expected, found; `hint` is the next command."""

    def __init__(self, message: str, *, exit_code: ExitCode, hint: str | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.hint = hint


def usage_error(message: str, hint: str | None = None) -> KitError:
    """The request is wrong: a name, a flag, a file the user wrote (exit 2)."""
    return KitError(message, exit_code=ExitCode.USAGE, hint=hint)


def environment_error(message: str, hint: str | None = None) -> KitError:
    """The host cannot: no engine, no GPU, no disk, no network (exit 3)."""
    return KitError(message, exit_code=ExitCode.ENVIRONMENT, hint=hint)


def content_error(message: str, hint: str | None = None) -> KitError:
    """The content is wrong: a digest, a version, a result (exit 4)."""
    return KitError(message, exit_code=ExitCode.CONTENT, hint=hint)


def nearest(name: str, known: Iterable[str]) -> str:
    """Name the closest of `known`, or all of them: the tail of an "unknown X" message."""
    import difflib

    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(close) + "?"
    return "known: " + (", ".join(names) or "none")
