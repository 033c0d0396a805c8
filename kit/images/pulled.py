"""Base images as their registry has them: the locked blobs, in a layout that engines load from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.errors import content_error

if TYPE_CHECKING:
    from kit.images.oci import Image, Layout
    from kit.locks.lock import Lock
    from kit.store import Store


def pulled(layout: Layout, lock: Lock, store: Store, name: str, reference: str) -> Image:
    """The image of a lock, in the form of OCI, its blobs byte for byte.

    A blob that the layout has is not read again: engines verify what they load, and the index of
    a layer was made from verified bytes.

    Args:
        layout: where its blobs go.
        lock: names the blobs.
        store: has the blobs that the layout lacks.
        name: of the image in the lock.
        reference: what the layout calls it.

    Raises:
        KitError: a blob is not in the store (exit 3) or damaged, no such image (exit 4); layers
            of a compression that is not read (exit 3).
    """
    blobs = lock.select(kind="oci", group=name)
    manifests = {item.version for item in blobs}
    if len(manifests) != 1:
        raise content_error(
            f"the lock of {lock.stack} has no image {name!r}", hint=f"kit lock {lock.stack}"
        )
    missing = [
        item
        for item in blobs
        if not (place := layout.blob(item.sha256)).exists() or place.stat().st_size != item.size
    ]
    places = store.check_all(missing, lock.stack)
    for item in missing:
        layout.blob(item.sha256).unlink(missing_ok=True)
        layout.take(item.sha256, places[item.sha256])
    image = layout.image(Digest.parse(manifests.pop()), lock.stack).in_oci_form()
    # Podman asks for a media type that says OCI; not every registry's manifest names one.
    image = layout.write_manifest(image.image_id, image.layers, image.config)
    layout.name(image, reference)
    return image
