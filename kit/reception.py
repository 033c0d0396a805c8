"""A file on its way into the store: it may come in pieces, be called off, and go on later."""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

from kit.digest import CHUNK, Digest
from kit.errors import content_error
from kit.files import disk_errors, make_folder, sync_disk, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LOCK_POLL = 0.1
"""Seconds between two looks at a partial file that another process is writing."""
_SMALL = 4 << 20
"""Bytes below which a file waits for others, to be made durable together with them."""
_TOGETHER = 128
"""Files that wait; each keeps a descriptor open."""


class Cancelled(Exception):  # noqa: N818 (a request that was obeyed, no error)
    """The work was called off; what has come so far stays for the next run."""


def refuse_cancelled(cancelled: threading.Event | None) -> None:
    """Stop here if the work was called off.

    Raises:
        Cancelled: it was.
    """
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


class Unsettled:
    """Files of many downloads that are right and not yet durable, by one thread or several.

    A flush of its own for each of a thousand small files is most of what they cost. They keep
    their partial names, and the locks on them, until all of them are on the disk. A process that
    ends before leaves partial files that are whole: the next one finds nothing missing in them.
    """

    def __init__(self) -> None:
        self.folders: set[Path] = set()
        """With new names in them, which a power cut may take away."""
        self._waiting: list[tuple[int, Path, Path]] = []
        self._lock = threading.Lock()

    def add(self, descriptor: int, partial: Path, place: Path) -> None:
        """Take a file that is whole; what waits is moved into the store once there is enough."""
        with self._lock:
            self._waiting.append((os.dup(descriptor), partial, place))
            rows = self._taken() if len(self._waiting) >= _TOGETHER else []
        self._move(rows)

    def settle(self) -> None:
        """Move what waits into the store, and make all new names survive a power cut."""
        with self._lock:
            rows = self._taken()
        self._move(rows)
        while self.folders:
            sync_folder(self.folders.pop())

    def _taken(self) -> list[tuple[int, Path, Path]]:
        rows, self._waiting = self._waiting, []
        return rows

    def _move(self, rows: list[tuple[int, Path, Path]]) -> None:
        if not rows:
            return
        try:
            sync_disk(rows[0][1].parent)
            for _, partial, place in rows:
                self.folders.update(_move(partial, place))
        finally:
            for descriptor, _, _ in rows:
                os.close(descriptor)


class Reception:
    """One file on its way into the store: hashed as it comes, in the store only when it is right.

    Attributes:
        done: the file is in the store, or waits to be put there; nothing more to send.
        offset: bytes that have come; the next `write` continues there.
        resumed: the first bytes come from an earlier attempt.
        origin: where the bytes come from, for messages; whoever writes sets it, free of secrets.
    """

    def __init__(
        self,
        digest: Digest,
        size: int,
        place: Path,
        partial: Path,
        descriptor: int,
        on_bytes: Callable[[int], None] | None,
        cancelled: threading.Event | None,
        unsettled: Unsettled | None = None,
    ) -> None:
        self.digest = digest
        self.size = size
        self.origin = str(digest)
        self.done = False
        self.offset = 0
        self.resumed = False
        self.cancelled = cancelled
        self._place = place
        self._partial = partial
        self._descriptor = descriptor
        self._on_bytes = on_bytes
        self._unsettled = unsettled
        self._hasher = hashlib.sha256()

    def resume(self) -> None:
        """Hash what an earlier attempt left."""
        left = os.fstat(self._descriptor).st_size
        if left > self.size:
            os.ftruncate(self._descriptor, 0)
        if not 0 < left <= self.size:
            return
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        buffer = memoryview(bytearray(CHUNK))
        while count := os.readv(self._descriptor, [buffer]):
            refuse_cancelled(self.cancelled)
            self._hasher.update(buffer[:count])
            self._count(count)
        self.resumed = self.offset > 0

    def restart(self) -> None:
        """Throw away what has come and begin at the first byte."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._hasher = hashlib.sha256()
        self._count(-self.offset)
        self.resumed = False

    def write(self, chunk: bytes | memoryview) -> None:
        """Append `chunk`.

        Raises:
            KitError: more has come than there should be (exit 4), or the disk is full (exit 3).
            Cancelled: the work was called off.
        """
        refuse_cancelled(self.cancelled)
        if self.offset + len(chunk) > self.size:
            self._remove()
            raise content_error(
                f"{self.origin}: wrong size: expected {self.size} bytes, found more; "
                "nothing of it was kept"
            )
        with disk_errors(self._partial):
            rest = memoryview(chunk)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        self._hasher.update(chunk)
        self._count(len(chunk))

    @property
    def complete(self) -> bool:
        """All bytes have come; whether they are right, `finish` says."""
        return self.offset == self.size

    @property
    def matches(self) -> bool:
        """What has come is the file that was asked for."""
        return self.complete and self._hasher.hexdigest() == self.digest.hex

    def finish(self) -> None:
        """Move the file into the store if it is right; otherwise leave nothing of it.

        Raises:
            KitError: size or digest differ (exit 4); the disk failed (exit 3).
        """
        if not self.matches:
            found = f"sha256:{self._hasher.hexdigest()}, {self.offset} bytes"
            self._remove()
            raise content_error(
                f"{self.origin}: wrong content: expected {self.digest}, {self.size} bytes, "
                f"found {found}; nothing of it was kept"
            )
        place = self._place
        with disk_errors(place):
            os.fchmod(self._descriptor, 0o444)
            if self._unsettled is not None and self.size < _SMALL:
                self._unsettled.add(self._descriptor, self._partial, place)
            else:
                os.fsync(self._descriptor)
                folders = _move(self._partial, place)
                if self._unsettled is not None:
                    self._unsettled.folders.update(folders)
                else:
                    for folder in folders:
                        sync_folder(folder)
        self.done = True

    def refuse(self) -> None:
        """Leave nothing of what has come: its source does not have the file that was asked for."""
        self._remove()

    def _remove(self) -> None:
        self._partial.unlink(missing_ok=True)

    def _count(self, change: int) -> None:
        self.offset += change
        if self._on_bytes is not None and change:
            self._on_bytes(change)


def _move(partial: Path, place: Path) -> list[Path]:
    """Give a file its name in the store; returns the folders that have new names."""
    try:
        partial.replace(place)
    except FileNotFoundError:
        make_folder(place.parent)
        partial.replace(place)
        return [place.parent, place.parent.parent]
    return [place.parent]


def copy_file(path: Path, reception: Reception) -> None:
    """Copy a local file into the store, unless it is there."""
    if reception.done:
        return
    reception.origin = str(path)
    reception.restart()
    with path.open("rb", buffering=0) as stream:
        buffer = memoryview(bytearray(CHUNK))
        while count := stream.readinto(buffer):
            reception.write(buffer[:count])
    reception.finish()


def open_locked(path: Path, cancelled: threading.Event | None) -> int:
    """Open and lock `path`; a file that was renamed or removed while waiting is opened anew."""
    while True:
        refuse_cancelled(cancelled)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            time.sleep(_LOCK_POLL)
            continue
        except BaseException:
            os.close(descriptor)
            raise
        if is_same(descriptor, path):
            return descriptor
        os.close(descriptor)


def is_same(descriptor: int, path: Path) -> bool:
    """Whether `path` still is the file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
