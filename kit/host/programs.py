"""Programs that are asked something: bounded in time and in what they may say, never fatal.

A driver that hangs leaves `nvidia-smi` in a sleep that no signal ends, and a dead file server does
the same to `statvfs`. So a program that does not answer is killed and left behind, not waited for,
and everything runs in daemon threads, which do not keep the kit from ending.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.errors import KitError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SECONDS = 10.0
"""What one program is given."""
LIMIT = 2 << 20
"""Bytes of output that are kept; a program that says more is ended.

The longest is that of `nvidia-smi -q -x`: 20 KB for a GPU, and a line for a process.
"""
_PIECE = 1 << 16
_RUNNING: set[subprocess.Popen[bytes]] = set()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a program said.

    Attributes:
        code: its exit code; None where it was not there or did not end by itself.
        out: its standard output.
        err: its standard error.
        problem: why there is no good answer, in one line; None where the exit code is 0.
    """

    code: int | None
    out: str
    err: str
    problem: str | None

    @property
    def text(self) -> str:
        """Both outputs: some programs answer on one, some on the other, by version."""
        return f"{self.out}\n{self.err}".strip()


def find(name: str, *folders: str) -> str | None:
    """The program on PATH, else in one of `folders`, else None."""
    places = (None, *folders)
    return next((found for place in places if (found := shutil.which(name, path=place))), None)


def find_in(folder: str, name: str) -> str | None:
    """The program in one folder of PATH."""
    return shutil.which(name, path=folder)


def ask(argv: Sequence[str], seconds: float | None = None) -> Answer:
    """Run a program to its end, or to the end of its time; its output is in no language."""
    seconds = SECONDS if seconds is None else seconds
    name = os.path.basename(argv[0])  # noqa: PTH119  # a name, perhaps no path
    try:
        process = subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
            start_new_session=True,
        )
    except OSError as error:
        return Answer(None, "", "", f"{name}: {error.strerror}")
    _RUNNING.add(process)
    try:
        out, err, problem = _read(process, seconds)
    finally:
        _RUNNING.discard(process)
    if problem is not None:
        return Answer(None, out, err, f"{name}: {problem}")
    code = process.returncode
    if code == 0:
        return Answer(code, out, err, None)
    # What a program says last is what it failed of; nvidia-smi says it on standard output.
    said = (err.strip() or out.strip() or "no message").splitlines()[-1]
    return Answer(code, out, err, f"{name}: exit code {code}: {said}")


def together(
    jobs: Mapping[str, Callable[[], Any]], seconds: float
) -> tuple[dict[str, Any], dict[str, str]]:
    """Do all jobs at the same time; returns what they returned, and why others did not.

    A job that is not done after `seconds` goes on by itself, and nobody waits for it.
    """
    results: dict[str, Any] = {}
    failures: dict[str, str] = {}

    def run(name: str, job: Callable[[], Any]) -> None:
        try:
            results[name] = job()
        except Exception as error:  # noqa: BLE001  # the caller gets its text as a reason
            known = isinstance(error, KitError)
            failures[name] = str(error) if known else f"{type(error).__name__}: {error}"

    threads = {
        name: threading.Thread(target=run, args=(name, job), daemon=True)
        for name, job in jobs.items()
    }
    end = time.monotonic() + seconds
    for thread in threads.values():
        thread.start()
    for thread in threads.values():
        thread.join(max(0.0, end - time.monotonic()))
    for name in jobs:
        if name not in results and name not in failures:
            failures[name] = f"no answer within {seconds:.0f} s"
    return dict(results), dict(failures)


def end_all() -> None:
    """End every program that is still being asked."""
    for process in list(_RUNNING):
        _kill(process)


def _read(process: subprocess.Popen[bytes], seconds: float) -> tuple[str, str, str | None]:
    assert process.stdout is not None
    assert process.stderr is not None
    pieces: dict[int, list[bytes]] = {process.stdout.fileno(): [], process.stderr.fileno(): []}
    left = LIMIT
    problem = None
    end = time.monotonic() + seconds
    with process.stdout, process.stderr, selectors.DefaultSelector() as selector:
        for descriptor in pieces:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map() and problem is None:
            ready = selector.select(max(0.0, end - time.monotonic()))
            if not ready:
                problem = f"no answer within {seconds:.0f} s"
            for key, _ in ready:
                piece = os.read(key.fd, _PIECE)
                pieces[key.fd].append(piece)
                left -= len(piece)
                if not piece:
                    selector.unregister(key.fd)
                if left < 0:
                    problem = f"said more than {LIMIT >> 10} KiB"
        out, err = (b"".join(parts).decode(errors="replace") for parts in pieces.values())
    if problem is None:
        try:
            process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            problem = f"no answer within {seconds:.0f} s"
    if problem is not None:
        _kill(process)
    return out, err, problem


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the program with all that it started; one that cannot die is left to the system."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.5)
