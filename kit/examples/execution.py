"""Execution: one step in its own closed container, measured, logged, and what it wrote hashed."""

from __future__ import annotations

import json
import math
import os
import shutil
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit import console
from kit.digest import Digest
from kit.errors import KitError, content_error
from kit.examples import layout, past, results, serving
from kit.examples.live import live, shown
from kit.examples.past import SCHEMA, Ground, Journal
from kit.files import write_bytes
from kit.images.engine import Gpus, Mount, RunRequest
from kit.manifests import record
from kit.slurm import hosts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from kit.examples.fingerprints import Fingerprints
    from kit.examples.folder import RunFolder
    from kit.examples.plan import Step
    from kit.images.engine import Engine
    from kit.slurm.hosts import Ended, Hosts

LAUNCHER = "/kit/launcher.py"

_REPORT = ".step.json"
_REPORT_LIMIT = 4096
_MEMORY_LIMIT = 1 << 63
_LAST_LINES = 12

_Marks = dict[str, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Bench:
    """What all steps of one run have in common.

    Attributes:
        engine: runs the containers.
        reference: the image there.
        folder: of the run.
        ground: what the run works on.
        mounts: what every container sees.
        gpus: that it sees.
        seen: digests of files that have not changed.
        examine: what is wrong with what a step has said, told by its name, its log, and whether
            it ended well.
        repeat: the command line of the run.
        go_on: what goes on with it when a step has failed.
        server: the image of the steps that serve; None where there is no such step.
        hosts: for steps whose ranks are on several; None where there is no such step.
    """

    engine: Engine
    reference: str
    folder: RunFolder
    ground: Ground
    mounts: tuple[Mount, ...]
    gpus: Gpus
    seen: Fingerprints
    examine: Callable[[str, Path, bool], KitError | None]
    repeat: str
    go_on: str
    server: str | None = None
    hosts: Hosts | None = None


@dataclass(frozen=True, slots=True)
class _Measured:
    seconds: float
    peak_memory_bytes: int


def execute(
    bench: Bench, done: tuple[record.Command, ...], steps: Sequence[Step]
) -> tuple[record.Command, ...]:
    """Do all `steps`, after those that are `done`; returns both, in order.

    Raises:
        KitError: the engine cannot (exit 3); a step failed, wrote nothing, or measured less than
            the example asks for (exit 4).
    """
    for path in (layout.CHECKPOINT, layout.ENGINE, layout.OUTPUT, layout.CACHE):
        results.in_work(bench.folder.work, path).mkdir(exist_ok=True)
    commands = list(done)
    if done:
        Journal(SCHEMA, bench.ground, done).write(bench.folder.journal)
    for number, step in enumerate(steps, start=len(done) + 1):
        commands.append(_execute(bench, step, f"{number} of {len(done) + len(steps)}", commands))
        Journal(SCHEMA, bench.ground, tuple(commands)).write(bench.folder.journal)
    return tuple(commands)


def _execute(
    bench: Bench, step: Step, place: str, done: Sequence[record.Command]
) -> record.Command:
    log = bench.folder.logs / f"{step.name}.log"
    before = _marks(bench.folder.work)
    for name, content in past.given(step).items():
        write_bytes(bench.folder.work / name, content)
    lines: list[str] = []
    watch = console.Stopwatch()
    with log.open("w", encoding="utf-8", errors="replace") as stream, live(step.name) as notes:
        notes.say(f"step {place}: {step.line()}")

        def on_line(line: str) -> None:
            stream.write(f"{line}\n")
            notes.say(line)
            lines.append(line)
            del lines[:-_LAST_LINES]

        exit_code, measured, ended = _run(bench, step, on_line)
    spread = _spread(bench, step, ended) if ended else None
    if exit_code != 0:
        # What it has measured says more than the exit code that follows from it.
        problem = bench.examine(step.name, log, False)
        what = f"ended with exit code {exit_code}{_meaning(exit_code)}"
        raise _failure(bench, step, f"{what}: {problem}" if problem else what, lines, done)
    for path in step.produces:
        if not _is_there(results.in_work(bench.folder.work, path)):
            raise _failure(bench, step, f"ended well but wrote nothing to {path}", lines, done)
    if measured is None:
        report = f"{layout.WORK}/{_REPORT}"
        raise _failure(bench, step, f"left no measurements in {report}", lines, done)
    if (problem := bench.examine(step.name, log, True)) is not None:
        raise _failure(bench, step, f"ended well, but {problem}", lines, done)
    results.members(bench.folder.work)
    console.note(
        f"[{step.name}] done in {shown(watch.seconds)}, "
        f"peak memory {console.memory_size(measured.peak_memory_bytes)}"
    )
    return _command(bench, step, log, before, measured, spread)


def _run(
    bench: Bench, step: Step, on_line: Callable[[str], None]
) -> tuple[int, _Measured | None, Ended | None]:
    """The step in a container here, or in one on each of several hosts."""
    if step.nodes == 1:
        exit_code = bench.engine.run(
            RunRequest(
                image=bench.server if step.is_served and bench.server else bench.reference,
                argv=(
                    *("python3", "-I", "-S", LAUNCHER, "--path", step.path),
                    *("--report", f"{layout.WORK}/{_REPORT}", "--", *serving.argv(step)),
                ),
                workdir=step.cwd,
                environment=step.env,
                mounts=(*bench.mounts, *serving.mounts(step, bench.folder.work)),
                gpus=bench.gpus,
            ),
            on_line,
        )
        return exit_code, measurements(bench.folder.work / _REPORT), None
    assert bench.hosts is not None, "a plan with such a step is refused without hosts"
    ranks = step.mpi_ranks // step.nodes
    request = RunRequest(
        image=bench.reference,
        argv=step.argv,
        workdir=step.cwd,
        environment=step.env,
        mounts=bench.mounts,
        gpus=bench.gpus,
    )
    ended = bench.hosts.run(
        request, step.name, ranks, step.path, LAUNCHER, bench.folder.hidden, on_line
    )
    found = [measurements(report) for report in ended.reports]
    shutil.rmtree(ended.folder, ignore_errors=True)
    known = [measured for measured in found if measured is not None]
    if len(known) < len(found):
        return ended.exit_code, None, ended
    peak = max(measured.peak_memory_bytes for measured in known)
    return ended.exit_code, _Measured(known[0].seconds, peak), ended


def _spread(bench: Bench, step: Step, ended: Ended) -> record.Spread:
    """What the manifest says of a step on several hosts, with the log of each rank."""
    logs = []
    for path in ended.logs:
        name = path.relative_to(bench.folder.hidden).as_posix()
        logs.append(record.File(name, path.stat().st_size, Digest.of_file(path).hex))
    ranks = step.mpi_ranks // step.nodes
    return record.Spread(step.nodes, ranks, "host", hosts.OPTIONS, tuple(logs))


def _command(
    bench: Bench,
    step: Step,
    log: Path,
    before: _Marks,
    measured: _Measured,
    spread: record.Spread | None,
) -> record.Command:
    after = _marks(bench.folder.work)
    changed = sorted(name for name, mark in after.items() if before.get(name) != mark)
    content = log.read_bytes()
    return record.Command(
        name=step.name,
        argv=step.argv,
        cwd=step.cwd,
        env=dict(step.env),
        path=step.path,
        mpi_ranks=step.mpi_ranks,
        exit_code=0,
        seconds=measured.seconds,
        peak_memory_bytes=measured.peak_memory_bytes,
        log=record.File(f"logs/{log.name}", len(content), Digest.of_bytes(content).hex),
        given=tuple(bench.seen.files(bench.folder.work, past.given(step))),
        written=tuple(bench.seen.files(bench.folder.work, changed)),
        spread=spread,
    )


def _marks(work: Path) -> _Marks:
    """Every regular file below `work`, with what changes when it is written."""
    found: _Marks = {}
    for folder, _, names in os.walk(work):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118 - there may be very many
            status = os.lstat(path)
            if stat.S_ISREG(status.st_mode):
                mark = (status.st_ino, status.st_size, status.st_mtime_ns)
                found[os.path.relpath(path, work)] = mark
    return found


def _failure(
    bench: Bench, step: Step, what: str, lines: list[str], done: Sequence[record.Command]
) -> KitError:
    kept = bench.folder.fail() / "logs" / f"{step.name}.log"
    said = "".join(f"\n  {line}" for line in lines if line.strip("-= "))
    hint = bench.go_on if done else bench.repeat
    return content_error(f"step {step.name} {what}\nlog: {kept}{said}", hint=hint)


def _meaning(exit_code: int) -> str:
    known = {126: "not executable", 127: "no such command", 137: "killed, out of memory perhaps"}
    return f" ({known[exit_code]})" if exit_code in known else ""


def _is_there(path: Path) -> bool:
    if path.is_symlink():
        return False
    return any(path.iterdir()) if path.is_dir() else path.is_file()


def measurements(report: Path) -> _Measured | None:
    """Read what the launcher left and take it away; not trusted, as the container may write it."""
    try:
        descriptor = os.open(report, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            content: Any = json.loads(stream.read(_REPORT_LIMIT))
        report.unlink()
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    seconds, memory = content.get("seconds"), content.get("peak_memory_bytes")
    if type(seconds) is not float or not 0 <= seconds < math.inf:
        return None
    if type(memory) is not int or not 0 <= memory < _MEMORY_LIMIT:
        return None
    return _Measured(seconds, memory)
