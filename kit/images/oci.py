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

from kit import files
from kit.artifacts import bounded
from kit.digest import CHUNK, Digest
from kit.errors import content_error, environment_error
from kit.files import atomic_writer, locked, make_folder, write_bytes, write_json
from kit.images.media_types import CONFIG, INDEX, LAYER, LAYER_GZIP, MANIFEST, NAME

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_LAYERS = {
    LAYER: LAYER,
    LAYER_GZIP: LAYER_GZIP,
    _DOCKER_LAYER: LAYER,
    f"{_DOCKER_LAYER}.gzip": LAYER_GZIP,
}
"""Media types of layers that are read → what the kit calls the same bytes."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer, byte for byte as it was made or pulled.

    Layers that the kit makes stay uncompressed: gzip's bytes depend on the library that made them,
    a tar's do not. Pulled ones stay compressed as their registry has them.

    Attributes:
        digest: of the blob.
        size: bytes of the blob.
        media_type: of OCI.
        unpacked: digest of the tar inside where that is another one than the blob's.
    """

    digest: Digest
    size: int
    media_type: str = LAYER
    unpacked: Digest | None = None

    @property
    def diff_id(self) -> Digest:
        """What engines and configurations know the layer by: the digest of its tar."""
        return self.unpacked or self.digest


@dataclass(frozen=True, slots=True)
class Image:
    """An image in a layout, by manifest digest."""

    layout: Layout
    manifest_digest: Digest
    image_id: Digest
    layers: tuple[Layer, ...]
    config: Mapping[str, Any]
    media_type: str = MANIFEST

    def in_oci_form(self) -> Image:
        """The same configuration and layers under a manifest of OCI, if this one is Docker's.

        Podman finds an image in Docker's form in no layout that holds others (skopeo#1975).
        """
        if self.media_type == MANIFEST:
            return self
        return self.layout.write_manifest(self.image_id, self.layers, self.config)

    def named(self) -> str:
        """A reference that the layout's index has for this image, made if there is none."""
        for name, digest in self.layout.names().items():
            if digest == self.manifest_digest:
                return name
        return self.layout.name(self, f"localhost/trtllm-kit/by-digest:{self.manifest_digest.hex}")

    @property
    def labels(self) -> dict[str, str]:
        """The labels of the image's configuration."""
        return dict((self.config.get("config") or {}).get("Labels") or {})


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
        history: Sequence[str | Mapping[str, Any]],
        platform: str,
        epoch: int,
    ) -> Image:
        """Write configuration and manifest for layers that are already blobs, and name the image.

        Args:
            name: the reference the index gets for it; replaces an image of that name.
            layers: base first.
            settings: the `config` object: Env, Cmd, Labels ….
            history: for each layer a `created_by`, or a whole entry of a pulled configuration.
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
            "history": [
                {"created": stamp, "created_by": line} if isinstance(line, str) else dict(line)
                for line in history
            ],
            "os": system,
            "rootfs": {"diff_ids": [str(layer.diff_id) for layer in layers], "type": "layers"},
        }
        image = self.write_manifest(self.put(_canonical(config)), layers, config)
        self.name(image, name)
        return image

    def write_manifest(
        self, image_id: Digest, layers: tuple[Layer, ...], config: Mapping[str, Any]
    ) -> Image:
        """Write the manifest of an image whose configuration, `image_id`, is a blob already."""
        size = self.blob(image_id).stat().st_size
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIG, image_id, size),
            "layers": [_descriptor(one.media_type, one.digest, one.size) for one in layers],
        }
        return Image(self, self.put(_canonical(manifest)), image_id, layers, config)

    def image(self, digest: Digest, stack: str = "STACK") -> Image:
        """Open an image by manifest digest, in the form of OCI or of Docker.

        `stack` is for the hint.

        Raises:
            KitError: layers of another compression than gzip (exit 3); a blob is missing or
                damaged, or manifest and configuration contradict each other (exit 4).
        """
        hint = f"kit build {stack} --rebuild"
        manifest = self._document(digest, hint)
        try:
            config_digest = Digest.parse(manifest["config"]["digest"])
            config = self._document(config_digest, hint)
            diffs = [Digest.parse(text) for text in config["rootfs"]["diff_ids"]]
            entries = list(manifest["layers"])
            media_type = manifest.get("mediaType", MANIFEST)
            _check_shape(media_type, config)
            if len(diffs) != len(entries):
                raise content_error(
                    f"image {digest}: {len(entries)} layers in its manifest, "
                    f"{len(diffs)} in its configuration"
                )
            layers = tuple(map(_layer, entries, diffs))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise content_error(
                f"image {digest}: no manifest and configuration of an image: "
                f"{type(error).__name__}: {error}",
                hint=hint,
            ) from error
        for layer in layers:
            path = self.blob(layer.digest)
            if not path.exists() or path.stat().st_size != layer.size:
                raise content_error(
                    f"{self.root}: layer {layer.digest} of image {digest} is missing or cut short",
                    hint=hint,
                )
        return Image(self, digest, config_digest, layers, config, media_type)

    def refuse_damaged(self, image: Image, stack: str = "STACK") -> None:
        """Hash the layers of an image that an engine has refused; those that are wrong go away.

        Raises:
            KitError: a layer is damaged (exit 4).
        """
        for layer in image.layers:
            found = Digest.of_file(self.blob(layer.digest))
            if found != layer.digest:
                self.blob(layer.digest).unlink(missing_ok=True)
                raise content_error(
                    f"{self.root}: layer {layer.digest} is damaged, found {found}; it was removed",
                    hint=f"kit build {stack} --rebuild",
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

    def _document(self, digest: Digest, hint: str) -> dict[str, Any]:
        try:
            content = files.content(self.blob(digest), bounded.DOCUMENT_LIMIT)
        except FileNotFoundError:
            raise content_error(f"{self.root}: no blob {digest}", hint=hint) from None
        found = Digest.of_bytes(content)
        if found != digest:
            raise content_error(f"{self.blob(digest)}: expected {digest}, found {found}", hint)
        return bounded.loads(content, f"blob {digest}")


def _layer(entry: Mapping[str, Any], diff_id: Digest) -> Layer:
    digest, media_type = Digest.parse(entry["digest"]), str(entry["mediaType"])
    if media_type not in _LAYERS:
        raise environment_error(
            f"layer {digest} is {media_type}: layers are tar or gzip; Python's standard library "
            "reads no zstd before 3.14",
            hint="skopeo copy --dest-compress-format=gzip, then lock the copy",
        )
    size = entry["size"]
    if type(size) is not int:
        raise TypeError(f"size {size!r}")
    unpacked = None if diff_id == digest else diff_id
    return Layer(digest, size, _LAYERS[media_type], unpacked)


def _check_shape(media_type: object, config: Mapping[str, Any]) -> None:
    """Raise TypeError unless all that is read of an image later is what it should be."""
    settings = config.get("config") or {}
    labels = settings.get("Labels") or {}
    history = config.get("history") or []
    good = all(isinstance(text, str) for text in (media_type, *labels, *labels.values()))
    if not good or not all(isinstance(entry, dict) for entry in history):
        raise TypeError("media type, labels or history")


def archive(image: Image, name: str, *, skip: frozenset[Digest] = frozenset()) -> Iterator[bytes]:
    """The image as a tar that every engine loads: an OCI layout with Docker's `manifest.json`.

    Blobs of layers in `skip` are left out, for an engine that has them already.
    """
    image = image.in_oci_form()
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
    for layer in {layer.digest: layer for layer in image.layers}.values():
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
    return member.tobuf(tarfile.GNU_FORMAT)  # ustar ends at 8 GiB, which a layer may exceed


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
