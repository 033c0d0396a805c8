"""Build contexts: exactly what a stage may read, with modes that depend on nothing here."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.errors import content_error
from kit.files import disk_errors
from kit.locks import tree

if TYPE_CHECKING:
    from pathlib import Path

    from kit.images.stages import Plan
    from kit.locks.lock import Lock
    from kit.project import Project
    from kit.store import Store


def fill(
    context: Path, dockerfile: str, plan: Plan, project: Project, lock: Lock, store: Store
) -> None:
    """Lay out the context of one stage in a folder of its own; what was there is gone.

    Inputs are hard links where the disk allows; engines mount contexts read-only.

    Raises:
        KitError: an input is not in the store, the disk is full (exit 3); an input is damaged, a
            source is not what the lock says, a file of the project is not what it was (exit 4).
    """
    shutil.rmtree(context, ignore_errors=True)
    places = store.check_all(plan.inputs, lock.stack)
    with disk_errors(context):
        _folder(context)
        _write(context / "Dockerfile", dockerfile)
        # An ENV of the base image hides an ARG of the same name: NGC's have CUDA_VERSION and more.
        lines = [f"{name}={shlex.quote(value)}\n" for name, value in plan.values.items()]
        _write(context / "arguments", "".join(lines))
        for name, source in plan.files.items():
            target = context / name
            _folder(target.parent)
            shutil.copyfile(source, target)
            target.chmod(0o644)
            # Hours may lie between the two: the result would be kept under a key of other content.
            if Digest.of_file(target) != plan.digests[name]:
                raise content_error(
                    f"{source}: changed since this build began", hint=f"kit build {lock.stack}"
                )
        _folder(context / "inputs")
        for item in plan.inputs:
            target = context / "inputs" / item.group / item.file
            _folder(target.parent)
            _place(places[item.sha256], target)
        for name in plan.sources:
            if any(item.group == name for item in plan.tree_inputs):
                tree.unpack(project, lock, name, context / "inputs" / name)


def _folder(folder: Path) -> None:
    """Make folders of mode 0755 whatever the umask."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        path.chmod(0o755)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileExistsError:  # to write there would be to write into the store
        raise content_error(f"two inputs are to stand at {target}") from None
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o444)
