"""Source trees: a commit of a git repository with its submodules and objects of Git LFS."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kit.digest import Digest
from kit.errors import ExitCode, KitError, content_error, environment_error, usage_error
from kit.locks import git_cache, git_server, mirrors
from kit.locks.connection import NotFound, Refused, shown
from kit.locks.contents import TOP, Contents, joined, refuse_escaping
from kit.locks.git_program import UnknownCommit
from kit.locks.http import Client
from kit.locks.lock import Input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kit.locks.git_cache import Tree
    from kit.locks.intent import SourceTree
    from kit.project import Project
    from kit.reception import Reception

_JOBS = 4
"""Repositories that are brought at the same time."""
_LEVELS = 8
_TREES_LIMIT = 300
_LFS_ENDPOINT = "/info/lfs"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LAGS = "was it taken back, or does a mirror lag behind?"


@dataclass(frozen=True, slots=True)
class _Pinned:
    """A commit that was looked into; `submodules` are place below the tree, address, commit."""

    sha256: Digest
    size: int
    contents: Contents
    submodules: tuple[tuple[str, str, str], ...]
    lfs_url: str | None


def resolve_sources(project: Project, sources: Sequence[SourceTree], client: Client) -> list[Input]:
    """Everything that the source trees of an intent are made of.

    The commits are brought into the kit's home and hashed; objects of Git LFS are only asked for.

    Raises:
        KitError: no such repository or commit (exit 2), no access, no network, a submodule that
            cannot be reached (exit 3), a tree that may not be unpacked (exit 4).
    """
    return [item for source in sources for item in _Resolver(project.home, source, client).inputs()]


class GitSource:
    """Makes the archives of locked commits, from their repositories or the mirrors for these."""

    def __init__(self, project: Project, stack: str, client: Client | None = None) -> None:
        self._home = project.home
        self._stack = stack
        self._client = client

    def bring(self, item: Input, reception: Reception) -> None:
        """Put the archive of a commit into the store.

        Raises:
            KitError: the commit cannot be had (exit 3); the archive is not the locked one (exit 4).
            Cancelled: the work was called off.
        """
        client = self._client or Client(cancelled=reception.cancelled or threading.Event())
        if git_server.canonical(item.location, str(item)) != item.location:
            raise content_error(f"{item}: {shown(item.location)!r} is no address that a lock has")
        if not _COMMIT.fullmatch(item.version):
            raise content_error(f"{item}: expected a commit, 40 hexadecimal digits")

        def write(tree: Tree) -> None:
            reception.origin = tree.where
            reception.restart()
            for chunk in tree.archive():
                reception.write(chunk)
            reception.finish()

        try:
            git_cache.read(self._home, item.location, item.version, client, write)
        except UnknownCommit:
            raise environment_error(
                f"{item} has vanished: {shown(item.location)} has no such commit; {_LAGS}",
                hint=f"kit lock {self._stack}",
            ) from None
        except NotFound as error:
            raise environment_error(
                f"{item} has vanished: {error}: no repository, or no access to it; the place of a "
                "login is ~/.netrc",
                hint=f"kit lock {self._stack}",
            ) from None


class _Resolver:
    """One source tree, level by level of its submodules; a commit is looked into once."""

    def __init__(self, home: Path, source: SourceTree, client: Client) -> None:
        self._home = home
        self._source = source
        self._client = client
        # A failure stops the others; the client itself stays fit for use.
        self._git_client = Client(client.connect_timeout, client.read_timeout, client.back_off)
        self._pinned: dict[tuple[str, str], _Pinned] = {}

    def inputs(self) -> Iterator[Input]:
        top = git_server.canonical(self._source.url, f"source {self._source.name}: url")
        places = {TOP: (top, self._source.commit)}
        level = dict(places)
        for _ in range(_LEVELS):
            self._pin(level)
            below = {}
            for place, found in level.items():
                for path, location, commit in self._pinned[found].submodules:
                    below[joined(place, path)] = (location, commit)
            if not below or not self._source.submodules:
                break
            level = below
            places |= below
            if len(places) > _TREES_LIMIT:
                raise content_error(f"source {self._source.name}: more than {_TREES_LIMIT} trees")
        else:
            raise content_error(
                f"source {self._source.name}: submodules of more than {_LEVELS} levels"
            )
        self._refuse_escaping(places)
        for place, found in sorted(places.items()):
            yield self._tree(place, *found)
        if self._source.lfs:
            yield from self._objects(places)

    def _pin(self, level: dict[str, tuple[str, str]]) -> None:
        """Look into the commits of one level, several at a time."""
        new = {found: place for place, found in level.items() if found not in self._pinned}
        with ThreadPoolExecutor(_JOBS) as pool:
            try:
                running = {
                    pool.submit(self._look, place, *found): found for found, place in new.items()
                }
                for done in as_completed(running):
                    self._pinned[running[done]] = done.result()
            except BaseException:
                self._git_client.cancelled.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _look(self, place: str, location: str, commit: str) -> _Pinned:
        with self._told(place, location, commit):
            return git_cache.read(
                self._home,
                location,
                commit,
                self._git_client,
                lambda tree: self._measured(tree, location),
            )

    def _measured(self, tree: Tree, location: str) -> _Pinned:
        contents, hasher, size = Contents(), hashlib.sha256(), 0
        for chunk in tree.archive(lambda entry, text: contents.see(entry.path, entry.kind, text)):
            hasher.update(chunk)
            size += len(chunk)
        links = {entry.path: entry.oid for entry in tree.entries if entry.kind == "submodule"}
        settings = contents.settings
        return _Pinned(
            Digest(hasher.hexdigest()),
            size,
            contents,
            tuple(_submodules(tree, settings.get(".gitmodules", b""), links, location))
            if self._source.submodules
            else (),
            dict(tree.settings(settings.get(".lfsconfig", b""))).get("lfs.url"),
        )

    @contextlib.contextmanager
    def _told(self, place: str, location: str, commit: str) -> Iterator[None]:
        """Say whose repository it is that cannot be had, and what can be done."""
        if place == TOP:
            what, hint = f"source {self._source.name}", None
        else:
            what = f"source {self._source.name}: submodule {place}"
            site = urlsplit(location).netloc
            hint = f"export KIT_MIRRORS='{site}/=<a host that has it>/'"
        try:
            yield
        except UnknownCommit:
            message = f"{what}: {shown(location)} has no commit {commit}"
            if place == TOP:
                raise usage_error(f"{message}: correct the commit in the intent") from None
            raise environment_error(f"{message}; {_LAGS}", hint) from None
        except NotFound as error:
            message = f"{what}: {error}: no repository, or no access to it"
            if place == TOP:
                raise usage_error(f"{message}; the place of a login is ~/.netrc") from None
            raise environment_error(message, hint) from None
        except Refused as error:
            raise environment_error(f"{what}: {error}", hint) from None
        except KitError as error:
            way_out = error.hint or (hint if error.exit_code is ExitCode.ENVIRONMENT else None)
            raise KitError(f"{what}: {error}", exit_code=error.exit_code, hint=way_out) from error

    def _refuse_escaping(self, places: dict[str, tuple[str, str]]) -> None:
        links = {
            joined(place, path): target
            for place, found in places.items()
            for path, target in self._pinned[found].contents.links.items()
        }
        refuse_escaping(links, f"source {self._source.name}")

    def _tree(self, place: str, location: str, commit: str) -> Input:
        name = self._source.name
        found = self._pinned[location, commit]
        return Input(
            kind="git",
            group=name,
            name=place,
            version=commit,
            file=f"{name}.tar" if place == TOP else f"{name}/{place}.tar",
            location=location,
            sha256=found.sha256,
            size=found.size,
        )

    def _objects(self, places: dict[str, tuple[str, str]]) -> Iterator[Input]:
        """Each object once, however many files are its copies."""
        from kit.locks.lfs import require_served

        inputs: dict[str, Input] = {}
        for place, (location, commit) in sorted(places.items()):
            pinned = self._pinned[location, commit]
            where = f"source {self._source.name}: {place}"
            rows = list(pinned.contents.wanted(place, self._source.lfs, where))
            endpoint = _lfs_location(location, pinned.lfs_url, where) if rows else location
            for path, oid, size in rows:
                _require_text(path, where)
                whole = joined(place, path)
                inputs.setdefault(
                    oid,
                    Input(
                        kind="lfs",
                        group=self._source.name,
                        name=whole,
                        version="",
                        file=f"lfs/{oid}",
                        location=endpoint,
                        sha256=Digest(oid),
                        size=size,
                    ),
                )
        if not inputs:
            raise usage_error(
                f"source {self._source.name}: no file of Git LFS matches "
                f"{', '.join(self._source.lfs)}"
            )
        require_served(list(inputs.values()), self._client)
        yield from inputs.values()


def _submodules(
    tree: Tree, settings: bytes, links: dict[str, str], location: str
) -> Iterator[tuple[str, str, str]]:
    """Place, address and commit of each submodule that the tree records.

    Raises:
        KitError: `.gitmodules` does not say where one comes from, or says it twice (exit 4).
    """
    where = f"{tree.where}: .gitmodules"
    rows: dict[str, dict[str, str]] = {}
    for key, value in tree.settings(settings):
        section, _, rest = key.partition(".")
        name, _, setting = rest.rpartition(".")
        if section == "submodule" and name:
            rows.setdefault(name, {})[setting] = value
    urls: dict[str, str] = {}
    for row in rows.values():
        path = row.get("path", "").rstrip("/")
        if path in urls and urls[path] != row.get("url", ""):
            raise content_error(f"{where}: submodule {path!r} stands twice")
        urls[path] = row.get("url", "")
    for path, commit in links.items():
        _require_text(path, tree.where)
        if not urls.get(path):
            raise content_error(
                f"{where}: it does not say where submodule {path!r} comes from",
            )
        yield path, git_server.resolved(urls[path], location, f"{where}: {path}"), commit


def _require_text(path: str, where: str) -> None:
    """A lock is text, and so are the names in it."""
    try:
        path.encode()
    except UnicodeEncodeError:
        raise content_error(
            f"{where}: {path!r}: a submodule or an object whose path is no UTF-8"
        ) from None


def _lfs_location(location: str, lfs_url: str | None, where: str) -> str:
    """The repository whose LFS server has the objects.

    `.lfsconfig` may name another one. What a repository says must not make the kit ask any host:
    only the repository's own is, or one that `KIT_MIRRORS` has been told of.
    """
    if lfs_url is None:
        return location
    url = git_server.canonical(lfs_url.removesuffix("/").removesuffix(_LFS_ENDPOINT), where)
    if not lfs_url.rstrip("/").endswith(_LFS_ENDPOINT):
        raise content_error(
            f"{where}: .lfsconfig: {shown(lfs_url)}: expected …{_LFS_ENDPOINT}, as git-lfs has it"
        )
    is_own = urlsplit(url).netloc == urlsplit(location).netloc
    if not is_own and all(mirror.apply(url) is None for mirror in mirrors.load()):
        raise environment_error(
            f"{where}: .lfsconfig names another server, {shown(url)}: it is not asked without "
            "your leave",
            hint=f"export KIT_MIRRORS='{urlsplit(url).netloc}/={urlsplit(url).netloc}/'",
        )
    return url
