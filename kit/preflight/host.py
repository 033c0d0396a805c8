"""This host: room on the disks, memory for the compilers, an engine that can build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.console import memory_size, size
from kit.errors import KitError
from kit.files import free_bytes
from kit.host import system
from kit.preflight import needs
from kit.preflight.finding import Finding
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kit.images.engine import Engine
    from kit.locks.intent import Intent
    from kit.locks.lock import Input, Lock
    from kit.project import Project

_ROOM = 16 << 20
"""Bytes that stay free, as the store keeps them."""


def check(
    project: Project, intent: Intent, lock: Lock, engine: Engine | None, jobs: int | None
) -> Iterator[Finding]:
    """Engine, disks, memory."""
    storage: Path | None = None
    if engine is None:
        yield Finding("engine", "unknown", "nobody has looked for one", "kit doctor")
    else:
        found, storage = _engine(engine)
        yield found
    yield kit_disk(project, lock)
    if engine is not None:
        yield _engine_disk(project, intent, lock, engine, storage)
    if intent.release is not None:
        yield _memory(intent.release, jobs)


def kit_disk(project: Project, lock: Lock) -> Finding:
    """Room for what of the lock is not in the store yet."""
    needed, free = _missing_bytes(project, lock), free_bytes(project.store)
    detail = f"{size(free)} free at {project.store}, {size(needed)} still to come"
    if needed and needed + _ROOM > free:
        remedy = "free some, or export KIT_HOME=<a folder on a larger disk>"
        return Finding("kit disk", "failed", detail, remedy)
    return Finding("kit disk", "ok", detail)


def _engine_disk(
    project: Project, intent: Intent, lock: Lock, engine: Engine, storage: Path | None
) -> Finding:
    """Room where the engine unpacks images.

    What is surely needed is the base image, which is at least as large as its compressed blobs;
    what upstream documents for its own image is more, and a warning: what is built already counts
    in it, and a build that goes on needs less.
    """
    name = "engine disk"
    if storage is None:
        why = f"{engine.name} does not say where its storage is on this host"
        return Finding(name, "unknown", why, f"{engine.name} info")
    free = free_bytes(storage)
    blobs: dict[str, Input] = {item.sha256.hex: item for item in lock.select(kind="oci")}
    base = sum(item.size for item in blobs.values())
    shared = _is_same_disk(project.store, storage)
    least = base + (_missing_bytes(project, lock) if shared else 0)
    need = needs.disk(intent.release) if intent.release is not None else None
    detail = f"{size(free)} free at {storage}"
    if shared:
        detail += ", the disk of the kit too"
    remedy = f"{engine.name} image prune, or move its storage to a larger disk"
    if least > free:
        detail += f"; the base image alone takes more than {size(base)}"
        detail += f", with what is to come {size(least)}" if shared and least > base else ""
        return Finding(name, "failed", detail, remedy)
    if need is None:
        return Finding(name, "ok", detail)
    if need.bytes is None:
        return Finding(name, "unknown", f"{detail}; what it takes: {need.hole}")
    detail += f"; upstream documents {size(need.bytes)}"
    if free < need.bytes:
        return Finding(name, "warning", detail, remedy)
    return Finding(name, "ok", detail)


def _engine(engine: Engine) -> tuple[Finding, Path | None]:
    """Whether the engine answers and builds, and where its storage is."""
    from kit.host import engines

    try:
        version = engine.version()
    except KitError as error:
        return Finding("engine", "failed", str(error), error.hint or f"{engine.name} info"), None
    facts, storage, problem = engines.docker() if engine.name == "docker" else engines.podman()
    if facts is None or problem is not None:
        why = problem or f"{engine.name} cannot be asked"
        return Finding("engine", "unknown", f"{engine.name} {version}: {why}", None), storage
    if facts.builder is None:
        remedy = "install docker-buildx, or export KIT_ENGINE=podman"
        detail = f"docker {version}: no docker command builds with BuildKit"
        return Finding("engine", "failed", detail, remedy), storage
    if facts.storage == "vfs":
        detail = f"{engine.name} {version} on vfs: every layer is a full copy of those below"
        remedy = "use overlay: driver in storage.conf, or storage-driver in daemon.json"
        return Finding("engine", "warning", detail, remedy), storage
    detail = f"{engine.name} {version}, {facts.builder}, storage {facts.storage or 'unknown'}"
    return Finding("engine", "ok", detail), storage


def _memory(release: str, jobs: int | None) -> Finding:
    """Memory against what compilers of that release are known to take."""
    memory, processor = system.memory(), system.processor()
    usable = memory.total_bytes
    for bound in (memory.limit_bytes, memory.available_bytes):
        usable = usable if bound is None else min(usable, bound)
    count = jobs or processor.usable_cores
    need = needs.memory_per_job(release)
    has = f"{memory_size(usable)} for {count} compilers at a time"
    if need.bytes is None:
        return Finding("memory", "unknown", f"{has}; what each takes: {need.hole}")
    has += f"; each takes about {memory_size(need.bytes)} or more"
    if usable < need.bytes * count:
        fitting = max(1, usable // need.bytes)
        few = f"kit build --jobs {fitting}, fewer {_ARCHITECTURES}, or more memory or swap"
        return Finding("memory", "warning", f"{has}: they may be killed", few)
    return Finding("memory", "ok", has)


_ARCHITECTURES = "CUDA_ARCHS"


def _missing_bytes(project: Project, lock: Lock) -> int:
    store = Store(project.store)
    wanted = {item.sha256: item for item in lock.inputs}
    return sum(
        max(0, item.size - store.received(item.sha256))
        for item in wanted.values()
        if not store.has(item.sha256, item.size)
    )


def _is_same_disk(one: Path, other: Path) -> bool:
    return _device(one) == _device(other)


def _device(path: Path) -> int | None:
    """The file system of a path that need not exist yet."""
    for place in (path, *path.parents):
        try:
            return place.stat().st_dev
        except OSError:  # noqa: PERF203 (a few folders up)
            continue
    return None
