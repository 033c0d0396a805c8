"""Files that do something when they are opened, installed or run: what reviewers look at first."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from kit.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.bundles.contents import Content, Entry

CLASSES = {
    "image": "container images: programs",
    "engine": "engines: loading one runs code in it",
    "pickle": "pickles: reading one runs what it says",
    "wheel": "Python packages",
    "package": "Debian packages with their maintainer scripts",
    "library": "programs and libraries",
    "script": "scripts and source code",
}
"""Class → what it is, for people."""
_SUFFIXES = {
    "engine": (".engine", ".plan", ".trt"),
    "pickle": (".pkl", ".pickle", ".joblib", ".dill", ".pt", ".pth", ".ckpt", ".nemo"),
    "wheel": (".whl",),
    "package": (".deb", ".rpm", ".run"),
    "script": (".py", ".sh", ".bash", ".pl", ".rb", ".ps1", ".js"),
}
_LIBRARY = re.compile(r".+\.(so(\.\d+)*|dll|exe|dylib)")
_PICKLED = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_EXECUTABLE = (b"\x7fELF", b"#!")


def classify(content: Content, entry: Entry) -> str | None:
    """The class of a file that is to be carried."""
    return of(content.kind, entry.title, entry.role, lambda: _head(entry))


def of(kind: str, title: str, role: str, head: Callable[[], bytes]) -> str | None:
    """The class of a file, by name and, where names say nothing, by its first bytes.

    Args:
        kind: of its content.
        title: its path in the content.
        role: what it is for there.
        head: reads the first four bytes; only asked where the name does not tell.
    """
    if kind == "image":
        return "image" if role == "layer" else None
    if kind == "inputs" and role == "oci":
        return "image"
    name = title.rpartition("/")[2].lower()
    for found, suffixes in _SUFFIXES.items():
        if name.endswith(suffixes):
            return found
    if name.endswith((".tar.gz", ".tar")) and role in ("sdist", "git"):
        return "script"
    if _LIBRARY.fullmatch(name):
        return "library"
    if name.endswith(".bin") and head().startswith(_PICKLED):
        return "pickle"
    if "." not in name and role in ("file", "model", "program"):
        return "library" if head().startswith(_EXECUTABLE) else None
    return None


def _head(entry: Entry) -> bytes:
    if isinstance(entry.source, bytes):
        return entry.source[:4]
    # Of ten thousand files, a `Path` and a buffered stream would be most of what this costs.
    with disk_errors(entry.source):
        descriptor = os.open(entry.source, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 4)
        finally:
            os.close(descriptor)
