"""Earlier runs: which of their steps need not be done again, because nothing about them differs.

A step is known by what it works on (image, model, GPUs), by its command, and by the files that it
has left; those are hashed again before anyone relies on them.
"""

from __future__ import annotations

import json
import stat
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from kit import files
from kit.digest import Digest
from kit.errors import KitError, content_error
from kit.examples import dialect, layout
from kit.examples.folder import JOURNAL
from kit.files import write_json
from kit.manifests import record

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kit.examples.fingerprints import Fingerprints
    from kit.examples.plan import Step
    from kit.manifests.record import Manifest

SCHEMA: Literal["kit.run-journal/1"] = "kit.run-journal/1"
_LARGEST = 64 << 20


@dataclass(frozen=True, slots=True)
class Ground:
    """What all steps of a run work on.

    `model` and `dataset` are what was mounted; `server` is the image of the steps that serve.
    """

    image: str
    release: str
    gpus: str
    model: tuple[record.File, ...]
    dataset: tuple[record.File, ...]
    server: str | None = None

    @classmethod
    def of(cls, manifest: Manifest) -> Ground:
        """That of a run that is finished."""
        dataset = manifest.dataset.files if manifest.dataset else ()
        image = manifest.image.manifest_digest
        server = manifest.server.image.manifest_digest if manifest.server else None
        files = manifest.model.files
        return cls(image, manifest.release, manifest.gpus, files, dataset, server)

    def identity(self, steps: Sequence[Step | record.Command]) -> Digest:
        """Of steps that begin a run: equal means that they would do the same."""
        words = [word for step in steps for word in (*step.argv, *step.env.values())]
        reads_dataset = any(layout.DATASET in word for word in words)
        is_served = any(step.name.partition("-")[0] in dialect.SERVING for step in steps)
        return Digest.of_document(
            {
                "image": self.image,
                "release": self.release,
                "gpus": self.gpus,
                "model": [asdict(file) for file in self.model],
                "dataset": [asdict(file) for file in self.dataset] if reads_dataset else [],
                **({"server": self.server} if is_served else {}),
                "steps": [
                    [
                        *(step.name, step.argv, step.cwd, dict(step.env), step.path),
                        *(step.mpi_ranks, _given(step)),
                    ]
                    for step in steps
                ],
            }
        )


@dataclass(frozen=True, slots=True)
class Journal:
    """What is done of a run; stands beside its work folder until the run is finished."""

    schema: Literal["kit.run-journal/1"]
    ground: Ground
    commands: tuple[record.Command, ...]

    def write(self, path: Path) -> None:
        """Write it atomically."""
        write_json(path, asdict(self))


@dataclass(frozen=True, slots=True)
class Past:
    """An earlier run: its steps, and where their files lie.

    Attributes:
        name: of the run, for people and for the manifest.
        folder: what the commands knew as /kit/work.
        logs: folder that `Command.log` is relative to.
        ground: what it worked on.
        commands: its steps.
    """

    name: str
    folder: Path
    logs: Path
    ground: Ground
    commands: tuple[record.Command, ...]

    def kept(
        self, ground: Ground, steps: Sequence[Step], seen: Fingerprints
    ) -> tuple[record.Command, ...]:
        """The longest beginning of `steps` that is done and whose files are what was recorded."""
        count = 0
        for step, command in zip(steps, self.commands, strict=False):
            same = ground.identity([step]) == self.ground.identity([command])
            if not same or command.written is None:
                break
            count += 1
        while count and not self._is_whole(self.commands[:count], seen):
            count -= 1
        return self.commands[:count]

    def _is_whole(self, commands: Sequence[record.Command], seen: Fingerprints) -> bool:
        wanted = latest(commands)
        try:
            for name, file in wanted.items():
                status = (self.folder / name).lstat()
                if not stat.S_ISREG(status.st_mode) or status.st_size != file.size:
                    return False
            found = seen.files(self.folder, wanted)
            logs = [log for command in commands for log in command.logs]
            return found == list(wanted.values()) and seen.files(
                self.logs, [log.path for log in logs]
            ) == list(logs)
        except (OSError, KitError):
            return False


def given(step: Step) -> dict[str, bytes]:
    """The files that have to be there before a step, by path below the work folder."""
    return {path.removeprefix(f"{layout.WORK}/"): content.encode() for path, content in step.writes}


def _given(step: Step | record.Command) -> dict[str, str]:
    if isinstance(step, record.Command):
        return {file.path: file.sha256 for file in step.given}
    return {path: Digest.of_bytes(content).hex for path, content in given(step).items()}


def latest(commands: Sequence[record.Command]) -> dict[str, record.File]:
    """The files that steps have left, by path: what the last one of them has made of each."""
    return {file.path: file for command in commands for file in command.written or ()}


def of_folder(folder: Path) -> Past:
    """The past in a run's folder, finished or not.

    Raises:
        KitError: there is no such run (exit 2), or its record is damaged (exit 4).
    """
    name = "/".join(folder.parts[-3:])
    if not (folder / JOURNAL).is_file():
        manifest = record.read(folder)
        return Past(name, folder, folder, Ground.of(manifest), manifest.commands)
    path = folder / JOURNAL
    try:
        content: Any = json.loads(files.content(path, _LARGEST))
        journal = record.decode(Journal, content)
    except (OSError, ValueError, RecursionError) as error:
        raise content_error(f"{path}: cannot be read as a journal of a run: {error}") from error
    return Past(name, folder / "work", folder, journal.ground, journal.commands)
