"""Files that are whole or absent, locks between processes, names that stay in a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from kit.errors import content_error, environment_error

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def atomic_writer(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Write `path` through a temporary neighbour: fsync, rename; a failure leaves nothing.

    Raises:
        KitError: the disk is full or may not be written (exit 3).
    """
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                os.fsync(stream.fileno())
            temporary.replace(path)
            sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_bytes(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write `content` atomically."""
    with atomic_writer(path, mode) as stream:
        stream.write(content)


def write_json(path: Path, document: Any) -> None:
    """Write `document` atomically, keys sorted, so that equal content gives equal bytes."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    write_bytes(path, text.encode() + b"\n")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space", "too large", "read-only", "not permitted" into an error naming `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise environment_error(
                f"disk full while writing {path}: {free_bytes(path)} bytes free",
                hint="free space there or set KIT_HOME to a larger disk; then run the same command",
            ) from error
        if error.errno == errno.EFBIG:
            raise environment_error(
                f"file too large for its disk or for this user's limit: {path}",
                hint="use a disk without such a limit (FAT32 ends at 4 GB); see `ulimit -f`",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise environment_error(
                f"may not write {error.filename or path}: {error.strerror}",
                hint="set KIT_HOME to a folder that you own",
            ) from error
        raise


def free_bytes(path: Path) -> int:
    """Bytes free on the disk of `path`, which need not exist yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; another process waits, a killed one lets go."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+b")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def safe_member(name: str, where: str) -> PurePosixPath:
    """The relative path that an archive member or a remote listing may be written to.

    Raises:
        KitError: the name is absolute, empty, or climbs out with `..` (exit 4).
    """
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or "\0" in name:
        raise content_error(
            f"{where}: refused member {name!r}: it would be written outside its folder"
        )
    return path
