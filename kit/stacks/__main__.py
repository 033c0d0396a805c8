"""Write the stacks that the tables describe: `python -m kit.stacks`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kit import project
from kit.console import note, result
from kit.errors import content_error, usage_error
from kit.stacks import documents, is_generated, triton

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Write intents and partial locks; with `--check` only say which differ.

    A lock that `kit lock` has resolved is kept as long as it is of the same intent.

    Raises:
        KitError: no such folder (exit 2); files that `--check` finds to differ (exit 4).
    """
    options = _options(arguments)
    folder = Path(options.folder) if options.folder else project.find().root / "lockfiles"
    if not folder.is_dir():
        raise usage_error(f"{folder}: no such folder")
    wanted = documents()
    differing = [name for name, text in wanted.items() if _differs(folder / name, text)]
    strangers = sorted(
        path.name
        for path in folder.glob("*.yaml")
        if is_generated(path.name) and path.name not in wanted
    )
    for name in strangers:
        note(f"{folder / name}: no table has that stack")
    for container, reason in triton.left_out().items():
        note(f"no stack of Triton {container}: {reason}")
    if options.check:
        for name in differing:
            result(f"{folder / name}: {'differs' if (folder / name).exists() else 'is missing'}")
        if differing:
            raise content_error(
                f"{len(differing)} of {len(wanted)} files are not as the tables have them",
                hint="python -m kit.stacks",
            )
        result(f"{len(wanted)} files are as the tables have them")
        return 0
    from kit.files import write_bytes

    for name in differing:
        write_bytes(folder / name, wanted[name].encode())
        result(f"written: {folder / name}")
    result(f"{len(differing)} of {len(wanted)} files written")
    return 0


def _differs(path: Path, text: str) -> bool:
    if not path.exists():
        return True
    content = path.read_bytes()
    if content == text.encode():
        return False
    return not (path.name.endswith(".lock.yaml") and _is_resolved(path, text))


def _is_resolved(path: Path, text: str) -> bool:
    """Whether a lock is a whole one of the same intent, made where upstream could be reached."""
    from kit.errors import KitError
    from kit.locks import lock as locks

    try:
        found = locks.load(path)
    except KitError:
        return False
    return not found.unresolved and f"intent: {found.intent}\n" in text


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kit.stacks",
        description="Write the stacks of TensorRT-LLM and Triton from the tables of kit/data.",
        epilog="example: python -m kit.stacks --check",
    )
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 4 if a file differs"
    )
    parser.add_argument(
        "--folder", metavar="DIR", help="where the files go; by default the project's lockfiles/"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    from kit.cli import guarded

    sys.exit(guarded(main))
