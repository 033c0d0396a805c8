"""The entry of every script: which release, which script, then parse, check, do."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import (
    ammo,
    build,
    convert,
    family_build,
    generated_config,
    log,
    nemo_convert,
    options,
    quantize,
    refusals,
    run,
    summarize,
)
from .communicator import Communicator, connect
from .errors import BackendError
from .releases import RELEASES, Span

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True)
class Script:
    """A script at its place in the releases of its span; those that run need the other ranks."""

    place: str
    refused: Mapping[str, str]
    span: Span
    work: Callable[[str, argparse.Namespace], None] | None = None
    run: Callable[[str, argparse.Namespace, Communicator], None] | None = None
    complete: Callable[[str, argparse.Namespace], None] | None = None


# trtllm-build came with 0.7.0, took LLaMA over with 0.8.0 and GPT with 0.9.0. 0.19.0 documents
# the families' new place, 0.18.2 still the old one.
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
        work=family_build.build_gpt,
        complete=family_build.complete_gpt,
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
    Script("examples/gpt/run.py", refusals.RUN, Span(before="0.7.0"), run=run.run_of_gpt),
    Script("examples/llama/run.py", refusals.RUN, Span(before="0.7.0"), run=run.run_of_llama),
    Script("examples/run.py", refusals.RUN, Span("0.7.0"), run=run.run_of_all),
    # LLaMA had a build.py until 0.7.1 and shares trtllm-build from 0.8.0 on.
    Script(
        "examples/llama/hf_llama_convert.py",
        refusals.CONVERT,
        Span(before="0.8.0"),
        work=convert.convert_llama_ft,
    ),
    Script(
        "examples/llama/build.py",
        refusals.BUILD_LLAMA,
        Span(before="0.8.0"),
        work=family_build.build_llama,
        complete=family_build.complete_llama,
    ),
    Script(
        "examples/llama/convert_checkpoint.py",
        refusals.CONVERT_LLAMA,
        Span("0.8.0", "0.19.0"),
        work=convert.convert_llama,
    ),
    Script(
        "examples/models/core/llama/convert_checkpoint.py",
        refusals.CONVERT_LLAMA,
        Span("0.19.0"),
        work=convert.convert_llama,
    ),
    Script("trtllm-build", refusals.BUILD, Span("0.8.0", "0.9.0"), work=build.build_unified),
    Script(
        "examples/generate_checkpoint_config.py",
        {},
        Span("0.9.0"),
        work=generated_config.write_config,
    ),
    # NeMo's archives became a source of convert_checkpoint.py; prompt tables kept their script.
    Script(
        "examples/gpt/nemo_ckpt_convert.py",
        refusals.CONVERT,
        Span(before="0.9.0"),
        work=nemo_convert.convert_ft,
    ),
    *(
        Script(place, {}, span, work=nemo_convert.convert_prompts)
        for place, span in (
            ("examples/gpt/nemo_prompt_convert.py", Span(before="0.19.0")),
            ("examples/models/core/gpt/nemo_prompt_convert.py", Span("0.19.0")),
        )
    ),
    # Before 0.8.0 it wrote files of another kind.
    *(
        Script(place, {}, span, work=ammo.quantize)
        for place, span in (
            ("examples/llama/quantize.py", Span(before="0.8.0")),
            ("examples/quantization/quantize.py", Span("0.6.0", "0.8.0")),
        )
    ),
    Script(
        "examples/quantization/quantize.py",
        refusals.QUANTIZE,
        Span("0.8.0"),
        work=quantize.quantize,
    ),
    # One script a family in 0.5.0, then one for all.
    *(
        Script(place, refusals.SUMMARIZE, span, run=summarize.summarize)
        for place, span in (
            ("examples/gpt/summarize.py", Span(before="0.6.0")),
            ("examples/llama/summarize.py", Span(before="0.6.0")),
            ("examples/summarize.py", Span("0.6.0")),
        )
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


def perform(release: str, place: str, argv: Sequence[str]) -> None:
    """Do what a script of one rank does; BackendError where `main` would return 1."""
    script = _find(release, place)
    assert script.work is not None  # not one of those that run on several ranks
    script.work(release, _parsed(release, script, argv))


def _find(release: str, place: str) -> Script:
    if place in SCRIPTS.get(release, ()):
        return next(
            script for script in _SCRIPTS if script.place == place and script.span.holds(release)
        )
    raise BackendError(f"release {release} has no {place} that is computed")


def _parsed(release: str, script: Script, argv: Sequence[str]) -> argparse.Namespace:
    args = options.parse(script.place, release, argv)
    options.check(script.place, release, args, tainted=False)
    refusals.refuse(script.refused, args, options.parser(script.place, release))
    if script.complete is not None:
        script.complete(release, args)
    options.check(script.place, release, args, tainted=True)
    return args
