"""`kit fetch`: fill the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit import preflight, project
from kit.bundles import wheels
from kit.commands import stacks
from kit.console import envelope, note, result, size
from kit.locks import fetch, intent
from kit.locks import lock as locks

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Download what is missing, by digest."""
    place = project.find()
    if options.stack == wheels.STACK:
        stack, lock = wheels.STACK, locks.load(wheels.lock_path(place))
    else:
        stack = stacks.choose(place, options.stack)
        lock = _checked(place, stack)
    report = fetch.fetch(place, lock, jobs=options.jobs)
    if options.json:
        envelope(
            "fetch",
            ok=True,
            stack=stack,
            fetched=report.fetched,
            present=report.present,
            bytes=report.bytes,
            origins=[
                {"name": name, "count": count} for name, count in sorted(report.origins.items())
            ],
            seconds=round(report.seconds, 3),
        )
        return 0
    result(
        f"{stack}: {len(lock.inputs)} inputs in the store; fetched {report.fetched} "
        f"({size(report.bytes)}) in {report.seconds:.1f} s"
    )
    return 0


def _checked(place: project.Project, stack: str) -> locks.Lock:
    """The lock of a stack, once nothing stands in the way of fetching it."""
    lock = locks.load(place.lock_path(stack))
    wanted = intent.load(place.intent_path(stack))
    findings = preflight.check_fetch(place, wanted, lock)
    preflight.require(findings)
    for finding in findings:
        if finding.state != "ok":
            note(f"{finding.state}: {finding.name}: {finding.detail}")
    return lock
