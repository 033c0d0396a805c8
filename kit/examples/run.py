"""Runs: a plan's commands, each in its own closed container, recorded in a manifest."""

from __future__ import annotations

import json
import math
import os
import shlex
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
from kit import console
from kit.compat.host import host_facts
from kit.compat.image import versions as image_versions
from kit.compat.script import mountable
from kit.digest import Digest
from kit.errors import KitError, content_error, nearest, usage_error
from kit.examples import dialect, launcher, program, results
from kit.examples.folder import run_folder
from kit.examples.model import materialise
from kit.examples.plan import Plan, Step, plan
from kit.examples.program import Program
from kit.images.build import ready
from kit.images.engine import Gpus, Mount, RunRequest
from kit.locks.lock import load as load_lock
from kit.manifests import record

if TYPE_CHECKING:
    from kit.examples.folder import RunFolder
    from kit.examples.recipe import Recipe
    from kit.images.build import BuiltImage
    from kit.images.engine import Engine
    from kit.project import Project

ROOT_LABEL = "org.trtllm-kit.root"
RELEASES_LABEL = "org.trtllm-kit.releases"

_LAUNCHER = "/kit/launcher.py"
_REPORT = ".step.json"
_REPORT_LIMIT = 4096
_MEMORY_LIMIT = 1 << 63
_LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class _Bench:
    """What all steps of one run have in common."""

    engine: Engine
    reference: str
    folder: RunFolder
    mounts: tuple[Mount, ...]
    gpus: Gpus
    repeat: str


@dataclass(frozen=True, slots=True)
class _Measured:
    seconds: float
    peak_memory_bytes: int


def argument(example: Recipe | Program) -> str:
    """How the command line names `example`, quoted for a shell."""
    return example.name if isinstance(example, Program) else example.argument or example.name


def image_plan(image: BuiltImage, example: Recipe | Program, release: str) -> Plan:
    """The plan of `example` with the paths of `image`.

    Raises:
        KitError: the image does not hold that release, or the release cannot (exit 2).
    """
    held = image.labels.get(RELEASES_LABEL, "").split()
    if release not in held:
        raise usage_error(
            f"stack {image.stack} does not hold release {release}; {nearest(release, held)}",
            hint=f"kit run {argument(example)} --stack {image.stack} --release {held[-1]}"
            if held
            else f"kit build {image.stack}",
        )
    root = image.labels.get(ROOT_LABEL, "")
    if not root.startswith("/"):
        raise content_error(
            f"image {image.manifest_digest} of stack {image.stack}: label {ROOT_LABEL}: "
            f"expected an absolute path, found {root!r}",
            hint=f"kit build {image.stack}",
        )
    return plan(example, release, root.replace("{release}", release))


def run(
    project: Project,
    engine: Engine,
    image: BuiltImage,
    example: Recipe | Program,
    release: str,
    output: Path | None,
    gpus: Gpus,
) -> Path:
    """Execute `example` in `image`; returns the path of the manifest.

    Args:
        project: where the lock and the store are.
        engine: what runs the containers; the network is off in them.
        image: what `kit.images.build.built` has just said of a stack whose lock has the
            model of a recipe.
        example: what to make.
        release: whose command lines to use; the image must hold it.
        output: folder of all runs instead of the project's `runs/`.
        gpus: which GPUs the containers see.

    Raises:
        KitError: the request does not fit the image (exit 2), the host cannot (exit 3), a step
            failed or wrote nothing (exit 4).
    """
    release = release.removeprefix("v")
    planned = image_plan(image, example, release)
    given, model = _given(project, image, example)
    # Asked while the containers work: neither is quick on every host.
    with ThreadPoolExecutor(max_workers=2) as pool:
        host = pool.submit(host_facts)
        engine_version = pool.submit(engine.version)
        reference = ready(project, engine, image)
        versions = image_versions(project, engine, reference, image.manifest_digest)
        with run_folder(output or project.runs, example.name, release) as folder:
            bench = _Bench(
                engine=engine,
                reference=reference,
                folder=folder,
                mounts=(
                    Mount(given, dialect.MODEL),
                    Mount(mountable(project, Path(launcher.__file__)), _LAUNCHER),
                    Mount(folder.work, dialect.WORK, writable=True),
                ),
                gpus=gpus,
                repeat=_command_line(image, example, release, output, gpus),
            )
            try:
                commands = _execute_all(bench, planned)
                manifest = record.Manifest(
                    schema=record.SCHEMA,
                    kind="run",
                    created=folder.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    kit=record.Kit(kit.__version__),
                    example=record.Example(example.name, str(example.digest)),
                    release=release,
                    stack=image.stack,
                    lock=str(image.lock),
                    image=record.Image(str(image.manifest_digest), str(image.image_id)),
                    engine=record.ContainerEngine(engine.name, engine_version.result()),
                    versions=record.Versions(**versions),
                    host=_host(host),
                    gpus=str(gpus),
                    model=model,
                    commands=commands,
                    artifacts=results.artifacts(folder.work),
                    outputs=()
                    if isinstance(example, Program)
                    else results.outputs(example, release, folder.work, given),
                )
                manifest.write(folder.work)
                return folder.finish() / record.FILE
            except KitError:
                if folder.logs.exists():
                    console.note(f"the logs are kept in {folder.fail()}")
                raise


def _execute_all(bench: _Bench, planned: Plan) -> tuple[record.Command, ...]:
    for path in (dialect.CHECKPOINT, dialect.ENGINE, dialect.OUTPUT, dialect.CACHE):
        results.in_work(bench.folder.work, path).mkdir()
    return tuple(_execute(bench, step) for step in planned.steps)


def _execute(bench: _Bench, step: Step) -> record.Command:
    console.note(f"[{step.name}] {step.line()}")
    log = bench.folder.logs / f"{step.name}.log"
    report = bench.folder.work / _REPORT
    lines: list[str] = []
    with log.open("w", encoding="utf-8", errors="replace") as stream:

        def on_line(line: str) -> None:
            stream.write(f"{line}\n")
            console.note(f"[{step.name}] {line}")
            lines.append(line)
            del lines[:-_LAST_LINES]

        exit_code = bench.engine.run(
            RunRequest(
                image=bench.reference,
                argv=(
                    *("python3", "-I", "-S", _LAUNCHER, "--path", step.path),
                    *("--report", f"{dialect.WORK}/{_REPORT}", "--", *step.argv),
                ),
                workdir=step.cwd,
                environment=step.env,
                mounts=bench.mounts,
                gpus=bench.gpus,
            ),
            on_line,
        )
    if exit_code != 0:
        raise _failure(bench, step, f"ended with exit code {exit_code}{_meaning(exit_code)}", lines)
    for path in step.produces:
        if not _is_there(results.in_work(bench.folder.work, path)):
            raise _failure(bench, step, f"ended well but wrote nothing to {path}", lines)
    measured = _measured(report)
    if measured is None:
        raise _failure(bench, step, f"left no measurements in {dialect.WORK}/{_REPORT}", lines)
    content = log.read_bytes()
    return record.Command(
        name=step.name,
        argv=step.argv,
        cwd=step.cwd,
        env=dict(step.env),
        path=step.path,
        mpi_ranks=step.mpi_ranks,
        exit_code=exit_code,
        seconds=measured.seconds,
        peak_memory_bytes=measured.peak_memory_bytes,
        log=record.File(f"logs/{log.name}", len(content), Digest.of_bytes(content).hex),
    )


def _failure(bench: _Bench, step: Step, what: str, lines: list[str]) -> KitError:
    kept = bench.folder.fail() / "logs" / f"{step.name}.log"
    said = "".join(f"\n  {line}" for line in lines if line.strip("-= "))
    return content_error(f"step {step.name} {what}\nlog: {kept}{said}", hint=bench.repeat)


def _meaning(exit_code: int) -> str:
    known = {126: "not executable", 127: "no such command", 137: "killed, out of memory perhaps"}
    return f" ({known[exit_code]})" if exit_code in known else ""


def _is_there(path: Path) -> bool:
    if path.is_symlink():
        return False
    return any(path.iterdir()) if path.is_dir() else path.is_file()


def _measured(report: Path) -> _Measured | None:
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


def _command_line(
    image: BuiltImage, example: Recipe | Program, release: str, output: Path | None, gpus: Gpus
) -> str:
    words = ["--stack", image.stack, "--release", release]
    words += ["--gpus", str(gpus)] if gpus else []
    words += ["--output", str(output)] if output else []
    return f"kit run {argument(example)} {shlex.join(words)}"


def _given(
    project: Project, image: BuiltImage, example: Recipe | Program
) -> tuple[Path, record.Model]:
    """What is mounted for the example to read, and what the manifest says of it."""
    if isinstance(example, Program):
        folder = program.mountable(project, example)
        files = [
            record.File(name, (folder / name).stat().st_size, Digest.of_file(folder / name).hex)
            for name in example.files
        ]
        return folder, _model(example.name, files)
    if (own := example.own_model) is not None:
        return own, _model(example.model, _files(own))
    model = materialise(project, load_lock(project.lock_path(image.stack)), example.model)
    files = [record.File(item.file, item.size, item.sha256.hex) for item in model.files]
    return model.folder, _model(model.name, files)


def _files(folder: Path) -> list[record.File]:
    """Every file of a model's folder that is the user's own, hashed.

    Raises:
        KitError: a link leads out of the folder, where a container sees nothing (exit 2).
    """
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
            raise usage_error(
                f"{path}: a link out of the folder, which a container cannot follow",
                hint=f"cp -rL {shlex.quote(str(folder))} COPY",
            )
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found.append(record.File(name, path.stat().st_size, Digest.of_file(path).hex))
    return found


def _model(name: str, files: list[record.File]) -> record.Model:
    return record.Model(name, tuple(sorted(files, key=lambda file: file.path)))


def _host(future: Future[dict[str, Any]]) -> record.Host:
    facts = future.result()
    return record.Host(**{**facts, "gpus": tuple(record.Gpu(**gpu) for gpu in facts["gpus"])})
