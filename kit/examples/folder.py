"""Run folders: hidden while a run works in them, whole once they have their name.

Below `runs/<example>/<release>/`:

* `<UTC time>-<n>/`: a run that ended well, with manifest.json, logs/, checkpoint/, engine/ …
* `<UTC time>-<n>-failed/`: the logs of one that did not
* `.run-…/`: one at work, or killed; the next run of the example removes what was killed
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.errors import content_error
from kit.files import disk_errors, locked, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFIX = ".run-"


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A hidden folder that belongs to this process while it holds its lock.

    `work` is what the container sees and may write; `logs` it never sees, so that nothing inside
    can turn a log into a link to somewhere else.
    """

    hidden: Path
    created: dt.datetime

    @property
    def work(self) -> Path:
        """Mounted at /kit/work; becomes the run's folder."""
        return self.hidden / "work"

    @property
    def logs(self) -> Path:
        """One log a step."""
        return self.hidden / "logs"

    def finish(self) -> Path:
        """Give the run its name, all at once; returns the folder."""
        if (self.work / "logs").exists():
            raise content_error(f"{self.work}: a command made logs/, where the kit keeps its own")
        self.logs.rename(self.work / "logs")
        return self._name(self.work, "")

    def fail(self) -> Path:
        """Keep the logs only, under a name that says so; returns the folder."""
        kept = self.hidden / "failed"
        kept.mkdir()
        self.logs.rename(kept / "logs")
        return self._name(kept, "-failed")

    def _name(self, source: Path, suffix: str) -> Path:
        stamp = self.created.strftime("%Y%m%dT%H%M%SZ")
        place = self.hidden.parent
        number = 1
        while True:
            target = place / f"{stamp}-{number}{suffix}"
            if not any((place / f"{stamp}-{number}{end}").exists() for end in ("", "-failed")):
                try:
                    source.rename(target)
                except OSError as error:
                    # Another run took the name in between; a folder with files is never replaced.
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                else:
                    sync_folder(place)
                    return target
            number += 1


@contextlib.contextmanager
def run_folder(runs: Path, example: str, release: str) -> Iterator[RunFolder]:
    """A fresh hidden folder below `runs`; what a killed run of the example left is removed first.

    Whatever has not been given a name by the end is removed; after a kill it is the next run's job.
    """
    place = runs / example / release
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        with locked(runs / example / ".lock"):
            _remove_abandoned(runs / example)
            hidden = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            descriptor = _lock(hidden)
    assert descriptor is not None, "a fresh folder is nobody else's"
    try:
        with disk_errors(place):
            folder = RunFolder(hidden, dt.datetime.now(dt.timezone.utc))
            folder.work.mkdir()
            folder.work.chmod(0o755)
            folder.logs.mkdir()
            yield folder
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
        os.close(descriptor)


def _remove_abandoned(example: Path) -> None:
    for hidden in example.glob(f"*/{_PREFIX}*"):
        descriptor = _lock(hidden)
        if descriptor is not None:
            shutil.rmtree(hidden, ignore_errors=True)
            os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Lock a folder for this process; None when another one has it, or has just removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
