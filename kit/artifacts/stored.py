"""Images on disk: OCI layouts, OCI archives, and what `docker save` writes.

Index, manifest and configuration are read whole and their digests verified; of the layers only the
places are taken down.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from kit.artifacts import bounded
from kit.artifacts.layers import Plain, Region
from kit.artifacts.tar import Limit, members
from kit.digest import Digest
from kit.errors import KitError, content_error, usage_error
from kit.files import disk_errors
from kit.images.media_types import NAME

if TYPE_CHECKING:
    from collections.abc import Mapping

_DOCUMENT_LIMIT = 4 << 20
_LAYERS_LIMIT = 1000
_DEEPEST_INDEX = 3
_CANDIDATES_LIMIT = 1000
_INDEXES_LIMIT = 32 << 20
"""Bytes of all indexes inside of indexes; one has some kilobytes."""
_ARCHIVE_LIMIT = 100_000
_LONGEST_NAME = 255
"""Of a blob, a document, a layer's link: the rest of an archive is of no interest."""
_HEX = re.compile(r"(?:blobs/sha256/)?([0-9a-f]{64})(?:\.json)?")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_COMPRESSED = {b"\x1f\x8b": "gunzip --keep", b"\x28\xb5\x2f\xfd": "zstd --decompress --keep"}


@dataclass(frozen=True, slots=True)
class StoredImage:
    """One image on disk.

    Attributes:
        manifest_digest: None for a `docker save` archive of the old form, which has no manifest.
        image_id: the digest of the configuration.
        config: the configuration, verified.
        layers: base first.
    """

    manifest_digest: Digest | None
    image_id: Digest
    config: dict[str, Any]
    layers: tuple[Region, ...]

    @property
    def size(self) -> int:
        """Bytes of the layers as they are stored."""
        return sum(layer.size for layer in self.layers)


class _Files(Protocol):
    """A layout's files by name, wherever they lie."""

    @property
    def where(self) -> str:
        """The folder or the archive."""

    def find(self, name: str) -> Region | None:
        """Where a file lies, None if there is none of that name."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    digest: Digest
    names: tuple[str, ...]
    platform: str | None

    @property
    def shown(self) -> str:
        return self.names[0] if self.names else str(self.digest)


def host_architecture() -> str:
    """This machine's architecture as images call it: `amd64`, `arm64`."""
    machine = platform.machine()
    return _ARCHITECTURES.get(machine, machine)


def split(reference: str) -> tuple[Path, str | None] | None:
    """Path and image name of `PATH`, `PATH:NAME` or `PATH@sha256:…`; None if no such file is there.

    A folder counts only if it is a layout: next to a folder `rehearsal` an engine may still have
    an image of that name.
    """
    places = [len(reference), *(at for at, sign in enumerate(reference) if sign in ":@")]
    for place in places:
        path = Path(reference[:place])
        if reference[:place] and _is_image(path):
            return path, reference[place + 1 :] or None
    return None


def look(path: Path, name: str | None) -> StoredImage:
    """Open an image.

    Args:
        path: a layout's folder, or an archive that is not compressed.
        name: a reference name or a digest, needed where there are several images; of one image
            for several architectures this machine's is taken.

    Raises:
        KitError: several images and no name (exit 2), not an image or damaged (exit 4).
    """
    files: _Files = _Folder(path) if path.is_dir() else _archive(path)
    if files.find("index.json") is not None:
        return _by_index(files, name)
    if files.find("manifest.json") is not None:
        return _by_docker(files, name)
    raise content_error(
        f"{path}: neither an OCI layout nor a saved image: no index.json, no manifest.json"
    )


def _is_image(path: Path) -> bool:
    try:
        return path.is_file() or (path / "index.json").is_file()
    except (OSError, ValueError):
        return False


@dataclass(frozen=True, slots=True)
class _Folder:
    root: Path

    @property
    def where(self) -> str:
        return str(self.root)

    def find(self, name: str) -> Region | None:
        path = self.root / name
        return Region(path, 0, path.stat().st_size) if path.is_file() else None


@dataclass(frozen=True, slots=True)
class _Archive:
    path: Path
    members: Mapping[str, Region]

    @property
    def where(self) -> str:
        return str(self.path)

    def find(self, name: str) -> Region | None:
        return self.members.get(name)


def _archive(path: Path) -> _Archive:
    head, size = bounded.head(path, 8)
    for magic, unpack in _COMPRESSED.items():
        if head.startswith(magic):
            raise usage_error(
                f"{path}: a compressed archive: nothing in it can be found without unpacking it",
                hint=f"{unpack} {path}",
            )
    whole = Region(path, 0, size)
    found: dict[str, Region] = {}
    links: dict[str, str] = {}
    with disk_errors(path), path.open("rb", buffering=0) as stream:
        source = Plain(stream.fileno(), whole, str(path))
        for member in members(source, str(path), Limit()):
            if max(len(member.path), len(member.link)) > _LONGEST_NAME:
                continue
            if member.kind == "file":
                if member.offset + member.size > size:
                    raise content_error(f"{path}: the archive is cut short in {member.path}")
                found[member.path] = Region(path, member.offset, member.size)
            elif member.kind in ("symlink", "hardlink"):
                links[member.path] = _target(member.path, member.link, member.kind == "symlink")
            if len(found) + len(links) > _ARCHIVE_LIMIT:
                raise content_error(f"{path}: more than {_ARCHIVE_LIMIT} members: not an image")
    # Old versions of Docker store a layer once and link the other places to it.
    found |= {name: found[link] for name, link in links.items() if link in found}
    return _Archive(path, found)


def _target(path: str, link: str, is_relative: bool) -> str:
    parts = path.split("/")[:-1] if is_relative else []
    for part in link.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _by_index(files: _Files, name: str | None) -> StoredImage:
    index = _document(files, "index.json")
    rows = _named(index, name) if name else None
    found = _Indexes(files).candidates({"manifests": rows} if rows else index, 0)
    # A name that none of the rows bears may be the digest of an image inside an index.
    inside = [one for one in found if not name or rows or str(one.digest) == name]
    chosen = _chosen(files, inside, [one.shown for one in found], name)
    manifest = _verified(files, chosen.digest)
    listed = manifest.get("layers")
    if not isinstance(listed, list) or len(listed) > _LAYERS_LIMIT:
        raise content_error(f"{files.where}: manifest {chosen.digest}: its layers are no list")
    image_id = _digest(files, bounded.mapping(manifest, "config").get("digest"))
    config = _verified(files, image_id)
    layers = tuple(_layer(files, row) for row in listed)
    _check_layers(files, config, len(layers))
    return StoredImage(chosen.digest, image_id, config, layers)


def _layer(files: _Files, row: Any) -> Region:
    digest = _digest(files, bounded.text(row, "digest"))
    region = files.find(f"blobs/sha256/{digest.hex}")
    size = bounded.count(row, "size")
    kind = bounded.text(row, "mediaType") or ""
    if region is None:
        raise content_error(f"{files.where}: layer {digest} is missing")
    if size != region.size:
        raise content_error(
            f"{files.where}: layer {digest}: expected {size} bytes, found {region.size}"
        )
    if kind.endswith("+encrypted"):
        raise content_error(f"{files.where}: layer {digest} is encrypted")
    return region


def _by_docker(files: _Files, name: str | None) -> StoredImage:
    region = files.find("manifest.json")
    assert region is not None
    # The one document of an image that is a list.
    wrapped = b'{"images":' + _content(files, "manifest.json", region) + b"}"
    rows = bounded.loads(wrapped, f"{files.where}: manifest.json").get("images")
    images = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    if name:
        images = [row for row in images if _matches(bounded.texts(row, "RepoTags"), name)]
    if len(images) != 1:
        held = [tag for row in images for tag in bounded.texts(row, "RepoTags")]
        raise _unclear(files, name, held)
    config_name = bounded.text(images[0], "Config") or ""
    layers = []
    for layer in bounded.texts(images[0], "Layers"):
        found = files.find(_target("", layer, False))
        if found is None:
            raise content_error(f"{files.where}: layer {layer} is missing")
        layers.append(found)
    match = _HEX.fullmatch(config_name)
    config_region = files.find(config_name) if match else None
    if match is None or config_region is None:
        raise content_error(f"{files.where}: configuration {config_name!r} is missing")
    image_id = Digest(match[1])
    content = _checked(files, image_id, _content(files, config_name, config_region))
    config = bounded.loads(content, f"{files.where}: {image_id}")
    _check_layers(files, config, len(layers))
    return StoredImage(None, image_id, config, tuple(layers))


def _check_layers(files: _Files, config: dict[str, Any], count: int) -> None:
    expected = len(bounded.texts(config, "rootfs", "diff_ids"))
    if count > _LAYERS_LIMIT or count != expected:
        raise content_error(
            f"{files.where}: {count} layers, and its configuration names {expected}"
        )


class _Indexes:
    """The images of an index and of those inside it, each of which is read once."""

    def __init__(self, files: _Files) -> None:
        self._files = files
        self._read: dict[Digest, list[_Candidate]] = {}
        self._left = _INDEXES_LIMIT

    def candidates(self, index: Mapping[str, Any], depth: int) -> list[_Candidate]:
        """The images of an index; attestations are none."""
        found: list[_Candidate] = []
        rows = index.get("manifests")
        for row in rows if isinstance(rows, list) else ():
            if bounded.text(row, "annotations", "vnd.docker.reference.type"):
                continue
            digest = _digest(self._files, bounded.text(row, "digest"))
            names = (bounded.text(row, "annotations", key) for key in (NAME, _IMAGE_NAME))
            told = tuple(dict.fromkeys(name for name in names if name))
            kind = bounded.text(row, "mediaType") or ""
            if "index" in kind or "manifest.list" in kind:
                below = self._inside(digest, depth + 1)
                found += [_Candidate(one.digest, told or one.names, one.platform) for one in below]
            else:
                system = bounded.text(row, "platform", "os")
                machine = bounded.text(row, "platform", "architecture")
                place = f"{system}/{machine}" if machine else None
                if machine != "unknown":
                    found.append(_Candidate(digest, told, place))
            if len(found) > _CANDIDATES_LIMIT:
                raise content_error(f"{self._files.where}: more than {_CANDIDATES_LIMIT} images")
        return found

    def _inside(self, digest: Digest, depth: int) -> list[_Candidate]:
        if depth > _DEEPEST_INDEX:
            raise content_error(f"{self._files.where}: indexes inside of indexes, too deep")
        if digest not in self._read:
            content = _blob(self._files, digest)
            self._left -= len(content)
            if self._left < 0:
                raise content_error(
                    f"{self._files.where}: more than {_INDEXES_LIMIT} bytes of indexes in indexes"
                )
            document = bounded.loads(content, f"{self._files.where}: {digest}")
            self._read[digest] = self.candidates(document, depth)
        return self._read[digest]


_IMAGE_NAME = "io.containerd.image.name"


def _named(index: Mapping[str, Any], name: str) -> list[Any]:
    """The rows of an index that bear a name or a digest."""
    rows = index.get("manifests")
    return [
        row
        for row in (rows if isinstance(rows, list) else ())
        if bounded.text(row, "digest") == name
        or _matches([bounded.text(row, "annotations", key) for key in (NAME, _IMAGE_NAME)], name)
    ]


def _chosen(
    files: _Files, found: list[_Candidate], held: list[str], name: str | None
) -> _Candidate:
    distinct = list({one.digest: one for one in found}.values())
    if len(distinct) > 1:
        here = f"linux/{host_architecture()}"
        distinct = [one for one in distinct if one.platform == here] or distinct
    if len(distinct) != 1:
        raise _unclear(files, name, held)
    return distinct[0]


def _matches(names: Any, wanted: str) -> bool:
    return any(name and (name == wanted or name.endswith(f"/{wanted}")) for name in names)


def _unclear(files: _Files, name: str | None, held: list[str]) -> KitError:
    shown = ", ".join(dict.fromkeys(held[:20])) or "none"
    if name:
        return usage_error(f"{files.where}: no single image {name}; it holds: {shown}")
    if not held:
        return content_error(f"{files.where}: it holds no image")
    return usage_error(
        f"{files.where}: it holds several images, name one: {shown}",
        hint=f"kit inspect {files.where}:{held[0]}"
        if not held[0].startswith("sha256:")
        else f"kit inspect {files.where}@{held[0]}",
    )


def _digest(files: _Files, text: str | None) -> Digest:
    try:
        return Digest.parse(text or "")
    except ValueError:
        raise content_error(f"{files.where}: expected a sha256 digest, found {text!r}") from None


def _document(files: _Files, name: str) -> dict[str, Any]:
    region = files.find(name)
    if region is None:
        raise content_error(f"{files.where}: {name} is missing")
    return bounded.loads(_content(files, name, region), f"{files.where}: {name}")


def _verified(files: _Files, digest: Digest) -> dict[str, Any]:
    return bounded.loads(_blob(files, digest), f"{files.where}: {digest}")


def _blob(files: _Files, digest: Digest) -> bytes:
    region = files.find(f"blobs/sha256/{digest.hex}")
    if region is None:
        raise content_error(f"{files.where}: no blob {digest}")
    return _checked(files, digest, _content(files, str(digest), region))


def _checked(files: _Files, digest: Digest, content: bytes) -> bytes:
    found = Digest.of_bytes(content)
    if found != digest:
        raise content_error(f"{files.where}: expected {digest}, found {found}")
    return content


def _content(files: _Files, name: str, region: Region) -> bytes:
    if region.size > _DOCUMENT_LIMIT:
        raise content_error(
            f"{files.where}: {name}: {region.size} bytes: expected at most {_DOCUMENT_LIMIT}"
        )
    return region.head(region.size)
