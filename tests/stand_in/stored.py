"""A store seen from outside: what is in it, what of that is wrong, and how it gets wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.digest import Digest

if TYPE_CHECKING:
    from kit.store import Store


def stored(store: Store) -> list[Digest]:
    """Everything in the store, sorted."""
    return [Digest(path.name) for path in sorted((store.root / "sha256").glob("??/*"))]


def damaged(store: Store) -> list[Digest]:
    """What is no longer what its name says."""
    return [digest for digest in stored(store) if Digest.of_file(store.path(digest)) != digest]


def damage(store: Store, digest: Digest, place: int = 0, bits: int = 1) -> None:
    """Flip bits of one byte, as a failing disk does: the size stays."""
    path = store.path(digest)
    content = bytearray(path.read_bytes())
    content[place] ^= bits
    path.chmod(0o644)
    path.write_bytes(content)
