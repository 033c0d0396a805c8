"""Base images from locked Debian packages, assembled without unpacking and without privileges."""

from __future__ import annotations

import lzma
import os
import tarfile
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any

from kit import document
from kit.digest import Digest
from kit.errors import content_error
from kit.files import atomic_writer, safe_member, write_json
from kit.images.family import Family, Group, load_family
from kit.images.index import index_path, write_index
from kit.images.layer import (
    Entry,
    LayerWriter,
    clean,
    entry_of,
    load_index,
    text_file,
)
from kit.images.oci import Image, Layer, Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["Family", "Group", "assemble", "load_family", "plain"]

FORMAT = 1
"""Raised when this module writes other bytes for the same family."""
_AHEAD = 4
"""Packages that are unpacked in memory at a time."""
_AR_MAGIC = b"!<arch>\n"
_MERGED = ("bin", "sbin", "lib", "lib64")
"""Top-level folders that Debian 12 has as links into /usr (the merged-/usr layout)."""


def plain(family: Family) -> Any:
    """What of a family decides how its base images come out."""
    return [
        dict(family.environment),
        family.exclude,
        family.keep,
        [[g.name, g.directories, g.sticky, dict(g.links), dict(g.files)] for g in family.groups],
    ]


def assemble(
    layout: Layout,
    family: Family,
    packages: Mapping[str, Mapping[str, Path]],
    *,
    platform: str,
    epoch: int,
    name: Callable[[str], str],
    fresh: bool = False,
) -> list[Image]:
    """Write one image per group, each on top of the one before; returns them in that order.

    Args:
        layout: where blobs and images go.
        family: what is left out, linked and added.
        packages: group → file name of each `.deb` → where the store has it.
        platform: of the images.
        epoch: time stamp of every file.
        name: group → reference of its image.
        fresh: write every layer again, also those that are there.
    """
    images: list[Image] = []
    layers: list[Layer] = []
    below: dict[str, Entry] = {}
    for group in family.groups:
        layer, entries = _layer(
            layout, family, group, packages[group.name], layers, below, epoch, fresh
        )
        layers.append(layer)
        below = {**below, **entries}
        images.append(
            layout.write_image(
                name=name(group.name),
                layers=tuple(layers),
                settings={"Env": [f"{k}={v}" for k, v in sorted(family.environment.items())]},
                history=tuple(f"kit: {g.name} packages" for g in family.groups[: len(layers)]),
                platform=platform,
                epoch=epoch,
            )
        )
    return images


def _layer(
    layout: Layout,
    family: Family,
    group: Group,
    debs: Mapping[str, Path],
    lower: list[Layer],
    below: Mapping[str, Entry],
    epoch: int,
    fresh: bool,
) -> tuple[Layer, dict[str, Entry]]:
    pins = sorted((name, path.name) for name, path in debs.items())
    stack = [str(layer.digest) for layer in lower]
    key = Digest.of_document([FORMAT, epoch, plain(family), group.name, pins, stack])
    memo = layout.root / "indexes" / f"layer-{key.hex}.json"
    if memo.exists():
        known = document.load(memo)
        layer = Layer(Digest.parse(known.text("digest")), known.integer("size"))
        index = index_path(layout, layer.digest)
        blob = layout.blob(layer.digest)
        if index.exists() and blob.exists() and blob.stat().st_size == layer.size and not fresh:
            return layer, load_index(index)
    # Another stack of the same family may be writing the same layer.
    scratch = layout.root / "blobs" / f"new-{key.hex}-{os.getpid()}"
    with atomic_writer(scratch, 0o444) as stream:
        writer = LayerWriter(stream, epoch)
        status = _write_layer(writer, family, group, debs, below)
        _add_status(writer, group, below, status)
        digest, size = writer.close()
    layout.blob(digest).parent.mkdir(parents=True, exist_ok=True)
    scratch.replace(layout.blob(digest))
    write_index(layout, digest, writer.entries)
    write_json(memo, {"digest": str(digest), "size": size})
    return Layer(digest, size), writer.entries


def _write_layer(
    writer: LayerWriter,
    family: Family,
    group: Group,
    debs: Mapping[str, Path],
    below: Mapping[str, Entry],
) -> list[str]:
    def parents(path: str) -> None:
        folder = path.rpartition("/")[0]
        known = writer.entries.get(folder) or below.get(folder)
        if folder and known is None:
            parents(folder)
            writer.add(Entry(folder, "directory", 0o755))
        elif known is not None and known.kind != "directory":
            raise content_error(f"group {group.name}: refused /{path}: /{folder} is a {known.kind}")

    def add(entry: Entry, content: IO[bytes] | None = None) -> None:
        if entry.path in writer.entries or entry.path in below:
            raise content_error(f"group {group.name}: /{entry.path} is there already")
        parents(entry.path)
        writer.add(entry, content)

    if not below:
        for top in _MERGED:
            add(Entry(f"usr/{top}", "directory", 0o755))
            add(Entry(top, "symlink", 0o777, link=f"usr/{top}"))
    status = []
    for control, contents in _unpacked(debs):
        status.append(control)
        for member, content in contents:
            path = _inside(clean(member.name), control)
            if not path or family.leaves_out(path):
                continue
            link = member.linkname
            if member.islnk():
                link = _inside(clean(member.linkname), control)
            entry = entry_of(member, path, link)
            seen = writer.entries.get(path) or below.get(path)
            if seen is None:
                add(entry, content)
            elif seen.kind not in ("directory", "symlink") or entry.kind != "directory":
                package = control.split("\n", 1)[0]
                raise content_error(f"{package}: ships /{path}, which another package ships too")
    for folder in group.directories:
        if folder not in writer.entries:
            add(Entry(folder, "directory", 0o755))
    for folder in group.sticky:
        if folder not in writer.entries:
            add(Entry(folder, "directory", 0o1777))
    for path, target in sorted(group.links.items()):
        add(Entry(path, "symlink", 0o777, link=target))
    for path, text in sorted(group.files.items()):
        add(Entry(path, "file", 0o644, size=len(text.encode())), text_file(text.encode()))
    return status


def _add_status(
    writer: LayerWriter, group: Group, below: Mapping[str, Entry], status: list[str]
) -> None:
    """Record the packages of this layer the way package scanners read them (`dpkg -l` too)."""
    paragraphs = []
    for control in status:
        first, _, rest = control.partition("\n")
        paragraphs.append(f"{first}\nStatus: install ok installed\n{rest}")
    if not below:
        writer.add(Entry("var/lib/dpkg/status.d", "directory", 0o755))
    text = "\n".join(paragraphs).encode()
    name = "var/lib/dpkg/status" if not below else f"var/lib/dpkg/status.d/{group.name}"
    writer.add(Entry(name, "file", 0o644, size=len(text)), text_file(text))


def _inside(path: str, where: str) -> str:
    """Check a member's path and move it below /usr where Debian 12 has merged it."""
    if not path:
        return path
    safe_member(path, where.split("\n", 1)[0])
    top = path.split("/", 1)[0]
    return f"usr/{path}" if top in _MERGED else path


Contents = list[tuple[tarfile.TarInfo, "IO[bytes] | None"]]


def _unpacked(debs: Mapping[str, Path]) -> Iterable[tuple[str, Contents]]:
    """Each package's control text and members, in the order of file names, a few ahead."""
    waiting = [path for _, path in sorted(debs.items(), reverse=True)]
    at_work: deque[Future[tuple[str, Contents]]] = deque()
    with ThreadPoolExecutor(2) as pool:
        while waiting or at_work:
            while waiting and len(at_work) < _AHEAD:
                at_work.append(pool.submit(_read_deb, waiting.pop()))
            yield at_work.popleft().result()


def _read_deb(path: Path) -> tuple[str, Contents]:
    try:
        return _members_of(path)
    except (lzma.LZMAError, zlib.error, tarfile.TarError, ValueError, KeyError, EOFError) as error:
        raise content_error(f"{path}: damaged Debian package: {error}") from error


def _members_of(path: Path) -> tuple[str, Contents]:
    control, data = "", b""
    for name, content in _ar_members(path):
        if name.startswith("control.tar"):
            with tarfile.open(fileobj=text_file(_decompress(name, content, path))) as archive:
                member = archive.extractfile("./control")
                assert member is not None
                control = member.read().decode().rstrip("\n") + "\n"
        elif name.startswith("data.tar"):
            data = _decompress(name, content, path)
    archive = tarfile.open(fileobj=text_file(data))  # noqa: SIM115  # its members are read later
    return control, [
        (member, archive.extractfile(member) if member.isreg() else None) for member in archive
    ]


def _ar_members(path: Path) -> Iterable[tuple[str, bytes]]:
    with path.open("rb") as stream:
        if stream.read(len(_AR_MAGIC)) != _AR_MAGIC:
            raise content_error(f"{path}: not a Debian package (no ar archive)")
        while header := stream.read(60):
            if len(header) != 60 or header[58:] != b"`\n":
                raise content_error(f"{path}: damaged Debian package (bad ar header)")
            size = int(header[48:58])
            yield header[:16].decode().strip().rstrip("/"), stream.read(size)
            stream.read(size % 2)


def _decompress(name: str, content: bytes, path: Path) -> bytes:
    if name.endswith(".xz"):
        return lzma.decompress(content)
    if name.endswith(".gz"):
        return zlib.decompress(content, wbits=31)
    if name.endswith(".tar"):
        return content
    raise content_error(f"{path}: {name}: compression not supported (xz, gz, none)")
