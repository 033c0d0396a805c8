"""What in a tree matters to whoever puts trees together: links, pointers, git's own settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kit.artifacts import pointer
from kit.errors import content_error
from kit.locks import archive
from kit.locks.attributes import Attributes, Glob

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from kit.artifacts.pointer import Pointer
    from kit.locks.archive import Kind

TOP = "."
"""The place of the tree that the others stand in."""
_POINTERS_LIMIT = 20_000
_HOPS = 40
"""Links that lead to links, as many as Linux follows."""


@dataclass(slots=True)
class Contents:
    """What was seen of one tree; paths are relative to it.

    Attributes:
        links: where each symbolic link leads.
        pointers: files that have the form of a pointer, whether or not they are kept in Git LFS.
        settings: `.gitmodules` and `.lfsconfig`, where there are any.
    """

    links: dict[str, str] = field(default_factory=dict)
    pointers: dict[str, Pointer] = field(default_factory=dict)
    settings: dict[str, bytes] = field(default_factory=dict)
    _attributes: Attributes = field(default_factory=Attributes)

    def see(self, path: str, kind: Kind, content: bytes) -> None:
        """Note one link or one whole file.

        Raises:
            KitError: more pointers or attributes than any tree has (exit 4).
        """
        if kind == "symlink":
            self.links[path] = archive.as_text(content)
            return
        if path in (".gitmodules", ".lfsconfig"):
            self.settings[path] = content
        elif path.rpartition("/")[2] == ".gitattributes":
            self._attributes.add(path, archive.as_text(content))
        if len(content) < pointer.LARGEST and (found := pointer.of(content)) is not None:
            self.pointers[path] = found
            if len(self.pointers) > _POINTERS_LIMIT:
                raise content_error(f"more than {_POINTERS_LIMIT} files of Git LFS: no source tree")

    def wanted(
        self, place: str, patterns: Iterable[str], where: str
    ) -> Iterator[tuple[str, str, int]]:
        """Path, SHA-256 and size of the objects that `patterns` ask for, sorted by path.

        Args:
            place: where the tree stands in the whole; patterns are for whole paths.
            patterns: of the intent.
            where: what to call the tree in messages.

        Raises:
            KitError: a pointer cannot be read (exit 4).
        """
        globs = [Glob(pattern) for pattern in patterns]
        for path, found in sorted(self.pointers.items()):
            whole = joined(place, path)
            if not any(glob.fits(whole) for glob in globs) or not self._attributes.is_lfs(path):
                continue
            if found.oid is None or found.size is None:
                raise content_error(f"{where}: {path}: a Git LFS pointer that cannot be read")
            yield path, found.oid, found.size


def joined(place: str, path: str) -> str:
    """A path of a tree, seen from the top."""
    return path if place == TOP else f"{place}/{path}"


def refuse_escaping(links: Mapping[str, str], where: str) -> None:
    """Make sure that no link leads out of the whole, nor round in a circle.

    Raises:
        KitError: one does (exit 4).
    """
    for path, target in links.items():
        if not _stays(path, target, links):
            raise content_error(
                f"{where}: refused link {path!r}: it leads to {target[:200]!r}, outside of the tree"
            )


def _stays(path: str, target: str, links: Mapping[str, str]) -> bool:
    """Follow a link as the system would, where only these links are."""
    place = path.split("/")[:-1]
    waiting = target.split("/")[::-1]
    if target.startswith("/"):
        return False
    hops = 0
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not place:
                return False
            place.pop()
            continue
        place.append(part)
        if (further := links.get("/".join(place))) is not None:
            hops += 1
            if further.startswith("/") or hops > _HOPS:
                return False
            place.pop()
            waiting += further.split("/")[::-1]
    return True
