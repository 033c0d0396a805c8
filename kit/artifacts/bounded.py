"""Files that others wrote, read with a limit on everything: size, depth, count, length of numbers.

What is wrong with the content is a `content_error` (exit 4); what is not there a `usage_error`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
from typing import TYPE_CHECKING, Any, NoReturn

from kit.console import size as shown_size
from kit.errors import ExitCode, content_error, usage_error
from kit.files import explained

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

DOCUMENT_LIMIT = 12 << 20
"""Bytes of the largest JSON or text file that is read whole: memory holds it up to ten times."""
VALUES_LIMIT = 400_000
"""Values of the largest JSON document: each takes some hundred bytes of memory once it is read."""
ENTRIES_LIMIT = 20_000
"""Files of the largest folder that is listed."""
_DIGITS_LIMIT = 64
_TEXT_LIMIT = 4096
_LARGEST_COUNT = 1 << 40


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says of something that cannot be read into an error that names `path`.

    Raises:
        KitError: it is not there (exit 2); a loop of links, a name that is too long, a file of the
            kernel's that answers no such question (exit 4).
        OSError: it may not be read, or the disk fails.
    """
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise usage_error(f"{path}: there is no such file or folder") from error
    except ValueError as error:
        if "\0" not in str(path):
            raise
        raise usage_error(f"{str(path)!r}: that is no file name: {error}") from error
    except OSError as error:
        known = explained(error, path)
        if known is not None and known.exit_code == ExitCode.ENVIRONMENT:
            raise
        raise content_error(f"{path}: cannot be read: {error.strerror}") from error


def is_file(path: Path) -> bool:
    """Whether a file lies at `path`; none does under a name that no file can have."""
    try:
        return path.is_file()
    except OSError as error:
        known = explained(error, path)
        if known is not None and known.exit_code == ExitCode.ENVIRONMENT:
            raise
        return False


def opened(path: Path) -> BinaryIO:
    """Open a regular file for reading; never waits for a pipe, never reads a device.

    Raises:
        KitError: it is not there (exit 2) or is no regular file (exit 4).
        OSError: it may not be read, or the disk fails.
    """
    with reading(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "a folder" if stat.S_ISDIR(mode) else "neither a file nor a folder"
        raise content_error(f"{path}: expected a file, found {what}")
    return os.fdopen(descriptor, "rb")


def head(path: Path, count: int) -> tuple[bytes, int]:
    """The first `count` bytes of a file, fewer if it is shorter, and its size."""
    with reading(path), opened(path) as stream:
        # A file of the kernel's may have nothing to say just now.
        return stream.read(count) or b"", os.fstat(stream.fileno()).st_size


def content(path: Path, limit: int = DOCUMENT_LIMIT) -> bytes:
    """A whole file of at most `limit` bytes.

    Raises:
        KitError: it is not there (exit 2), or larger (exit 4).
    """
    with reading(path), opened(path) as stream:
        found = stream.read(limit + 1) or b""
        if len(found) > limit:
            count = os.fstat(stream.fileno()).st_size
            raise content_error(
                f"{path}: {shown_size(count)}: expected at most {shown_size(limit)} of such a file"
            )
    return found


def names(folder: Path) -> tuple[str, ...]:
    """The names in a folder, sorted.

    Raises:
        KitError: there is no such folder (exit 2), or it holds too many files (exit 4).
    """
    found = []
    with reading(folder), os.scandir(folder) as entries:
        for entry in entries:
            found.append(entry.name)
            if len(found) > ENTRIES_LIMIT:
                raise content_error(f"{folder}: more than {ENTRIES_LIMIT} files in one folder")
    return tuple(sorted(found))


def json_object(path: Path, limit: int = DOCUMENT_LIMIT) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        KitError: it is not there (exit 2); too large, no JSON, a key twice, no object (exit 4).
    """
    return loads(content(path, limit), str(path))


def loads(text: bytes, name: str) -> dict[str, Any]:
    """The object in `text`; `name` stands for the file in messages.

    Raises:
        KitError: no JSON, a key twice, nested too deep, too many values, no object (exit 4).
    """
    if text.count(b",") + text.count(b"[") + text.count(b"{") > VALUES_LIMIT:
        raise content_error(f"{name}: more than {VALUES_LIMIT} values in one JSON document")
    try:
        found: Any = json.loads(
            text, object_pairs_hook=_without_repetition, parse_int=_integer, parse_float=_float
        )
    except RecursionError as error:
        raise content_error(f"{name}: JSON nested too deep") from error
    except json.JSONDecodeError as error:
        place = f"{name}:{error.lineno}:{error.colno}"
        raise content_error(f"{place}: not valid JSON: {error.msg}") from error
    except (ValueError, UnicodeError) as error:
        raise content_error(f"{name}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise content_error(f"{name}: expected a JSON object, found {_named(found)}")
    return found


def at(document: Any, *keys: str) -> Any:
    """What stands below `keys`, None where the way there ends."""
    for key in keys:
        if not isinstance(document, dict):
            return None
        document = document.get(key)
    return document


def mapping(document: Any, *keys: str) -> dict[str, Any]:
    """The object below `keys`; empty if there is none."""
    found = at(document, *keys)
    return found if isinstance(found, dict) else {}


def text(document: Any, *keys: str) -> str | None:
    """The text below `keys`; None for anything else, an empty or an endless text."""
    found = at(document, *keys)
    return found if isinstance(found, str) and 0 < len(found) <= _TEXT_LIMIT else None


def count(document: Any, *keys: str) -> int | None:
    """The whole number from 0 below `keys`; None for anything else and for what nobody counts."""
    found = at(document, *keys)
    return found if type(found) is int and 0 <= found <= _LARGEST_COUNT else None


def texts(document: Any, *keys: str) -> tuple[str, ...]:
    """The texts of the list below `keys`, other things in it left out."""
    found = at(document, *keys)
    return tuple(_texts(found)) if isinstance(found, list) else ()


def _texts(items: list[Any]) -> Iterator[str]:
    for item in items:
        if (found := text(item)) is not None:
            yield found


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                _refuse(f"key {key[:80]!r} stands twice")
            seen.add(key)
    return found


def _integer(digits: str) -> int:
    # Turning digits into a number takes the square of their count.
    if len(digits) > _DIGITS_LIMIT:
        _refuse(f"a number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    found = float(digits)
    return found if math.isfinite(found) else math.inf


def _refuse(problem: str) -> NoReturn:
    raise ValueError(problem)


def _named(found: Any) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(found), "a number")
