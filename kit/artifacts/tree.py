"""What of an image's layers is worth keeping, merged from the lowest to the highest.

Only paths that somebody wants are kept, by default those of `software.wanted`, so that memory does
not depend on the image's size. A layer hides what is below it in three ways: a whiteout, an opaque
folder, something else at the same path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from kit.artifacts import software
from kit.errors import content_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kit.artifacts.tar import Kind, Member

_KEPT_LIMIT = 50_000
"""Files and folders, those on the way too; NVIDIA's images have some thousand."""
_NAMES_LIMIT = 8 << 20
"""Characters of all kept paths and links, which stand several times in what is said of them."""
_CONTENT_LIMIT = 48 << 20
"""Bytes; dpkg's status has less than one million, and stands in as many layers as install."""
_MERGED = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
"""Folders that a merged-/usr system has as links into usr; a layer may use either name."""


class Entry(NamedTuple):
    """A file or a link of the image; `content` is None for what was not read."""

    kind: Kind
    size: int
    link: str
    content: bytes | None


class Tree:
    """The kept paths as nested folders: to hide a folder is one step, however much is in it.

    `wanted` says of a path what to keep because of it (itself or a folder above it) and how many
    bytes of it to read, or None; `content_limit` is what all that is read may have, all layers
    together.
    """

    def __init__(
        self,
        wanted: Callable[[str], tuple[str, int] | None] = software.wanted,
        content_limit: int = _CONTENT_LIMIT,
    ) -> None:
        self._wanted = wanted
        self._content_limit = content_limit
        self._root: dict[str, Any] = {}
        self._links: dict[str, str] = {}
        self._kept = self._names = self._bytes = 0

    def add_layer(self, members: Iterable[Member], where: str) -> None:
        """Put one layer on top.

        Raises:
            KitError: more to keep than any real image has (exit 4), or what `members` raises.
        """
        layer: dict[str, Any] = {}
        for member in members:
            path = self._merged(member)
            if member.kind == "opaque":
                _clear(self._root, path)
                continue
            if member.kind == "whiteout":
                _remove(self._root, path)
                continue
            if member.kind == "folder":
                _remove_file(self._root, path)
                _remove_file(layer, path)
            elif path:
                _remove(self._root, path)
                _remove(layer, path)
            if (wanted := self._wanted(path)) is not None:
                self._keep(layer, member, *wanted, where)
        _merge(self._root, layer)

    def entries(self) -> Iterator[tuple[str, Entry | None]]:
        """Every kept path in order; None for a folder."""
        pending: list[tuple[str, Any]] = [("", self._root)]
        while pending:
            path, node = pending.pop()
            if isinstance(node, Entry):
                yield path, node
                continue
            if path:
                yield path, None
            names = sorted(node, reverse=True)
            pending += [(f"{path}/{name}" if path else name, node[name]) for name in names]

    def _merged(self, member: Member) -> str:
        first, slash, rest = member.path.partition("/")
        if slash:
            return f"{self._links[first]}/{rest}" if first in self._links else member.path
        if first in _MERGED:
            if member.kind == "symlink" and member.link.strip("/") == f"usr/{first}":
                self._links[first] = f"usr/{first}"
            elif member.kind != "opaque":
                self._links.pop(first, None)
        return member.path

    def _keep(
        self, layer: dict[str, Any], member: Member, path: str, limit: int, where: str
    ) -> None:
        if path != member.path or member.kind == "folder":
            self._folder(layer, path, where)
            return
        content = member.content(limit) if limit and member.kind == "file" else None
        self._bytes += len(content or b"")
        self._count(path + member.link, where)
        folder, _, name = path.rpartition("/")
        parent = self._folder(layer, folder, where) if folder else layer
        parent[name] = Entry(member.kind, member.size, member.link, content)

    def _folder(self, root: dict[str, Any], path: str, where: str) -> dict[str, Any]:
        """The folder at `path`, made with all above it if need be."""
        node, is_new = root, False
        for name in path.split("/"):
            below = node.get(name)
            if not isinstance(below, dict):
                below = node[name] = {}
                is_new = True
                self._count(name, where)
            node = below
        if is_new:
            self._count(path, where)
        return node

    def _count(self, names: str, where: str) -> None:
        self._kept += 1
        self._names += len(names)
        for found, limit, what in (
            (self._kept, _KEPT_LIMIT, "files that hold versions"),
            (self._names, _NAMES_LIMIT, "characters of names"),
            (self._bytes, self._content_limit, "bytes that hold versions"),
        ):
            if found > limit:
                raise content_error(f"{where}: more than {limit} {what}: not a real image")


def _at(root: dict[str, Any], path: str) -> Any:
    node: Any = root
    for name in path.split("/") if path else ():
        node = node.get(name) if isinstance(node, dict) else None
        if node is None:
            break
    return node


def _remove(root: dict[str, Any], path: str) -> None:
    if root:
        folder, _, name = path.rpartition("/")
        if isinstance(parent := _at(root, folder), dict):
            parent.pop(name, None)


def _remove_file(root: dict[str, Any], path: str) -> None:
    if root and isinstance(_at(root, path), Entry):
        _remove(root, path)


def _clear(root: dict[str, Any], path: str) -> None:
    if isinstance(node := _at(root, path), dict):
        node.clear()


def _merge(below: dict[str, Any], above: dict[str, Any]) -> None:
    pending = [(below, above)]
    while pending:
        lower, upper = pending.pop()
        for name, node in upper.items():
            present = lower.get(name)
            if isinstance(node, dict) and isinstance(present, dict):
                pending.append((present, node))
            else:
                lower[name] = node
