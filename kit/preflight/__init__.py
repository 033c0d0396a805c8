"""What would stop a fetch or a build after minutes or hours, found out in seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.preflight import architectures, content, host, licences, network
from kit.preflight.finding import Finding, render, require

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.images.engine import Engine
    from kit.locks.intent import Intent
    from kit.locks.lock import Lock
    from kit.project import Project

__all__ = ["Finding", "check", "check_fetch", "render", "require"]


def check(
    project: Project,
    intent: Intent,
    lock: Lock,
    engine: Engine | None,
    *,
    arguments: Iterable[tuple[str, str]] = (),
    jobs: int | None = None,
    offline: bool = True,
) -> tuple[Finding, ...]:
    """Everything that a build needs, in the order of its importance; nothing is changed.

    Args:
        project: where the store is.
        intent: what the stack is to be made of.
        lock: what it is, exactly.
        engine: what will build; None where nobody has looked for one.
        arguments: build arguments that differ from the lock's.
        jobs: compilers at a time; None for one a core.
        offline: ask no host; a build never does.
    """
    given = {**dict(lock.arguments), **dict(arguments)}
    return (
        *content.check(project, intent, lock),
        *licences.check(intent),
        *architectures.check(intent, given),
        *host.check(project, intent, lock, engine, jobs),
        *network.check(project, lock, offline=offline),
    )


def check_fetch(
    project: Project, intent: Intent, lock: Lock, *, offline: bool = False
) -> tuple[Finding, ...]:
    """What a fetch needs: a lock that is whole, licences, room, and hosts that answer."""
    found = (
        *content.check_lock(intent, lock),
        *licences.check(intent),
        host.kit_disk(project, lock),
    )
    # Nobody is asked for files whose terms nobody has accepted.
    is_ready = all(finding.state != "failed" for finding in found)
    return (*found, *network.check(project, lock, offline=offline or not is_ready))
