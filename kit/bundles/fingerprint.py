"""Digests of many files on all cores, remembered for as long as nothing changes.

A file is the same one while device, inode, size and both times are; one that had changed a moment
before it was hashed may have changed again within the same tick, and is not remembered.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from kit.errors import content_error, usage_error
from kit.files import disk_errors, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

Mark = tuple[int, int, int, int, int]
_SETTLED = 2_000_000_000
"""Nanoseconds after which a change gets another time."""
_SAVE_EVERY = 5.0
"""Seconds of hashing that a kill may cost."""
_MOST = 100_000
"""Digests that are remembered; the oldest go."""
_SAMPLE = 4096
SMALL = 1 << 16
"""Bytes of a file whose content costs less than its name."""


class Print(NamedTuple):
    """A file's mark when it was hashed, and its digest.

    Attributes:
        mark: what would be another one after a change.
        digest: of its content, as hex.
        settled: whether that holds for every change since; `is_settled`.
    """

    mark: Mark
    digest: str
    settled: bool = True

    @property
    def size(self) -> int:
        """Bytes."""
        return self.mark[2]


def mark_of(status: os.stat_result) -> Mark:
    """What tells one state of a file from another."""
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *times


def is_settled(mark: Mark, start: int) -> bool:
    """Whether a change after `start` (nanoseconds), when hashing began, would show in the mark."""
    latest = start - _SETTLED
    # A change sets both; what is still to come has been set by somebody, and would not stay.
    return mark[4] < latest and not latest <= mark[3] <= start


def looked_at(path: str) -> Mark:
    """The mark of a file as it is now.

    Raises:
        KitError: not there (exit 2), no regular file (exit 4), cannot be read (exit 3).
    """
    return mark_of(_status(path))


class Memory:
    """Digests by mark, also those of earlier processes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = _read(path)
        self._fresh: dict[Mark, str] = {}
        self._lock = threading.Lock()
        self._saved = time.monotonic()

    def find(self, mark: Mark) -> Print | None:
        """What is known of a file."""
        digest = self._known.get(mark)
        return None if digest is None else Print(mark, digest)

    def hash(self, path: str, on_bytes: Callable[[int], object]) -> Print:
        """Hash a file; may be called by several threads.

        Raises:
            KitError: as of `hashed`.
        """
        return self.note(hashed(path, on_bytes))

    def note(self, found: Print) -> Print:
        """Keep what was hashed; may be called by several threads."""
        with self._lock:
            if found.settled:
                self._fresh[found.mark] = found.digest
            if self._fresh and time.monotonic() - self._saved > _SAVE_EVERY:
                self._save()
        return found

    def save(self) -> None:
        """Write down what was hashed."""
        with self._lock:
            if self._fresh:
                self._save()

    def _save(self) -> None:
        rows = [[*mark, one] for mark, one in ({**self._known, **self._fresh}).items()][-_MOST:]
        text = json.dumps(rows, separators=(",", ":")).encode()
        write_bytes(self._path, text, durable=False)  # what is lost is hashed again
        self._saved = time.monotonic()


def hashed_for_good(path: str) -> Print:
    """Hash a file after a while in which nothing changed: every later change shows in its mark.

    Raises:
        KitError: as of `hashed`.
    """
    before = mark_of(_status(path))
    if not is_settled(before, time.time_ns()):
        time.sleep(_SETTLED / 1e9)  # by whatever clock the disk has, the next change is later
    found = hashed(path)
    return found._replace(settled=found.mark == before)


def hashed(path: str, on_bytes: Callable[[int], object] = lambda _: None) -> Print:
    """Hash a file.

    Raises:
        KitError: it changed meanwhile (exit 4), or cannot be read (exit 3).
    """
    hasher = hashlib.sha256()

    def add(piece: bytes | memoryview) -> None:
        hasher.update(piece)
        on_bytes(len(piece))

    start = time.time_ns()
    mark = read_all(path, add)
    return Print(mark, hasher.hexdigest(), is_settled(mark, start))


def read_all(path: str, add: Callable[[bytes | memoryview], object]) -> Mark:
    """Hand over a file piece by piece, each overwritten by the next; returns its mark.

    Raises:
        KitError: it changed meanwhile (exit 4), or cannot be read (exit 3).
    """
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            before = mark_of(os.fstat(descriptor))
            length = 0
            for piece in _pieces(descriptor, before[2]):
                add(piece)
                length += len(piece)
            after = mark_of(os.fstat(descriptor))
        finally:
            os.close(descriptor)
    if after != before or length != before[2]:
        raise content_error(f"{path}: changed while it was read", hint="try again")
    return before


def _pieces(descriptor: int, size: int) -> Iterator[bytes | memoryview]:
    """All bytes of a file; each piece is overwritten by the next."""
    if size < SMALL:  # a buffer would cost more than its content
        yield os.read(descriptor, SMALL)
        return
    from kit.digest import CHUNK

    buffer = memoryview(bytearray(CHUNK))
    while count := os.readv(descriptor, [buffer]):
        yield buffer[:count]


def batches(files: Mapping[str, Mark]) -> Iterator[list[str]]:
    """Small ones in one batch, then the largest first: no long one is left to a single core.

    What a small one costs is the interpreter, of which there is one for all threads.
    """
    from kit.digest import CHUNK

    small = [path for path, mark in files.items() if mark[2] < SMALL]
    if small:
        yield small
    batch: list[str] = []
    size = 0
    large = [path for path, mark in files.items() if mark[2] >= SMALL]
    for path in sorted(large, key=lambda path: (-files[path][2], path)):
        batch.append(path)
        size += files[path][2] + 4096
        if size >= 4 * CHUNK:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def unique(marks_: Mapping[str, Mark], least: int) -> list[str]:
    """Files of `least` bytes or more that are like no other one, by size or by a sample."""
    sizes: dict[int, list[str]] = {}
    for path, mark in marks_.items():
        if mark[2] >= least:
            sizes.setdefault(mark[2], []).append(path)
    found = []
    for size, paths in sizes.items():
        samples = [_sample(path, size) for path in paths] if paths[1:] else [b""]
        counts = Counter(samples)
        found += [path for path, own in zip(paths, samples, strict=True) if counts[own] == 1]
    return found


def _sample(path: str, size: int) -> bytes:
    """A few bytes of a file: two files with different samples are different."""
    hasher = hashlib.sha256()
    with disk_errors(path), open(path, "rb", buffering=0) as stream:  # noqa: PTH123
        for place in (0, size // 2, max(0, size - _SAMPLE)):
            hasher.update(os.pread(stream.fileno(), _SAMPLE, place))
    return hasher.digest()


def _status(path: str) -> os.stat_result:
    with disk_errors(path):
        try:
            status = os.stat(path)  # noqa: PTH116
        except FileNotFoundError as error:
            raise usage_error(f"{path}: there is no such file") from error
    if not stat.S_ISREG(status.st_mode):
        raise content_error(f"{path}: expected a regular file: nothing else can be carried")
    return status


def _read(memory: Path) -> dict[Mark, str]:
    from kit.digest import Digest

    try:
        rows: Any = json.loads(memory.read_bytes())
        return {
            (int(a), int(b), int(c), int(d), int(e)): Digest(digest).hex
            for a, b, c, d, e, digest in rows
        }
    except (OSError, ValueError, TypeError):
        return {}  # none yet, or damaged: hashed again
