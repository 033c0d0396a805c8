"""What a load has staged, looked at before any of it is imported: images, and records of builds.

Who signs a bundle vouches for its bytes. That they are an image, and the one that a stack's record
means, is found out here, so that nothing is imported of a bundle in which they are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.artifacts import bounded
from kit.bundles import site, stacks
from kit.digest import Digest
from kit.errors import KitError, content_error
from kit.images.media_types import DOCKER_MANIFEST, MANIFEST
from kit.images.oci import Layout
from kit.locks import lock as locks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kit.bundles.verifier import Content, File, Index
    from kit.project import Project

_KEYS = {"key", "lock", "manifest_digest", "engine"}
_STACK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True, slots=True)
class Admitted:
    """What may be imported.

    Attributes:
        media_types: SHA-256 of the manifest of each image → what it is.
        records: stack → record of its build, where the site means no other stack by that name.
        notes: for whoever loads.
    """

    media_types: Mapping[str, str]
    records: Mapping[str, dict[str, Any]]
    notes: tuple[str, ...]


def admit(project: Project, index: Index, staging: Path) -> Admitted:
    """Look at every image and every record of a bundle.

    Args:
        project: where they are to be imported.
        index: of the bundle.
        staging: the folder with all that its contents name, by digest.

    Raises:
        KitError: no image, or no record of one of the images (exit 4); layers of a compression
            that is not read (exit 3).
    """
    work = _Admission(project, index, staging)
    images = [content for content in index.contents if content.kind == "image"]
    work.media_types = {content.manifest: work.image(content) for content in images}
    for content in index.contents:
        if content.kind == "stack":
            work.stack(content)
    return Admitted(work.media_types, work.records, tuple(work.notes))


@dataclass(frozen=True, slots=True)
class _Staged(Layout):
    """Blobs as they lie in the staging folder: for the same reader as of the site's images."""

    def blob(self, digest: Digest) -> Path:
        return self.root / digest.hex


class _Admission:
    def __init__(self, project: Project, index: Index, staging: Path) -> None:
        self.project = project
        self.index = index
        self.staging = staging
        self.media_types: dict[str, str] = {}
        self.records: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []

    def image(self, content: Content) -> str:
        """The media type of an image's manifest; all that it names is here."""
        label = f"image {content.name}"
        try:
            image = _Staged(self.staging).image(Digest(content.manifest))
        except KitError as error:
            raise KitError(f"{label}: {error}", exit_code=error.exit_code) from error
        if content.name == content.stack and not _STACK.fullmatch(content.stack):
            raise content_error(f"{label}: its stack cannot be called that")
        blobs = {layer.digest.hex for layer in image.layers} | {image.image_id.hex}
        if blobs != {file.sha256 for file in content.files}:
            raise content_error(f"{label}: its manifest names other blobs")
        return DOCKER_MANIFEST if image.media_type == DOCKER_MANIFEST else MANIFEST

    def stack(self, content: Content) -> None:
        """Take over that the image of a stack is built, unless the site means another stack."""
        for file in content.files:
            if file.role == "lock" and self.project.owns(content.name):
                where = f"stack {content.name}: {file.title}"
                locks.loads(self.document(file, where), where)  # it will be compared
        rows = [file for file in content.files if file.role == "build-record"]
        if len(rows) > 1:
            raise content_error(f"stack {content.name}: more than one record of its image")
        for file in rows:
            found = self.record(file, f"stack {content.name}: {file.title}")
            if not self.is_foreign(content, found["lock"]):
                self.records[content.name] = found

    def record(self, file: File, where: str) -> dict[str, Any]:
        """A record of a build, as `kit build` writes one."""
        found = bounded.loads(self.document(file, where), where)
        known = {f"sha256:{manifest}" for manifest in self.media_types}
        if not found.keys() <= _KEYS or bounded.text(found, "manifest_digest") not in known:
            raise content_error(f"{where} is no record of its image")
        try:
            Digest.parse(bounded.text(found, "lock") or "")
        except ValueError as error:
            raise content_error(f"{where}: lock: {error}") from error
        if bounded.text(found, "key") is None or not isinstance(found.get("engine", {}), dict):
            raise content_error(f"{where}: key or engine: not as a build writes them")
        return found

    def document(self, file: File, where: str) -> bytes:
        """A document in the staging folder; `where` is what people know it by."""
        path = self.staging / file.sha256
        if path.stat().st_size > bounded.DOCUMENT_LIMIT:
            raise content_error(f"{where}: larger than {bounded.DOCUMENT_LIMIT} bytes")
        return path.read_bytes()

    def is_foreign(self, content: Content, lock: str) -> bool:
        """Whether what is called that here is another stack: the project's, or another bundle's."""
        own = stacks.digest_of(self.project, content.name)
        if own is not None:
            return str(own) != lock
        place = site.folder(self.project, self.index.name, content)
        carried = next(file.sha256 for file in content.files if file.role == "lock")
        for root in self.project.roots_of(content.name):
            path = root / "lockfiles" / f"{content.name}.lock.yaml"
            if root != place and path.exists() and Digest.of_file(path).hex != carried:
                self.notes.append(
                    f"stack {content.name} of {root} came first and is another one: its image "
                    f"stays the latest; KIT_ROOT={place} and loading again take this one"
                )
                return True
        return False
