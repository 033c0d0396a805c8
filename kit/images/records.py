"""What is written down of builds: which image came out, of a stage and of a stack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from kit.digest import Digest
from kit.errors import KitError
from kit.images.oci import Layout

if TYPE_CHECKING:
    from pathlib import Path

    from kit.images.stages import Plan
    from kit.project import Project


def of_stack(project: Project, stack: str, target: str | None = None) -> Path:
    """Where the record of a stack's image lies, or of the image of one of its other stages."""
    name = stack if target is None else f"{stack}@{target}"
    return project.images / "builds" / f"{name}.json"


def of_stage(project: Project, key: Digest) -> Path:
    """Where the record of a stage lies; stacks that have one in common share it."""
    return project.images / "stages" / f"{key.hex}.json"


def read(path: Path) -> dict[str, Any] | None:
    """A record; None if there is none."""
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def finished(project: Project, plan: Plan) -> dict[str, Any] | None:
    """The record of a stage that is done and whose image is whole."""
    record = read(of_stage(project, plan.key)) if plan.key else None
    if record is None:
        return None
    try:
        Layout(project.images).image(Digest.parse(record["manifest_digest"]))
    except KitError:
        return None
    return record


def stage_log(project: Project, stack: str, stage: str) -> Path:
    """The log of the last build of a stage."""
    return project.home / "logs" / f"build-{stack}-{stage}.log"
