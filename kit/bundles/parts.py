"""Writing one part of a bundle, and hashing it on the way.

A part that begins with a large file can be begun before anybody knows what else is in the bundle:
what has been hashed of it by then gives the digest of that file, too.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.bundles.fingerprint import Print, is_settled, read_all
from kit.bundles.verifier import part_name
from kit.digest import CHUNK
from kit.errors import environment_error
from kit.files import disk_errors, write_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from hashlib import _Hash
    from io import FileIO
    from pathlib import Path

    from kit.bundles.plan import Plan

_GATHERED = 1 << 18
"""Bytes of pieces that are written together."""


@dataclass(frozen=True, slots=True)
class Begun:
    """A part of which there is the large file that it begins with, and nothing else yet.

    Attributes:
        path: where it is.
        found: that file, with its digest.
        hasher: of what has been written.
    """

    path: Path
    found: Print
    hasher: _Hash


def begin(source: str, path: Path, part_size: int, on_bytes: Callable[[int], object]) -> Begun:
    """Copy a file to `path`, which is there only once it is whole.

    Args:
        source: the file.
        path: where it goes.
        part_size: bytes of a part at most, for messages.
        on_bytes: told how many bytes have been written.

    Raises:
        KitError: the file changed meanwhile (exit 4), one of the disks cannot (exit 3).
    """
    hasher = hashlib.sha256()
    temporary = path.with_suffix(".new")
    start = time.time_ns()
    with _errors(path, part_size), temporary.open("wb", buffering=0) as stream:

        def add(piece: bytes | memoryview) -> None:
            hasher.update(piece)
            with _errors(path, part_size):  # not one of the source, which is being read
                _write(stream, piece)
            on_bytes(len(piece))

        mark = read_all(source, add)
        temporary.rename(path)
    return Begun(path, Print(mark, hasher.hexdigest(), is_settled(mark, start)), hasher)


def taken_up(path: Path, expected: Print) -> Begun | None:
    """What an earlier run has begun; None if it is not there, or not what it should be."""
    hasher = hashlib.sha256()
    left = expected.size
    with disk_errors(path):
        try:
            stream = path.open("r+b", buffering=0)
        except FileNotFoundError:
            return None
        with stream:
            stream.truncate(min(left, os.fstat(stream.fileno()).st_size))
            buffer = memoryview(bytearray(CHUNK))
            while count := stream.readinto(buffer):
                hasher.update(buffer[:count])
    return Begun(path, expected, hasher) if hasher.hexdigest() == expected.digest else None


def finish(
    begun: Begun, plan_: Plan, number: int, folder: Path, on_bytes: Callable[[int], object]
) -> str:
    """Add what else belongs into a part that has been begun; returns its SHA-256, as hex.

    Raises:
        KitError: as of `write`.
    """
    start, end = plan_.ranges[number - 1]
    path = folder / part_name(number)
    hasher = begun.hasher.copy()
    with _errors(path, plan_.part_size), begun.path.open("ab", buffering=0) as stream:
        _add(plan_.pieces(start + begun.found.size, end), hasher, stream, on_bytes)
        begun.path.rename(path)
    return hasher.hexdigest()


def write(plan_: Plan, number: int, folder: Path, on_bytes: Callable[[int], object]) -> str:
    """Write a part, which has its name only once it is whole; returns its SHA-256, as hex.

    Args:
        plan_: of the bundle.
        number: of the part, from 1.
        folder: where it goes.
        on_bytes: told how many bytes have been written.

    Raises:
        KitError: a file has changed since it was hashed (exit 4), the disk cannot (exit 3).
    """
    path = folder / part_name(number)
    temporary = path.with_suffix(".new")
    hasher = hashlib.sha256()
    with _errors(path, plan_.part_size), temporary.open("wb", buffering=0) as stream:
        _add(plan_.pieces(*plan_.ranges[number - 1]), hasher, stream, on_bytes)
        temporary.rename(path)
    return hasher.hexdigest()


def _add(
    pieces: Iterable[bytes | memoryview],
    hasher: _Hash,
    stream: FileIO,
    on_bytes: Callable[[int], object],
) -> None:
    """Hash and write: small ones together; what is large is not copied once more."""
    small = bytearray()
    for piece in pieces:
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
    write_back(stream.fileno(), stream.tell())
