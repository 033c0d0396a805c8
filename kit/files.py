"""Files that are whole or absent, locks between processes, names that stay in a folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import stat
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from kit.console import size
from kit.errors import KitError, content_error, environment_error, usage_error

if TYPE_CHECKING:
    from collections.abc import Iterator

_BEHIND = 8 << 20
"""Bytes that a disk may be behind."""


@contextlib.contextmanager
def atomic_writer(path: Path, mode: int = 0o644, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Write `path` through a temporary neighbour: fsync, rename; a failure leaves nothing.

    Args:
        path: what is replaced.
        mode: of the new file.
        durable: survive a power cut; without it, as for what can be made again, there is no fsync.

    Raises:
        KitError: the disk is full, may not be written, or fails (exit 3).
    """
    import tempfile

    with disk_errors(path):
        make_folder(path.parent)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                os.fchmod(stream.fileno(), mode)
                if durable:
                    os.fsync(stream.fileno())
            temporary.replace(path)
            if durable:
                sync_folder(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_bytes(path: Path, content: bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Write `content` atomically; see `atomic_writer`."""
    with atomic_writer(path, mode, durable=durable) as stream:
        stream.write(content)


def write_json(path: Path, document: Any) -> None:
    """Write `document` atomically, keys sorted, so that equal content gives equal bytes."""
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False)
    write_bytes(path, text.encode() + b"\n")


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless they are there.

    Raises:
        KitError: the disk does not let it be made, or a file stands there (exit 3).
    """
    with disk_errors(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, error.strerror, str(path)) from error
        except FileNotFoundError as error:  # a file system that takes no folders, as /proc
            raise PermissionError(errno.EACCES, error.strerror, str(path)) from error


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut, where its disk can be told to."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems: no flush of folders
            raise
    finally:
        os.close(descriptor)


def sync_files(folder: Path) -> None:
    """Wait until the disk has every file that lies in `folder`, and their names."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)


def sync_disk(folder: Path) -> None:
    """Wait until the disk of `folder` has everything that was written to it.

    A flush of each of a thousand small files takes most of a second; other disks, which may be
    slow or gone, are not waited for.

    Raises:
        OSError: the disk says that it failed, which old kernels do not hand on.
    """
    import ctypes

    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(descriptor)


def write_back(descriptor: int, end: int) -> None:
    """Have the disk take what was written up to `end`, and memory give up what the disk has.

    For large files, after each piece: they pass through a few megabytes of memory instead of
    filling all of it, which on virtual hosts costs more than the copy itself.
    """
    start = max(0, end - _BEHIND)
    with contextlib.suppress(OSError):  # it is advice: some file systems take none
        os.posix_fadvise(descriptor, start, end - start, os.POSIX_FADV_DONTNEED)


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """Turn what disks and their rights refuse into an error that names `path`."""
    try:
        yield
    except OSError as error:
        if (found := explained(error, Path(path))) is not None:
            raise found from error
        raise


def explained(error: OSError, path: Path | None = None) -> KitError | None:
    """What a disk refused, with the way out (exit 3); None for other errors.

    Args:
        error: what the operating system said.
        path: what was read or written; None takes the file that the error names, if any.
    """
    named = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else path
    path = path or named
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        room = f" while writing {path}: {free_bytes(path)} bytes free" if path else ""
        return environment_error(f"disk full{room}", hint=_hint("a larger disk", "df -h", path))
    if error.errno == errno.EFBIG:
        return environment_error(
            f"file too large for its disk (FAT32 ends at 4 GB) or for this user's limit{_of(path)}",
            hint="ulimit -f",
        )
    if error.errno == errno.EROFS:
        return environment_error(
            f"may not write{_of(named)}: {error.strerror}",
            hint=_hint("a disk that can be written", "findmnt --target", named),
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return environment_error(
            f"may not read or write{_of(named)}: {error.strerror}",
            hint=_hint("a folder that you own", "namei -l", named),
        )
    if error.errno == errno.ENOTDIR:
        return environment_error(
            f"a file stands where a folder is expected{_of(named)}",
            hint=_hint("a folder that you own", "namei -l", named),
        )
    if error.errno in _ODD:
        return usage_error(f"no file can be read or written there{_of(named)}: {error.strerror}")
    if error.errno == errno.EIO:
        return environment_error(
            f"the disk fails{_of(named)}: {error.strerror}", hint="dmesg | tail"
        )
    return None


_ODD = (errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR)
"""Links in a circle, a name that is too long, a folder instead of a file: the request is wrong."""


def content(path: Path, limit: int) -> bytes:
    """A whole file of at most `limit` bytes; no device, no pipe.

    Raises:
        KitError: it is no regular file, or larger (exit 4).
        OSError: it is not there, or cannot be read.
    """
    # Without O_NONBLOCK a pipe would wait for somebody to write.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise content_error(f"{path}: expected a regular file")
        found = stream.read(limit + 1)
    if len(found) > limit:
        raise content_error(
            f"{path}: expected at most {limit} bytes of such a file, found {status.st_size}"
        )
    return found


def _of(path: Path | None) -> str:
    return f": {path}" if path else ""


def _hint(other_home: str, look: str, path: Path | None) -> str | None:
    """Another home for what lies in the kit's own; a look at any other path."""
    if path is None:
        return None
    if _is_at_home(path):
        return f"export KIT_HOME=<{other_home}>"
    import shlex

    return f"{look} {shlex.quote(str(_existing(path)))}"


def _is_at_home(path: Path) -> bool:
    from kit import project

    with contextlib.suppress(KitError, OSError):
        return path.absolute().is_relative_to(project.find().home)
    return False


def _existing(path: Path) -> Path:
    """The path itself or the nearest folder above it that is there and may be seen."""
    for place in (path, *path.parents):
        with contextlib.suppress(OSError):
            place.lstat()
            return place
    return Path()


def free_bytes(path: Path) -> int:
    """Bytes free on the disk of `path`, which need not exist yet."""
    import shutil

    return shutil.disk_usage(_existing(path)).free


def require_room(place: Path, needed: int, headroom: int, *, whose: Path, hint: str) -> None:
    """Refuse what the disk of `place` has no room for.

    Args:
        place: where it would be written; need not exist yet.
        needed: bytes that are still to be written; with 0 nothing is asked.
        headroom: bytes that stay free.
        whose: what the user knows the place by.
        hint: the next command.

    Raises:
        KitError: there is too little room (exit 3).
    """
    free = free_bytes(place)
    if needed and needed + headroom > free:
        raise environment_error(
            f"not enough disk for {whose}: {size(needed)} are missing, {size(free)} are free",
            hint=hint,
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`; another process waits, a killed one lets go."""
    with disk_errors(path):
        make_folder(path.parent)
        stream = path.open("a+b")
    with stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def lock_folder(folder: Path) -> int | None:
    """Lock a folder for this process; None when another one has it, or has just removed it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


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
