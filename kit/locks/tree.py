"""From the store to a source tree in a folder: top, submodules, objects of Git LFS, all checked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kit.errors import content_error, environment_error, nearest, usage_error
from kit.files import disk_errors, make_folder
from kit.locks import archive, intent, resolve
from kit.locks.contents import TOP, Contents, joined, refuse_escaping
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kit.locks.archive import Member
    from kit.locks.intent import SourceTree
    from kit.locks.lock import Input, Lock
    from kit.project import Project

_WHOLE = 1 << 20
"""Bytes of the largest file that is looked into."""


def unpack(project: Project, lock: Lock, source_name: str, folder: Path) -> None:
    """Put a locked source tree into `folder`, which must not be there or be empty.

    All files get the time stamp of the intent and modes that depend on the commit alone. Each
    submodule gets an empty `.git`: upstream's build scripts take a folder without one for a
    submodule that was never filled, and start git.

    The folder is whole or absent: the work is done beside it and renamed.

    Raises:
        KitError: no such source, the folder is not empty (exit 2); something is not in the store,
            full disk (exit 3); a lock of another intent, a damaged archive, a submodule at another
            commit, a pointer whose object is not locked (exit 4).
    """
    wanted = intent.load(project.intent_path(lock.stack))
    resolve.check_current(lock, wanted)
    sources = {source.name: source for source in wanted.sources}
    if source_name not in sources:
        raise usage_error(
            f"stack {lock.stack} has no source {source_name!r}; {nearest(source_name, sources)}"
        )
    if folder.is_symlink() or (folder.exists() and not (folder.is_dir() and _is_empty(folder))):
        raise usage_error(f"{folder}: expected no such folder, or an empty one")
    with disk_errors(folder), _beside(folder) as partial:
        _Unpacking(lock, sources[source_name], Store(project.store), partial, wanted.epoch).run()
        partial.rename(folder)


@dataclass(slots=True)
class _Unpacking:
    """One tree on its way; `places` are all paths so far, seen from the top."""

    lock: Lock
    source: SourceTree
    store: Store
    folder: Path
    epoch: int
    places: dict[str, str] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    submodules: dict[str, str] = field(default_factory=dict)

    def run(self) -> None:
        inputs = {item.name: item for item in self.lock.select(kind="git", group=self.source.name)}
        if TOP not in inputs:
            raise self._error("the lock has no archive of it")
        objects = {
            item.sha256.hex: item for item in self.lock.select(kind="lfs", group=self.source.name)
        }
        # A place is sorted after those it stands in.
        for place, item in sorted(inputs.items(), key=lambda pair: (pair[0] != TOP, pair[0])):
            self._require_recorded(place, item)
            contents = self._archive(place, item)
            self._fill(place, contents, objects)
        if self.source.submodules and (left := sorted(set(self.submodules) - set(inputs))):
            raise self._error(f"the lock has no archive of submodule {left[0]}")
        refuse_escaping(self.links, f"source {self.source.name}")
        self._stamp()

    def _require_recorded(self, place: str, item: Input) -> None:
        expected = self.source.commit if place == TOP else self.submodules.get(place)
        if expected is None:
            raise self._error(f"the lock has an archive for {place!r}, which is no submodule")
        if item.version != expected:
            what = "its commit" if place == TOP else f"submodule {place}"
            raise self._error(
                f"{what} is another one: expected {expected}, as recorded, the lock has "
                f"{item.version}"
            )

    def _archive(self, place: str, item: Input) -> Contents:
        contents = Contents()
        path = self.store.checked(item.sha256, str(item), self.lock.stack)
        with path.open("rb") as stream:
            for member in archive.members(stream, str(item)):
                self._member(joined(place, member.path), member, contents)
        if place != TOP:
            git = f"{place}/.git"
            self.places[git] = "file"
            self._create(git, 0o644)
        return contents

    def _member(self, path: str, member: Member, contents: Contents) -> None:
        parent = path.rpartition("/")[0]
        self._folder(parent)
        if path in self.places:
            raise self._error(f"refused {path!r}: it stands twice")
        self.places[path] = member.kind
        target = self._target(path)
        if member.kind == "symlink":
            self.links[path] = member.link
            contents.see(member.path, member.kind, archive.as_bytes(member.link))
            target.symlink_to(os.fsdecode(archive.as_bytes(member.link)))
        elif member.kind == "submodule":
            self.places[path] = "folder"
            self.submodules[path] = member.link
            target.mkdir()
        else:
            mode = 0o755 if member.kind == "program" else 0o644
            if member.size <= _WHOLE:
                content = b"".join(member.chunks())
                contents.see(member.path, member.kind, content)
                self._create(path, mode, (content,))
            else:
                self._create(path, mode, member.chunks())

    def _folder(self, path: str) -> None:
        """Make a folder and those above it; anything else on the way is a trick."""
        kind = self.places.get(path)
        if not path or kind == "folder":
            return
        if kind is not None:
            raise self._error(f"refused {path!r}: a folder and a {kind} at once")
        self._folder(path.rpartition("/")[0])
        self.places[path] = "folder"
        self._target(path).mkdir()

    def _target(self, path: str) -> Path:
        return self.folder / os.fsdecode(archive.as_bytes(path))

    def _create(self, path: str, mode: int, content: Iterable[bytes] = ()) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(self._target(path), flags, mode), "wb", buffering=0) as stream:
            for chunk in content:
                rest = memoryview(chunk)
                while rest:
                    rest = rest[stream.write(rest) :]
            os.fchmod(stream.fileno(), mode)

    def _fill(self, place: str, contents: Contents, objects: dict[str, Input]) -> None:
        """Put the objects where their pointers are."""
        where = f"source {self.source.name}: {place}"
        for path, oid, size in contents.wanted(place, self.source.lfs, where):
            whole = joined(place, path)
            item = objects.get(oid)
            if item is None or item.size != size:
                raise self._error(
                    f"{whole} is still a Git LFS pointer: the lock has no object {oid} of "
                    f"{size} bytes"
                )
            with self.store.checked(item.sha256, str(item), self.lock.stack).open("rb") as stream:
                target = self._target(whole)
                mode = target.stat().st_mode & 0o777
                target.unlink()
                self._create(whole, mode, iter(lambda: stream.read(_WHOLE), b""))

    def _stamp(self) -> None:
        """One time for all, folders after what is in them."""
        times = (self.epoch, self.epoch)
        for path in sorted(self.places, reverse=True):
            target = self._target(path)
            if self.places[path] == "folder":
                target.chmod(0o755)
            os.utime(target, times, follow_symlinks=False)
        self.folder.chmod(0o755)
        os.utime(self.folder, times)

    def _error(self, message: str) -> Exception:
        return content_error(
            f"source {self.source.name}: {message}", hint=f"kit lock {self.lock.stack}"
        )


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, for this process alone; nothing stays of it."""
    partial = folder.parent / f".{folder.name}.partial"
    make_folder(partial)
    descriptor = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise environment_error(f"{folder}: another process is unpacking there") from None
        # What a killed process has left; as the lock is held, nobody else is at it.
        for entry in partial.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        try:
            yield partial
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


def _is_empty(folder: Path) -> bool:
    return next(os.scandir(folder), None) is None
