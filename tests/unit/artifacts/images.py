"""Real images in a folder of a test: layers, OCI layouts and archives, what `docker save` writes."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def layer(files: dict[str, bytes | str | None], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer: content as bytes, a link's target as text (`=path` for a hard link), None a folder."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type = tarfile.LNKTYPE if content.startswith("=") else tarfile.SYMTYPE
                member.linkname = content.removeprefix("=")
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
    return stream.getvalue()


def sha(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


@dataclass
class Image:
    """One image's blobs by digest."""

    layers: list[bytes]
    config: dict[str, Any] = field(default_factory=dict)
    architecture: str = "amd64"

    @property
    def configuration(self) -> bytes:
        diffs = [sha(one) for one in self.layers]  # not verified: see kit.artifacts.layers
        return json.dumps(
            {
                "architecture": self.architecture,
                "os": "linux",
                "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": diffs},
            }
        ).encode()

    @property
    def manifest(self) -> bytes:
        def row(content: bytes, kind: str) -> dict[str, Any]:
            return {"mediaType": kind, "digest": sha(content), "size": len(content)}

        kind = "application/vnd.oci.image.layer.v1.tar"
        config = row(self.configuration, "application/vnd.oci.image.config.v1+json")
        return json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": config,
                "layers": [row(one, kind) for one in self.layers],
            }
        ).encode()

    def descriptor(self, name: str | None = None) -> dict[str, Any]:
        row: dict[str, Any] = {
            "mediaType": MANIFEST,
            "digest": sha(self.manifest),
            "size": len(self.manifest),
            "platform": {"os": "linux", "architecture": self.architecture},
        }
        if name:
            row["annotations"] = {"org.opencontainers.image.ref.name": name}
        return row

    def blobs(self) -> list[bytes]:
        return [self.manifest, self.configuration, *self.layers]


def layout(folder: Path, index: list[dict[str, Any]], blobs: list[bytes]) -> Path:
    """Write an OCI layout."""
    (folder / "blobs" / "sha256").mkdir(parents=True)
    for content in blobs:
        (folder / "blobs" / "sha256" / sha(content)[7:]).write_bytes(content)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    document = {"schemaVersion": 2, "mediaType": INDEX, "manifests": index}
    (folder / "index.json").write_text(json.dumps(document))
    return folder


def oci(folder: Path, image: Image) -> Path:
    """A layout that holds one image."""
    return layout(folder, [image.descriptor("one:latest")], image.blobs())


def oci_archive(path: Path, image: Image) -> Path:
    """The same as a tar archive."""
    folder = oci(path.with_suffix(".folder"), image)
    with tarfile.open(path, "w") as archive:
        archive.add(folder, ".")
    return path


def docker_archive(path: Path, image: Image, tag: str = "one:latest") -> Path:
    """What an old `docker save` writes; a layer that stands twice is a link."""
    config = image.configuration
    files: dict[str, bytes | str | None] = {}
    names: dict[bytes, str] = {}
    places = []
    for number, content in enumerate(image.layers):
        place = f"{number}/layer.tar"
        files[place] = f"../{names[content]}" if content in names else content
        names.setdefault(content, place)
        places.append(place)
    name = sha(config)[7:] + ".json"
    files[name] = config
    rows = [{"Config": name, "RepoTags": [tag], "Layers": places}]
    files["manifest.json"] = json.dumps(rows).encode()
    path.write_bytes(layer(files, tarfile.USTAR_FORMAT))
    return path
