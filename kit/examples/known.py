"""Checkpoints that are known: where the runs lie that have converted which model in which way.

KIT_HOME keeps, for what a conversion works on and does, the run that did it last. Nothing is relied
on unseen: the files are hashed again, and a run that is gone or altered is forgotten.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kit.errors import KitError
from kit.examples import layout, past
from kit.files import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.examples.fingerprints import Fingerprints
    from kit.examples.past import Ground, Past
    from kit.examples.plan import Step
    from kit.manifests.record import Command
    from kit.project import Project


def conversion(steps: Sequence[Step]) -> Sequence[Step]:
    """The steps that a plan begins with and that make nothing but the checkpoint."""
    count = 0
    while count < len(steps) and _only_converts(steps[count]):
        count += 1
    return steps[:count]


def find(
    project: Project, ground: Ground, steps: Sequence[Step], seen: Fingerprints
) -> tuple[Past, tuple[Command, ...]] | None:
    """The run that has done all of these steps, which are a conversion, and what it did."""
    if not steps:
        return None
    ground = _loose(ground)
    record = _record(project, ground, steps)
    try:
        found = past.of_folder(Path(json.loads(record.read_bytes())["run"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError, KitError):
        return None
    found = replace(found, ground=_loose(found.ground))
    commands = found.kept(ground, steps, seen)
    if len(commands) < len(steps):
        record.unlink(missing_ok=True)
        return None
    return found, commands


def remember(
    project: Project,
    ground: Ground,
    steps: Sequence[Step],
    run: Path,
    commands: Sequence[Command],
) -> None:
    """Say that a finished run has done these steps, which are a conversion, if it has."""
    if steps and [step.name for step in steps] == [item.name for item in commands[: len(steps)]]:
        write_json(_record(project, _loose(ground), steps), {"run": str(run)})


def _record(project: Project, ground: Ground, steps: Sequence[Step]) -> Path:
    return project.home / "checkpoints" / f"{ground.identity(steps).hex}.json"


def _loose(ground: Ground) -> Ground:
    """Which GPU converts does not matter; whether one does may."""
    return replace(ground, gpus="none" if ground.gpus == "none" else "all")


def _only_converts(step: Step) -> bool:
    places = [path for path in step.produces if not _is_below(path, layout.CHECKPOINT)]
    return bool(step.produces) and not places


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
