"""Models that lie in a folder of the project itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.errors import content_error, usage_error
from kit.files import safe_member
from kit.locks.lock import Input
from kit.reception import copy_file

if TYPE_CHECKING:
    from pathlib import Path

    from kit.locks.intent import Model
    from kit.reception import Reception

PREFIX = "directory:"


def resolve_directory(root: Path, model: Model) -> list[Input]:
    """Every file below the model's folder; hidden ones are none of it.

    Raises:
        KitError: no such folder, nothing in it, or a link in it (exit 2).
    """
    assert model.directory is not None
    folder = root / safe_member(model.directory, f"model {model.name}")
    if not folder.is_dir():
        raise usage_error(f"model {model.name}: there is no folder {model.directory} in {root}")
    inputs = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if any(part.startswith((".", "__pycache__")) for part in name.parts):
            continue
        if path.is_symlink():
            raise usage_error(f"model {model.name}: {path} is a link; expected a plain file")
        if path.is_file():
            inputs.append(
                Input(
                    kind="model",
                    group=model.name,
                    name=model.name,
                    version="",
                    file=name.as_posix(),
                    location=PREFIX + model.directory,
                    sha256=Digest.of_file(path),
                    size=path.stat().st_size,
                )
            )
    if not inputs:
        raise usage_error(f"model {model.name}: the folder {folder} is empty")
    return inputs


class DirectorySource:
    """Brings a model's files from the project into the store."""

    def __init__(self, root: Path, stack: str) -> None:
        self._root = root
        self._stack = stack

    def bring(self, item: Input, reception: Reception) -> None:
        """Copy one file; a file that has changed since it was locked is refused.

        Raises:
            KitError: it is gone or differs (exit 4).
        """
        folder = safe_member(item.location.removeprefix(PREFIX), str(item))
        path = self._root / folder / safe_member(item.file, str(item))
        hint = f"kit lock {self._stack}"
        if not path.is_file():
            raise content_error(f"{item}: there is no {path}", hint=hint)
        found, size = Digest.of_file(path), path.stat().st_size
        if (found, size) != (item.sha256, item.size):
            raise content_error(
                f"{path}: changed since it was locked: expected {item.sha256}, {item.size} bytes, "
                f"found {found}, {size} bytes",
                hint=hint,
            )
        copy_file(path, reception)
