"""What a run is given: the folders and files that its containers see and may only read."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.errors import usage_error
from kit.examples import layout, program
from kit.examples.fingerprints import Fingerprints
from kit.examples.model import materialise
from kit.examples.program import Program
from kit.images.confinement import user_arguments
from kit.images.engine import Mount
from kit.locks.lock import load as load_lock
from kit.manifests import record
from kit.manifests.record import File

if TYPE_CHECKING:
    from kit.examples.recipe import Recipe
    from kit.images.build import BuiltImage
    from kit.project import Project


@dataclass(frozen=True, slots=True)
class Given:
    """What the containers see, and what the manifest says of it.

    Attributes:
        mounts: all of it.
        model: files of the model, or of a program.
        tokenizer: folder on the host that has the model's tokenizer, if it has one.
        dataset: files that an evaluation reads.
    """

    mounts: tuple[Mount, ...]
    model: record.Model
    tokenizer: Path | None
    dataset: record.Model | None = None


def given(project: Project, image: BuiltImage, example: Recipe | Program) -> Given:
    """Everything that the steps of an example read, hashed.

    Raises:
        KitError: something is not there or cannot be mounted (exit 2); it is not in the store
            (exit 3), or is damaged there (exit 4).
    """
    if isinstance(example, Program):
        return _of_program(project, example)
    mounts: list[Mount] = []
    files: list[File] = []
    tokenizer: Path | None = None
    if (own := example.source.directory) is not None:
        mounts.append(Mount(own, layout.MODEL))
        files += hashed(project, own)
        tokenizer = own
    elif (name := example.locked_model) is not None:
        locked = materialise(project, load_lock(project.lock_path(image.stack)), name)
        mounts.append(Mount(locked.folder, layout.MODEL))
        files += [File(item.file, item.size, item.sha256.hex) for item in locked.files]
        tokenizer = locked.folder
    for path, place in example.inputs:
        mounts.append(Mount(path, place))
        files += _placed(place, path, hashed(project, path))
    dataset = None
    summarize = example.evaluate.summarize if example.evaluate else None
    if summarize is not None and summarize.dataset is not None:
        mounts.append(Mount(summarize.dataset, layout.DATASET))
        dataset = _model(summarize.dataset.name, hashed(project, summarize.dataset))
    return Given(tuple(mounts), _model(example.model, files), tokenizer, dataset)


def _placed(place: str, path: Path, files: list[File]) -> list[File]:
    """Files by where the commands find them: below the model's folder, or beside it."""
    folder = PurePosixPath(place).parent if path.is_file() else PurePosixPath(place)
    if folder == PurePosixPath(layout.MODEL):
        return files
    head = folder.relative_to("/kit")
    return [File(f"{head}/{file.path}", file.size, file.sha256) for file in files]


def hashed(project: Project, place: Path) -> list[File]:
    """Every file of a user's own folder, or a single one, hashed unless that is known already.

    Raises:
        KitError: it is not there; a link leads out of the folder, where a container sees nothing;
            the container's user may not read it (exit 2).
    """
    memory = project.home / "fingerprints" / f"{Digest.of_bytes(os.fsencode(place)).hex}.json"
    seen = Fingerprints(memory)
    if place.is_file():
        names, folder = [place.name], place.parent
        _refuse_private(place, [place])
    elif place.is_dir():
        names, folder = _names(place), place
        _refuse_private(place, [place, *filter(Path.exists, place.rglob("*"))])
    else:
        raise usage_error(f"{place}: no such file or folder")
    found = seen.files(folder, names)
    seen.remember()
    return found


def _refuse_private(place: Path, paths: list[Path]) -> None:
    """Refuse what only its owner may read, where the container's user is another one."""
    if not user_arguments()[1]:
        return
    for path in paths:
        mode, needed = path.stat().st_mode, 0o005 if path.is_dir() else 0o004
        if mode & needed != needed:
            raise usage_error(
                f"{path}: mode {stat.S_IMODE(mode):03o} keeps others from reading it, and kit run "
                "by root gives its containers another user",
                hint=f"chmod -R a+rX {shlex.quote(str(place))}",
            )


def _names(folder: Path) -> list[str]:
    top = folder.resolve()
    names = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(top):
            raise usage_error(
                f"{path}: a link out of the folder, which a container cannot follow",
                hint=f"cp -rL {shlex.quote(str(folder))} COPY",
            )
        if path.is_file():
            names.append(path.relative_to(folder).as_posix())
    return names


def _of_program(project: Project, example: Program) -> Given:
    folder = program.mountable(project, example)
    files = Fingerprints().files(folder, example.files)
    return Given((Mount(folder, layout.MODEL),), _model(example.name, files), None)


def _model(name: str, files: list[File]) -> record.Model:
    return record.Model(name, tuple(sorted(files, key=lambda file: file.path)))
