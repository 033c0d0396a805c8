"""Requirement files out of locked source trees, with what they include, for a pip without network.

Lines that name an index are taken out and handed over: pip before 22.3 obeys them whatever else it
is told. Everything else stays as upstream wrote it, for the pip of the image to read.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kit.errors import nearest, usage_error
from kit.files import make_folder
from kit.locks import archive, checks
from kit.locks.contents import TOP

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from kit.errors import KitError
    from kit.locks.lock import Input
    from kit.store import Store

_LIMIT = 4 << 20
"""Bytes of a requirement file."""
_COMMENT = re.compile(r"(^|\s+)#.*$")
_INDEXES = ("-i", "--index-url", "--pypi-url", "--extra-index-url")
_INCLUDES = ("-r", "--requirement", "-c", "--constraint")
_DROPPED = ("--trusted-host",)
_ADDRESS = re.compile(
    r"(?:[A-Za-z0-9][\w.-]*\s*(?:\[[^\]]*\])?\s*@|[a-z+]+:|\.{0,2}/|\.|.*\.(?:whl|zip|tar\.\w+)\s*$)"
)
"""A requirement that says itself where it comes from."""


@dataclass(slots=True)
class RequirementFiles:
    """Copies requirement files of trees to where a container sees them.

    Attributes:
        store: has the trees' archives.
        trees: the lock's inputs of kind `git`.
        folder: where copies go, `<source>/<path>`.
        stack: for hints.
    """

    store: Store
    trees: Sequence[Input]
    folder: Path
    stack: str
    _known: dict[str, _Tree] = field(default_factory=dict)

    def copy(self, files: Iterable[str]) -> list[str]:
        """Copy `<source>/<path>` files and what they include; returns the indexes they name.

        Raises:
            KitError: no such file, a line that cannot be pinned (exit 2).
        """
        indexes: list[str] = []
        waiting = list(files)
        seen = set(waiting)
        while waiting:
            name = waiting.pop(0)
            source, _, path = name.partition("/")
            text = self._tree(source).read(path)
            lines: list[str] = []
            for number, line in _logical(text):
                kept, named, included = _read(line, f"{name}:{number}")
                lines += [kept] if kept else []
                indexes += named
                for reference in included:
                    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), reference))
                    if target.startswith(("../", "/")) or "://" in reference:
                        raise usage_error(f"{name}:{number}: {reference} is no file of {source}")
                    if (further := f"{source}/{target}") not in seen:
                        seen.add(further)
                        waiting.append(further)
            copy = self.folder / name
            make_folder(copy.parent)
            copy.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return list(dict.fromkeys(indexes))

    def _tree(self, source: str) -> _Tree:
        if source not in self._known:
            for item in self.trees:
                if item.group == source and item.name == TOP:
                    place = self.store.path(item.sha256, str(item), self.stack)
                    self._known[source] = _Tree(source, place)
                    break
            else:
                sources = {item.group for item in self.trees}
                raise usage_error(f"requirements: no source {source!r}; {nearest(source, sources)}")
        return self._known[source]


class _Tree:
    """The files of one archive, found by name."""

    def __init__(self, name: str, path: Path) -> None:
        self._name = name
        self._path = path
        self._places: dict[str, tuple[int, int]] = {}
        with path.open("rb") as stream:
            for member in archive.members(stream, f"source {name}"):
                if member.kind in ("file", "program"):
                    self._places[member.path] = (stream.tell(), member.size)

    def read(self, path: str) -> str:
        if path not in self._places:
            there = [name for name in self._places if name.endswith(".txt") and "/" not in name]
            raise usage_error(
                f"requirements: source {self._name} has no file {path}; {nearest(path, there)}"
            )
        offset, size = self._places[path]
        if size > _LIMIT:
            raise usage_error(f"{self._name}/{path}: {size} bytes: no requirement file")
        with self._path.open("rb") as stream:
            stream.seek(offset)
            return stream.read(size).decode("utf-8", "replace")


def _logical(text: str) -> Iterator[tuple[int, str]]:
    """Lines joined as pip does, without comments, and the number of the first of each."""
    joined: list[str] = []
    first = 0
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        first = first if joined else number
        is_comment = line.lstrip().startswith("#")
        if line.endswith("\\") and not is_comment:
            joined.append(line[:-1])
            continue
        # A comment ends a line that went on.
        joined.append(f" {line}" if is_comment and joined else line)
        whole, joined = "".join(joined), []
        if bare := _COMMENT.sub("", whole).strip():
            yield first, bare
    if bare := _COMMENT.sub("", "".join(joined)).strip():
        yield first, bare


def _read(line: str, where: str) -> tuple[str, list[str], list[str]]:
    """What stays of a line, the indexes it names, and the files it includes."""
    if not line.startswith("-"):
        if _ADDRESS.match(line.partition(";")[0].partition(" --")[0]):
            raise _unpinnable(where, line, "it does not come from an index")
        return line, [], []
    try:
        words = shlex.split(line)
    except ValueError:
        raise usage_error(f"{where}: {line!r}: quotes that do not end") from None
    kept: list[str] = []
    indexes: list[str] = []
    included: list[str] = []
    while words:
        option, value = _option(words)
        if option in _INDEXES:
            if not checks.is_address(value):
                raise _unpinnable(
                    where, line, f"{option} wants http(s)://… without a login or query"
                )
            indexes.append(value)
        elif option in _INCLUDES:
            included.append(value)
            kept += [option, value]
        elif option in ("-e", "--editable", "-f", "--find-links"):
            raise _unpinnable(where, line, f"{option} does not come from an index")
        elif option not in (*_DROPPED, "--no-index"):
            kept += [option, value] if value else [option]
    return shlex.join(kept), indexes, included


def _option(words: list[str]) -> tuple[str, str]:
    """Take one option with its value, if it has one, off the front."""
    word = words.pop(0)
    if word.startswith("--"):
        option, equals, value = word.partition("=")
    else:
        option, value = word[:2], word[2:].removeprefix("=")
        equals = value
    if not equals and words and not words[0].startswith("-"):
        value = words.pop(0)
    return option, value


def _unpinnable(where: str, line: str, why: str) -> KitError:
    return usage_error(
        f"{where}: {line!r} cannot be pinned: {why}",
        hint="name the package under `packages:` of the intent, and no file that has this line",
    )
