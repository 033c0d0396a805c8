"""The releases of TensorRT-LLM, in order: `releases.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from kit.errors import nearest, usage_error


@dataclass(frozen=True, slots=True)
class Release:
    """One stable release; `commit` is None where no source gives it beyond doubt."""

    version: str
    released: str
    commit: str | None

    def __str__(self) -> str:
        return self.version


@lru_cache(maxsize=1)
def all_releases() -> tuple[Release, ...]:
    """Every release of the table, oldest first."""
    table = json.loads(Path(__file__).with_name("releases.json").read_text(encoding="utf-8"))
    return tuple(
        Release(row["version"], row["released"], row["commit"]) for row in table["releases"]
    )


def versions() -> list[str]:
    """The names of all releases, oldest first."""
    return [release.version for release in all_releases()]


def known(version: str) -> str:
    """`version` itself, without a leading `v`; an unknown one is an error with the nearest."""
    bare = version.strip().removeprefix("v")
    if bare not in versions():
        raise usage_error(f"unknown release {version!r}; {nearest(bare, versions())}")
    return bare


def select(ranges: str) -> list[str]:
    """The releases that a range such as `>=0.9.0,<0.19.0` holds, oldest first.

    Raises:
        ValueError: that is no range.
    """
    try:
        specifiers = SpecifierSet(ranges)
    except InvalidSpecifier as error:
        raise ValueError(f"not a range of releases: {ranges!r}") from error
    return [version for version in versions() if version in specifiers]


def between(version: str, since: str | None, before: str | None) -> bool:
    """Whether `version` is `since` or later, and older than `before`."""
    place = Version(version)
    return (since is None or place >= Version(since)) and (
        before is None or place < Version(before)
    )


def closest(version: str, candidates: list[str]) -> str | None:
    """The candidate that stands nearest to `version` in the order of releases."""
    order = versions()
    place = order.index(version)
    inside = [name for name in candidates if name in order]
    return min(inside, key=lambda name: abs(order.index(name) - place), default=None)
