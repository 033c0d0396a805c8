"""`kit lock`: resolve an intent."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit import images, preflight, project
from kit.commands import stacks
from kit.console import envelope, note, result, size, visible
from kit.errors import KitError, usage_error
from kit.locks import intent
from kit.locks import lock as locks
from kit.locks.resolve import held_against, resolve
from kit.preflight import licences

if TYPE_CHECKING:
    import argparse
    from pathlib import Path


def _present(path: Path) -> locks.Lock | None:
    """The lock that is there; one that cannot be read is about to be replaced."""
    try:
        return locks.load(path) if path.exists() else None
    except KitError as error:
        note(f"replacing a lock that cannot be read: {visible(str(error))}")
        return None


def _refuse_bundled(place: project.Project) -> None:
    """What came with an installed kit is as its release was tested, and gone with its update."""
    if place.is_bundled:
        root = place.root
        raise usage_error(
            f"the project {root} came with the kit and is not to be changed: use a copy of it",
            hint=f"cp -r {shlex.quote(str(root))} trtllm-kit && cd trtllm-kit",
        )


def _refuse_delivered(place: project.Project, stack: str) -> None:
    """A stack that came in a bundle is what its images were built from, and stays that."""
    if not place.owns(stack):
        root = place.root_of(stack)
        raise usage_error(
            f"stack {stack} came with a bundle and is not to be changed: use a copy of {root}",
            hint=f"cp -r {shlex.quote(str(root))} {stack} && KIT_ROOT={stack} kit lock {stack}",
        )


def run(options: argparse.Namespace) -> int:
    """Write `lockfiles/STACK.lock.yaml` and say what changed."""
    place = project.find()
    _refuse_bundled(place)
    stack = stacks.choose(place, options.stack)
    _refuse_delivered(place, stack)
    path = place.lock_path(stack)
    # Locking downloads what decides the rest: a base image, an archive.
    preflight.require(tuple(licences.check(intent.load(place.intent_path(stack)))))
    present = _present(path)
    lock = resolve(place, stack, engine=lambda: images.select(place.home))
    if present is not None:
        lock = held_against(lock, present)
    lock.write(path)
    before = set(present.inputs) if present else set()
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
            unresolved=[{"name": gap.name, "reason": gap.reason} for gap in lock.unresolved],
        )
        return 0
    if before:
        for sign, items in (("-", gone), ("+", added)):
            for item in sorted(items):
                result(f"{sign} {visible(str(item))}")
    for gap in lock.unresolved:
        note(f"unresolved: {visible(str(gap))}")
    result(f"{path}: {len(lock.inputs)} inputs, {size(lock.size)}, {lock.digest}")
    return 0
