"""`kit run`: an example in a stack's container."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit import images, project
from kit.console import envelope, note, result
from kit.errors import usage_error
from kit.examples import catalogue
from kit.examples import run as runner
from kit.images import build
from kit.images.engine import Gpus
from kit.manifests import record

if TYPE_CHECKING:
    import argparse

    from kit.images.build import BuiltImage


def run(options: argparse.Namespace) -> int:
    """Run all steps; prints what the model said and where the manifest is."""
    wanted = catalogue.chosen(options.example, options.config)
    gpus = Gpus.parse(options.gpus)
    place = project.find()
    image = build.built(place, options.stack)
    release = options.release or _only_release(image, runner.argument(wanted))
    output = Path(options.output).absolute() if options.output else None
    engine = images.select(place.home)
    path = runner.run(place, engine, image, wanted, release, output, gpus)
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
        envelope("run", ok=True, manifest=str(path), release=release, outputs=outputs)
        return 0
    for said in manifest.outputs:
        note(f"{said.prompt!r} → {said.text!r}")
    result(str(path))
    return 0


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
