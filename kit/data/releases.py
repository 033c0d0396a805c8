"""The releases of TensorRT-LLM and what is known of each: `releases.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from kit.errors import nearest, usage_error

TABLE = Path(__file__).with_name("releases.json")
Kind = Literal["stable", "post", "preview"]


@dataclass(frozen=True, slots=True)
class Fact:
    """One value of one release.

    Attributes:
        value: as upstream writes it; None where it is not known.
        source: where it was read; None without a value.
        inferred: why it is believed, where it was not read at the release's own commit.
        hole: why there is no value.
        partly: what of a composite value is not known, part → reason.
    """

    value: Any
    source: str | None = None
    inferred: str | None = None
    hole: str | None = None
    partly: dict[str, str] | None = None


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `releases.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def order() -> list[str]:
    """Every release of the table, also post releases and previews, oldest first."""
    return [row["version"] for row in table()["releases"]]


def versions() -> list[str]:
    """The stable releases, oldest first."""
    return [row["version"] for row in table()["releases"] if row["kind"] == "stable"]


def kind(version: str) -> Kind:
    """What sort of release a known one is; KeyError for another."""
    found: Kind = table()["releases"][_places()[version]]["kind"]
    return found


def known(version: str) -> str:
    """`version` itself, without a leading `v`; an unknown stable one is an error with the nearest.

    Raises:
        KitError: it is not a stable release (exit 2).
    """
    return _among(version, versions())


def recorded(version: str) -> str:
    """Like `known`, for everything that the table has, previews too."""
    return _among(version, order())


def fact(version: str, field: str) -> Fact:
    """What the table says of a release.

    Raises:
        KeyError: no such field, or a release that the table does not have.
    """
    place = _places()[version]
    for row in table()["fields"][field]:
        if any(_holds(text, place) for text in row["releases"]):
            return _fact(row, version)
    raise KeyError(version)


def value(version: str, field: str) -> Any:
    """The value alone; None where it is not known."""
    return fact(version, field).value


def with_tensorrt(tensorrt: str) -> list[str]:
    """The releases whose TensorRT is exactly this one, such as `10.7.0.23`."""
    return [version for version in order() if value(version, "tensorrt") == tensorrt]


def at_commit(commit: str) -> str | None:
    """The release of a commit of NVIDIA/TensorRT-LLM, None if it is none's."""
    return next((version for version in order() if value(version, "commit") == commit), None)


def select(ranges: str) -> list[str]:
    """The stable releases that a range such as `>=0.9.0,<0.19.0` holds, oldest first.

    Raises:
        ValueError: that is no range.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        specifiers = SpecifierSet(ranges)
    except InvalidSpecifier as error:
        raise ValueError(f"not a range of releases: {ranges!r}") from error
    return [version for version in versions() if version in specifiers]


def between(version: str, since: str | None, before: str | None) -> bool:
    """Whether `version` is `since` or later, and older than `before`; all three are known."""
    places = _places()
    place = places[version]
    return (since is None or place >= places[since]) and (before is None or place < places[before])


def closest(version: str, candidates: list[str]) -> str | None:
    """The candidate that stands nearest to `version` in the order of releases."""
    places = _places()
    inside = [name for name in candidates if name in places]
    return min(inside, key=lambda name: abs(places[name] - places[version]), default=None)


def _among(version: str, names: list[str]) -> str:
    bare = version.strip().removeprefix("v")
    if bare not in names:
        raise usage_error(f"unknown release {version!r}; {nearest(bare, names)}")
    return bare


@lru_cache(maxsize=1)
def _places() -> dict[str, int]:
    return {version: place for place, version in enumerate(order())}


def _holds(text: str, place: int) -> bool:
    first, _, last = text.partition("..")
    places = _places()
    return places[first] <= place <= places[last or first]


def _fact(row: dict[str, Any], version: str) -> Fact:
    def told(text: str | None) -> str | None:
        if text is None:
            return None
        text = text.replace("{version}", version)
        return text.replace("{commit}", value(version, "commit")) if "{commit}" in text else text

    return Fact(
        row["value"],
        told(row.get("source")),
        told(row.get("inferred")),
        told(row.get("hole")),
        {key: told(text) or "" for key, text in row["partly"].items()} if "partly" in row else None,
    )
