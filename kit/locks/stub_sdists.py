"""Source distributions that hold nothing: they download the true package while they are built.

NVIDIA keeps such placeholders on the public index for packages that it offers on its own. Seen
there: the build backends `nvidia_stub` (tensorrt-llm 0.10.0) and `wheel_stub`, which names the
index itself (nvidia-modelopt 0.46.0rc0), and a `setup.py` that fails with the words of ERROR.txt
(nvidia-ammo 0.3.0).
"""

from __future__ import annotations

import re
import tarfile
import zipfile
import zlib
from lzma import LZMAError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NVIDIA_INDEX = "https://pypi.nvidia.com"
"""Where those placeholders look that name no index."""
_LOOKED_INTO = ("pyproject.toml", "ERROR.txt", "PACKAGE_NAME")
_LIMIT = 1 << 20
_BACKEND = re.compile(rb"""^\s*build-backend\s*=\s*["'](?:nvidia|wheel)_stub\b""", re.MULTILINE)
_NAMED = re.compile(rb"""^\s*index_url\s*=\s*["']([^"'\s]+)["']""", re.MULTILINE)
_PLACEHOLDER = re.compile(rb"--(?:extra-)?index-url[ =](https?://\S+)")


def stub_index(path: Path) -> str | None:
    """The index that has the true package, if the file is but a placeholder for it."""
    texts = dict(_members(path))
    settings = texts.get("pyproject.toml", b"")
    if _BACKEND.search(settings):
        named = _NAMED.search(settings)
        return named[1].decode("ascii", "replace").rstrip("/") if named else NVIDIA_INDEX
    if "PACKAGE_NAME" in texts and (named := _PLACEHOLDER.search(texts.get("ERROR.txt", b""))):
        return named[1].decode("ascii", "replace").rstrip("/")
    return None


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The few files at the top of a source distribution that tell; none of what is no archive."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for member in archive.infolist():
                    if _is_top(member.filename) and member.file_size <= _LIMIT:
                        yield member.filename.rpartition("/")[2], archive.read(member)
            return
        with tarfile.open(path) as stream:
            for entry in stream:
                if entry.isfile() and _is_top(entry.name) and entry.size <= _LIMIT:
                    content = stream.extractfile(entry)
                    assert content is not None
                    yield entry.name.rpartition("/")[2], content.read()
    except (
        *(tarfile.TarError, zipfile.BadZipFile, zlib.error, LZMAError, EOFError, OSError),
        *(RuntimeError, ValueError),  # a member with a password, of an unknown compression
    ):
        return


def _is_top(name: str) -> bool:
    parts = [part for part in name.split("/") if part != "."]
    return len(parts) <= 2 and parts[-1] in _LOOKED_INTO
