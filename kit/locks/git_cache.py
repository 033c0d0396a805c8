"""Bare repositories that commits are brought into, one for each address, below the kit's home.

What lies there can be thrown away at any time: everything is hashed again when it is read. One
process at a time works in a repository; what a killed one has left is cleared away. A git that
outlives a killed kit keeps the lock; it ends with the next line that it cannot write, at the
latest when its server has been silent for too long.

git cannot go on with half a transfer: what continues after an interruption is the list of
repositories, each of which comes whole. One commit without its history is small enough for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kit.console import note
from kit.errors import ExitCode, KitError, content_error
from kit.files import disk_errors, make_folder
from kit.locks import git_objects, git_program, git_server
from kit.locks.connection import shown
from kit.locks.git_program import Git, Unadvertised, UnknownCommit
from kit.reception import refuse_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kit.locks.git_objects import Entry
    from kit.locks.http import Client

_Result = TypeVar("_Result")

_POLL = 0.1
_PATIENCE = 2.0
"""Seconds of waiting for another process until it is told."""
_REFS = ("+refs/heads/*:refs/kit/heads/*", "+refs/tags/*:refs/kit/tags/*")
_DEPTHS = (100, 10_000)
"""Commits back from every branch and tag that are looked through where a server hands out no
single commit."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree of one commit, whose objects are all there.

    Attributes:
        commit: in full.
        where: address and commit, for messages.
        entries: sorted.
    """

    commit: str
    where: str
    entries: list[Entry]
    _git: Git

    def archive(self, see: Callable[[Entry, bytes], object] = lambda *_: None) -> Iterator[bytes]:
        """The canonical archive, piece by piece; `see` is shown links and small files."""
        return git_objects.chunks(self._git, self.entries, see, self.where)

    def settings(self, content: bytes) -> list[tuple[str, str]]:
        """Keys and values of a file in the form of git's configuration, read by git itself."""
        answer = self._git.run(["config", "-z", "--no-includes", "--file=-", "--list"], content)
        found = []
        for row in answer.decode("utf-8", "replace").split("\0"):
            key, _, value = row.partition("\n")
            if key:
                found.append((key, value))
        return found


def read(
    home: Path, location: str, commit: str, client: Client, use: Callable[[Tree], _Result]
) -> _Result:
    """Do something with the tree of a commit; it is brought first if it is not here.

    `use` is called once more if the objects turn out to be damaged: they are brought anew.

    Args:
        home: the kit's home.
        location: the repository's address, as the lock has it.
        commit: in full.
        client: how long to wait, how often to try, when to stop.
        use: what is to be done.

    Raises:
        UnknownCommit: the repository does not have the commit.
        KitError: it cannot be had (exit 3); wrong objects (exit 4).
    """
    git_program.find()
    folder = home / "git" / hashlib.sha256(location.encode()).hexdigest()
    where = f"{shown(location)} at {commit}"
    with _locked(folder.with_suffix(".lock"), where, client) as descriptor:
        git = Git(git_program.find(), folder, descriptor)
        for _ in range(2):
            with disk_errors(folder):
                _tidy(folder)
                try:
                    if not git_objects.has_commit(git, commit):
                        _bring(git, location, commit, client)
                    return use(Tree(commit, where, git_objects.entries(git, commit, where), git))
                except git_objects.Damaged:
                    shutil.rmtree(folder)
    raise content_error(f"{where}: objects are not what their names say; nothing of them was kept")


def _bring(git: Git, location: str, commit: str, client: Client) -> None:
    note(f"git: {shown(location)}: commit {commit}")
    had_objects = any((git.repository / "objects" / "pack").iterdir())
    try:
        _fetch(git, location, [commit], 1, client)
    except Unadvertised:
        # Servers of protocol 0 and 1 may hand out only what a branch or a tag stands for: the
        # commit is looked for behind these, not further than any release branch is long.
        for depth in _DEPTHS:
            note(f"git: {shown(location)}: hands out no single commit; {depth} of every branch")
            _fetch(git, location, list(_REFS), depth, client)
            if git_objects.has_commit(git, commit):
                return
        raise UnknownCommit from None
    except KitError as error:
        # Damaged objects that were here before look the same to git as damaged ones that came.
        if had_objects and error.exit_code is ExitCode.CONTENT:
            raise git_objects.Damaged(commit) from error
        raise


def _fetch(git: Git, location: str, wanted: list[str], depth: int, client: Client) -> None:
    remote = git_server.find(location, client)

    def attempt() -> None:
        _tidy(git.repository)
        git.fetch(
            remote.url,
            wanted,
            depth=depth,
            authorization=remote.authorization,
            silence=client.read_timeout,
            cancelled=client.cancelled,
            on_news=lambda line: note(f"git: {shown(location)}: {line}"),
        )

    client._tried(remote.url, attempt)  # noqa: SLF001 (the one loop that waits and tries again)


def _tidy(folder: Path) -> None:
    """Make the repository, or clear away what a killed git has left in it.

    Locks of git's own would stop every later one; the caller holds the lock that counts.
    """
    make_folder(folder / "objects" / "pack")
    for pattern in ("*.lock", "refs/**/*.lock", "objects/**/tmp_*", "objects/pack/*.keep"):
        for path in folder.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    make_folder(folder / "refs")
    # What `git init` would write; written anew because a killed one may have written half of it.
    (folder / "HEAD").write_text("ref: refs/heads/none\n", encoding="ascii")
    (folder / "config").write_text(
        "[core]\n\trepositoryformatversion = 0\n\tbare = true\n", encoding="ascii"
    )


@contextlib.contextmanager
def _locked(path: Path, where: str, client: Client) -> Iterator[int]:
    """Hold the lock of a repository; it lasts until the last git that was started has ended."""
    make_folder(path.parent)
    with disk_errors(path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        start, told = time.monotonic(), False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                refuse_cancelled(client.cancelled)
                time.sleep(_POLL)
                if not told and time.monotonic() - start > _PATIENCE:
                    note(f"git: waiting for another process that brings {where}")
                    told = True
        yield descriptor
    finally:
        os.close(descriptor)
