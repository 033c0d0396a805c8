"""Digests of upstream files that were seen in public places: `digests.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kit.digest import Digest

TABLE = Path(__file__).with_name("digests.json")
UNSEEN = "no digest of it was seen in a public place"


@dataclass(frozen=True, slots=True)
class Known:
    """What public places say of one file.

    Attributes:
        digest: its sha256; an image's is that of its manifest or index.
        size: bytes, None where none is stated.
        file: the name that a package index has it under; empty for others.
        agree: how many independent places say so.
        source: which, for people.
    """

    digest: Digest
    size: int | None
    file: str
    agree: int
    source: str


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `digests.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def image(name: str, tag: str) -> Known | None:
    """The manifest or index of an image; of both the index, which is what a tag leads to."""
    return _known("images", name=name, tag=tag)


def file(url: str) -> Known | None:
    """A file by its address."""
    return _known("files", url=url)


def package(name: str, version: str) -> Known | None:
    """The one file of a distribution that fits every interpreter: a pure wheel, or an sdist."""
    return _known("packages", name=name, version=version)


def deb(name: str, version: str) -> Known | None:
    """A Debian package for amd64."""
    return _known("debs", name=name, version=version)


def _row(kind: str, **wanted: str) -> dict[str, Any] | None:
    rows = (row for row in table()[kind] if wanted.items() <= row.items())
    return next(rows, None)


def _known(kind: str, **wanted: str) -> Known | None:
    row = _row(kind, **wanted)
    if row is None:
        return None
    return Known(
        digest=Digest.parse(row.get("digest") or row["sha256"]),
        size=row.get("size"),
        file=row.get("file", ""),
        agree=row["agree"],
        source=f"{'; '.join(row['sources'])} (independent: {row['agree']})",
    )
