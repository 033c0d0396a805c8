"""What goes into a bundle, as plain data: contents, their files, and where the bytes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kit.images.media_types import MANIFEST

if TYPE_CHECKING:
    from kit.bundles.fingerprint import Mark
    from kit.digest import Digest


class Entry(NamedTuple):
    """One file of a content.

    Attributes:
        title: its path in the content.
        role: what it is for.
        source: path of a file of this host (no `Path`: there are ten thousand), or the content.
        claimed: the digest that it must have, where that is known.
        mark: the state of the file, where that has been looked at.
    """

    title: str
    role: str
    source: str | bytes
    claimed: Digest | None = None
    mark: Mark | None = None

    def __str__(self) -> str:
        return self.source if isinstance(self.source, str) else self.title


class Content(NamedTuple):
    """One thing that the bundle is for.

    Attributes:
        kind: one of `verifier.KINDS`.
        name: unique in its kind.
        stack: the stack that it belongs to, or empty.
        why: why it is carried.
        entries: its files; of an image its blobs but for the manifest.
        image: an image's manifest; anything else gets one made.
        image_type: its media type.
    """

    kind: str
    name: str
    stack: str
    why: str
    entries: tuple[Entry, ...]
    image: Entry | None = None
    image_type: str = MANIFEST

    @property
    def all_entries(self) -> tuple[Entry, ...]:
        """Its files, and the manifest if it is an image."""
        return self.entries if self.image is None else (*self.entries, self.image)

    @property
    def label(self) -> str:
        """`kind/name`, as people and `--extract` say it."""
        return f"{self.kind}/{self.name}"
