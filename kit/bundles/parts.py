"""Writing one part of a bundle, and hashing it on the way."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from typing import TYPE_CHECKING

from kit.bundles import draft
from kit.bundles.verifier import part_name
from kit.errors import environment_error
from kit.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import FileIO
    from pathlib import Path

    from kit.bundles.plan import Plan

_GATHERED = 1 << 18
"""Bytes of pieces that are written together."""


def write(
    plan_: Plan,
    number: int,
    folder: Path,
    on_bytes: Callable[[int], object],
    digest_of: Callable[[str], str] = str,
) -> str:
    """Write a part; it has its name only once it is whole.

    Args:
        plan_: of the bundle.
        number: of the part, from 1.
        folder: where it goes.
        on_bytes: told how many bytes have been written.
        digest_of: what a digest of this plan really is, as for `Plan.pieces`.

    Returns:
        Its SHA-256, as hex.

    Raises:
        KitError: a file has changed since it was hashed (exit 4), the disk cannot (exit 3).
    """
    start, end = draft.ranges(plan_)[number - 1]
    path = folder / part_name(number)
    temporary = path.with_suffix(".new")
    hasher = hashlib.sha256()
    with _errors(path, plan_.part_size), temporary.open("wb", buffering=0) as stream:
        small = bytearray()  # headers and the like; what is large is not copied once more
        for piece in plan_.pieces(start, end, digest_of):
            if len(piece) < _GATHERED:
                small += piece
                if len(small) < _GATHERED:
                    continue
                piece = b""  # noqa: PLW2901 (it is in `small`)
            hasher.update(small)
            hasher.update(piece)
            _write(stream, small, piece)
            on_bytes(len(small) + len(piece))
            small = bytearray()
        hasher.update(small)
        _write(stream, small)
        on_bytes(len(small))
        temporary.rename(path)
    return hasher.hexdigest()


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
