"""The entry of every script: which release, which script, then parse, check, do."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from . import build, convert, log, options, refusals, run
from .communicator import Communicator, connect
from .errors import BackendError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

CONVERT_0_5 = "examples/gpt/hf_gpt_convert.py"
BUILD_0_5 = "examples/gpt/build.py"
RUN_0_5 = "examples/gpt/run.py"
CONVERT = "examples/gpt/convert_checkpoint.py"
BUILD = "trtllm-build"
RUN = "examples/run.py"

SCRIPTS = {
    "0.5.0": (CONVERT_0_5, BUILD_0_5, RUN_0_5),
    "0.9.0": (CONVERT, BUILD, RUN),
    "0.16.0": (CONVERT, BUILD, RUN),
}
_REFUSALS = {
    CONVERT_0_5: refusals.CONVERT,
    CONVERT: refusals.CONVERT,
    BUILD_0_5: refusals.BUILD,
    BUILD: refusals.BUILD,
    RUN_0_5: refusals.RUN,
    RUN: refusals.RUN,
}


def main(
    release: str,
    script: str,
    argv: Sequence[str] | None = None,
    *,
    ranks: Callable[[], Communicator] = connect,
) -> int:
    """Run a script of a release; 0, or 1 with the reason on stderr.

    Wrong arguments end with argparse's own SystemExit(2). `ranks` is asked for the other ranks by
    the scripts that compute over several.
    """
    world: Communicator | None = None
    try:
        args = _parsed(release, script, sys.argv[1:] if argv is None else argv)
        log.set_level(getattr(args, "log_level", "info"))
        if script in {RUN, RUN_0_5}:
            world = ranks()
            _run(release, script, args, world)
        elif script in {BUILD, BUILD_0_5}:
            _build(release, script, args)
        elif script == CONVERT_0_5:
            convert.convert_ft(args)
        else:
            convert.convert_unified(release, args)
    except (BackendError, OSError) as error:
        log.error(str(error))
        if world is not None:
            world.abort()
        return 1
    return 0


def _parsed(release: str, script: str, argv: Sequence[str]) -> argparse.Namespace:
    args = options.parse(script, release, argv)
    options.check(script, release, args, tainted=False)
    refusals.refuse(_REFUSALS[script], args, options.parser(script, release))
    if script == BUILD_0_5:
        build.complete_ft(args)
    options.check(script, release, args, tainted=True)
    return args


def _build(release: str, script: str, args: argparse.Namespace) -> None:
    if script == BUILD_0_5:
        build.build_ft(args)
    else:
        build.build_unified(release, args)


def _run(release: str, script: str, args: argparse.Namespace, world: Communicator) -> None:
    if script == RUN_0_5:
        run.run_0_5(args, world)
    else:
        run.run_unified(release, args, world)
