"""Small images, layer by layer, put into a store as a lock would have brought them."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.locks.lock import Input

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kit.store import Store

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
NAME = "registry.example/base"


def link(target: str) -> tarfile.TarInfo:
    """A symbolic link, as a value in a layer."""
    member = tarfile.TarInfo()
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def hardlink(target: str) -> tarfile.TarInfo:
    """A second name of a file of the same layer."""
    member = tarfile.TarInfo()
    member.type, member.linkname = tarfile.LNKTYPE, target
    return member


def layer(members: Mapping[str, bytes | tarfile.TarInfo], *, packed: bool = True) -> bytes:
    """A layer with these members, gzipped or plain; whiteouts are members named `.wh.…`."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, what in members.items():
            member = what if isinstance(what, tarfile.TarInfo) else tarfile.TarInfo()
            member.name = name
            content = what if isinstance(what, bytes) else b""
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    plain = stream.getvalue()
    return gzip.compress(plain, 6, mtime=0) if packed else plain


def put_image(
    store: Store,
    scratch: Path,
    layers: Sequence[bytes],
    *,
    group: str = "base",
    environment: Sequence[str] = (),
) -> list[Input]:
    """Put an image into the store; returns the lock's entries of its blobs.

    Args:
        store: where the blobs go.
        scratch: a folder for files on their way.
        layers: base first, as `layer` makes them.
        group: its name in the intent.
        environment: `NAME=VALUE` of its configuration.
    """
    config = {
        "os": "linux",
        "architecture": "amd64",
        "config": {"Env": list(environment)},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of_bytes(one)) for one in layers]},
    }
    packed = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", packed),
        "layers": [_descriptor(LAYER, one) for one in layers],
    }
    top = json.dumps(manifest).encode()
    for content in (top, packed, *layers):
        path = scratch / "blob"
        path.write_bytes(content)
        store.add_file(path)
    version = str(Digest.of_bytes(top))
    contents = {Digest.of_bytes(content): content for content in (top, packed, *layers)}
    return [
        Input("oci", group, NAME, version, f"blobs/sha256/{digest.hex}", f"oci:{NAME}", digest,
              len(content))
        for digest, content in contents.items()
    ]  # fmt: skip


def _descriptor(media_type: str, content: bytes) -> dict[str, str | int]:
    digest = str(Digest.of_bytes(content))
    return {"mediaType": media_type, "digest": digest, "size": len(content)}
