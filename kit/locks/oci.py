"""Images of container registries, pinned to the manifest and to every blob, kept byte for byte."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.artifacts import bounded
from kit.digest import Digest
from kit.errors import content_error, environment_error, usage_error
from kit.images.media_types import CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST
from kit.locks.connection import NotFound
from kit.locks.lock import Input
from kit.locks.registry import DOCUMENT_LIMIT, Registry, is_name
from kit.locks.registry_login import DOCKER_HUB

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kit.errors import KitError
    from kit.images.oci import Layout
    from kit.locks.http import Client
    from kit.locks.intent import ImageReference
    from kit.reception import Reception
    from kit.store import Store

PREFIX = "oci:"
_CONFIGS = (CONFIG, "application/vnd.docker.container.image.v1+json")
_DEEPEST_INDEX = 3
_USUAL_VARIANTS = {"amd64": ("", "v1"), "arm64": ("", "v8")}
"""Variants that every machine of an architecture runs, the first of them preferred."""


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of one of its parts."""

    media_type: str
    digest: Digest
    size: int

    @property
    def is_foreign(self) -> bool:
        """A layer that its registry need not have: Windows' own, by licence."""
        return ".nondistributable." in self.media_type or ".foreign." in self.media_type


def resolve_images(images: Iterable[ImageReference], platform: str, client: Client) -> list[Input]:
    """Every blob of the images that the references mean for a platform now, manifests included.

    A tag is looked up once, here; a reference with both a tag and a digest holds only as long as
    they agree. Manifests and configurations are read, layers are not.

    Args:
        images: what the intent names.
        platform: `linux/amd64` or `linux/arm64`.
        client: what the registries are asked through.

    Raises:
        KitError: no such image, or none for the platform (exit 2); no access, no network
            (exit 3); a moved tag, a manifest that is wrong or no image's (exit 4).
    """
    return [blob for image in images for blob in _resolve(image, platform, client)]


class OciSource:
    """Brings locked blobs from their registry, or from the mirror that stands for it."""

    def __init__(self, client: Client, stack: str) -> None:
        self._client = client
        self._stack = stack
        self._registries: dict[str, Registry] = {}
        self._lock = threading.Lock()

    def bring(self, item: Input, reception: Reception) -> None:
        """Download one blob or manifest into the store."""
        registry = self._registry(item.location)
        try:
            registry.download(item.sha256, reception, manifest=str(item.sha256) == item.version)
        except NotFound as error:
            raise environment_error(
                f"{item} has vanished from the registry: {error}", hint=f"kit lock {self._stack}"
            ) from None

    def _registry(self, location: str) -> Registry:
        with self._lock:
            if location not in self._registries:
                name = location.removeprefix(PREFIX)
                self._registries[location] = Registry(name, self._client)
            return self._registries[location]


def write_layout(
    blobs: Iterable[Input], store: Store, layout: Layout, name: str, stack: str = "STACK"
) -> Digest:
    """Make the locked blobs of one image an OCI layout, and name it there.

    Every blob is hashed on its way. Podman and skopeo find an image in Docker's form only in a
    layout that holds no other, and there without a name: `oci:PATH` (skopeo#1975).

    Args:
        blobs: the inputs of one group.
        store: where they have been fetched to.
        layout: where they go; other images in it stay.
        name: what the layout calls the image.
        stack: for the hint.

    Returns:
        The manifest digest, the same as in the registry.

    Raises:
        KitError: a blob is not in the store (exit 3) or damaged (exit 4).
    """
    manifest: tuple[Digest, Path] | None = None
    for item in blobs:
        place = store.checked(item.sha256, str(item), stack)
        layout.take(item.sha256, place)
        if str(item.sha256) == item.version:
            manifest = (item.sha256, place)
    if manifest is None:
        raise content_error(f"image {name}: the lock names no manifest", hint=f"kit lock {stack}")
    digest, place = manifest
    document = bounded.loads(bounded.content(place, DOCUMENT_LIMIT), str(digest))
    layout.name_manifest(name, digest, _media_type(document, str(digest)))
    return digest


def _resolve(image: ImageReference, platform: str, client: Client) -> Iterator[Input]:
    name, tag, pinned = _split(image)
    registry = Registry(name, client)
    try:
        content = registry.manifest(tag or str(pinned))
        digests = [Digest.of_bytes(content)]
        if tag is not None:
            # What came for a tag has no digest to be checked by: it counts if it can be had by its
            # own, as every later fetch will ask for it.
            registry.manifest(str(digests[0]))
        for _ in range(_DEEPEST_INDEX):
            document = _document(content, name)
            if _media_type(document, name) not in (INDEX, DOCKER_INDEX):
                break
            chosen = _choose(document, platform, image.reference)
            content = registry.manifest(str(chosen.digest))
            digests.append(chosen.digest)
        else:
            raise content_error(f"{name}: more than {_DEEPEST_INDEX} indexes inside of each other")
        if pinned is not None and pinned not in digests:
            raise content_error(
                f"image {image.name}: the tag has moved: {name}:{tag} is {digests[0]} now, "
                f"the intent pins {pinned}: take the tag or the digest out of the reference, or "
                "write the new digest"
            )
        config, layers = _parts(document, name)
        _require_platform(registry.blob(config.digest), platform, image)
        for layer in layers:
            if layer.is_foreign and not registry.has_blob(layer.digest):
                raise usage_error(
                    f"image {image.name}: {name} does not keep layer {layer.digest} "
                    f"({layer.media_type}): its licence lets only its maker hand it out, so the "
                    "image cannot be locked"
                )
    except NotFound as error:
        raise usage_error(f"image {image.name}: no {image.reference}: {error}") from None
    version = digests[-1]
    sizes = {version: len(content)}
    for part in (config, *layers):
        if sizes.setdefault(part.digest, part.size) != part.size:
            raise content_error(f"{name}: {version}: two sizes of one blob, {part.digest}")
    for digest, size in sizes.items():
        yield Input(
            kind="oci",
            group=image.name,
            name=name,
            version=str(version),
            file=f"blobs/sha256/{digest.hex}",
            location=f"{PREFIX}{name}",
            sha256=digest,
            size=size,
        )


def _split(image: ImageReference) -> tuple[str, str | None, Digest | None]:
    """Name, tag and digest; without either the tag is `latest`, as for every engine."""
    rest, at, digest = image.reference.partition("@")
    folder, slash, last = rest.rpartition("/")
    last, _, tag = last.partition(":")
    name = f"{folder}{slash}{last}"
    registry, _, path = name.partition("/")
    if registry == DOCKER_HUB and "/" not in path:
        name = f"{registry}/library/{path}"
    if not is_name(name):
        raise usage_error(
            f"image {image.name}: {name}: {registry!r} is no registry: write "
            f"{DOCKER_HUB}/{name} for Docker Hub"
        )
    return name, tag or (None if at else "latest"), Digest.parse(digest) if at else None


def _document(content: bytes, name: str) -> dict[str, Any]:
    return bounded.loads(content, f"{name}: {Digest.of_bytes(content)}")


def _media_type(document: dict[str, Any], name: str) -> str:
    """What a manifest is: it says so itself, or its form does.

    Raises:
        KitError: of no form that is read here, or of two at once, which lets one digest mean two
            things to two readers (CVE-2021-41190) (exit 4).
    """
    is_index, is_image = "manifests" in document, "layers" in document or "config" in document
    if document.get("schemaVersion") != 2:
        raise content_error(
            f"{name}: a manifest of schema {document.get('schemaVersion')!r}: expected 2; the "
            "first schema names no sizes and is no longer served by registries: push it again "
            "with a tool of today"
        )
    if is_index == is_image:
        raise content_error(f"{name}: neither the manifest of an image nor an index")
    known = (INDEX, DOCKER_INDEX) if is_index else (MANIFEST, DOCKER_MANIFEST)
    said = document.get("mediaType", known[0])
    if said not in known:
        raise content_error(f"{name}: expected a manifest of type {known[0]}, found {said!r:.200}")
    return str(said)


def _choose(index: dict[str, Any], platform: str, reference: str) -> Descriptor:
    """The entry for a platform: its plainest variant, the first of equals."""
    system, architecture = platform.split("/")
    usual = _USUAL_VARIANTS[architecture]
    there: list[str] = []
    fitting: list[tuple[int, dict[str, Any]]] = []
    for entry in _entries(index, "manifests", reference):
        words = [
            bounded.text(entry, "platform", key) or "" for key in ("os", "architecture", "variant")
        ]
        there.append("/".join(word for word in words if word) or "no platform")
        if words[:2] == [system, architecture] and words[2] in usual:
            fitting.append((usual.index(words[2]), entry))
    if not fitting:
        shown = ", ".join(sorted(set(there))[:12]) or "nothing"
        raise usage_error(f"{reference}: there is none for {platform}; there are {shown}")
    return _descriptor(min(fitting, key=lambda pair: pair[0])[1], reference)


def _parts(manifest: dict[str, Any], name: str) -> tuple[Descriptor, list[Descriptor]]:
    config = _descriptor(bounded.mapping(manifest, "config"), name)
    if config.media_type not in _CONFIGS:
        raise usage_error(f"{name}: no image that can be run: it holds {config.media_type}")
    return config, [_descriptor(entry, name) for entry in _entries(manifest, "layers", name)]


def _require_platform(config: bytes, platform: str, image: ImageReference) -> None:
    """An image without an index says in its configuration what it is for."""
    document = bounded.loads(config, f"image {image.name}: configuration")
    found = f"{bounded.text(document, 'os')}/{bounded.text(document, 'architecture')}"
    if found != platform:
        raise usage_error(f"{image.reference}: expected an image for {platform}, it is for {found}")


def _entries(document: dict[str, Any], key: str, name: str) -> list[dict[str, Any]]:
    found = document.get(key)
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise _malformed(name, key)
    return found


def _descriptor(entry: dict[str, Any], name: str) -> Descriptor:
    media_type, size = bounded.text(entry, "mediaType"), bounded.count(entry, "size")
    digest = bounded.text(entry, "digest")
    if media_type is None or size is None or digest is None:
        raise _malformed(name, "descriptor")
    try:
        return Descriptor(media_type, Digest.parse(digest), size)
    except ValueError:
        raise content_error(f"{name}: expected a sha256 digest, found {digest!r:.200}") from None


def _malformed(name: str, what: str) -> KitError:
    return content_error(f"{name}: the manifest's {what} cannot be read")
