"""`kit slurm`: a batch script that does `kit run` in a job, or the job itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kit import project
from kit.console import envelope, note, result
from kit.errors import KitError, usage_error
from kit.examples import catalogue
from kit.examples.plan import plan
from kit.examples.run import RELEASES_LABEL
from kit.files import write_bytes
from kit.images import build
from kit.slurm import options as sbatch
from kit.slurm import script
from kit.slurm.script import Job

if TYPE_CHECKING:
    import argparse

    from kit.examples.program import Program
    from kit.examples.recipe import Recipe
    from kit.images.build import BuiltImage
    from kit.project import Project

_HANDED_ON = ("KIT_ENGINE", "CONTAINERS_STORAGE_CONF", "DOCKER_HOST")
"""Variables that decide on the container engine, said in the script where they are set here."""


def run(options: argparse.Namespace) -> int:
    """Print the script, write it, or submit it; prints the number of the job."""
    example = catalogue.chosen(options.example, options.config)
    example = catalogue.with_given(example, options.model, options.dataset)
    place = project.find()
    image = _image(place, options)
    release = options.release or _only_release(image)
    planned = plan(example, release)
    nodes = max(step.nodes for step in planned.steps)
    ranks = max(step.mpi_ranks for step in planned.steps)
    job = Job(
        name=example.name,
        release=planned.release,
        nodes=nodes,
        command=script.command_line(sys.executable, _words(options, example, planned.release)),
        folder=Path.cwd(),
        environment={
            "KIT_HOME": str(place.home),
            "KIT_ROOT": str(place.root),
            **{key: os.environ[key] for key in _HANDED_ON if os.environ.get(key)},
        },
        partition=sbatch.name("--partition", options.partition),
        account=sbatch.name("--account", options.account),
        time=sbatch.time(options.time),
        gpus_per_node=sbatch.gpus(options.gpus_per_node, ranks // nodes),
        further=tuple(sbatch.further(options.further)),
    )
    text = job.text()
    path = Path(options.output).absolute() if options.output else None
    if path is not None:
        write_bytes(path, text.encode(), 0o755)
    number = script.submit(text) if options.submit else None
    if options.json:
        envelope(
            "slurm",
            ok=True,
            example=example.name,
            release=planned.release,
            stack=options.stack,
            nodes=nodes,
            ranks=ranks,
            job_id=number,
            file=str(path) if path else None,
            script=text,
        )
    elif number is not None:
        note(f"follow it: squeue --job {number}; tail -f kit-{example.name}-{number}.log")
        result(str(number))
    elif path is not None:
        note(f"submit it: sbatch {path}")
        result(str(path))
    else:
        result(text.rstrip("\n"))
    return 0


def _image(place: Project, options: argparse.Namespace) -> BuiltImage | None:
    """The image of the stack; a script may be written before it is built, and not submitted."""
    place.intent_path(options.stack)
    try:
        return build.built(place, options.stack)
    except KitError as error:
        if options.submit or options.release is None:
            raise
        note(f"warning: {error}: before the job starts, {error.hint}")
        return None


def _only_release(image: BuiltImage | None) -> str:
    assert image is not None, "without --release there is an image"
    held = image.labels.get(RELEASES_LABEL, "").split()
    if len(held) != 1:
        raise usage_error(
            f"stack {image.stack} holds several releases: {', '.join(held)}; name one",
            hint=f"--release {held[-1]}" if held else f"kit build {image.stack}",
        )
    return held[0]


def _words(options: argparse.Namespace, example: Recipe | Program, release: str) -> list[str]:
    """What stands behind `kit run`, whatever folder that is typed in."""
    words = [example.name] if options.config is None else ["--config", _whole(options.config)]
    words += ["--stack", options.stack, "--release", release]
    for option in ("model", "dataset"):
        value = getattr(options, option)
        words += [f"--{option}", _whole(value)] if value is not None else []
    words += ["--triton-stack", options.triton_stack] if options.triton_stack else []
    words += ["--output", _whole(options.runs)] if options.runs else []
    for option in ("resume", "no_reuse", "allow_pickle"):
        words += [f"--{option.replace('_', '-')}"] if getattr(options, option) else []
    return words


def _whole(path: str) -> str:
    return str(Path(path).absolute())
