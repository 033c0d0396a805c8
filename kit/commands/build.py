"""`kit build`: the image of a stack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit import images, project
from kit.commands import stacks
from kit.console import Stopwatch, envelope, note, result
from kit.errors import content_error
from kit.images import build

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Build, or say that the image is there; `--rebuild` proves that it comes out the same."""
    place = project.find()
    stack = stacks.choose(place, options.stack)
    engine = images.select(place.home)
    watch = Stopwatch()
    with build.log_file(place, stack) as (log_path, write):

        def line(text: str) -> None:
            write(text)
            if not options.quiet:
                note(text)

        report = build.build(place, stack, engine, line, fresh=options.rebuild)
    image = report.image
    if report.before not in (None, image.manifest_digest):
        raise content_error(
            f"{stack} did not come out the same: expected {report.before}, "
            f"found {image.manifest_digest}; the log is {log_path}",
        )
    same = report.before == image.manifest_digest and not report.was_current
    if options.json:
        envelope(
            "build",
            ok=True,
            stack=stack,
            engine={"name": engine.name, "version": engine.version()},
            lock=str(image.lock),
            manifest_digest=str(image.manifest_digest),
            image_id=str(image.image_id),
            was_current=report.was_current,
            identical=same,
            seconds=round(watch.seconds, 3),
        )
        return 0
    state = "up to date" if report.was_current else f"built by {engine.name}"
    note(f"{stack}: {state}{', the same as before' if same else ''}, {watch.seconds:.1f} s")
    result(str(image.manifest_digest))
    return 0
