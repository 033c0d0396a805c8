"""SHA-256 as identity: a type that is valid once made."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_HEX = re.compile(r"[0-9a-f]{64}")
CHUNK = 1 << 20
"""Bytes read at a time when a stream is hashed or copied."""


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256, 64 lower-case hexadecimal digits; prints as `sha256:…`."""

    hex: str

    def __post_init__(self) -> None:
        if not _HEX.fullmatch(self.hex):
            raise ValueError(f"not a sha256 digest: {self.hex!r}")

    def __str__(self) -> str:
        return f"sha256:{self.hex}"

    @property
    def short(self) -> str:
        """The first 12 digits, for people and for tags."""
        return self.hex[:12]

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Read `sha256:…` or bare digits; raises ValueError for anything else."""
        return cls(text.removeprefix("sha256:"))

    @classmethod
    def of_bytes(cls, content: bytes) -> Digest:
        """Hash what is in memory."""
        return cls(hashlib.sha256(content).hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Digest:
        """Hash a file of any size in flat memory."""
        hasher = hashlib.sha256()
        with path.open("rb", buffering=0) as stream:
            buffer = memoryview(bytearray(CHUNK))
            while count := stream.readinto(buffer):
                hasher.update(buffer[:count])
        return cls(hasher.hexdigest())

    @classmethod
    def of_document(cls, document: Any) -> Digest:
        """Hash a JSON value by its canonical form: sorted keys, no spaces, UTF-8."""
        import json

        text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return cls.of_bytes(text.encode())
