"""Digests of files that are large and asked for again: hashed once as long as nothing changes.

A file is the same one while inode, size and time of change of its content are.
"""

from __future__ import annotations

import json
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from kit.digest import Digest
from kit.errors import content_error
from kit.files import disk_errors, write_json
from kit.manifests.record import File

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_Mark = tuple[int, int, int, int]

_SETTLED = 2_000_000_000
"""Nanoseconds: a file changed later than that may change again without a new time."""


class Fingerprints:
    """Digests by inode, size and time; with a `memory`, those of earlier processes too."""

    def __init__(self, memory: Path | None = None) -> None:
        self._memory = memory
        self._known: dict[_Mark, str] = {} if memory is None else _read(memory)
        self._new: dict[_Mark, str] = {}

    def files(self, folder: Path, names: Iterable[str]) -> list[File]:
        """Size and digest of regular files below `folder`, in the order of `names`.

        Raises:
            KitError: a name or its kind cannot be recorded (exit 4), the disk fails (exit 3).
        """
        with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
            return list(pool.map(lambda name: self._file(folder, name), names))

    def remember(self) -> None:
        """Keep what was hashed for later processes; what is too fresh to be sure of is left out."""
        latest = time.time_ns() - _SETTLED
        settled = {mark: digest for mark, digest in self._new.items() if mark[3] < latest}
        if self._memory is not None and settled:
            rows = [[*mark, digest] for mark, digest in sorted((self._known | settled).items())]
            write_json(self._memory, rows)
        self._known |= self._new
        self._new = {}

    def _file(self, folder: Path, name: str) -> File:
        path = folder / name
        with disk_errors(path):
            status = path.stat(follow_symlinks=True)
            if not stat.S_ISREG(status.st_mode):
                raise content_error(f"{path}: expected a regular file: it cannot be recorded")
            mark = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            digest = self._new.get(mark) or self._known.get(mark)
            if digest is None:
                digest = Digest.of_file(path).hex
                self._new[mark] = digest
        try:
            return File(name, status.st_size, digest)
        except ValueError as error:
            raise content_error(f"{folder}: a file cannot be recorded: {error}") from error


def _read(memory: Path) -> dict[_Mark, str]:
    try:
        rows: Any = json.loads(memory.read_bytes())
        return {
            (int(device), int(inode), int(size), int(changed)): Digest(digest).hex
            for device, inode, size, changed, digest in rows
        }
    except (OSError, ValueError, TypeError):
        return {}  # none yet, or damaged: hashed again
