"""Containers at work, so that those of a killed kit are found and removed by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
from typing import TYPE_CHECKING

from kit.files import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Ledger:
    """A folder with one file per container at work, locked for as long as its kit lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextlib.contextmanager
    def container(self, remove: Callable[[str], None]) -> Iterator[str]:
        """A fresh name, in the ledger while the block runs; clears what killed kits left first.

        Args:
            remove: removes a container by name, if there is one.
        """
        name = f"kit-{secrets.token_hex(6)}"
        path = self._folder / name
        with contextlib.ExitStack() as stack:
            with locked(self._folder / ".lock"):  # an entry is never seen before it is locked
                self._sweep(remove)
                stream = stack.enter_context(path.open("wb"))
                fcntl.flock(stream, fcntl.LOCK_EX)
            yield name
            path.unlink(missing_ok=True)

    def _sweep(self, remove: Callable[[str], None]) -> None:
        for path in self._folder.glob("kit-*"):
            with contextlib.suppress(OSError), path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path.name)
                path.unlink()
