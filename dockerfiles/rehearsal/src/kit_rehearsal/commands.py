"""The entry of every script: which release, which script, then parse, check, do."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import build, convert, log, options, refusals, run
from .communicator import Communicator, connect
from .errors import BackendError
from .releases import RELEASES, Span

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Script:
    """A script at its place in the releases of its span; those that run need the other ranks."""

    place: str
    refused: Mapping[str, str]
    span: Span
    work: Callable[[str, argparse.Namespace], None] | None = None
    run: Callable[[str, argparse.Namespace, Communicator], None] | None = None
    complete: Callable[[argparse.Namespace], None] | None = None


# trtllm-build came with 0.7.0 and took GPT over with 0.9.0. 0.19.0 documents the families' new
# place, 0.18.2 still the old one.
_SCRIPTS = (
    Script(
        "examples/gpt/hf_gpt_convert.py",
        refusals.CONVERT,
        Span(before="0.9.0"),
        work=convert.convert_ft,
    ),
    Script(
        "examples/gpt/build.py",
        refusals.BUILD,
        Span(before="0.9.0"),
        work=build.build_ft,
        complete=build.complete_ft,
    ),
    Script(
        "examples/gpt/convert_checkpoint.py",
        refusals.CONVERT,
        Span("0.9.0", "0.19.0"),
        work=convert.convert_unified,
    ),
    Script(
        "examples/models/core/gpt/convert_checkpoint.py",
        refusals.CONVERT,
        Span("0.19.0"),
        work=convert.convert_unified,
    ),
    Script("trtllm-build", refusals.BUILD, Span("0.9.0"), work=build.build_unified),
    Script("examples/gpt/run.py", refusals.RUN, Span(before="0.7.0"), run=run.run_of_family),
    Script("examples/run.py", refusals.RUN, Span("0.7.0"), run=run.run_of_all),
    # LLaMA is computed from the release on whose checkpoints GPT shares.
    Script(
        "examples/llama/convert_checkpoint.py",
        refusals.CONVERT_LLAMA,
        Span("0.9.0", "0.19.0"),
        work=convert.convert_llama,
    ),
    Script(
        "examples/models/core/llama/convert_checkpoint.py",
        refusals.CONVERT_LLAMA,
        Span("0.19.0"),
        work=convert.convert_llama,
    ),
)
SCRIPTS = {
    release: tuple(script.place for script in _SCRIPTS if script.span.holds(release))
    for release in RELEASES
}


def main(
    release: str,
    place: str,
    argv: Sequence[str] | None = None,
    *,
    ranks: Callable[[], Communicator] = connect,
) -> int:
    """Run the script of a release that has that place; 0, or 1 with the reason on stderr.

    Wrong arguments end with argparse's own SystemExit(2). `ranks` is asked for the other ranks by
    the scripts that compute over several.
    """
    world: Communicator | None = None
    try:
        script = _find(release, place)
        args = _parsed(release, script, sys.argv[1:] if argv is None else argv)
        log.set_level(getattr(args, "log_level", "info"))
        if script.work is not None:
            script.work(release, args)
        elif script.run is not None:
            world = ranks()
            script.run(release, args, world)
    except (BackendError, OSError) as error:
        log.error(str(error))
        if world is not None:
            world.abort()
        return 1
    return 0


def _find(release: str, place: str) -> Script:
    if place in SCRIPTS.get(release, ()):
        return next(script for script in _SCRIPTS if script.place == place)
    raise BackendError(f"release {release} has no {place} that is computed")


def _parsed(release: str, script: Script, argv: Sequence[str]) -> argparse.Namespace:
    args = options.parse(script.place, release, argv)
    options.check(script.place, release, args, tainted=False)
    refusals.refuse(script.refused, args, options.parser(script.place, release))
    if script.complete is not None:
        script.complete(args)
    options.check(script.place, release, args, tainted=True)
    return args
