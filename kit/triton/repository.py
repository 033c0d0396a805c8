"""Model repositories for engines that are there: the release's own templates, filled in.

The paths in them are those of the container: the engine at /kit/work/engine, the tokenizer at
/kit/model, the repository itself at /kit/work/output/repository. `kit.json` beside the models,
which the server passes over, says where they lie on this host.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kit import console, files
from kit.artifacts import engine as engines
from kit.data import repository as table
from kit.errors import content_error, nearest, usage_error
from kit.examples import layout, serving
from kit.examples.dialects import triton
from kit.files import lock_folder, write_json
from kit.images import build
from kit.images.engine import Mount, RunRequest
from kit.manifests import record
from kit.triton import settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kit.artifacts.engine import EngineDirectory
    from kit.images.build import BuiltImage
    from kit.images.engine import Engine
    from kit.project import Project

SCHEMA: Literal["kit.triton-repository/1"] = "kit.triton-repository/1"
FILE = "kit.json"
_LARGEST = 1 << 20
_ENVIRONMENT = {"HOME": "/tmp", "PYTHONUNBUFFERED": "1"}  # noqa: S108 - in the container


@dataclass(frozen=True, slots=True)
class Described:
    """What a repository is for.

    Attributes:
        release: of the backend whose templates it is made of, and of the engine.
        stack: whose image has made it.
        engine: folder on this host.
        tokenizer: the same.
        world_size: ranks of the engine.
    """

    schema: Literal["kit.triton-repository/1"]
    release: str
    stack: str
    engine: str
    tokenizer: str
    world_size: int


def make(
    project: Project,
    engine: Engine,
    image: BuiltImage,
    found: EngineDirectory,
    tokenizer: Path,
    release: str,
    output: Path,
    assignments: Sequence[str],
) -> Described:
    """Write the repository of an engine to a folder that is not there yet.

    Raises:
        KitError: as `settings.filled`; the folder is there (exit 2); the release's own tool refuses
            a value (exit 4).
    """
    if output.exists():
        raise usage_error(f"--output {output}: is there already", hint=f"rm -r {output}")
    if not tokenizer.is_dir():
        raise usage_error(f"--tokenizer {tokenizer}: no such folder")
    values = settings.filled(found, release, assignments)
    root = serving.root(image, release)
    templates = f"{root}/all_models/{triton.FAMILY}"
    copied = ("cp", "-R", templates, triton.REPOSITORY)
    steps = [triton.Serving("repository", copied, (triton.REPOSITORY,), "/", "")]
    for model, chosen in values.items():
        if chosen:
            steps.append(triton.fill(model, settings.words(chosen, release), root, ""))
    reference = build.ready(project, engine, image)
    output.parent.mkdir(parents=True, exist_ok=True)
    with _scratch(output) as folder:
        work = folder / "work"
        (work / "output").mkdir(parents=True)
        for step in steps:
            _run(engine, reference, step, work)
        described = Described(
            SCHEMA,
            release,
            image.stack,
            str(found.folder.absolute()),
            str(tokenizer.absolute()),
            found.world_size or 1,
        )
        made = work / "output" / "repository"
        write_json(made / FILE, asdict(described))
        made.rename(output)
    return described


def open_engine(folder: Path, release: str | None) -> tuple[EngineDirectory, str]:
    """An engine with the release whose backend serves it.

    Raises:
        KitError: no engine there, or none that says its release where none is given (exit 2); the
            release that is given is another one (exit 4).
    """
    if not folder.is_dir():
        raise usage_error(f"--engine {folder}: no such folder", hint="kit run … makes one")
    found = engines.look(folder)
    own = found.release.partition("+")[0] if found.release else None
    if release is None and own is None:
        raise usage_error(
            f"{folder}: its config.json does not say which release built it",
            hint=f"kit triton repository --engine {folder} --release R …",
        )
    wanted = release or own or ""
    base = wanted.removeprefix("v").partition(".post")[0]
    if base not in table.versions():
        known = nearest(base, table.versions())
        raise usage_error(f"no Triton backend of release {wanted} is known; {known}")
    if own is not None and own.partition(".post")[0] != base:
        raise content_error(
            f"{folder}: expected an engine of release {base}, found one of {own}",
            hint=f"kit triton repository --engine {folder} --release {own} …",
        )
    return found, base


def described(
    folder: Path, engine: str | None = None, tokenizer: str | None = None
) -> tuple[str, str, Path, Path]:
    """Release, stack, engine and tokenizer of a repository; what is given counts more.

    Of one that a run has made, the run's manifest says the rest.

    Raises:
        KitError: nobody says it (exit 2), or what says it is damaged (exit 4).
    """
    if not folder.is_dir():
        raise usage_error(
            f"{folder}: no such model repository", hint="kit triton repository --help"
        )
    path = folder / FILE
    if path.is_file():
        try:
            content: Any = json.loads(files.content(path, _LARGEST))
            said = record.decode(Described, content)
        except (OSError, ValueError, RecursionError) as error:
            raise content_error(f"{path}: {error}") from error
        places = (engine or said.engine, tokenizer or said.tokenizer)
        return said.release, said.stack, *_folders(folder, *places)
    run = folder.absolute().parent.parent
    if not (run / record.FILE).is_file():
        raise usage_error(
            f"{folder}: no {FILE} in it, and no run's {record.FILE} above it, says what it serves",
            hint="kit triton repository --engine DIR --tokenizer DIR --output DIR",
        )
    manifest = record.read(run)
    stack = manifest.server.stack if manifest.server else ""
    if tokenizer is None:
        raise usage_error(
            f"{folder}: is of the run {run.name}, whose model lies elsewhere",
            hint=f"kit triton serve {folder} --tokenizer DIR",
        )
    return manifest.release, stack, *_folders(folder, engine or str(run / "engine"), tokenizer)


def _folders(folder: Path, engine: str, tokenizer: str) -> tuple[Path, Path]:
    for option, path in (("--engine", engine), ("--tokenizer", tokenizer)):
        if not Path(path).is_dir():
            raise usage_error(
                f"{folder}: {path} is not there", hint=f"kit triton serve {folder} {option} DIR"
            )
    return Path(engine).absolute(), Path(tokenizer).absolute()


def _run(engine: Engine, reference: str, step: triton.Serving, work: Path) -> None:
    said: list[str] = []
    request = RunRequest(
        image=reference,
        argv=step.argv,
        workdir=step.cwd,
        environment=_ENVIRONMENT,
        mounts=(Mount(work, layout.WORK, writable=True),),
    )
    code = engine.run(request, said.append)
    if code != 0:
        lines = "".join(f"\n  {console.visible(line)}" for line in said[-8:])
        raise content_error(f"{step.name} ended with exit code {code}{lines}")


@contextlib.contextmanager
def _scratch(output: Path) -> Iterator[Path]:
    """A folder beside the output; what a killed kit has left of one is removed first."""
    prefix = f".{output.name}.kit-"  # nobody else's
    for left in output.parent.glob(f"{prefix}*"):
        descriptor = lock_folder(left)
        if descriptor is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(descriptor)
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=output.parent))
    held = lock_folder(folder)
    try:
        folder.chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            os.close(held)
