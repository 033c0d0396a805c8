"""`kit run`: an example in a stack's container."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit import images, project
from kit.console import envelope, note, result
from kit.errors import usage_error
from kit.examples import catalogue
from kit.examples import run as runner
from kit.examples.taken import Choices
from kit.images import build
from kit.images.engine import Gpus
from kit.manifests import record
from kit.slurm import allocation

if TYPE_CHECKING:
    import argparse

    from kit.images.build import BuiltImage


def run(options: argparse.Namespace) -> int:
    """Run the steps; prints what the model said, what was measured, and where the manifest is."""
    wanted = catalogue.chosen(options.example, options.config)
    wanted = catalogue.with_given(wanted, options.model, options.dataset)
    gpus = Gpus.parse(options.gpus)
    place = project.find()
    image = build.built(place, options.stack)
    release = options.release or _only_release(image, runner.argument(wanted))
    output = Path(options.output).absolute() if options.output else None
    engine = images.select(allocation.node_home(place.home))
    with allocation.cancellable():
        path = runner.run(place, engine, image, wanted, release, output, gpus, _choices(options))
    manifest = record.read(path)
    if options.json:
        outputs = [
            {
                "name": said.prompt,
                "prompt": said.prompt,
                "text": said.text,
                "token_ids": list(said.token_ids),
            }
            for said in manifest.outputs
        ]
        evaluations = [
            {
                "name": f"{item.subject} {item.metric}",
                "step": item.step,
                "value": item.value,
                "least": item.least,
                "most": item.most,
            }
            for item in manifest.evaluations
        ]
        envelope(
            "run",
            ok=True,
            manifest=str(path),
            release=release,
            outputs=outputs,
            evaluations=evaluations,
        )
        return 0
    for said in manifest.outputs:
        note(f"{said.prompt!r} → {said.text!r}")
    for answer in manifest.server.answers if manifest.server else ():
        note(f"{answer.prompt!r} → {answer.text!r} (server)")
    for item in manifest.evaluations:
        note(str(item))
    result(str(path))
    return 0


def _choices(options: argparse.Namespace) -> Choices:
    only = tuple(name for words in options.only for name in words.split(",") if name)
    if options.only and not only:
        raise usage_error("--only: expected the name of a step", hint="kit run --help")
    words = []
    for option, value in (
        ("--model", options.model),
        ("--dataset", options.dataset),
        ("--triton-stack", options.triton_stack),
    ):
        words += [option, value] if value else []
    words += ["--no-reuse"] if options.no_reuse else []
    words += ["--allow-pickle"] if options.allow_pickle else []
    resume: Literal["latest"] | Path | None = None
    if options.resume is not None:
        resume = Path(options.resume) if options.resume else "latest"
    return Choices(
        only,
        resume,
        not options.no_reuse,
        options.allow_pickle,
        tuple(words),
        options.triton_stack,
    )


def _only_release(image: BuiltImage, example: str) -> str:
    releases = image.labels.get(runner.RELEASES_LABEL, "").split()
    if len(releases) != 1:
        raise usage_error(
            f"stack {image.stack} holds several releases: {', '.join(releases)}; name one",
            hint=f"kit run {example} --stack {image.stack} --release {releases[-1]}"
            if releases
            else f"kit build {image.stack}",
        )
    return releases[0]
