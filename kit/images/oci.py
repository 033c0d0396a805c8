"""OCI image layouts: written canonically, so that the manifest digest is a function of content."""

from __future__ import annotations

import datetime as dt
import io
import json
import os
import shutil
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.digest import CHUNK, Digest
from kit.errors import content_error
from kit.files import atomic_writer, locked, make_folder, write_bytes, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
NAME = "org.opencontainers.image.ref.name"


@dataclass(frozen=True, slots=True)
class Layer:
    """One uncompressed layer: its digest is also its diff id.

    Layers stay uncompressed: gzip's bytes depend on the library that made them, a tar's do not.
    """

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a layout, by manifest digest."""

    layout: Layout
    manifest_digest: Digest
    image_id: Digest
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]

    def named(self) -> str:
        """A reference that the layout's index has for this image, made if there is none."""
        for name, digest in self.layout.names().items():
            if digest == self.manifest_digest:
                return name
        return self.layout.name(self, f"localhost/trtllm-kit/by-digest:{self.manifest_digest.hex}")

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the image's configuration."""
        return dict(self.config.get("config", {}).get("Labels") or {})


@dataclass(frozen=True, slots=True)
class Layout:
    """A folder in OCI image-layout form, holding every blob once."""

    root: Path

    def blob(self, digest: Digest) -> Path:
        """Where a blob lies, whether or not it is there."""
        return self.root / "blobs" / "sha256" / digest.hex

    def put(self, content: bytes) -> Digest:
        """Store a small blob."""
        digest = Digest.of_bytes(content)
        if not self.blob(digest).exists():
            write_bytes(self.blob(digest), content, 0o444)
        return digest

    def write_image(
        self,
        *,
        name: str,
        layers: tuple[Layer, ...],
        settings: Mapping[str, Any],
        history: tuple[str, ...],
        platform: str,
        epoch: int,
    ) -> Image:
        """Write configuration and manifest for layers that are already blobs, and name the image.

        Args:
            name: the reference the index gets for it; replaces an image of that name.
            layers: base first.
            settings: the `config` object: Env, Cmd, Labels ….
            history: one `created_by` per layer.
            platform: `linux/amd64`.
            epoch: seconds since 1970 that stand for the time of creation.
        """
        system, architecture = platform.split("/")
        created = dt.datetime.fromtimestamp(epoch, dt.timezone.utc)
        stamp = created.strftime("%Y-%m-%dT%H:%M:%SZ")
        config = {
            "architecture": architecture,
            "config": {key: value for key, value in settings.items() if value},
            "created": stamp,
            "history": [{"created": stamp, "created_by": line} for line in history],
            "os": system,
            "rootfs": {"diff_ids": [str(layer.digest) for layer in layers], "type": "layers"},
        }
        config_bytes = _canonical(config)
        image_id = self.put(config_bytes)
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIG, image_id, len(config_bytes)),
            "layers": [_descriptor(LAYER, layer.digest, layer.size) for layer in layers],
        }
        manifest_bytes = _canonical(manifest)
        digest = self.put(manifest_bytes)
        self._name(name, _descriptor(MANIFEST, digest, len(manifest_bytes)))
        return Image(self, digest, image_id, layers, config)

    def image(self, digest: Digest, stack: str = "STACK") -> Image:
        """Open an image by manifest digest; `stack` is for the hint.

        Raises:
            KitError: a blob of it is missing (exit 4).
        """
        hint = f"kit build {stack} --rebuild"
        manifest = json.loads(self._read(digest, hint))
        config_digest = Digest.parse(manifest["config"]["digest"])
        layers = tuple(
            Layer(Digest.parse(layer["digest"]), layer["size"]) for layer in manifest["layers"]
        )
        for layer in layers:
            path = self.blob(layer.digest)
            if not path.exists() or path.stat().st_size != layer.size:
                raise content_error(
                    f"{self.root}: layer {layer.digest} of image {digest} is missing or cut short",
                    hint=hint,
                )
        return Image(
            self, digest, config_digest, layers, json.loads(self._read(config_digest, hint))
        )

    def take(self, digest: Digest, path: Path) -> None:
        """Make a file whose digest was checked a blob, byte for byte: a link where disks allow."""
        place = self.blob(digest)
        if place.exists():
            return
        make_folder(place.parent)
        try:
            os.link(path, place)
        except FileExistsError:  # another process was first
            return
        except OSError:
            with path.open("rb") as source, atomic_writer(place, 0o444) as target:
                shutil.copyfileobj(source, target, CHUNK)

    def names(self) -> dict[str, Digest]:
        """The images that the index names."""
        index = self.root / "index.json"
        if not index.exists():
            return {}
        rows = json.loads(index.read_bytes())["manifests"]
        return {row["annotations"][NAME]: Digest.parse(row["digest"]) for row in rows}

    def name(self, image: Image, name: str) -> str:
        """Give an image a further reference in the index; returns it."""
        self.name_manifest(name, image.manifest_digest, MANIFEST)
        return name

    def name_manifest(self, name: str, digest: Digest, media_type: str) -> None:
        """Give a manifest, a blob that is there, a reference in the index."""
        self._name(name, _descriptor(media_type, digest, self.blob(digest).stat().st_size))

    def _name(self, name: str, descriptor: dict[str, Any]) -> None:
        with locked(self.root / ".lock"):
            index = self.root / "index.json"
            rows = json.loads(index.read_bytes())["manifests"] if index.exists() else []
            rows = [row for row in rows if row["annotations"][NAME] != name]
            rows.append({**descriptor, "annotations": {NAME: name}})
            rows.sort(key=lambda row: str(row["annotations"][NAME]))
            write_json(self.root / "oci-layout", {"imageLayoutVersion": "1.0.0"})
            write_json(index, {"schemaVersion": 2, "mediaType": INDEX, "manifests": rows})

    def _read(self, digest: Digest, hint: str) -> bytes:
        try:
            content = self.blob(digest).read_bytes()
        except FileNotFoundError:
            raise content_error(f"{self.root}: no blob {digest}", hint=hint) from None
        found = Digest.of_bytes(content)
        if found != digest:
            raise content_error(f"{self.blob(digest)}: expected {digest}, found {found}", hint)
        return content


def archive(image: Image, name: str, *, skip: frozenset[Digest] = frozenset()) -> Iterator[bytes]:
    """The image as a tar that every engine loads: an OCI layout with Docker's `manifest.json`.

    Layers in `skip` are left out, for an engine that has them already.
    """
    layout = image.layout
    manifest = layout.blob(image.manifest_digest).read_bytes()
    index = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            {
                **_descriptor(MANIFEST, image.manifest_digest, len(manifest)),
                "annotations": {NAME: name, "io.containerd.image.name": name},
            }
        ],
    }
    legacy = [
        {
            "Config": _member(image.image_id),
            "RepoTags": [name],
            "Layers": [_member(layer.digest) for layer in image.layers],
        }
    ]
    yield from _file("oci-layout", _canonical({"imageLayoutVersion": "1.0.0"}))
    yield from _file("index.json", _canonical(index))
    yield from _file("manifest.json", _canonical(legacy))
    yield from _file(_member(image.manifest_digest), manifest)
    yield from _file(_member(image.image_id), layout.blob(image.image_id).read_bytes())
    for layer in image.layers:
        if layer.digest in skip:
            continue
        yield _header(_member(layer.digest), layer.size)
        with layout.blob(layer.digest).open("rb") as stream:
            while piece := stream.read(CHUNK):
                yield piece
        yield bytes(-layer.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _member(digest: Digest) -> str:
    return f"blobs/sha256/{digest.hex}"


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.USTAR_FORMAT)


def _file(name: str, content: bytes) -> Iterator[bytes]:
    stream = io.BytesIO()
    stream.write(_header(name, len(content)))
    stream.write(content)
    stream.write(bytes(-len(content) % tarfile.BLOCKSIZE))
    yield stream.getvalue()


def _descriptor(media_type: str, digest: Digest, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size}


def _canonical(document: Any) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
