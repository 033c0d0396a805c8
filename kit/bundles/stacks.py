"""Stacks that came in a bundle: each is a small project of its own, and found by its name.

`Project.roots_of` looks them up after the project's own, so that what a sender has made without
the kit's catalogue is built, run and reproduced at the site as if it were.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.errors import content_error

if TYPE_CHECKING:
    from pathlib import Path

    from kit.bundles.verifier import Index
    from kit.digest import Digest
    from kit.project import Project

_ROLES = ("intent", "lock")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


def check(index: Index) -> None:
    """Refuse a bundle in which something is called a stack and would not be found as one.

    Raises:
        KitError: its intent or its lock stands elsewhere (exit 4).
    """
    for content in index.contents:
        name = content.name
        if content.kind != "stack":
            continue
        wanted = {f"lockfiles/{name}.yaml": "intent", f"lockfiles/{name}.lock.yaml": "lock"}
        found = {file.title: file.role for file in content.files if file.role in _ROLES}
        if not _NAME.fullmatch(name) or found != wanted:
            raise content_error(
                f"stack {name}: expected {' and '.join(wanted)}, found {', '.join(found) or 'none'}"
            )


def digest_of(project: Project, stack: str) -> Digest | None:
    """The digest of the project's own lock of a stack; None where it has none of its own."""
    from kit.locks import lock as locks

    path = project.root / "lockfiles" / f"{stack}.lock.yaml"
    return locks.load(path).digest if project.owns(stack) and path.exists() else None


def notes(project: Project, stack: str, place: Path) -> list[str]:
    """What whoever loads should know of a stack that lies at `place` now."""
    from kit.locks import lock as locks

    if not project.owns(stack):
        return [f"stack {stack} came with the bundle: kit build and kit run find it in {place}"]
    carried = locks.load(place / "lockfiles" / f"{stack}.lock.yaml").digest
    own = digest_of(project, stack)
    if own == carried:
        return []
    note = (
        f"the lock of {stack} in {project.root} ({own}) is not the bundle's ({carried}): kit run "
        f"and kit build take the former, kit reproduce that of its manifest; KIT_ROOT={place} "
        "takes the bundle's"
    )
    return [note]


def project_with(project: Project, stack: str, lock: str) -> Project:
    """The project whose lock of a stack has that digest: this one, or what a bundle brought.

    Where none has it, this one: then whoever compares finds another lock.
    """
    from kit.locks import lock as locks

    for root in project.roots_of(stack):
        path = root / "lockfiles" / f"{stack}.lock.yaml"
        if path.exists() and str(locks.load(path).digest) == lock:
            return project._replace(root=root)
    return project
