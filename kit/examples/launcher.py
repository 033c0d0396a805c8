"""Runs one command inside a container and says how it went; mounted there, standard library only.

    python3 launcher.py [--path FOLDER] [--alive FILE] --report FILE -- COMMAND ARGUMENT…

The command's exit code is the launcher's; 128 + N when signal N ended it, 127 when there is no
such command. FILE gets `{"exit_code", "seconds", "peak_memory_bytes"}`: seconds by the wall clock,
memory as the largest resident set of any one process of the command. Whoever started the
container may hold a lock on --alive; the command does not outlive that lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import sys
import threading
import time

FORWARDED = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
# Ignored by Python, or by whoever started the container; a command would inherit that.
RESET = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT)


def main(arguments: list[str]) -> int:
    """Run the command, write the report, return the exit code."""
    end = arguments.index("--")
    options, command = dict(zip(arguments[:end:2], arguments[1:end:2])), arguments[end + 1 :]  # noqa: B905 - Python 3.8 of old images has no strict
    if "--path" in options:
        os.environ["PATH"] = options["--path"] + os.pathsep + os.environ.get("PATH", os.defpath)
    start = time.monotonic()
    exit_code = run(command, options.get("--alive"))
    report = {
        "exit_code": exit_code,
        "seconds": round(time.monotonic() - start, 3),
        # Linux counts in KiB.
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
    }
    with open(options["--report"], "w", encoding="ascii") as stream:  # noqa: PTH123 - start-up time
        json.dump(report, stream)
    return exit_code


def run(command: list[str], alive: str | None = None) -> int:
    """Start the command, hand signals on, collect whatever ends until it has ended itself."""
    # Until there is a child to hand them to, signals wait.
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    child = os.fork()
    if child == 0:
        _become(command)
    for number in FORWARDED:
        signal.signal(number, lambda received, _frame: _hand_on(child, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    if alive is not None:
        threading.Thread(target=_end_with, args=(alive, child), daemon=True).start()
    while True:
        # As the container's first process the launcher inherits orphans and must collect them.
        ended, status = os.wait()
        if ended == child:
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)
            break
    for number in FORWARDED:
        signal.signal(number, signal.SIG_IGN)
    return code


def _become(command: list[str]) -> None:
    for number in RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    os.dup2(1, 2)  # one pipe, so that errors stand in the log where they happened
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell wanted
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(126 if isinstance(error, PermissionError) else 127)


def _end_with(alive: str, child: int) -> None:
    """Wait for the lock of whoever started this: once it is free, nobody wants the command."""
    descriptor = os.open(alive, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    _hand_on(child, signal.SIGKILL)
    # As the container's first process this ends all others.
    os._exit(128 + signal.SIGKILL)


def _hand_on(child: int, number: int) -> None:
    try:
        os.kill(child, number)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
