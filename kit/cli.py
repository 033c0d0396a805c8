"""Parse and dispatch, nothing else; what can be said stands in `kit.arguments`."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING

from kit import arguments as arguments_
from kit.errors import ExitCode, KitError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTERRUPTED = 130
"""What shells expect after Ctrl-C."""
BROKEN_PIPE = 141
"""What shells expect of a program whose output nobody reads any more."""


def run(arguments: Sequence[str]) -> int:
    """Parse, call the command, turn what it raises into one message and an exit code."""
    words = list(arguments)
    options = arguments_.parser(words[0] if words else None).parse_args(words)

    def command() -> int:
        code: int = importlib.import_module(f"kit.commands.{options.module}").run(options)
        return code

    return guarded(command, options)


def guarded(command: Callable[[], int], options: argparse.Namespace | None = None) -> int:
    """Call a command; what it raises becomes one message and an exit code."""
    options = options or argparse.Namespace(debug=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the locale can show
            stream.reconfigure(errors="backslashreplace")
    try:
        code = command()
        sys.stdout.flush()
    except KitError as error:
        if options.debug:
            raise
        return _report(options, str(error), error.hint, error.exit_code)
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on where this one stopped", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone; what was under way is not done.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if options.debug:
            raise
        from kit.files import explained

        if isinstance(error, OSError) and (known := explained(error)) is not None:
            return _report(options, str(known), known.hint, known.exit_code)
        message = f"a bug in kit: {type(error).__name__}: {error}"
        return _report(options, message, "run again with --debug and report it", ExitCode.BUG)
    return code


def _report(options: argparse.Namespace, message: str, hint: str | None, code: ExitCode) -> int:
    if getattr(options, "json", False):
        from kit.console import envelope

        error = {"message": message, "hint": hint, "exit_code": int(code)}
        envelope(options.schema, ok=False, error=error)
    from kit.console import visible

    # What went wrong may be quoted from a file or a server: no control sequence, but lines stay.
    for line in f"error: {message}".split("\n"):
        print(visible(line), file=sys.stderr)
    if hint:
        print(f"  try: {visible(hint)}", file=sys.stderr)
    return code
