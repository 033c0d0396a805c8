"""Child processes that die with the kit, and whose output is handed over line by line."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

TAIL_LINES = 40
"""Lines kept for the message of a failure."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def stream(
    argv: Sequence[str],
    on_line: Callable[[str], None],
    environment: Mapping[str, str] | None = None,
) -> tuple[int, list[str]]:
    """Run a command, hand over every line of stdout and stderr; returns exit code and last lines.

    The child gets SIGTERM when the kit dies, however it dies, and when the kit is interrupted.
    """
    tail: deque[str] = deque(maxlen=TAIL_LINES)
    with child(argv, environment) as process:
        assert process.stdout is not None
        for raw in process.stdout:
            line = raw.decode(errors="replace").rstrip("\r\n")
            tail.append(line)
            on_line(line)
        return process.wait(), list(tail)


@contextlib.contextmanager
def child(
    argv: Sequence[str],
    environment: Mapping[str, str] | None = None,
    *,
    separate_errors: bool = False,
) -> Iterator[subprocess.Popen[bytes]]:
    """A running command; ended with SIGTERM, then SIGKILL, if the block is left early."""
    process = subprocess.Popen(
        list(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if separate_errors else subprocess.STDOUT,
        env={**os.environ, **(environment or {})},
        preexec_fn=_die_with_parent,  # noqa: PLW1509  # two system calls, no lock taken
        start_new_session=True,
    )
    try:
        yield process
    except BaseException:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    finally:
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def capture(argv: Sequence[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a short command to its end; output as text, never raises for an exit code."""
    return subprocess.run(
        list(argv),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
        cwd=folder,
    )


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
