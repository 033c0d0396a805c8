"""The lock against its intent and the tables: whole, of this host's platform, nothing left out."""

from __future__ import annotations

import os
import platform
from typing import TYPE_CHECKING

from kit.artifacts import pointer
from kit.data import releases, sources
from kit.errors import KitError
from kit.locks import resolve
from kit.locks.attributes import Glob
from kit.locks.contents import TOP
from kit.preflight.finding import Finding
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kit.locks.intent import Intent, SourceTree
    from kit.locks.lock import Input, Lock
    from kit.project import Project

_MACHINES = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
_SHOWN = 3


def check(project: Project, intent: Intent, lock: Lock) -> Iterator[Finding]:
    """Everything that files alone can tell."""
    yield from check_lock(intent, lock)
    yield _platform(intent)
    yield from _inputs(project, lock)
    if lock.unresolved:  # which says of what nothing more can be told yet
        return
    if intent.images:
        yield _images(intent, lock)
    found = [_trees(source, lock) for source in intent.sources]
    found += [_submodules(intent, source, lock) for source in intent.sources if source.submodules]
    found += [_objects(project, intent, source, lock) for source in intent.sources if source.lfs]
    yield from _merged(found)


def check_lock(intent: Intent, lock: Lock) -> Iterator[Finding]:
    """Whether the lock is of this intent and pins everything."""
    try:
        resolve.check_current(lock, intent)
        lock.require_resolved()
    except KitError as error:
        yield Finding("lock", "failed", str(error), error.hint)
    else:
        yield Finding("lock", "ok", f"{lock.digest}, {len(lock.inputs)} inputs")


def check_tree(folder: Path, patterns: Iterable[str] = ("**",)) -> Finding:
    """Whether a source tree in a folder still has Git LFS pointers where files are needed.

    Args:
        folder: an unpacked tree or a clone.
        patterns: the files that are needed, as in an intent's `lfs`.
    """
    globs = [Glob(pattern) for pattern in patterns]
    left = sorted(path for path in _pointers(folder) if any(glob.fits(path) for glob in globs))
    if not left:
        return Finding("git lfs", "ok", f"{folder}: every file is the file itself")
    more = f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else ""
    return Finding(
        "git lfs",
        "failed",
        f"{folder}: Git LFS pointers instead of files: {', '.join(left[:_SHOWN])}{more}",
        f"git -C {folder} lfs pull",
    )


def _pointers(folder: Path, below: str = "") -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if entry.name != ".git":
                    yield from _pointers(folder / entry.name, f"{below}{entry.name}/")
            elif (
                entry.is_file(follow_symlinks=False)
                and entry.stat(follow_symlinks=False).st_size < pointer.LARGEST
                and pointer.is_at(folder / entry.name)
            ):
                yield f"{below}{entry.name}"


def _merged(findings: Iterable[Finding]) -> Iterator[Finding]:
    """What is well on one line for each name, everything else on its own."""
    well: dict[str, list[str]] = {}
    for finding in findings:
        if finding.state == "ok":
            well.setdefault(finding.name, []).append(finding.detail)
        else:
            yield finding
    for name, details in well.items():
        yield Finding(name, "ok", "; ".join(details))


def _platform(intent: Intent) -> Finding:
    machine = platform.machine()
    found = _MACHINES.get(machine, f"linux/{machine}")
    if found == intent.platform:
        return Finding("platform", "ok", found)
    return Finding(
        "platform",
        "failed",
        f"{intent.stack} is for {intent.platform}, this host is {found}",
        f"build it on a host of {intent.platform}; nothing is emulated",
    )


def _inputs(project: Project, lock: Lock) -> Iterator[Finding]:
    """What is in the store; the build itself refuses those of its stages that are not."""
    store = Store(project.store)
    wanted = {item.sha256: item for item in lock.inputs}
    missing = [item for item in wanted.values() if not store.has(item.sha256, item.size)]
    if not missing:
        yield Finding("inputs", "ok", f"all {len(wanted)} are in the store")
        return
    yield Finding(
        "inputs",
        "warning",
        f"{len(missing)} of {len(wanted)} are not in the store, such as {missing[0]}",
        f"kit fetch {lock.stack}",
    )


def _images(intent: Intent, lock: Lock) -> Finding:
    """Each image of the intent has one manifest among the blobs of the lock."""
    for image in intent.images:
        manifests = [
            item
            for item in lock.select(kind="oci", group=image.name)
            if str(item.sha256) == item.version
        ]
        if len(manifests) != 1:
            return Finding(
                "base image",
                "failed",
                f"image {image.name} ({image.reference}): expected one manifest in the lock, "
                f"found {len(manifests)}",
                f"kit lock {lock.stack}",
            )
    return Finding("base image", "ok", ", ".join(image.reference for image in intent.images))


def _trees(source: SourceTree, lock: Lock) -> Finding:
    tops = [item for item in lock.select(kind="git", group=source.name) if item.name == TOP]
    if [item.version for item in tops] == [source.commit]:
        return Finding("sources", "ok", f"{source.name} at {source.commit}")
    found = ", ".join(item.version for item in tops) or "none"
    return Finding(
        "sources",
        "failed",
        f"source {source.name}: expected commit {source.commit}, the lock has {found}",
        f"kit lock {lock.stack}",
    )


def _submodules(intent: Intent, source: SourceTree, lock: Lock) -> Finding:
    """The submodules that the table knows of the release, at their commits."""
    name = "submodules"
    locked = {
        item.name: item.version
        for item in lock.select(kind="git", group=source.name)
        if item.name != TOP
    }
    told = _of_release(intent, source)
    if told is None:  # of another project: the lock has what its commit recorded
        return Finding(name, "ok", f"{source.name}: {len(locked)} in the lock")
    fact = releases.fact(told, "submodules")
    if fact.value is None:
        detail = f"{source.name}: {len(locked)} in the lock, no table to compare with: {fact.hole}"
        return Finding(name, "unknown", detail)
    wrong = [
        f"{row['path']}: expected {row['commit']}, found {locked.get(row['path'], 'none')}"
        for row in fact.value
        if locked.get(row["path"]) != row["commit"]
    ]
    if wrong:
        detail = f"source {source.name}: {'; '.join(wrong[:_SHOWN])}"
        return Finding(name, "failed", detail, f"kit lock {lock.stack}")
    return Finding(name, "ok", f"{source.name}: {len(locked)} at their commits")


def _objects(project: Project, intent: Intent, source: SourceTree, lock: Lock) -> Finding:
    """The objects of Git LFS that the intent asks for: there, of their true size, no pointers."""
    name = "git lfs"
    locked = {item.sha256.hex: item for item in lock.select(kind="lfs", group=source.name)}
    remedy = f"kit lock {lock.stack}"
    if not locked:
        patterns = ", ".join(source.lfs)
        detail = f"source {source.name}: the lock has no object for {patterns}"
        return Finding(name, "failed", detail, remedy)
    if (stub := _stub(project, locked.values())) is not None:
        detail = f"source {source.name}: {stub} is a Git LFS pointer itself, not what it points to"
        return Finding(name, "failed", detail, remedy)
    told = _of_release(intent, source)
    if told is None:
        return Finding(name, "ok", f"{source.name}: {len(locked)} objects in the lock")
    fact = sources.fact(told, "lfs")
    if fact.value is None:
        detail = f"{source.name}: {len(locked)} objects in the lock, no table to compare with"
        return Finding(name, "unknown", f"{detail}: {fact.hole}")
    globs = [Glob(pattern) for pattern in source.lfs]
    for row in fact.value:
        if not any(glob.fits(row["path"]) for glob in globs):
            continue
        item = locked.get(row["oid"])
        if item is None or item.size != row["size"]:
            found = "no such object" if item is None else f"{item.size} bytes"
            return Finding(
                name,
                "failed",
                f"source {source.name}: {row['path']}: expected {row['oid']}, {row['size']} bytes, "
                f"the lock has {found}",
                remedy,
            )
    return Finding(name, "ok", f"{source.name}: {len(locked)} objects of their true sizes")


def _stub(project: Project, objects: Iterable[Input]) -> Input | None:
    """An object in the store that is a pointer: somebody committed one in place of the file."""
    store = Store(project.store)
    for item in objects:
        is_small = item.size < pointer.LARGEST and store.has(item.sha256)
        if is_small and pointer.is_at(store.path(item.sha256)):
            return item
    return None


def _of_release(intent: Intent, source: SourceTree) -> str | None:
    """The release whose commit a source is at, if it is the intent's."""
    release = intent.release
    if release is None or release not in releases.order():
        return None
    return release if sources.commit(release) == source.commit else None
