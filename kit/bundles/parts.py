"""Writing one part of a bundle, and hashing it on the way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from typing import TYPE_CHECKING, NamedTuple

from kit.bundles.verifier import part_name
from kit.errors import environment_error
from kit.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from io import FileIO
    from pathlib import Path

    from kit.bundles.plan import Plan

_GATHERED = 1 << 18
"""Bytes of pieces that are written together."""


class Written(NamedTuple):
    """SHA-256 of a part, as hex, and of the object that it begins with, if it holds all of it."""

    sha256: str
    head: str | None


def write(
    plan_: Plan,
    number: int,
    folder: Path,
    on_bytes: Callable[[int], object],
    digest_of: Callable[[str], str] = str,
    on_head: Callable[[str], object] = str,
) -> Written:
    """Write a part; it has its name only once it is whole.

    Args:
        plan_: of the bundle.
        number: of the part, from 1.
        folder: where it goes.
        on_bytes: told how many bytes have been written.
        digest_of: what a digest of this plan really is, as for `Plan.pieces`; not asked before
            `on_head` has been told.
        on_head: told the digest of the object that the part begins with, if it holds all of it.

    Raises:
        KitError: a file has changed since it was hashed (exit 4), the disk cannot (exit 3).
    """
    start, end = plan_.ranges[number - 1]
    path = folder / part_name(number)
    temporary = path.with_suffix(".new")
    hasher = hashlib.sha256()
    head = None
    with _errors(path, plan_.part_size), temporary.open("wb", buffering=0) as stream:

        def add(pieces: Iterable[bytes | memoryview]) -> None:
            for batch in _gathered(pieces):
                for piece in batch:
                    hasher.update(piece)
                _write(stream, *batch)
                on_bytes(sum(map(len, batch)))

        if number in plan_.heads:
            # What has been hashed of the part by then is the object, and nothing else.
            border = start + plan_.heads[number].size
            add(plan_.pieces(start, border))
            on_head(head := hasher.hexdigest())
            start = border
        add(plan_.pieces(start, end, digest_of))
        temporary.rename(path)
    return Written(hasher.hexdigest(), head)


def _gathered(
    pieces: Iterable[bytes | memoryview],
) -> Iterator[tuple[bytes | bytearray | memoryview, ...]]:
    """Pieces to be written at once: small ones together; what is large is not copied once more."""
    small = bytearray()
    for piece in pieces:
        if len(piece) >= _GATHERED:
            yield small, piece
            small = bytearray()
            continue
        small += piece
        if len(small) >= _GATHERED:
            yield (small,)
            small = bytearray()
    yield (small,)


@contextlib.contextmanager
def _errors(path: Path, part_size: int) -> Iterator[None]:
    """What a disk refuses; of a part that is too large for it, with the way out."""
    with disk_errors(path):
        try:
            yield
        except OSError as error:
            if error.errno != errno.EFBIG:
                raise
            raise environment_error(
                f"parts of {part_size} bytes are too large for this disk (FAT32 ends at 4 GB) or "
                f"for this user's limit: {path}",
                hint="the same command with a smaller --part-size",
            ) from error


def _write(stream: FileIO, *pieces: bytes | bytearray | memoryview) -> None:
    """Write all of it, in one call of the system if that takes it."""
    left = [memoryview(piece) for piece in pieces if piece]
    while left:
        count = os.writev(stream.fileno(), left)
        while left and count >= len(left[0]):
            count -= len(left.pop(0))
        if left:
            left[0] = left[0][count:]
