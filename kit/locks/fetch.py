"""From a lock to the store: only what is missing, several at a time, from where it stopped."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from kit.console import Stopwatch, progress
from kit.errors import KitError, environment_error
from kit.reception import Unsettled, refuse_cancelled
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kit.locks.http import Client
    from kit.locks.lock import Input, Kind, Lock
    from kit.project import Project
    from kit.reception import Reception

DEFAULT_JOBS = 8
_GRACE = 2.0
"""Seconds that running downloads get to stop; what they have written stays in any case."""


class Source(Protocol):
    """One kind of upstream: knows where a locked input is, and brings it."""

    def bring(self, item: Input, reception: Reception) -> None:
        """Put the file into the store, or say why not."""
        ...


@dataclass(frozen=True, slots=True)
class FetchReport:
    """What a fetch did.

    Attributes:
        inputs: files that the lock names, each content once.
        present: how many were in the store already.
        fetched: how many came now.
        bytes: how many bytes came now, over the network or from a disk.
        seconds: how long it took.
        origins: where from (host or folder, never a login) → how many files.
    """

    inputs: int
    present: int
    fetched: int
    bytes: int
    seconds: float
    origins: dict[str, int]


def fetch(
    project: Project, lock: Lock, *, jobs: int = DEFAULT_JOBS, client: Client | None = None
) -> FetchReport:
    """Bring every input of the lock into the project's store.

    The first failure stops the rest and is the one that is raised. Whatever ends it, a second
    call continues where this one stopped.

    Raises:
        KitError: no network, no disk, vanished upstream (exit 3); wrong content (exit 4).
        KeyboardInterrupt: the user stopped it; partial downloads are kept.
    """
    from kit.locks.http import Client

    clock = Stopwatch()
    store = Store(project.store)
    wanted = {item.sha256: item for item in lock.inputs}
    missing = [item for item in wanted.values() if not store.has(item.sha256, item.size)]
    for item in missing:
        store.discard(item.sha256)  # a file of the wrong size is damaged
    store.require_space({item.sha256: item.size for item in missing})
    client = client or Client()
    client.cancelled.clear()
    crew = _Crew(store, _sources(project, lock, client), client.cancelled)
    if missing:
        total = sum(item.size for item in missing)
        with progress(total, f"fetch {lock.stack}") as bar:
            crew.work(missing, max(1, min(jobs, len(missing))), bar.update)
    return FetchReport(
        inputs=len(wanted),
        present=len(wanted) - len(missing),
        fetched=len(missing),
        bytes=crew.bytes,
        seconds=clock.seconds,
        origins=crew.origins,
    )


class _Crew:
    """Threads that take inputs off a queue; a failure, or Ctrl-C, sends all of them home."""

    def __init__(
        self, store: Store, source: Callable[[Input], Source], cancelled: threading.Event
    ) -> None:
        self.bytes = 0
        self.origins: dict[str, int] = {}
        self._store = store
        self._source = source
        self._cancelled = cancelled
        self._lock = threading.Lock()
        self._unsettled = Unsettled()

    def work(self, items: Sequence[Input], jobs: int, on_bytes: Callable[[int], object]) -> None:
        """Bring all items."""
        waiting: queue.SimpleQueue[Input] = queue.SimpleQueue()
        done: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
        # The largest first, so that no long one is left to a single thread at the end.
        for item in sorted(items, key=lambda item: -item.size):
            waiting.put(item)
        # Daemons: a connection that hangs must not keep the process after Ctrl-C.
        threads = [
            threading.Thread(target=self._run, args=(waiting, done, on_bytes), daemon=True)
            for _ in range(jobs)
        ]
        for thread in threads:
            thread.start()
        try:
            for _ in items:
                if (failure := done.get()) is not None:
                    raise failure  # noqa: TRY301 (the threads must stop first)
            self._store.settle(self._unsettled)
        except BaseException:
            self._cancelled.set()
            deadline = time.monotonic() + _GRACE
            for thread in threads:
                thread.join(max(0.0, deadline - time.monotonic()))
            with contextlib.suppress(KitError):  # what has come is kept; the failure is told
                self._store.settle(self._unsettled)
            raise

    def _run(
        self,
        waiting: queue.SimpleQueue[Input],
        done: queue.SimpleQueue[BaseException | None],
        on_bytes: Callable[[int], object],
    ) -> None:
        def count(change: int) -> None:
            with self._lock:
                on_bytes(change)

        while True:
            try:
                item = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                refuse_cancelled(self._cancelled)
                self._bring(item, count)
            except BaseException as error:  # noqa: BLE001 (raised again in the main thread)
                done.put(error)
                return
            done.put(None)

    def _bring(self, item: Input, count: Callable[[int], None]) -> None:
        with self._store.receive(
            item.sha256,
            item.size,
            on_bytes=count,
            cancelled=self._cancelled,
            unsettled=self._unsettled,
        ) as reception:
            if reception.done:
                count(item.size)
                return
            resumed = reception.offset
            self._source(item).bring(item, reception)
        with self._lock:
            self.bytes += item.size - (resumed if reception.resumed else 0)
            origin = _origin(reception.origin)
            self.origins[origin] = self.origins.get(origin, 0) + 1


def _sources(project: Project, lock: Lock, client: Client) -> Callable[[Input], Source]:
    """The sources of the kinds that the lock holds; modules of other kinds are not imported."""
    from kit.locks.directory import PREFIX, DirectorySource

    by_kind = {kind: _source(kind, project, lock, client) for kind in {i.kind for i in lock.inputs}}
    if "wheel" in by_kind and "sdist" in by_kind:
        by_kind["sdist"] = by_kind["wheel"]  # one look at the index for both
    folder = DirectorySource(project.root, lock.stack)

    def source(item: Input) -> Source:
        return folder if item.location.startswith(PREFIX) else by_kind[item.kind]

    return source


def _source(kind: Kind, project: Project, lock: Lock, client: Client) -> Source:
    match kind:
        case "deb":
            from kit.locks.deb import DebianSource

            return DebianSource(client, lock.stack)
        case "wheel" | "sdist":
            from kit.locks.pypi import PythonSource

            return PythonSource(client, lock.stack)
        case "model":
            from kit.locks.hf import HubSource

            return HubSource(client, lock.stack)
        case "oci":
            from kit.locks.oci import OciSource

            return OciSource(client, lock.stack)
        case "git":
            from kit.locks.git import GitSource

            return GitSource(project, lock.stack, client)
        case "lfs":
            from kit.locks.lfs import LfsSource

            return LfsSource(client, lock.stack, lock.select(kind="lfs"))
        case "file":
            return FileSource(client, lock.stack)


class FileSource:
    """Brings plain files from their URL."""

    def __init__(self, client: Client, stack: str) -> None:
        self._client = client
        self._stack = stack

    def bring(self, item: Input, reception: Reception) -> None:
        """Download one file into the store."""
        from kit.locks.connection import NotFound
        from kit.locks.mirrors import rewrite

        try:
            self._client.download(rewrite(item.location), reception)
        except NotFound as error:
            raise environment_error(
                f"{item} has vanished: {error}; correct its url in the intent",
                hint=f"kit lock {self._stack}",
            ) from None


def _origin(text: str) -> str:
    parts = urlsplit(text)
    return parts.netloc or parts.path.rpartition("/")[0]
