"""From a commit to the files of its tree, every object hashed again on the way.

A name of git's is the SHA-1 of what it names: once the commit is the one that was asked for, so is
all that it leads to. Neither the server nor the folder that the objects lie in is trusted.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.digest import CHUNK
from kit.errors import content_error
from kit.locks import archive
from kit.locks.git_program import stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO

    from kit.locks.archive import Kind
    from kit.locks.git_program import Git

_ENTRIES_LIMIT = 500_000
_OBJECT_LIMIT = 64 << 20
"""Bytes of a commit or of one folder's listing: some 50 are taken by a file."""
_WHOLE = CHUNK
"""Files of no more bytes than this are read in one piece, and shown to whoever looks."""
_TREE = re.compile(rb"tree ([0-9a-f]{40})\n")
_KINDS: dict[bytes, Kind] = {
    b"100644": "file",
    b"100664": "file",
    b"100755": "program",
    b"120000": "symlink",
    b"160000": "submodule",
}


class Damaged(Exception):  # noqa: N818 (the caller fetches again)
    """An object is not there, or is not what its name says."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, a link or a submodule of a tree; `oid` is git's name of its content."""

    path: str
    kind: Kind
    oid: str


def has_commit(git: Git, commit: str) -> bool:
    """Whether the commit is in the repository."""
    process = git.start(["cat-file", "-e", f"{commit}^{{commit}}"])
    with stopped(process):
        return process.wait() == 0


def entries(git: Git, commit: str, where: str) -> list[Entry]:
    """Everything in the tree of a commit, sorted by the bytes of the paths.

    Raises:
        Damaged: something is missing or not what its name says.
        KitError: a path that no tree may hold, or far too many (exit 4).
    """
    process = git.start(["cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    asked, answers = process.stdin, process.stdout

    def read(oid: str, kind: str) -> bytes:
        try:
            asked.write(f"{oid}\n".encode())
            asked.flush()
        except BrokenPipeError:
            raise Damaged(oid) from None
        size = _announced(answers, oid, kind)
        if size > _OBJECT_LIMIT:
            raise content_error(f"{where}: {kind} {oid} has {size} bytes: no source tree")
        content = answers.read(size + 1)[:size]
        _require_name(_hasher(kind, size, content), oid)
        return content

    with stopped(process):
        match = _TREE.match(read(commit, "commit"))
        if match is None:
            raise content_error(f"{where}: commit {commit} has no tree")
        found: dict[str, Entry] = {}
        waiting, count = [("", match[1].decode())], 0
        while waiting:
            folder, oid = waiting.pop()
            for mode, name, below in _listed(read(oid, "tree"), oid):
                count += 1
                if count > _ENTRIES_LIMIT:
                    raise content_error(
                        f"{where}: more than {_ENTRIES_LIMIT} files: no source tree"
                    )
                path = archive.safe_path(archive.as_bytes(folder) + name, where)
                if mode == b"40000":
                    waiting.append((f"{path}/", below))
                elif mode not in _KINDS:
                    raise content_error(f"{where}: {path!r}: mode {mode!r} is none of git's")
                elif path in found:
                    raise content_error(f"{where}: {path!r} stands twice in the tree")
                else:
                    found[path] = Entry(path, _KINDS[mode], below)
    _refuse_nested(found, where)
    return sorted(found.values(), key=lambda entry: archive.as_bytes(entry.path))


def chunks(
    git: Git,
    tree: list[Entry],
    see: Callable[[Entry, bytes], object],
    where: str,
) -> Iterator[bytes]:
    """The canonical archive of a tree, in flat memory.

    Args:
        git: the repository that holds the objects.
        tree: what `entries` found.
        see: shown every link, and every file of no more than a megabyte.
        where: what to call it in messages.

    Raises:
        Damaged: something is missing or not what its name says.
        KitError: a link that no file system takes (exit 4).
    """
    with tempfile.TemporaryFile(dir=git.repository) as names:
        names.writelines(f"{e.oid}\n".encode() for e in tree if e.kind != "submodule")
        names.seek(0)
        process = git.start(
            ["cat-file", "--batch", "--buffer"], stdin=names, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        answers = process.stdout
        with stopped(process):
            for entry in tree:
                if entry.kind == "submodule":
                    yield archive.header(entry.path, entry.kind, link=entry.oid)
                    continue
                size = _announced(answers, entry.oid, "blob")
                if entry.kind == "symlink" and not 0 < size <= archive.PATH_LIMIT:
                    raise content_error(f"{where}: {entry.path!r}: a link of {size} bytes")
                if size > _WHOLE:
                    yield archive.header(entry.path, entry.kind, size)
                    yield from _content(answers, entry.oid, size)
                    yield archive.padding(size)
                    continue
                content = b"".join(_content(answers, entry.oid, size))
                see(entry, content)
                if entry.kind == "symlink":
                    if b"\0" in content:
                        raise content_error(f"{where}: {entry.path!r}: a link with a zero byte")
                    yield archive.header(entry.path, entry.kind, link=archive.as_text(content))
                else:
                    head = archive.header(entry.path, entry.kind, size)
                    yield head + content + archive.padding(size)
    yield archive.END


def _content(answers: IO[bytes], oid: str, size: int) -> Iterator[bytes]:
    hasher, left = _hasher("blob", size), size
    while left:
        chunk = answers.read(min(left, CHUNK))
        if not chunk:
            raise Damaged(oid)
        hasher.update(chunk)
        left -= len(chunk)
        yield chunk
    answers.read(1)
    _require_name(hasher, oid)


def _announced(answers: IO[bytes], oid: str, kind: str) -> int:
    """The size of the object that comes next."""
    words = answers.readline(200).decode("ascii", "replace").split()
    if len(words) != 3 or words[:2] != [oid, kind] or not words[2].isdigit():
        raise Damaged(oid)
    return int(words[2])


def _hasher(kind: str, size: int, content: bytes = b"") -> hashlib._Hash:
    return hashlib.sha1(f"{kind} {size}\0".encode() + content, usedforsecurity=False)


def _require_name(hasher: hashlib._Hash, oid: str) -> None:
    if hasher.hexdigest() != oid:
        raise Damaged(oid)


def _listed(content: bytes, oid: str) -> Iterator[tuple[bytes, bytes, str]]:
    """Mode, name and object of each entry: `mode SP name NUL object`."""
    place = 0
    while place < len(content):
        end = content.find(b"\0", place)
        mode, space, name = content[place:end].partition(b" ")
        if end < 0 or not space or end + 21 > len(content):
            raise Damaged(oid)
        yield mode.lstrip(b"0"), name, content[end + 1 : end + 21].hex()
        place = end + 21


def _refuse_nested(found: dict[str, Entry], where: str) -> None:
    """A link at `a` and a file at `a/b` would put the file where the link leads."""
    for path in found:
        folder = path.rpartition("/")[0]
        while folder:
            if folder in found:
                raise content_error(f"{where}: {folder!r} is a folder and something else")
            folder = folder.rpartition("/")[0]
