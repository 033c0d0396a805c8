"""A model's folder, put together from the store as the lock says, once per content."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.errors import nearest, usage_error
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

    Every file is hashed when the folder is made, and again when mode, size, time or inode have
    changed.

    Raises:
        KitError: the lock has no such model (exit 2), a file is not in the store (exit 3), or is no
            longer what the lock says (exit 4).
    """
    files = tuple(item for item in lock.select(kind="model") if item.group == name)
    if not files:
        known = {item.group for item in lock.select(kind="model")}
        raise usage_error(
            f"stack {lock.stack} has no model {name!r}; {nearest(name, known)}; "
            f"it locks those under models in lockfiles/{lock.stack}.yaml, and kit run takes one of "
            "your own with --model DIR",
            hint=f"kit lock {lock.stack}",
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
        for item in files:
            source = store.checked(item.sha256, str(item), lock.stack)
            target = fresh / item.file
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(source, target)
        _make_readable(fresh)
        if folder.exists():
            shutil.rmtree(folder)
        fresh.rename(folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def _make_readable(folder: Path) -> None:
    """Let the container's user, who is another one, read everything, whatever the umask."""
    for path in (folder, *folder.rglob("*")):
        mode = 0o755 if path.is_dir() else 0o444
        if stat.S_IMODE(path.stat().st_mode) != mode:
            path.chmod(mode)


def _stamp_of(folder: Path) -> dict[str, list[int]]:
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        status = path.lstat()
        name = path.relative_to(folder).as_posix()
        found[name] = [status.st_mode]
        if not stat.S_ISDIR(status.st_mode):
            found[name] += [status.st_size, status.st_mtime_ns, status.st_ino]
    return found


def _read(stamp: Path) -> object:
    try:
        return json.loads(stamp.read_bytes())
    except (OSError, ValueError):
        return None
