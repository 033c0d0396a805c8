"""From what an engine built to a canonical layer: the same content gives the same digest.

Engines differ in how they split layers, which untouched folders they list, which empty files they
leave at mount points, how they compress, and what they write into the configuration. Nothing of
that is content. So the layers above the base are merged into one, and everything equal to the base
is dropped.
"""

from __future__ import annotations

import hashlib
import io
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kit.digest import CHUNK
from kit.errors import content_error
from kit.files import atomic_writer, safe_member
from kit.images.delta import OPAQUE, WHITEOUT, Found
from kit.images.layer import Entry, LayerWriter
from kit.images.oci import Layer, Layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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


def merge(
    layers: Iterable[Iterable[Found]],
    layout: Layout,
    below: Mapping[str, Entry],
    epoch: int,
    mount_points: frozenset[str] = frozenset(),
) -> Layer:
    """Write what `layers` add to the base into `layout` as one layer.

    Args:
        layers: of `kit.images.delta`, the lowest first.
        layout: where the new layer goes.
        below: every path of the base.
        epoch: time stamp of every file.
        mount_points: folders that the build mounted inputs at; some engines leave them empty.

    Raises:
        KitError: a path or a hard link leads out of the layer (exit 4).
    """
    upper: dict[str, Found] = {}
    for layer in layers:
        _apply(layer, upper, below)
    _settle_hardlinks(upper)
    for folder in mount_points:
        if not any(name.startswith(f"{folder}/") for name in upper):
            upper.pop(folder, None)
    return _write(layout, _content(upper, below), epoch)


def settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What an image's configuration says of how to run it, without what only an engine wrote."""
    kept = {key: config[key] for key in KEPT_SETTINGS if config.get(key)}
    if kept.get("WorkingDir") == "/":
        del kept["WorkingDir"]
    labels = {k: v for k, v in (config.get("Labels") or {}).items() if k not in DROPPED_LABELS}
    kept.pop("Labels", None)
    if labels:
        kept["Labels"] = labels
    return kept


def _apply(layer: Iterable[Found], upper: dict[str, Found], below: Mapping[str, Entry]) -> None:
    """Lay one layer over those before it: additions, whiteouts, opaque folders."""
    hidden: set[str] = set()
    added: set[str] = set()
    older = _folders(upper)
    for found in layer:
        path = found.entry.path
        safe_member(path, "image layer")
        folder, _, name = path.rpartition("/")
        if name == OPAQUE:
            hidden.update(_children(folder, below))
            _drop(upper, folder, older, itself=False, but=added)
        elif name.startswith(WHITEOUT):
            gone = f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/")
            _drop(upper, gone, older, itself=True, but=added)
            if gone in below:
                hidden.add(gone)
        else:
            if found.entry.kind != "directory":
                _drop(upper, path, older, itself=True, but=added)
            upper.pop(_whiteout(path), None)
            upper[path] = found
            added.add(path)
    for path in hidden - added:
        upper[_whiteout(path)] = Found(Entry(_whiteout(path), "file", 0o644))


def _content(upper: dict[str, Found], below: Mapping[str, Entry]) -> list[Found]:
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


def _same(found: Found, old: Entry) -> bool:
    entry = found.entry
    if entry.kind == "file" and entry.size == old.size and old.kind == "file":
        entry = replace(entry, sha256=_hash(found))
    return entry == old


def _write(layout: Layout, content: list[Found], epoch: int) -> Layer:
    scratch = layout.root / "blobs" / f"new-layer-{os.getpid()}"
    with atomic_writer(scratch, 0o444) as stream:
        writer = LayerWriter(stream, epoch)
        for found in content:
            if found.entry.kind != "file":
                writer.add(found.entry)
            elif found.file is None:
                writer.add(found.entry, io.BytesIO())
            else:
                with found.file.open("rb") as source:
                    source.seek(found.offset)
                    writer.add(found.entry, source)
        digest, size = writer.close()
    layout.blob(digest).parent.mkdir(parents=True, exist_ok=True)
    scratch.replace(layout.blob(digest))
    return Layer(digest, size)


def _settle_hardlinks(upper: dict[str, Found]) -> None:
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
            upper[name] = Found(link)


def _whiteout(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/{WHITEOUT}{name}".lstrip("/")


def _children(folder: str, below: Mapping[str, Entry]) -> list[str]:
    prefix = f"{folder}/" if folder else ""
    return [p for p in below if p.startswith(prefix) and "/" not in p[len(prefix) :]]


def _folders(upper: Mapping[str, Found]) -> set[str]:
    """Every folder that has something in it."""
    found: set[str] = set()
    for path in upper:
        folder = path.rpartition("/")[0]
        while folder and folder not in found:
            found.add(folder)
            folder = folder.rpartition("/")[0]
    return found


def _drop(
    upper: dict[str, Found], path: str, older: set[str], *, itself: bool, but: set[str]
) -> None:
    """Forget what lower layers had at and below a path.

    `older` are the folders that they had something in, `but` is what the present layer has.
    """
    if itself and path not in but:
        upper.pop(path, None)
    if path in older or not path:
        prefix = f"{path}/" if path else ""
        for name in [n for n in upper if n.startswith(prefix) and n not in but]:
            del upper[name]


def _hash(found: Found) -> str:
    assert found.file is not None
    hasher = hashlib.sha256()
    with found.file.open("rb") as stream:
        stream.seek(found.offset)
        left = found.entry.size
        while left:
            piece = stream.read(min(left, CHUNK))
            if not piece:
                raise content_error(f"{found.entry.path}: the engine's archive is cut short")
            hasher.update(piece)
            left -= len(piece)
    return hasher.hexdigest()
