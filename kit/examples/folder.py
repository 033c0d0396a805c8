"""Run folders: hidden while a run works in them, whole once they have their name.

Below `runs/<example>/<release>/`:

* `<UTC time>-<n>/`: a run that ended well, with manifest.json, logs/, checkpoint/, engine/ …
* `<UTC time>-<n>-failed/`: the logs of one that did not, and what its finished steps have made
* `.run-…/`: one at work, or killed

What failed and killed runs have made stays until the same example has been run from the beginning
or to the end.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import errno
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kit.errors import content_error
from kit.files import disk_errors, lock_folder, locked, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

JOURNAL = "journal.json"
"""What is done of a run that is not finished; only with it can the run be gone on with."""

_PREFIX = ".run-"
_FAILED = "-failed"


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

    @property
    def journal(self) -> Path:
        """What is done so far."""
        return self.hidden / JOURNAL

    def finish(self) -> Path:
        """Give the run its name, all at once; returns the folder."""
        if (self.work / "logs").exists():
            raise content_error(f"{self.work}: a command made logs/, where the kit keeps its own")
        self.logs.rename(self.work / "logs")
        return self._name(self.work, "")

    def fail(self) -> Path:
        """Keep the logs, and what is done, under a name that says so; returns the folder."""
        if not self.journal.exists():
            shutil.rmtree(self.work)
        self.hidden.chmod(0o755)
        return self._name(self.hidden, _FAILED)

    def _name(self, source: Path, suffix: str) -> Path:
        stamp = self.created.strftime("%Y%m%dT%H%M%SZ")
        place = self.hidden.parent
        number = 1
        while True:
            target = place / f"{stamp}-{number}{suffix}"
            if not any((place / f"{stamp}-{number}{end}").exists() for end in ("", _FAILED)):
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
def run_folder(
    runs: Path, example: str, release: str, *, fresh: bool = True
) -> Iterator[RunFolder]:
    """A new hidden folder below `runs`; a `fresh` run first removes what earlier ones left undone.

    What has not been given a name by the end is removed, unless the run was interrupted after a
    step had been done: then, as after a kill, it stays to be gone on with.
    """
    place = runs / example / release
    with disk_errors(place):
        place.mkdir(parents=True, exist_ok=True)
        if fresh:
            clear(runs, example, release)
        with _apart(place):
            hidden = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
            descriptor = lock_folder(hidden)
    assert descriptor is not None, "a fresh folder is nobody else's"
    folder = RunFolder(hidden, dt.datetime.now(dt.timezone.utc))
    interrupted = False
    try:
        with disk_errors(place):
            folder.work.mkdir()
            folder.work.chmod(0o755)
            folder.logs.mkdir()
            yield folder
    except KeyboardInterrupt:
        interrupted = folder.journal.exists()
        raise
    finally:
        if not interrupted:
            shutil.rmtree(hidden, ignore_errors=True)
        os.close(descriptor)


def clear(runs: Path, example: str, release: str) -> None:
    """Remove what failed and killed runs have left undone; logs of failed ones stay."""
    place = runs / example / release
    with _apart(place):
        for folder in [*place.glob(f"{_PREFIX}*"), *place.glob(f"*{_FAILED}")]:
            descriptor = lock_folder(folder)
            if descriptor is None:
                continue
            if folder.name.startswith(_PREFIX):
                shutil.rmtree(folder, ignore_errors=True)
            else:
                (folder / JOURNAL).unlink(missing_ok=True)
                shutil.rmtree(folder / "work", ignore_errors=True)
            os.close(descriptor)


def unfinished(runs: Path, example: str, release: str) -> list[Path]:
    """Failed and killed runs that can be gone on with, the latest first; none that is at work."""
    place = runs / example / release
    found = []
    for journal in [*place.glob(f"{_PREFIX}*/{JOURNAL}"), *place.glob(f"*{_FAILED}/{JOURNAL}")]:
        descriptor = lock_folder(journal.parent)
        if descriptor is not None:
            os.close(descriptor)
            with contextlib.suppress(FileNotFoundError):
                found.append((journal.stat().st_mtime_ns, journal.parent))
    return [folder for _, folder in sorted(found, reverse=True)]


def finished(runs: Path, example: str, release: str) -> list[Path]:
    """Runs that ended well, the latest first."""
    found = []
    for folder in (runs / example / release).glob("[0-9]*Z-*"):
        stamp, _, number = folder.name.rpartition("-")
        if number.isdecimal():
            found.append((stamp, int(number), folder))
    return [folder for _, _, folder in sorted(found, reverse=True)]


@contextlib.contextmanager
def _apart(place: Path) -> Iterator[None]:
    """While folders are made and removed, no other run of the example does so."""
    with locked(place.parent / ".lock"):
        yield
