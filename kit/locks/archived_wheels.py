"""Wheels that lie inside locked archives, such as TensorRT's Python packages."""

from __future__ import annotations

import fnmatch
import shutil
import tarfile
import zlib
from lzma import LZMAError
from typing import TYPE_CHECKING

from kit.digest import CHUNK
from kit.errors import content_error, usage_error
from kit.files import disk_errors, make_folder

if TYPE_CHECKING:
    from pathlib import Path


def take_out(archive: Path, pattern: str, folder: Path, name: str) -> list[Path]:
    """Write the wheels of a tar archive whose paths match a shell pattern into `folder`.

    Args:
        archive: the archive, compressed or not.
        pattern: of a member's whole path; `*` stops at no `/`.
        folder: where they go, by their bare names.
        name: of the archive, for messages.

    Raises:
        KitError: none matches (exit 2), full disk (exit 3), a damaged archive (exit 4).
    """
    found: list[Path] = []
    others: list[str] = []
    with disk_errors(folder):
        make_folder(folder)
        try:
            with tarfile.open(archive, "r|*") as stream:
                for member in stream:
                    path = member.name.removeprefix("./")
                    if not path.endswith(".whl") or not member.isfile():
                        continue
                    if not fnmatch.fnmatchcase(path, pattern):
                        others.append(path)
                        continue
                    place = folder / path.rpartition("/")[2]
                    content = stream.extractfile(member)
                    assert content is not None
                    with place.open("wb") as target:
                        shutil.copyfileobj(content, target, CHUNK)
                    place.chmod(0o644)
                    found.append(place)
        except (tarfile.TarError, EOFError, zlib.error, LZMAError, ValueError) as error:
            raise content_error(f"{name}: damaged archive: {error}") from error
        except OSError as error:
            if error.errno is not None:  # the disk's; bzip2 has one without a number
                raise
            raise content_error(f"{name}: damaged archive: {error}") from error
    if not found:
        there = ", ".join(others[:6]) or "no wheel at all"
        raise usage_error(f"{name}: no member matches {pattern}; there are {there}")
    return sorted(found)
