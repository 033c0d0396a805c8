"""The OCI documents of a bundle: what `skopeo` and `oras` read of its contents."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from kit.images.media_types import INDEX, MANIFEST, NAME

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.bundles.contents import Content

EMPTY = b"{}"
"""The configuration of what is no image; OCI gives it a media type of its own."""
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_OWN = "org.trtllm-kit"
TITLE = "org.opencontainers.image.title"
"""What `oras pull` calls a file."""


@dataclass(frozen=True)
class Known:
    """A content whose files have all been hashed: digests and sizes in the order of its entries."""

    content: Content
    digests: tuple[str, ...]
    sizes: tuple[int, ...]
    image_digest: str | None
    image_size: int

    @cached_property
    def manifest(self) -> bytes | None:
        """The OCI manifest of what is no image, canonical; None for an image, which has its own."""
        if self.content.image is not None:
            return None
        rows = zip(self.content.entries, self.digests, self.sizes, strict=True)
        return artifact(
            self.content,
            [(entry.title, entry.role, digest, size) for entry, digest, size in rows],
        )

    def descriptor(self) -> dict[str, Any]:
        """The row of `index.json`."""
        manifest = self.manifest
        said = {NAME: reference(self.content), **marks(self.content)}
        if manifest is None:
            assert self.image_digest is not None
            own = _descriptor(self.content.image_type, self.image_digest, self.image_size)
            return {**own, "annotations": said}
        digest = hashlib.sha256(manifest).hexdigest()
        own = _descriptor(MANIFEST, digest, len(manifest))
        kind = artifact_type(self.content.kind)
        return {**own, "artifactType": kind, "annotations": said}


class Labelled(Protocol):
    """What is said of a content, before it is carried and after."""

    @property
    def kind(self) -> str:
        """One of `verifier.KINDS`."""

    @property
    def name(self) -> str:
        """Unique in its kind."""

    @property
    def stack(self) -> str:
        """The stack that it belongs to, or empty."""

    @property
    def why(self) -> str:
        """Why it is carried."""


def artifact(content: Labelled, rows: Sequence[tuple[str, str, str, int]]) -> bytes:
    """The OCI manifest of files, given as title, role, digest and size; canonical."""
    return canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": artifact_type(content.kind),
            "config": _descriptor(_EMPTY_TYPE, hashlib.sha256(EMPTY).hexdigest(), len(EMPTY)),
            "layers": [
                {
                    **_descriptor("application/octet-stream", digest, size),
                    "annotations": {TITLE: title, f"{_OWN}.role": role},
                }
                for title, role, digest, size in rows
            ],
            "annotations": marks(content),
        }
    )


def artifact_type(kind: str) -> str:
    """The type of OCI artifact that a kind of content is."""
    return f"application/vnd.trtllm-kit.{kind}.v1"


def marks(content: Labelled) -> dict[str, str]:
    """What each descriptor says of what it is and why it is there."""
    said = {"kind": content.kind, "name": content.name, "why": content.why}
    if content.stack:
        said["stack"] = content.stack
    return {f"{_OWN}.{key}": value for key, value in said.items()}


def reference(content: Content) -> str:
    """What the layout's index calls it: `skopeo copy oci:FOLDER:image-rehearsal …`."""
    kept = "".join(sign if sign.isalnum() or sign in "._-" else "-" for sign in content.name)
    return f"{content.kind}-{kept}"


def layout_index(known: Sequence[Known]) -> bytes:
    """`index.json` of the layout."""
    rows = [item.descriptor() for item in known]
    return canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows})


def canonical(document: Mapping[str, Any]) -> bytes:
    """JSON whose bytes follow from its content."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": size}
