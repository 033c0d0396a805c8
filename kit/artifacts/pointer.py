"""Git LFS pointers: the few lines of text that stand in for a file that was never downloaded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.artifacts import bounded
from kit.errors import content_error

if TYPE_CHECKING:
    from pathlib import Path

LARGEST = 1024
"""A pointer is smaller than this: Git LFS, docs/spec.md, "The Pointer"."""
_FIRST = b"version https://git-lfs.github.com/spec/v1\n"
_OID = re.compile(rb"^oid sha256:([0-9a-f]{64})$", re.MULTILINE)
_SIZE = re.compile(rb"^size ([0-9]{1,19})$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pointer:
    """What a pointer stands for: SHA-256 in hexadecimal and bytes; None where it is damaged."""

    oid: str | None
    size: int | None

    def __str__(self) -> str:
        what = "a file" if self.size is None else f"a file of {self.size} bytes"
        return f"a Git LFS pointer to {what}, not the file itself"


def of(head: bytes) -> Pointer | None:
    """The pointer that a file's first bytes are, or None."""
    if not head.startswith(_FIRST):
        return None
    oid, size = _OID.search(head[:LARGEST]), _SIZE.search(head[:LARGEST])
    return Pointer(
        oid=oid.group(1).decode() if oid else None, size=int(size.group(1)) if size else None
    )


def look(path: Path) -> Pointer:
    """Read a pointer.

    Raises:
        KitError: the file is not there (exit 2) or no pointer (exit 4).
    """
    head, _ = bounded.head(path, LARGEST)
    if (found := of(head)) is None:
        raise content_error(f"{path}: expected a Git LFS pointer, found something else")
    return found


def is_at(path: Path) -> bool:
    """Whether a pointer lies at `path`; only small files are opened."""
    if not path.is_file() or path.stat().st_size >= LARGEST:
        return False
    return of(bounded.head(path, LARGEST)[0]) is not None
