"""The locked image that a stack stands on: the few files of it that decide what has to come.

Its layers are read from the store in one pass, which takes minutes for an image of 10 GB; what was
found is kept below the project's home under the manifest digest, so that a second look is quick.
"""

from __future__ import annotations

import base64
import contextlib
import json
import posixpath
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kit import console
from kit.artifacts import bounded, layers
from kit.artifacts.layers import Region
from kit.artifacts.tar import Limit
from kit.artifacts.tree import Entry, Tree
from kit.digest import Digest
from kit.errors import content_error, usage_error
from kit.files import write_json
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from kit.errors import KitError
    from kit.locks.lock import Input
    from kit.project import Project

SCHEMA = "kit.base_image/1"
STATUS = "var/lib/dpkg/status"
"""dpkg's list of packages; images without a dpkg have one stanza a file in `status.d` beside it."""

_DOCUMENT_LIMIT = 4 << 20
_FILE_LIMIT = 16 << 20
_CONTENT_LIMIT = 1 << 30
"""Bytes of all layers together: dpkg's status stands in every layer that installs something."""
_MEMO_LIMIT = 256 << 20
_LINKS_LIMIT = 40
_STATUS_FOLDER = f"{STATUS}.d/"
_ARCHITECTURES = "var/lib/dpkg/arch"
_ALWAYS = (STATUS, _ARCHITECTURES, "etc/os-release", "etc/pip.conf")
_READ = re.compile(
    rf"{STATUS}\.d/[^/]+|etc/apt/trusted\.gpg(?:\.d/[^/]+)?|etc/apt/keyrings/[^/]+"
    r"|usr/share/keyrings/[^/]+|usr/lib/os-release|etc/pip/[^/]+|etc/xdg/pip/[^/]+"
)
"""Files whose content is kept, besides those asked for by name."""
_NAMED = re.compile(r"(?:.*/)?bin/python3[^/]*|etc/alternatives/python[^/]*")
"""Files of which only the name, or the target of the link, is kept."""
_PYTHON = re.compile(r"python(3\.\d+)")
_ARCHITECTURE = re.compile(r"[a-z0-9][a-z0-9-]*")
_FIELD = re.compile(r"(Package|Status|Version):(.*)")
_SEARCHED = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""The search path of an image whose configuration has none."""


class BaseImage:
    """Reads files out of a locked image whose blobs are in the store.

    Args:
        project: whose store has the blobs, and whose home remembers what was found.
        inputs: the lock's inputs; those of kind `oci` in `group` are the image.
        group: name of the image in the intent.
        stack: for hints.
        also: paths that will be read, besides dpkg's, apt's and pip's files and the names of
            Python's programs; one pass finds all that is named here, each other path that is read
            later costs another one.

    Raises:
        KitError: there is no such image (exit 2), a blob is missing or compressed in a way that
            is not read (exit 3), damaged (exit 4).
    """

    def __init__(
        self,
        project: Project,
        inputs: Iterable[Input],
        group: str,
        *,
        stack: str = "STACK",
        also: Iterable[str] = (),
    ) -> None:
        self.group = group
        self._stack = stack
        self._store = Store(project.store)
        self._blobs = [item for item in inputs if item.kind == "oci" and item.group == group]
        manifests = [item for item in self._blobs if str(item.sha256) == item.version]
        if len(manifests) != 1:
            raise usage_error(
                f"image {group}: the lock has {len(manifests)} manifests of it, expected one",
                hint=f"kit lock {stack}",
            )
        self.manifest_digest = manifests[0].sha256
        self._memo = project.home / "base-images" / f"{self.manifest_digest.hex}.json"
        self._exact = frozenset(_ALWAYS) | {_clean(path) for path in also}
        self._entries: dict[str, Entry] = {}
        if not self._remember():
            self._look()

    @property
    def config(self) -> dict[str, Any]:
        """The image's configuration."""
        return self._documents[1]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process in the image starts with."""
        words = bounded.texts(self.config, "config", "Env")
        return dict(word.split("=", 1) for word in words if "=" in word)

    def read(self, path: str) -> bytes | None:
        """The content of a file; None if there is none of that name. Links are followed.

        Raises:
            KitError: it is far larger than such a file is, links lead in a circle (exit 4).
        """
        entry = self._followed(path)[1]
        if entry is None or entry.content is None:
            return None
        if entry.size > len(entry.content):
            raise content_error(
                f"image {self.group}: {path}: {console.size(entry.size)}: expected at most "
                f"{console.size(_FILE_LIMIT)}"
            )
        return entry.content

    def names(self, prefix: str) -> tuple[str, ...]:
        """The paths that start with `prefix`, of those that were looked for; links included."""
        return tuple(sorted(path for path in self._entries if path.startswith(prefix)))

    @cached_property
    def status(self) -> bytes:
        """What is installed, as dpkg lists it, also of an image that has no dpkg itself.

        Raises:
            KitError: there is none (exit 2).
        """
        stanzas = [self.read(STATUS) or b""]
        for name in self.names(_STATUS_FOLDER):
            if not name.endswith(".md5sums"):
                stanza = (self.read(name) or b"").strip() + b"\n"
                installed = b"" if b"\nStatus:" in stanza else b"Status: install ok installed\n"
                stanzas.append(stanza + installed)
        found = b"\n".join(filter(None, stanzas))
        if not found.strip():
            raise usage_error(
                f"image {self.group}: no {STATUS} in {self._blobs[0].name}: packages can be put "
                "only onto an image of Debian or Ubuntu"
            )
        return found

    @cached_property
    def packages(self) -> dict[str, str]:
        """The installed packages, name → version."""
        found = {}
        for stanza in self.status.decode("utf-8", "replace").split("\n\n"):
            lines = filter(None, map(_FIELD.match, stanza.split("\n")))
            fields = {line[1]: line[2].strip() for line in lines}
            if fields.get("Status", "").endswith(" installed") and "Version" in fields:
                found[fields.get("Package", "")] = fields["Version"]
        return found

    @property
    def foreign_architectures(self) -> tuple[str, ...]:
        """The architectures besides its own that its dpkg takes packages of.

        Raises:
            KitError: what it names there is none (exit 4).
        """
        found = (self.read(_ARCHITECTURES) or b"").decode("ascii", "replace").split()[1:]
        for name in found:
            # They go into the settings of this host's apt, which may run commands.
            if not _ARCHITECTURE.fullmatch(name):
                raise self._damaged(f"{_ARCHITECTURES}: no architecture: {name!r:.100}")
        return tuple(found)

    @cached_property
    def python(self) -> str | None:
        """`3.12` of the `python3` that the image's search path finds first; None without one."""
        for folder in self.environment.get("PATH", _SEARCHED).split(":"):
            path = _clean(f"{folder}/python3")
            if folder.startswith("/") and path in self._entries:
                name = self._followed(path)[0].rpartition("/")[2]
                if match := _PYTHON.match(name):
                    return match[1]
                beside = (_PYTHON.fullmatch(n.rpartition("/")[2]) for n in self.names(path))
                return next((match[1] for match in beside if match), None)
        return None

    @cached_property
    def _documents(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Manifest and configuration, verified."""
        manifest = self._document(self.manifest_digest)
        return manifest, self._document(self._digest(bounded.text(manifest, "config", "digest")))

    def _document(self, digest: Digest) -> dict[str, Any]:
        path = self._store.checked(digest, f"image {self.group}", self._stack)
        return bounded.loads(
            bounded.content(path, _DOCUMENT_LIMIT), f"image {self.group}: {digest}"
        )

    def _digest(self, text: str | None) -> Digest:
        try:
            return Digest.parse(text or "")
        except ValueError:
            raise self._damaged(f"expected a sha256 digest, found {text!r:.100}") from None

    def _damaged(self, what: str) -> KitError:
        return content_error(f"image {self.group}: {self.manifest_digest}: {what}")

    def _layers(self) -> Iterator[tuple[Region, str]]:
        rows = self._documents[0].get("layers")
        if not isinstance(rows, list):
            raise self._damaged("its layers are no list")
        for number, row in enumerate(rows, 1):
            digest = self._digest(bounded.text(row, "digest"))
            where = f"image {self.group}: layer {number} of {len(rows)}"
            path = self._store.checked(digest, where, self._stack)
            yield Region(path, 0, path.stat().st_size), where

    def _look(self) -> None:
        """Read all layers for what is wanted, and remember it."""
        tree = Tree(_Wanted(self._exact), _CONTENT_LIMIT)
        limit = Limit()
        for region, where in self._layers():
            tree.add_layer(layers.of_region(region, where, limit), where)
        self._entries = {path: entry for path, entry in tree.entries() if entry is not None}
        _write(self._memo, self._exact, self._entries)

    def _remember(self) -> bool:
        """Take what an earlier pass has found, if it looked for all that is wanted now."""
        found = _remembered(self._memo)
        if found is None or not found[0] >= self._exact:
            self._exact |= found[0] if found else frozenset()
            return False
        self._exact, self._entries = found
        return True

    def _followed(self, path: str) -> tuple[str, Entry | None]:
        """Where the links at and above a path lead to, and what is there."""
        path = _clean(path)
        for _ in range(_LINKS_LIMIT):
            if not (path in self._exact or _READ.fullmatch(path) or _NAMED.fullmatch(path)):
                self._exact |= {path}
                self._look()
            parts = path.split("/")
            for count in range(1, len(parts) + 1):
                here, rest = "/".join(parts[:count]), parts[count:]
                entry = self._entries.get(here)
                if entry is not None and entry.kind == "symlink":
                    folder = "/" if entry.link.startswith("/") else posixpath.dirname(here)
                    path = _clean(posixpath.join("/", folder, entry.link, *rest))
                    break
                if entry is not None and entry.kind == "hardlink":
                    path = entry.link
                    break
            else:
                return path, self._entries.get(path)
        raise content_error(f"image {self.group}: {path}: links lead in a circle")


class _Wanted:
    """What to keep of the layers: the files above, and links on the way to those asked for."""

    def __init__(self, exact: frozenset[str]) -> None:
        self._exact = exact
        self._above = {
            "/".join(parts[:count])
            for parts in (path.split("/") for path in exact)
            for count in range(1, len(parts))
        }

    def __call__(self, path: str) -> tuple[str, int] | None:
        if path in self._exact or _READ.fullmatch(path):
            return path, _FILE_LIMIT
        if path in self._above or ("python" in path and _NAMED.fullmatch(path)):
            return path, 0
        return None


def _clean(path: str) -> str:
    return posixpath.normpath(f"/{path}").lstrip("/")


def _write(memo: Path, exact: Iterable[str], entries: dict[str, Entry]) -> None:
    rows = {
        path: [
            entry.kind,
            entry.size,
            entry.link,
            None if entry.content is None else base64.b64encode(entry.content).decode(),
        ]
        for path, entry in entries.items()
    }
    write_json(memo, {"schema": SCHEMA, "paths": sorted(exact), "entries": rows})


def _remembered(memo: Path) -> tuple[frozenset[str], dict[str, Entry]] | None:
    """What an earlier pass looked for and found; None if there was none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        if memo.stat().st_size > _MEMO_LIMIT:
            return None
        document = json.loads(memo.read_bytes())
        if document["schema"] != SCHEMA:
            return None
        entries = {path: _entry(row) for path, row in document["entries"].items()}
        return frozenset(document["paths"]), entries
    return None


def _entry(row: Sequence[Any]) -> Entry:
    kind, size, link, content = row
    return Entry(kind, size, link, None if content is None else base64.b64decode(content))
