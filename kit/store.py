"""The store: fetched inputs by digest, `sha256/ab/abcdef…`; a file in it is whole and right."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kit.console import size as shown_size
from kit.digest import CHUNK, Digest
from kit.errors import ExitCode, KitError, content_error, environment_error
from kit.files import disk_errors, free_bytes, make_folder, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

_LOCK_POLL = 0.1
"""Seconds between two looks at a partial file that another process is writing."""
_HEADROOM = 16 << 20
"""Bytes that stay free on the disk after everything has come."""
_SMALL = 4 << 20
"""Bytes below which a file waits for others, to be made durable together with them."""
_TOGETHER = 128
"""Files that wait; each keeps a descriptor open."""
_NAMED = 5
"""Damaged or missing files that a message names; more are counted."""


class Cancelled(Exception):  # noqa: N818 (a request that was obeyed, no error)
    """The work was called off; what has come so far stays for the next run."""


def refuse_cancelled(cancelled: threading.Event | None) -> None:
    """Stop here if the work was called off.

    Raises:
        Cancelled: it was.
    """
    if cancelled is not None and cancelled.is_set():
        raise Cancelled


class Named(Protocol):
    """What the store is asked for by name, such as an input of a lock; `str()` is the name."""

    @property
    def sha256(self) -> Digest:
        """What the file must hash to."""

    @property
    def size(self) -> int:
        """How long it must be."""


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
            # It tells of no error, unlike a flush of each; whoever uses a file hashes it again.
            os.sync()
            for _, partial, place in rows:
                self.folders.update(_move(partial, place))
        finally:
            for descriptor, _, _ in rows:
                os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Store:
    """A content-addressed folder; readers need no lock, writers lock one digest at a time."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def path(self, digest: Digest, what: str = "", stack: str = "STACK") -> Path:
        """The file with this digest; `what` and `stack` name it in the message if it is absent.

        Raises:
            KitError: it is not in the store (exit 3).
        """
        if not self.has(digest):
            named = f"{what}, {digest}" if what else str(digest)
            raise environment_error(
                f"{named} is not in the store {self.root}", hint=f"kit fetch {stack}"
            )
        return self.place(digest)

    def checked(self, digest: Digest, what: str = "", stack: str = "STACK") -> Path:
        """The file with this digest, like `path`, hashed again: disks forget, people edit.

        A damaged file is taken out, so that the next fetch brings it again; one that came in its
        place meanwhile stays.

        Raises:
            KitError: it is not in the store, or cannot be read (exit 3); it is damaged (exit 4).
        """
        place = self.path(digest, what, stack)
        with disk_errors(place):
            try:
                stream = place.open("rb", buffering=0)
            except FileNotFoundError:  # another process has found it damaged
                return self.path(digest, what, stack)
            with stream:
                found = _hash(stream.fileno())
                if found == digest:
                    return place
                if _is_same(stream.fileno(), place):
                    self.discard(digest)
        raise content_error(
            f"{what or digest}: damaged in the store: {place}: expected {digest}, found {found}; "
            "it was removed",
            hint=f"kit fetch {stack}",
        )

    def check_all(
        self,
        items: Iterable[Named],
        stack: str = "STACK",
        *,
        jobs: int | None = None,
        on_bytes: Callable[[int], object] | None = None,
    ) -> dict[Digest, Path]:
        """The files of all items, each content hashed once, on all cores, in flat memory.

        Damaged files are taken out, like by `checked`; all of them are found before it is said.

        Args:
            items: what is asked for.
            stack: for the hint.
            jobs: files that are hashed at the same time; by default as many as cores.
            on_bytes: told how many bytes have been hashed; one call at a time.

        Returns:
            Digest → file.

        Raises:
            KitError: some are not in the store, or cannot be read (exit 3); some are damaged
                (exit 4).
        """
        from concurrent.futures import ThreadPoolExecutor

        wanted = {item.sha256: item for item in items}
        absent = [item for item in wanted.values() if not self.has(item.sha256)]
        if absent:
            raise environment_error(
                f"{_listed(list(map(str, absent)))} not in the store {self.root}",
                hint=f"kit fetch {stack}",
            )
        # The largest first, so that no long one is left to a single core at the end.
        ordered = sorted(wanted.values(), key=lambda item: (-item.size, item.sha256))
        found: dict[Digest, Path] = {}
        problems: list[KitError] = []
        cores = jobs or len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(max(1, min(cores, len(ordered)))) as pool:
            running = [
                (item, pool.submit(self.checked, item.sha256, str(item), stack)) for item in ordered
            ]
            try:
                for item, task in running:
                    try:
                        found[item.sha256] = task.result()
                    except KitError as error:
                        problems.append(error)
                    if on_bytes is not None:
                        on_bytes(item.size)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if problems:
            raise _together(problems)
        return found

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the file is there, with this size; it is never there in part."""
        try:
            found = self.place(digest).stat().st_size
        except FileNotFoundError:
            return False
        return size is None or size == found

    def received(self, digest: Digest) -> int:
        """Bytes that an interrupted download has left, to be continued."""
        try:
            return self._partial(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def add_file(self, path: Path) -> Digest:
        """Put a copy of the file in, once.

        Raises:
            KitError: it cannot be read (exit 3), or it changed while it was copied (exit 4).
        """
        try:
            digest, size = Digest.of_file(path), path.stat().st_size
            with self.receive(digest, size) as reception:
                copy_file(path, reception)
        except FileNotFoundError as error:
            raise environment_error(f"{path}: no such file") from error
        return digest

    @contextlib.contextmanager
    def receive(
        self,
        digest: Digest,
        size: int,
        *,
        on_bytes: Callable[[int], None] | None = None,
        cancelled: threading.Event | None = None,
        unsettled: Unsettled | None = None,
    ) -> Iterator[Reception]:
        """Take in a file piece by piece, from where an earlier attempt stopped.

        The partial file is locked, so that two processes never write the same one; the second
        waits and finds the file done. Leaving without `finish` keeps the partial for next time.

        Args:
            digest: what the whole file must hash to.
            size: how long the whole file must be.
            on_bytes: told how many bytes have come; negative when they had to be thrown away.
            cancelled: once set, waiting and writing end with `Cancelled`.
            unsettled: gets the new file, for whoever brings many and calls `settle` in the end:
                a small one may be in the store only then.
        """
        with disk_errors(self.root):
            partial = self._partial(digest)
            try:
                descriptor = _open_locked(partial, cancelled)
            except FileNotFoundError:
                make_folder(partial.parent)
                descriptor = _open_locked(partial, cancelled)
        try:
            reception = Reception(self, digest, size, descriptor, on_bytes, cancelled, unsettled)
            if self.has(digest):
                reception.done = True
                partial.unlink(missing_ok=True)
            else:
                reception.resume()
            yield reception
        finally:
            os.close(descriptor)

    def settle(self, unsettled: Unsettled) -> None:
        """Put what still waits into the store, durably.

        Raises:
            KitError: the disk failed (exit 3).
        """
        with disk_errors(self.root):
            unsettled.settle()

    def require_space(self, wanted: Mapping[Digest, int]) -> None:
        """Make sure that what is missing of `wanted` (digest → bytes) fits on the disk.

        Raises:
            KitError: it does not (exit 3).
        """
        missing = sum(
            max(0, size - self.received(digest))
            for digest, size in wanted.items()
            if not self.has(digest)
        )
        free = free_bytes(self.root)
        if missing and missing + _HEADROOM > free:
            raise environment_error(
                f"not enough disk for {self.root}: {shown_size(missing)} are missing, "
                f"{shown_size(free)} are free: free some, or use a larger disk",
                hint="export KIT_HOME=<a folder on a larger disk>",
            )

    def discard(self, digest: Digest) -> None:
        """Take a file out, so that the next fetch brings it again."""
        self.place(digest).unlink(missing_ok=True)

    def place(self, digest: Digest) -> Path:
        """Where the file with this digest lies, whether or not it is there."""
        return self.root / "sha256" / digest.hex[:2] / digest.hex

    def _partial(self, digest: Digest) -> Path:
        return self.root / "partial" / digest.hex


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
        store: Store,
        digest: Digest,
        size: int,
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
        self._store = store
        self._partial = store._partial(digest)  # noqa: SLF001
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
        place = self._store.place(self.digest)
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


def _open_locked(path: Path, cancelled: threading.Event | None) -> int:
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
        if _is_same(descriptor, path):
            return descriptor
        os.close(descriptor)


def _is_same(descriptor: int, path: Path) -> bool:
    """Whether `path` still is the file that was opened."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _hash(descriptor: int) -> Digest:
    hasher = hashlib.sha256()
    size = os.fstat(descriptor).st_size
    # Of a small file the buffer would cost more than the hash.
    buffer = memoryview(bytearray(min(CHUNK, max(size, 1))))
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
    return Digest(hasher.hexdigest())


def _listed(names: Sequence[str]) -> str:
    """`a, b and 7 more are`: the subject of a message about missing files."""
    shown = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"


def _together(problems: Sequence[KitError]) -> KitError:
    """One error for several files; wrong content weighs more than what could not be read."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"  - {problem}" for problem in problems[:_NAMED]]
    if len(problems) > _NAMED:
        lines.append(f"  - and {len(problems) - _NAMED} more")
    return KitError(
        "\n".join([f"{len(problems)} files of the store are not as they should be:", *lines]),
        exit_code=max((problem.exit_code for problem in problems), default=ExitCode.CONTENT),
        hint=problems[0].hint,
    )
