"""A git checkout read as files: commit, tags, recorded submodules; git itself is never started.

A repository's own configuration can make git run programs; a checkout from elsewhere is not asked.
"""

from __future__ import annotations

import contextlib
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.artifacts import bounded
from kit.errors import ExitCode, KitError, content_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REFERENCE = re.compile(r"refs/[^\x00-\x20~^:?*\[\\\x7f]{1,240}")
"""What git-check-ref-format lets stand in a name; that it does not climb out is looked at apart."""
_SHA256 = re.compile(r"^\s*objectformat\s*=\s*sha256\b", re.IGNORECASE | re.MULTILINE)
_SMALL, _PACKED_LIMIT, _INDEX_LIMIT = 4096, 8 << 20, 64 << 20
_TAGS_LIMIT = 2000
_FIXED = 40
"""Bytes of an index entry before the object's name; mode in bytes 24 to 27."""
_GITLINK = 0o160000


@dataclass(frozen=True, slots=True)
class Repository:
    """Where a checkout's git data are: its own (HEAD, index), and those all worktrees share."""

    own: Path
    shared: Path


def repository(folder: Path) -> Repository | None:
    """The git data of a checkout, of a worktree, of a submodule; None if it is none of these."""
    git = folder / ".git"
    if git.is_file():
        target = (_text(git) or "").partition("gitdir:")[2].strip()
        if not target:  # an empty one is put into submodules that did not come by git
            return None
        git = folder / target
    if not bounded.is_file(git / "HEAD"):
        return None
    common = _text(git / "commondir")
    return Repository(git, git / common.strip() if common else git)


def head(found: Repository) -> str | None:
    """The commit that is checked out, in hexadecimal; None if its branch has none yet."""
    text = (_text(found.own / "HEAD") or "").strip()
    for _ in range(5):
        if _COMMIT.fullmatch(text):
            return text
        name = text.partition("ref:")[2].strip()
        if not _is_reference(name):
            return None
        loose = _text(found.own / name) or _text(found.shared / name)
        text = loose.strip() if loose else _packed(found).get(name, "")
    return None


def tags(found: Repository, commit: str) -> tuple[str, ...]:
    """The tags that lead to a commit, sorted; annotated ones too, if they are packed or loose."""
    names = {name for name, target in _packed(found).items() if target == commit}
    folder = found.shared / "refs" / "tags"
    with contextlib.suppress(OSError, KitError):
        for name in bounded.names(folder)[:_TAGS_LIMIT]:
            target = (_text(folder / name) or "").strip()
            if target and commit in (target, _tagged(found, target)):
                names.add(f"refs/tags/{name}")
    return tuple(sorted(name[len("refs/tags/") :] for name in names if "/tags/" in name))


def submodules(found: Repository) -> dict[str, str] | None:
    """The recorded commit of each submodule, by path, from the index; None if there is no index.

    Raises:
        KitError: the index is damaged (exit 4).
    """
    path = found.own / "index"
    try:
        content = bounded.content(path, _INDEX_LIMIT)
    except KitError as error:
        if error.exit_code == ExitCode.USAGE:
            return None
        raise
    width = 32 if _SHA256.search(_text(found.shared / "config") or "") else 20
    try:
        return {
            name.decode("utf-8", "backslashreplace"): commit.hex()
            for mode, commit, name in _entries(content, width)
            if mode == _GITLINK
        }
    except (IndexError, ValueError) as error:
        raise content_error(f"{path}: not a git index, or damaged: {error}") from error


def _entries(content: bytes, width: int) -> Iterator[tuple[int, bytes, bytes]]:
    """Mode, object and path of each entry: gitformat-index, versions 2 to 4."""
    version, count = int.from_bytes(content[4:8], "big"), int.from_bytes(content[8:12], "big")
    if content[:4] != b"DIRC" or version not in (2, 3, 4):
        raise ValueError(f"signature {content[:4]!r}, version {version}")
    offset, name = 12, b""
    for _ in range(count):
        start = offset
        mode = int.from_bytes(content[start + 24 : start + 28], "big")
        commit = content[start + _FIXED : start + _FIXED + width]
        offset = start + _FIXED + width
        extended = 2 if content[offset] & 0x40 and version > 2 else 0
        offset += 2 + extended
        if version == 4:
            strip, offset = _varint(content, offset)
            if strip > len(name):
                raise ValueError("a path shorter than nothing")
            kept = name[: len(name) - strip]
        else:
            kept = b""
        end = content.index(b"\0", offset)
        name = kept + content[offset:end]
        if len(name) > _SMALL:
            raise ValueError("a path that is too long")
        offset = end + 1 if version == 4 else start + ((end - start + 8) & ~7)
        yield mode, commit, name


def _varint(content: bytes, offset: int) -> tuple[int, int]:
    value = content[offset] & 0x7F
    while content[offset] & 0x80:
        offset += 1
        value = ((value + 1) << 7) | (content[offset] & 0x7F)
        if value > _INDEX_LIMIT:
            raise ValueError("a number out of range")
    return value, offset + 1


def _packed(found: Repository) -> dict[str, str]:
    """Branches and tags of packed-refs; an annotated tag leads to what it is a tag of."""
    try:
        content = bounded.content(found.shared / "packed-refs", _PACKED_LIMIT)
    except (OSError, KitError):
        return {}
    targets: dict[str, str] = {}
    name = ""
    for line in content.decode("utf-8", "replace").splitlines():
        first, _, rest = line.partition(" ")
        if line.startswith("^") and name:
            targets[name] = line[1:].strip()
        elif _COMMIT.fullmatch(first) and rest.startswith(("refs/heads/", "refs/tags/")):
            name = rest.strip()
            targets[name] = first
    return targets


def _tagged(found: Repository, tag: str) -> str | None:
    """What a loose tag object is a tag of."""
    if not _COMMIT.fullmatch(tag):
        return None
    with contextlib.suppress(OSError, KitError, zlib.error):
        packed = bounded.content(found.shared / "objects" / tag[:2] / tag[2:], 1 << 20)
        content = zlib.decompressobj().decompress(packed, 512)
        match = re.match(rb"tag \d+\0object ([0-9a-f]{40,64})\n", content)
        return match[1].decode() if match else None
    return None


def _is_reference(name: str) -> bool:
    return bool(_REFERENCE.fullmatch(name)) and ".." not in name and "//" not in name


def _text(path: Path) -> str | None:
    try:
        return bounded.content(path, _SMALL * 4).decode("utf-8", "replace")
    except (OSError, KitError):
        return None
