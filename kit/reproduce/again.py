"""The reproduction: run what a manifest records once more, in the same image, and compare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.bundles import stacks
from kit.digest import Digest
from kit.errors import ExitCode, KitError, usage_error
from kit.examples import catalogue
from kit.examples import run as runner
from kit.examples.taken import Choices
from kit.images import build
from kit.images.build import LOCK_LABEL, BuiltImage
from kit.images.engine import Gpus
from kit.images.oci import Layout
from kit.manifests import record
from kit.reproduce import inputs, side
from kit.reproduce.compare import compare, stopped

if TYPE_CHECKING:
    from pathlib import Path

    from kit.examples.program import Program
    from kit.examples.recipe import Recipe
    from kit.images.engine import Engine
    from kit.manifests.record import Manifest
    from kit.project import Project
    from kit.reproduce.ladder import Ladder

FOLDER = "reproductions"
"""Below the runs, and apart: a run from the beginning clears what earlier ones left undone."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A run and what it was held against.

    Attributes:
        path: of the recorded manifest.
        digest: of that file, as a reviewer can hash it.
        recorded: the manifest.
        again_path: of the manifest that the new run wrote; None where it stopped.
        again: that manifest.
        ladder: what was found.
        problem: why the run stopped.
    """

    path: Path
    digest: Digest
    recorded: Manifest
    again_path: Path | None
    again: Manifest | None
    ladder: Ladder
    problem: str | None = None

    @property
    def result(self) -> dict[str, str | None]:
        """A row of the results in a receipt."""
        reached = self.ladder.reached
        return {
            "name": f"reproduce {self.recorded.example.name} {self.recorded.release}",
            "level": str(reached) if reached else None,
            "manifest": str(self.digest),
        }

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON envelope."""
        reached = self.ladder.reached
        return {
            "manifest": str(self.path),
            "manifest_digest": str(self.digest),
            "again": str(self.again_path) if self.again_path else None,
            "reached": str(reached) if reached else None,
            "claimable": [f"L{number}" for number in self.ladder.claimable],
            "problem": self.problem,
            "levels": [rung.to_dict() for rung in self.ladder.rungs],
        }


def example_of(
    manifest: Manifest, config: Path | None, model: str | None, dataset: str | None
) -> Recipe | Program:
    """The example that a manifest names, or the recipe in a file, with what it is given here.

    Raises:
        KitError: no such example (exit 2); what is given is not there (exit 2).
    """
    if config is None and manifest.example.name not in catalogue.names():
        raise usage_error(
            f"{manifest.example.name} is no example of this kit: the manifest is of a recipe of "
            "somebody's own",
            hint="kit reproduce MANIFEST --config RECIPE.yaml",
        )
    example = catalogue.find(manifest.example.name) if config is None else catalogue.load(config)
    return catalogue.with_given(example, model, dataset)


def image_of(project: Project, manifest: Manifest) -> BuiltImage:
    """The very image that a manifest names; where that is not here, the one that its stack has now.

    Raises:
        KitError: neither is here (exit 2), or the one that is was built from another lock than the
            present one (exit 4).
    """
    layout = Layout(project.images)
    digest = Digest.parse(manifest.image.manifest_digest)
    if not layout.blob(digest).exists():
        return build.built(
            stacks.project_with(project, manifest.stack, manifest.lock), manifest.stack
        )
    image = layout.image(digest, manifest.stack)
    lock = Digest.parse(image.labels.get(LOCK_LABEL, manifest.lock))
    return BuiltImage(manifest.stack, lock, digest, image.image_id, image.labels)


def reproduce(
    project: Project,
    engine: Engine,
    image: BuiltImage,
    path: Path,
    example: Recipe | Program,
    gpus: Gpus | None = None,
    output: Path | None = None,
    *,
    allow_pickle: bool = False,
    tolerance: float | None = None,
) -> Reproduction:
    """Run a manifest's example again with the network off, and compare level by level.

    Args:
        project: where the locks and the store are.
        engine: what runs the containers.
        image: what they are made of; `image_of` says which.
        path: the manifest, or the folder of its run; what lies beside it is looked into.
        example: what it is of; `example_of` says which.
        gpus: None for as many as the manifest had.
        output: folder of the new run, instead of one below the project's runs.
        allow_pickle: the model may have weights that are pickles.
        tolerance: share of the largest logit that a logit may be off; None for that of its type.

    Raises:
        KitError: the host cannot (exit 3), or the request makes no sense (exit 2). A step that
            fails is a result: no level that comes after it is reached.
    """
    path = record.locate(path)
    manifest = record.read(path)
    recorded = side.of_run(manifest, path.parent)
    runs = output or project.runs / FOLDER
    # A stack of the sender's own, or of another state than this project's.
    project = stacks.project_with(project, manifest.stack, manifest.lock)
    site = inputs.of_site(project, manifest, image.manifest_digest)
    digest = Digest.of_file(path)
    chosen = _gpus(manifest) if gpus is None else gpus
    # Which steps were asked for stands in the manifest; of those before them all were done.
    names = tuple(command.name for command in manifest.commands) if manifest.only else ()
    try:
        new = runner.run(
            project,
            engine,
            image,
            example,
            manifest.release,
            runs,
            chosen,
            Choices(
                only=names,
                allow_pickle=allow_pickle,
                triton_stack=manifest.server.stack if manifest.server else None,
            ),
        )
    except KitError as error:
        if error.exit_code is not ExitCode.CONTENT:
            raise
        problem = f"the run stopped: {error}"
        return Reproduction(
            path, digest, manifest, None, None, stopped(recorded, site, problem), problem
        )
    again = record.read(new)
    ladder = compare(recorded, side.of_run(again, new.parent), site, tolerance)
    return Reproduction(path, digest, manifest, new, again, ladder)


def _gpus(manifest: Manifest) -> Gpus:
    """The same request; UUIDs are those of another host, so as many of this one's first GPUs."""
    asked = Gpus.parse(manifest.gpus)
    if any(not device.isdecimal() for device in asked.devices):
        return Gpus(devices=tuple(map(str, range(len(asked.devices)))))
    return asked
