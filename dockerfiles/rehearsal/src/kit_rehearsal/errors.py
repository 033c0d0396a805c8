"""What ends a command: one class, so that the caller prints one line and leaves with 1."""

from __future__ import annotations

from . import BACKEND


class BackendError(Exception):
    """The command cannot be done; the text says what, expected and found."""


class NotComputedError(BackendError):
    """The release would do this, the reference backend does not."""

    def __init__(self, what: str, asked: str) -> None:
        super().__init__(f"{BACKEND} does not compute {what} (asked for by {asked})")


class CheckFailedError(BackendError):
    """The release itself refuses these arguments after parsing."""
