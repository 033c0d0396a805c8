"""From what an engine built to a canonical image: the same content gives the same digest.

Engines differ in how they split layers, which untouched folders they list, which empty files they
leave at mount points, how they compress, and what they write into the configuration. Nothing of
that is content. So the layers above the base are merged into one, everything equal to the base is
dropped, and configuration and manifest are written anew.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, cast

from kit.digest import CHUNK, Digest
from kit.errors import content_error
from kit.files import atomic_writer, safe_member
from kit.images.layer import Entry, LayerWriter, clean, entry_of, members
from kit.images.oci import Layer, Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
ENGINE_FILES = frozenset(
    {"etc/hosts", "etc/hostname", "etc/resolv.conf", ".dockerenv", "run/.containerenv"}
)
"""What engines put into a container for themselves."""
ENGINE_FOLDERS = ("dev", "proc", "sys", "run/secrets")
KEPT_SETTINGS = (
    "Env",
    "Cmd",
    "Entrypoint",
    "WorkingDir",
    "User",
    "ExposedPorts",
    "Volumes",
    "StopSignal",
    "Labels",
)
DROPPED_LABELS = ("io.buildah.version",)


@dataclass(frozen=True, slots=True)
class _Found:
    """A path of the built layers, and where its bytes lie in a spooled layer."""

    entry: Entry
    layer: Path | None = None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Built:
    """The one layer that a build added to its base, and the settings that the image asks for."""

    layer: Layer
    settings: Mapping[str, Any]


def normalise(
    saved: Iterable[bytes],
    layout: Layout,
    below: Mapping[str, Entry],
    base_layers: tuple[Digest, ...],
    epoch: int,
    mount_points: frozenset[str] = frozenset(),
) -> Built:
    """Read a docker-archive stream; put what it adds to the base into `layout` as one layer.

    Args:
        saved: the engine's `save` stream, any engine.
        layout: where the new layer goes.
        below: every path of the base.
        base_layers: the layers of the base; the archive must start with them.
        epoch: time stamp of every file.
        mount_points: folders that the build mounted inputs at; some engines leave them empty.
    """
    layout.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="normalise-", dir=layout.root) as scratch:
        spooled, config = _spool(saved, Path(scratch), base_layers)
        upper: dict[str, _Found] = {}
        for path in spooled:
            _apply(path, upper, below)
        _settle_hardlinks(upper)
        for folder in mount_points:
            if not any(name.startswith(f"{folder}/") for name in upper):
                upper.pop(folder, None)
        layer = _write(layout, _content(upper, below), epoch)
    return Built(layer, _settings(config))


def _spool(
    saved: Iterable[bytes], scratch: Path, base_layers: tuple[Digest, ...]
) -> tuple[list[Path], dict[str, Any]]:
    """The layers above the base, as files in order, and the image's configuration."""
    documents: dict[str, bytes] = {}
    files: dict[str, Path] = {}
    links: dict[str, str] = {}
    digests: dict[str, Digest] = {}
    numbers = itertools.count()
    for member, content in members(cast("IO[bytes]", _Stream(saved))):
        name = clean(member.name)
        if member.issym() or member.islnk():
            folder = name.rpartition("/")[0] if member.issym() else ""
            links[name] = _resolve(folder, member.linkname)
        elif content is not None and member.size < CHUNK and not name.endswith(".tar"):
            documents[name] = content.read()
        elif content is not None:
            files[name] = scratch / str(next(numbers))
            digests[name] = _copy(content, files[name])
    for name, body in documents.items():  # small layers of an OCI-shaped archive
        files[name] = scratch / str(next(numbers))
        files[name].write_bytes(body)
        digests[name] = Digest.of_bytes(body)
    manifest = json.loads(documents["manifest.json"])[0]
    names = [links.get(clean(name), clean(name)) for name in manifest["Layers"]]
    ordered = [digests[name] for name in names]
    if tuple(ordered[: len(base_layers)]) != base_layers:
        raise content_error("the built image does not stand on the locked base image")
    return [files[name] for name in names[len(base_layers) :]], json.loads(
        documents[clean(manifest["Config"])]
    )


def _apply(layer: Path, upper: dict[str, _Found], below: Mapping[str, Entry]) -> None:
    """Lay one layer over those before it: additions, whiteouts, opaque folders."""
    hidden: set[str] = set()
    with layer.open("rb") as stream:
        for member, _ in members(stream):
            path = clean(member.name)
            folder, _, name = path.rpartition("/")
            if name == _OPAQUE:
                hidden.update(_children(folder, below))
                _drop(upper, folder, itself=False)
            elif name.startswith(_WHITEOUT):
                gone = f"{folder}/{name.removeprefix(_WHITEOUT)}".lstrip("/")
                _drop(upper, gone, itself=True)
                if gone in below:
                    hidden.add(gone)
            elif path:
                safe_member(path, "image layer")
                link = clean(member.linkname) if member.islnk() else member.linkname
                entry = entry_of(member, path, link)
                hidden.discard(path)
                if entry.kind != "directory":
                    _drop(upper, path, itself=True)
                upper[path] = _Found(entry, layer, member.offset_data)
    for path in hidden:
        upper[_whiteout(path)] = _Found(Entry(_whiteout(path), "file", 0o644))


def _content(upper: dict[str, _Found], below: Mapping[str, Entry]) -> list[_Found]:
    """What differs from the base, sorted, with nothing that only an engine wanted."""
    kept = []
    for path in sorted(upper):
        found = upper[path]
        if path in ENGINE_FILES or path.startswith(tuple(f"{top}/" for top in ENGINE_FOLDERS)):
            continue
        if path in ENGINE_FOLDERS and path not in below:
            continue
        old = below.get(path)
        if old is not None and _same(found, old):
            continue
        kept.append(found)
    return kept


def _same(found: _Found, old: Entry) -> bool:
    if found.entry.kind == "file" and found.entry.size == old.size and old.kind == "file":
        found = replace(found, entry=replace(found.entry, sha256=_hash(found)))
    return found.entry == old


def _write(layout: Layout, content: list[_Found], epoch: int) -> Layer:
    scratch = layout.root / "blobs" / f"new-layer-{id(content)}"
    with atomic_writer(scratch, 0o444) as stream:
        writer = LayerWriter(stream, epoch)
        for found in content:
            if found.entry.kind != "file":
                writer.add(found.entry)
            elif found.layer is None:
                writer.add(found.entry, io.BytesIO())
            else:
                with found.layer.open("rb") as source:
                    source.seek(found.offset)
                    writer.add(found.entry, source)
        digest, size = writer.close()
    layout.blob(digest).parent.mkdir(parents=True, exist_ok=True)
    scratch.replace(layout.blob(digest))
    return Layer(digest, size)


def _settle_hardlinks(upper: dict[str, _Found]) -> None:
    """Of several names of one file, the one that sorts first carries the bytes."""
    groups: dict[str, list[str]] = {}
    for path, found in upper.items():
        if found.entry.kind == "hardlink":
            groups.setdefault(found.entry.link, [found.entry.link]).append(path)
    for target, names in groups.items():
        source = upper.get(target)
        if source is None or source.entry.kind != "file":
            raise content_error(f"/{names[1]}: hard link to /{target}, which its layer lacks")
        first, *others = sorted(names)
        upper[first] = replace(source, entry=replace(source.entry, path=first))
        for name in others:
            link = replace(source.entry, path=name, kind="hardlink", link=first, size=0)
            upper[name] = _Found(link)


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    given = config.get("config") or {}
    settings = {key: given[key] for key in KEPT_SETTINGS if given.get(key)}
    if settings.get("WorkingDir") == "/":
        del settings["WorkingDir"]
    labels = {k: v for k, v in (given.get("Labels") or {}).items() if k not in DROPPED_LABELS}
    settings.pop("Labels", None)
    if labels:
        settings["Labels"] = labels
    return settings


def _whiteout(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/{_WHITEOUT}{name}".lstrip("/")


def _children(folder: str, below: Mapping[str, Entry]) -> list[str]:
    prefix = f"{folder}/" if folder else ""
    return [p for p in below if p.startswith(prefix) and "/" not in p[len(prefix) :]]


def _drop(upper: dict[str, _Found], path: str, *, itself: bool) -> None:
    prefix = f"{path}/"
    for name in [n for n in upper if n.startswith(prefix) or (itself and n == path)]:
        del upper[name]
    if itself:
        upper.pop(_whiteout(path), None)


def _resolve(folder: str, link: str) -> str:
    parts = folder.split("/") if folder else []
    for part in link.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _copy(content: IO[bytes], path: Path) -> Digest:
    hasher = hashlib.sha256()
    with path.open("wb") as stream:
        while piece := content.read(CHUNK):
            hasher.update(piece)
            stream.write(piece)
    return Digest(hasher.hexdigest())


def _hash(found: _Found) -> str:
    assert found.layer is not None
    hasher = hashlib.sha256()
    with found.layer.open("rb") as stream:
        stream.seek(found.offset)
        left = found.entry.size
        while left:
            piece = stream.read(min(left, CHUNK))
            if not piece:
                raise content_error(f"{found.entry.path}: the engine's archive is cut short")
            hasher.update(piece)
            left -= len(piece)
    return hasher.hexdigest()


class _Stream(io.RawIOBase):
    """A readable file over chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        pieces, wanted = [], size
        while wanted:
            if not self._rest:
                piece = next(self._chunks, None)
                if piece is None:
                    break
                self._rest = memoryview(piece)
            taken = self._rest[:wanted] if wanted > 0 else self._rest
            pieces.append(taken)
            self._rest = self._rest[len(taken) :]
            wanted -= len(taken)
        return b"".join(pieces)
