"""The store: fetched inputs by digest, `sha256/ab/abcdef…`; a file in it is whole and right."""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from kit.digest import CHUNK, Digest
from kit.errors import ExitCode, KitError, content_error, environment_error
from kit.files import disk_errors, make_folder, require_room
from kit.reception import Reception, copy_file, is_same, open_locked

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from kit.reception import Unsettled

_HEADROOM = 16 << 20
"""Bytes that stay free on the disk after everything has come."""
_NAMED = 5
"""Damaged or missing files that a message names; more are counted."""


class Named(Protocol):
    """What the store is asked for by name, such as an input of a lock; `str()` is the name."""

    @property
    def sha256(self) -> Digest:
        """What the file must hash to."""

    @property
    def size(self) -> int:
        """How long it must be."""


@dataclass(frozen=True, slots=True)
class Store:
    """A content-addressed folder; readers need no lock, writers lock one digest at a time."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(self.root))

    def path(self, digest: Digest, what: str = "", stack: str = "STACK") -> Path:
        """The file with this digest; `what` and `stack` name it in the message if it is absent.

        Raises:
            KitError: it is not in the store (exit 3).
        """
        if not self.has(digest):
            named = f"{what}, {digest}" if what else str(digest)
            raise environment_error(
                f"{named} is not in the store {self.root}", hint=f"kit fetch {stack}"
            )
        return self.place(digest)

    def checked(self, digest: Digest, what: str = "", stack: str = "STACK") -> Path:
        """The file with this digest, like `path`, hashed again: disks forget, people edit.

        A damaged file is taken out, so that the next fetch brings it again; one that came in its
        place meanwhile stays.

        Raises:
            KitError: it is not in the store, or cannot be read (exit 3); it is damaged (exit 4).
        """
        place = self.path(digest, what, stack)
        with disk_errors(place):
            try:
                stream = place.open("rb", buffering=0)
            except FileNotFoundError:  # another process has found it damaged
                return self.path(digest, what, stack)
            with stream:
                found = _hash(stream.fileno())
                if found == digest:
                    return place
                if is_same(stream.fileno(), place):
                    self.discard(digest)
        raise content_error(
            f"{what or digest}: damaged in the store: {place}: expected {digest}, found {found}; "
            "it was removed",
            hint=f"kit fetch {stack}",
        )

    def check_all(
        self,
        items: Iterable[Named],
        stack: str = "STACK",
        *,
        jobs: int | None = None,
        on_bytes: Callable[[int], object] | None = None,
    ) -> dict[Digest, Path]:
        """The files of all items, each content hashed once, on all cores, in flat memory.

        Damaged files are taken out, like by `checked`; all of them are found before it is said.

        Args:
            items: what is asked for.
            stack: for the hint.
            jobs: files that are hashed at the same time; by default as many as cores.
            on_bytes: told how many bytes have been hashed; one call at a time.

        Returns:
            Digest → file.

        Raises:
            KitError: some are not in the store, or cannot be read (exit 3); some are damaged
                (exit 4).
        """
        from concurrent.futures import ThreadPoolExecutor

        wanted = {item.sha256: item for item in items}
        absent = [item for item in wanted.values() if not self.has(item.sha256)]
        if absent:
            raise environment_error(
                f"{_listed(list(map(str, absent)))} not in the store {self.root}",
                hint=f"kit fetch {stack}",
            )
        # The largest first, so that no long one is left to a single core at the end.
        ordered = sorted(wanted.values(), key=lambda item: (-item.size, item.sha256))
        found: dict[Digest, Path] = {}
        problems: list[KitError] = []
        cores = jobs or len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(max(1, min(cores, len(ordered)))) as pool:
            running = [
                (item, pool.submit(self.checked, item.sha256, str(item), stack)) for item in ordered
            ]
            try:
                for item, task in running:
                    try:
                        found[item.sha256] = task.result()
                    except KitError as error:
                        problems.append(error)
                    if on_bytes is not None:
                        on_bytes(item.size)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if problems:
            raise _together(problems)
        return found

    def has(self, digest: Digest, size: int | None = None) -> bool:
        """Whether the file is there, with this size; it is never there in part."""
        try:
            found = self.place(digest).stat().st_size
        except FileNotFoundError:
            return False
        return size is None or size == found

    def received(self, digest: Digest) -> int:
        """Bytes that an interrupted download has left, to be continued."""
        try:
            return self._partial(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def add_file(self, path: Path) -> Digest:
        """Put a copy of the file in, once.

        Raises:
            KitError: it cannot be read (exit 3), or it changed while it was copied (exit 4).
        """
        try:
            digest, size = Digest.of_file(path), path.stat().st_size
            with self.receive(digest, size) as reception:
                copy_file(path, reception)
        except FileNotFoundError as error:
            raise environment_error(f"{path}: no such file") from error
        return digest

    @contextlib.contextmanager
    def receive(
        self,
        digest: Digest,
        size: int,
        *,
        on_bytes: Callable[[int], None] | None = None,
        cancelled: threading.Event | None = None,
        unsettled: Unsettled | None = None,
    ) -> Iterator[Reception]:
        """Take in a file piece by piece, from where an earlier attempt stopped.

        The partial file is locked, so that two processes never write the same one; the second
        waits and finds the file done. Leaving without `finish` keeps the partial for next time.

        Args:
            digest: what the whole file must hash to.
            size: how long the whole file must be.
            on_bytes: told how many bytes have come; negative when they had to be thrown away.
            cancelled: once set, waiting and writing end with `Cancelled`.
            unsettled: gets the new file, for whoever brings many and calls `settle` in the end:
                a small one may be in the store only then.
        """
        with disk_errors(self.root):
            partial = self._partial(digest)
            try:
                descriptor = open_locked(partial, cancelled)
            except FileNotFoundError:
                make_folder(partial.parent)
                descriptor = open_locked(partial, cancelled)
        try:
            reception = Reception(
                digest,
                size,
                self.place(digest),
                partial,
                descriptor,
                on_bytes,
                cancelled,
                unsettled,
            )
            if self.has(digest):
                reception.done = True
                partial.unlink(missing_ok=True)
            else:
                reception.resume()
            yield reception
        finally:
            os.close(descriptor)

    def settle(self, unsettled: Unsettled) -> None:
        """Put what still waits into the store, durably.

        Raises:
            KitError: the disk failed (exit 3).
        """
        with disk_errors(self.root):
            unsettled.settle()

    def require_space(self, wanted: Mapping[Digest, int]) -> None:
        """Make sure that what is missing of `wanted` (digest → bytes) fits on the disk.

        Raises:
            KitError: it does not (exit 3).
        """
        missing = sum(
            max(0, size - self.received(digest))
            for digest, size in wanted.items()
            if not self.has(digest)
        )
        hint = "export KIT_HOME=<a folder on a larger disk>"
        require_room(self.root, missing, _HEADROOM, whose=self.root, hint=hint)

    def discard(self, digest: Digest) -> None:
        """Take a file out, so that the next fetch brings it again."""
        self.place(digest).unlink(missing_ok=True)

    def place(self, digest: Digest) -> Path:
        """Where the file with this digest lies, whether or not it is there."""
        return self.root / "sha256" / digest.hex[:2] / digest.hex

    def _partial(self, digest: Digest) -> Path:
        return self.root / "partial" / digest.hex


def _hash(descriptor: int) -> Digest:
    hasher = hashlib.sha256()
    size = os.fstat(descriptor).st_size
    # Of a small file the buffer would cost more than the hash.
    buffer = memoryview(bytearray(min(CHUNK, max(size, 1))))
    while count := os.readv(descriptor, [buffer]):
        hasher.update(buffer[:count])
    return Digest(hasher.hexdigest())


def _listed(names: Sequence[str]) -> str:
    """`a, b and 7 more are`: the subject of a message about missing files."""
    shown = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"


def _together(problems: Sequence[KitError]) -> KitError:
    """One error for several files; wrong content weighs more than what could not be read."""
    if len(problems) == 1:
        return problems[0]
    lines = [f"  - {problem}" for problem in problems[:_NAMED]]
    if len(problems) > _NAMED:
        lines.append(f"  - and {len(problems) - _NAMED} more")
    return KitError(
        "\n".join([f"{len(problems)} files of the store are not as they should be:", *lines]),
        exit_code=max((problem.exit_code for problem in problems), default=ExitCode.CONTENT),
        hint=problems[0].hint,
    )
