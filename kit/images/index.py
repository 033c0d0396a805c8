"""What lies in a layer and in an image, path by path, so that later steps need not unpack it again.

The index of a layer is kept beside the blobs. Making it reads the whole layer once, and holds the
layer to its diff id on the way: no wrong byte of a pulled base gets past here.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import IO, TYPE_CHECKING, cast

from kit import console
from kit.errors import content_error
from kit.files import disk_errors, safe_member, write_bytes
from kit.images.delta import OPAQUE, WHITEOUT
from kit.images.layer import (
    ChunkStream,
    Entry,
    clean,
    dump_index,
    entry_of,
    load_index,
    members,
    unpacked,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kit.digest import Digest
    from kit.images.oci import Image, Layer, Layout

_NOTED = 256 << 20
"""Layers from this size on are announced: they take seconds."""
_AT_ONCE = 4
"""Layers that are read at a time: unpacking and hashing use a core each."""


def index_path(layout: Layout, layer: Digest) -> Path:
    """Where the index of the layer with this diff id lies."""
    return layout.root / "indexes" / f"{layer.hex}.json"


def write_index(layout: Layout, layer: Digest, entries: dict[str, Entry]) -> None:
    """Keep what is known of a layer."""
    write_bytes(index_path(layout, layer), dump_index(entries))


def base_index(layout: Layout, image: Image) -> dict[str, Entry]:
    """All paths that a container of the image sees: path → entry.

    Hard links stand as files of their own, since what they share may be replaced above them.

    Raises:
        KitError: a layer is damaged, is not the one that its image names, or leads out of the
            container (exit 4); it is compressed by zstd (exit 3).
    """
    missing = {
        layer.diff_id: layer
        for layer in image.layers
        if not index_path(layout, layer.diff_id).exists()
    }
    if missing:
        with ThreadPoolExecutor(min(_AT_ONCE, os.cpu_count() or 1)) as pool:
            list(pool.map(lambda layer: _read(layout, layer), missing.values()))
    merged: dict[str, Entry] = {}
    for layer in image.layers:
        entries = load_index(index_path(layout, layer.diff_id))
        merged = _laid_over(merged, _resolved(entries))
    return merged


def _read(layout: Layout, layer: Layer) -> None:
    blob = layout.blob(layer.digest)
    if layer.size >= _NOTED:
        console.note(f"reading layer {layer.digest.short}, {console.size(layer.size)}, once")
    hasher = hashlib.sha256()
    entries: dict[str, Entry] = {}

    def hashed(stream: IO[bytes]) -> Iterator[bytes]:
        for piece in unpacked(stream, f"layer {layer.digest}"):
            hasher.update(piece)
            yield piece

    with disk_errors(blob), blob.open("rb") as stream:
        pieces = hashed(stream)
        for member, content in members(cast("IO[bytes]", ChunkStream(pieces))):
            path = clean(member.name)
            if not path:
                continue
            safe_member(path, f"layer {layer.digest}")
            link = clean(member.linkname) if member.islnk() else member.linkname
            entry = entry_of(member, path, link)
            if content is not None:
                entry = replace(entry, sha256=_hash(content))
            entries.pop(path, None)  # the last of several counts, and comes after its target
            entries[path] = entry
        for _ in pieces:  # what stands after the end of the archive is hashed too
            pass
    if hasher.hexdigest() != layer.diff_id.hex:
        blob.unlink(missing_ok=True)
        raise content_error(
            f"layer {layer.digest}: expected diff id {layer.diff_id}, found "
            f"sha256:{hasher.hexdigest()}; it was removed from {layout.root}",
        )
    write_index(layout, layer.diff_id, entries)


def _hash(content: IO[bytes]) -> str:
    hasher = hashlib.sha256()
    while piece := content.read(1 << 18):
        hasher.update(piece)
    return hasher.hexdigest()


def _resolved(entries: dict[str, Entry]) -> dict[str, Entry]:
    """Every hard link as the file that it is."""
    found = dict(entries)
    for path, entry in entries.items():
        if entry.kind == "hardlink":
            target = found.get(entry.link)
            if target is None or target.kind == "directory":
                raise content_error(f"/{path}: hard link to /{entry.link}, which its layer lacks")
            found[path] = replace(target, path=path)
    return found


def _laid_over(below: dict[str, Entry], layer: dict[str, Entry]) -> dict[str, Entry]:
    """Lay one layer over those below it: whiteouts, opaque folders, what replaces a folder."""
    gone: set[str] = set()
    emptied: set[str] = set()
    for path, entry in layer.items():
        folder, _, name = path.rpartition("/")
        if name == OPAQUE:
            emptied.add(folder)
        elif name.startswith(WHITEOUT):
            gone.add(f"{folder}/{name.removeprefix(WHITEOUT)}".lstrip("/"))
        elif entry.kind != "directory" and path in below and below[path].kind == "directory":
            gone.add(path)
    kept = below
    trees = emptied | {path for path in gone if path in below and below[path].kind == "directory"}
    if trees:
        kept = {path: entry for path, entry in below.items() if not _is_under(path, trees)}
    for path in gone:
        kept.pop(path, None)
    for path, entry in layer.items():
        folder, _, name = path.rpartition("/")
        while folder and folder not in kept:
            # A layer need not name the folders that its files lie in; engines make them like this.
            kept[folder] = Entry(folder, "directory", 0o755)
            folder = folder.rpartition("/")[0]
        if not name.startswith(WHITEOUT):
            kept[path] = entry
    return kept


def _is_under(path: str, folders: set[str]) -> bool:
    if "" in folders:
        return True
    while path := path.rpartition("/")[0]:
        if path in folders:
            return True
    return False
