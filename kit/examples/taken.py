"""Steps that are taken from earlier runs instead of being done again."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from kit import console
from kit.errors import KitError, usage_error
from kit.examples import folder as folders
from kit.examples import known, layout, past
from kit.examples.past import Past, latest
from kit.images.engine import Mount
from kit.manifests import record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kit.digest import Digest
    from kit.examples.asked import Asked
    from kit.examples.fingerprints import Fingerprints
    from kit.examples.folder import RunFolder
    from kit.examples.past import Ground
    from kit.examples.plan import Step
    from kit.manifests.record import Command
    from kit.project import Project

_SHARED = (layout.CHECKPOINT, layout.ENGINE)
"""Folders of large files, which stay those of the earlier run; others are copied."""


@dataclass(frozen=True, slots=True)
class Choices:
    """How a run goes; without any it does everything, from the beginning.

    Attributes:
        only: names of the steps to do; what they need comes from earlier runs.
        resume: go on with the latest run that failed or was killed, or with the run in a folder.
        reuse: take a checkpoint that an earlier run has converted in the same way.
        allow_pickle: the model may have weights that are pickles.
        words: what the command line had in addition, to say it again.
        triton_stack: the stack whose image serves, where it is not the one of the tables.
    """

    only: tuple[str, ...] = ()
    resume: Literal["latest"] | Path | None = None
    reuse: bool = False
    allow_pickle: bool = False
    words: tuple[str, ...] = ()
    triton_stack: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """The first steps of a plan as an earlier run has done them; none where `source` is None."""

    source: Past | None
    commands: tuple[Command, ...]

    def manifest(self, example: Digest) -> Path | None:
        """The manifest of the run that did them, if it is finished and of that example."""
        path = self.source.folder / record.FILE if self.source else None
        if path is None or not path.is_file():
            return None
        return path if record.read(path).example.digest == str(example) else None

    def named(self) -> tuple[Command, ...]:
        """The commands, each with the run that executed it."""
        if self.source is None:
            return ()
        name = self.source.name
        return tuple(
            replace(command, reused_from=command.reused_from or name) for command in self.commands
        )

    def adopt(self, folder: RunFolder, to_do: Sequence[Step]) -> list[Mount]:
        """Put all files into a run's folder; returns what its containers may only read there.

        Large ones become links to those of the earlier run, unless a later step writes beside
        them: no step can spoil what another run vouches for.
        """
        if self.source is None:
            return []
        written = [path for step in to_do for path in step.produces]
        shared = [
            _top(place)
            for place in _SHARED
            if not any(path == place or path.startswith(f"{place}/") for path in written)
        ]
        kept = latest(self.commands)
        for name in kept:
            source, target = self.source.folder / name, folder.work / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.partition("/")[0] not in shared or not _linked(source, target):
                shutil.copy2(source, target)
        for command in self.commands:
            for log in command.logs:
                target = folder.hidden / log.path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self.source.logs / log.path, target)
        tops = {name.partition("/")[0] for name in kept}
        return [Mount(folder.work / top, f"{layout.WORK}/{top}") for top in shared if top in tops]


@contextlib.contextmanager
def sources(runs: Path, example: str, release: str, choices: Choices) -> Iterator[list[Past]]:
    """Earlier runs to take steps from, the latest first; nobody clears them within the block.

    Raises:
        KitError: the folder that is named has no run (exit 2), or a damaged one (exit 4).
    """
    with contextlib.ExitStack() as stack:
        yield _sources(runs, example, release, choices, stack)


def _sources(
    runs: Path, example: str, release: str, choices: Choices, stack: contextlib.ExitStack
) -> list[Past]:
    if isinstance(choices.resume, Path):
        if not choices.resume.is_dir():
            raise usage_error(
                f"--resume {choices.resume}: expected the folder of a run", hint=f"ls {runs}/*/*"
            )
        if not _hold(choices.resume, stack):
            raise usage_error(f"--resume {choices.resume}: that run is still at work")
        return [past.of_folder(choices.resume.absolute())]
    found: list[Path] = []
    if choices.resume or choices.only:
        unfinished = folders.unfinished(runs, example, release)
        found += [path for path in unfinished if _hold(path, stack)]
    if choices.resume and not found:
        console.note("nothing to resume: no failed or killed run with a finished step is there")
    if choices.only:
        found += folders.finished(runs, example, release)
    usable = []
    for path in found:
        with contextlib.suppress(KitError):  # damaged, or of another version: of no use
            usable.append(past.of_folder(path))
    return usable


def taken(
    project: Project,
    ground: Ground,
    asked: Asked,
    earlier: Sequence[Past],
    seen: Fingerprints,
    choices: Choices,
    again: str,
) -> Taken:
    """What of the steps need not be done again: the longest beginning that an earlier run has done.

    Args:
        project: knows the checkpoints.
        ground: what the run works on.
        asked: steps that are asked for, after those that they need.
        earlier: runs to take steps from.
        seen: digests.
        choices: of the run.
        again: its command line, without --only.

    Raises:
        KitError: only later steps are asked for, and what they need is not there (exit 2).
    """
    steps, first = asked.steps, asked.first
    beginning = steps[:first] if choices.only else steps
    best = Taken(None, ())
    for source in earlier:
        commands = source.kept(ground, beginning, seen)
        if len(commands) > len(best.commands):
            best = Taken(source, commands)
        if len(best.commands) == len(beginning):
            break
    head = known.conversion(beginning)
    if len(best.commands) < len(head) and (choices.reuse or choices.only):
        found = known.find(project, ground, head, seen)
        best = Taken(*found) if found else best
    if choices.only and len(best.commands) < first:
        names = ",".join(step.name for step in steps[len(best.commands) :])
        raise usage_error(
            f"--only {','.join(choices.only)} needs what {steps[len(best.commands)].name} makes; "
            "no earlier run has that, unaltered, from the same image, model and command",
            hint=f"{again} --only {names}",
        )
    for command in best.commands:
        assert best.source is not None
        console.note(f"[{command.name}] taken from {best.source.name}, hashed again: unchanged")
    return best


def _hold(folder: Path, stack: contextlib.ExitStack) -> bool:
    """Lock an earlier run's folder, so that nobody clears it; False when its run is at work."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    stack.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _top(path: str) -> str:
    return path.removeprefix(f"{layout.WORK}/").partition("/")[0]


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        return False
    return True
