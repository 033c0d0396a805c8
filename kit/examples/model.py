"""A model's folder, put together from the store as the lock says, once per content."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.errors import content_error, nearest, usage_error
from kit.files import disk_errors, locked, write_json
from kit.store import Store

if TYPE_CHECKING:
    from kit.locks.lock import Input, Lock
    from kit.project import Project


@dataclass(frozen=True, slots=True)
class Materialised:
    """A model as a folder of files; whoever uses it only reads it."""

    name: str
    folder: Path
    files: tuple[Input, ...]


def materialise(project: Project, lock: Lock, name: str) -> Materialised:
    """The folder of the model `name` of a lock: hard links into the store, copies across disks.

    Every file is hashed when the folder is made, and again when size, time or inode have changed.

    Raises:
        KitError: the lock has no such model (exit 2), a file is not in the store (exit 3), or is no
            longer what the lock says (exit 4).
    """
    files = tuple(item for item in lock.select(kind="model") if item.group == name)
    if not files:
        known = {item.group for item in lock.select(kind="model")}
        raise usage_error(
            f"stack {lock.stack} has no model {name!r}; {nearest(name, known)}",
            hint=f"name it under models in lockfiles/{lock.stack}.yaml, then kit lock {lock.stack}",
        )
    content = Digest.of_document([[item.file, item.sha256.hex] for item in files])
    home = project.home / "models"
    folder = home / content.short
    stamp = home / f"{content.short}.json"
    with disk_errors(home), locked(home / ".lock"):
        if not folder.is_dir() or _stamp_of(folder) != _read(stamp):
            _assemble(Store(project.store), lock, files, folder)
            write_json(stamp, _stamp_of(folder))
    return Materialised(name, folder, files)


def _assemble(store: Store, lock: Lock, files: tuple[Input, ...], folder: Path) -> None:
    fresh = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        fresh.chmod(0o755)  # the container's user is another one
        for item in files:
            source = store.path(item.sha256, str(item), lock.stack)
            _check(source, item, lock)
            target = fresh / item.file
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _check(source: Path, item: Input, lock: Lock) -> None:
    found = Digest.of_file(source)
    if found != item.sha256 or source.stat().st_size != item.size:
        raise content_error(
            f"{source}: {item} is not what the lock of {lock.stack} says: "
            f"expected {item.sha256}, {item.size} bytes, found {found}",
            hint=f"rm {source}; kit fetch {lock.stack}",
        )


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)
        target.chmod(0o444)


def _stamp_of(folder: Path) -> dict[str, list[int]]:
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        if not path.is_dir() or path.is_symlink():
            name = path.relative_to(folder).as_posix()
            found[name] = [status.st_size, status.st_mtime_ns, status.st_ino]
    return found


def _read(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_bytes())
    except (OSError, ValueError):
        return None
