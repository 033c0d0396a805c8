"""Containers at work, so that those of a killed kit are found and removed by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import secrets
from typing import TYPE_CHECKING

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
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep(remove)
        name = f"kit-{secrets.token_hex(6)}"
        path = self._folder / name
        with path.open("wb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield name
            path.unlink()

    def _sweep(self, remove: Callable[[str], None]) -> None:
        for path in self._folder.glob("kit-*"):
            with contextlib.suppress(OSError), path.open("rb") as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path.name)
                path.unlink()
