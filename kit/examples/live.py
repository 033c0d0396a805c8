"""What a running step says, line by line; on a terminal a clock while it says nothing."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TYPE_CHECKING

from kit import console

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUIET = 2.0
"""Seconds without a line before the clock appears."""
_TICK = 1.0
_ERASE = "\r\x1b[K"


class Live:
    """Notes of one step on stderr, each under its name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._watch = console.Stopwatch()
        self._heard = time.monotonic()
        self._shown = False
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def say(self, line: str) -> None:
        """Print a line of the step; the clock makes room for it."""
        with self._lock:
            self._erase()
            self._heard = time.monotonic()
            console.note(f"[{self._name}] {line}")

    def tick(self) -> None:
        """Show the clock whenever it is quiet, until `end`."""
        while not self._ended.wait(_TICK):
            with self._lock:
                quiet = time.monotonic() - self._heard
                if quiet >= _QUIET and not self._ended.is_set():
                    text = f"[{self._name}] {shown(self._watch.seconds)}, quiet for {quiet:.0f} s"
                    print(f"{_ERASE}{text}", end="", file=sys.stderr, flush=True)
                    self._shown = True

    def end(self) -> None:
        """Take the clock away for good."""
        self._ended.set()
        with self._lock:
            self._erase()

    def _erase(self) -> None:
        if self._shown:
            print(_ERASE, end="", file=sys.stderr, flush=True)
            self._shown = False


@contextlib.contextmanager
def live(name: str) -> Iterator[Live]:
    """Notes of the step `name`, with a clock on a terminal while the block runs."""
    notes = Live(name)
    clock = threading.Thread(target=notes.tick, daemon=True) if sys.stderr.isatty() else None
    if clock is not None:
        clock.start()
    try:
        yield notes
    finally:
        notes.end()
        if clock is not None:
            clock.join()


def shown(seconds: float) -> str:
    """`75` → `1:15`, `3675` → `1:01:15`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
