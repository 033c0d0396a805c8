"""`kit lock`: resolve an intent."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit import project
from kit.commands import stacks
from kit.console import envelope, note, result, size
from kit.errors import KitError, usage_error
from kit.locks import lock as locks
from kit.locks.resolve import resolve

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def _inputs(path: Path) -> set[locks.Input]:
    """The inputs of the lock that is there; one that cannot be read is about to be replaced."""
    try:
        return set(locks.load(path).inputs) if path.exists() else set()
    except KitError as error:
        note(f"replacing a lock that cannot be read: {error}")
        return set()


def _refuse_bundled(place: project.Project) -> None:
    """What came with an installed kit is as its release was tested, and gone with its update."""
    if place.is_bundled:
        root = place.root
        raise usage_error(
            f"the project {root} came with the kit and is not to be changed: use a copy of it",
            hint=f"cp -r {shlex.quote(str(root))} trtllm-kit && cd trtllm-kit",
        )


def run(options: argparse.Namespace) -> int:
    """Write `lockfiles/STACK.lock.yaml` and say what changed."""
    place = project.find()
    _refuse_bundled(place)
    stack = stacks.choose(place, options.stack)
    path = place.lock_path(stack)
    before = _inputs(path)
    lock = resolve(place, stack)
    lock.write(path)
    added, gone = set(lock.inputs) - before, before - set(lock.inputs)
    if options.json:
        envelope(
            "lock",
            ok=True,
            stack=stack,
            lock=str(lock.digest),
            inputs=[{"name": item.name, "version": item.version} for item in lock.inputs],
            added=[{"name": str(item)} for item in sorted(added)],
            removed=[{"name": str(item)} for item in sorted(gone)],
        )
        return 0
    if before:
        for sign, items in (("-", gone), ("+", added)):
            for item in sorted(items):
                result(f"{sign} {item}")
    result(f"{path}: {len(lock.inputs)} inputs, {size(lock.size)}, {lock.digest}")
    return 0
