"""Which script of a release a command means, from its path and the folder it runs in."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING, NamedTuple

from kit import data

if TYPE_CHECKING:
    from kit.commandlines.shell import Word

_UNKNOWN = frozenset("$`<>{}*?…")
_PACKAGE = "tensorrt_llm/"
_PACKAGE_COMMANDS = "tensorrt_llm/commands/"


class Meant(NamedTuple):
    """What a path may mean in a release.

    Attributes:
        scripts: the files of the release that fit, best known first.
        exact: the path itself says so, nothing is guessed.
        cut: only the end of the path fits, so it may be another file altogether.
        absent: no file of the release fits, but these files of others do.
        proven: what is absent is so for sure: the release's whole tree is known.
        own: the path names a folder, or the file's name is TensorRT-LLM's own.
    """

    scripts: tuple[str, ...]
    exact: bool = False
    cut: bool = False
    absent: tuple[str, ...] = ()
    proven: bool = False
    own: bool = True


def command(name: str, release: str) -> Meant:
    """A console command such as `trtllm-build`."""
    if name in data.commands(release):
        return Meant((name,), exact=True)
    if any(name in data.commands(other) for other in data.release_order()):
        return Meant((), exact=True, absent=(name,), proven=data.files(release) is not None)
    return Meant(())


def python(word: Word, folder: Word | str | None, release: str) -> Meant:
    """A Python file; `folder` is where the command runs, None where the text does not say."""
    up, tail = _tail(word.text, folder)
    if not tail:
        return Meant(())
    tree = data.files(release)
    here = tree if tree is not None else _listed(release)
    everywhere = list(data.scripts_table()["files"])
    for start in range(len(tail)):
        suffix = "/".join(tail[start:])
        is_cut = start > 0 or up > 0
        if not is_cut or start < len(tail) - 1:  # a path that names a file of the tree
            if suffix in here:
                return Meant((_console(suffix) or suffix,), exact=True)
            if suffix in everywhere or suffix in data.cli_table()["scripts"]:
                return Meant((), exact=True, absent=(suffix,), proven=tree is not None)
        # `python llama.py`: it may be anybody's.
        own = len(tail) > 1 or suffix in _own_names()
        fitting = _fitting(here, suffix, up if start == 0 else 0)
        if fitting:
            return Meant(tuple(sorted(fitting, key=_rank)), cut=start > 0, own=own)
        gone = _fitting(everywhere, suffix, up if start == 0 else 0)
        if gone:
            absent = tuple(sorted(gone, key=_rank))
            proven = tree is not None and start == 0 and own
            return Meant((), cut=start > 0, absent=absent, proven=proven)
    return Meant(())


def _tail(path: str, folder: Word | str | None) -> tuple[int, list[str]]:
    """How many folders up from an unknown place, and the parts that follow.

    What stands before a part that only the running shell knows is unknown too.
    """
    before = folder if isinstance(folder, str) else folder.text if folder is not None else ""
    whole = posixpath.join(before, path) if before else path
    parts: list[str] = []
    up = 0
    for part in whole.replace("\\", "/").split("/"):
        if _UNKNOWN & set(part) or part == "~" or "..." in part:
            parts, up = [], 0
        elif part == "..":
            if parts:
                parts.pop()
            else:
                up += 1
        elif part not in {"", "."}:
            parts.append(part)
    return up, parts


def _fitting(paths: list[str], suffix: str, up: int) -> list[str]:
    """The files that end with a suffix, and lie above a folder that is `up` levels deeper."""
    fitting = [path for path in paths if path == suffix or path.endswith(f"/{suffix}")]
    if len(fitting) > 1:
        fitting = [path for path in fitting if not path.startswith(_PACKAGE)] or fitting
    if not up:
        return fitting
    deeper = [path for path in fitting if _has_folder(path[: -len(suffix)], up, paths)]
    return deeper or fitting


def _has_folder(prefix: str, depth: int, paths: list[str]) -> bool:
    return any(path.startswith(prefix) and path.count("/", len(prefix)) >= depth for path in paths)


def _own_names() -> set[str]:
    """File names that are TensorRT-LLM's own: those of the scripts of its pipelines."""
    return {path.rpartition("/")[2] for path in data.cli_table()["scripts"]}


def _listed(release: str) -> list[str]:
    return [name for name in data.scripts(release) if name.endswith(".py")]


def _rank(path: str) -> tuple[bool, bool, str]:
    scripts = data.cli_table()["scripts"]
    return path not in scripts, path not in data.scripts_table()["scripts"], path


def _console(path: str) -> str | None:
    """The console command that a file of the package is."""
    if not path.startswith(_PACKAGE_COMMANDS):
        return None
    name = "trtllm-" + path.removeprefix(_PACKAGE_COMMANDS).removesuffix(".py")
    return name if name in data.cli_table()["console_scripts"] else None
