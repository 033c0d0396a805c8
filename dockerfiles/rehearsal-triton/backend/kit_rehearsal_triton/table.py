"""What a version of the backend has in its repository and its tools: two tables, one view."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

FAMILY = "inflight_batcher_llm"
"""The family of models of one engine: the only one that is answered for here."""
_HERE = Path(__file__).resolve().parent
_PLACES = (_HERE / "data", *(folder / "kit" / "data" for folder in _HERE.parents))
"""Where the kit's table may be: installed beside this, or in the checkout around it."""
_RELEASES = {"0.7.2": "0.7.1"}
"""Versions of the backend that belong to a release of another number: of their submodule."""


@lru_cache(maxsize=1)
def own() -> dict[str, Any]:
    """`backend.json`: tensors, the ensemble's wires, options of the tools."""
    content: dict[str, Any] = json.loads((_HERE / "backend.json").read_bytes())
    return content


@lru_cache(maxsize=1)
def shared() -> dict[str, Any]:
    """`repository.json` of the kit: models, placeholders, parameters."""
    path = next(place for folder in _PLACES if (place := folder / "repository.json").is_file())
    content: dict[str, Any] = json.loads(path.read_bytes())
    return content


def versions() -> list[str]:
    """All versions of the backend, oldest first."""
    return list(_order())


def release(version: str) -> str:
    """The release of TensorRT-LLM that a version of the backend is built with."""
    return _RELEASES.get(version, version)


def since(version: str, first: str) -> bool:
    """Whether a version is `first` or newer."""
    return _order()[version] >= _order()[first]


def rows(kind: str, version: str, model: str | None = None) -> list[dict[str, Any]]:
    """The rows of a kind that hold for a version, of one model or of all, as the tables have them.

    Rows of `models`, `placeholders` and `parameters` are the kit's, of this family.
    """
    if kind in ("models", "placeholders", "parameters"):
        ranges = "releases"
        found = [row for row in shared()[kind] if row["family"] == FAMILY]
        name = "name" if kind == "models" else "model"
    else:
        ranges, found, name = "versions", own()[kind], "model"
    return [
        row
        for row in found
        if covers(row[ranges], version) and (model is None or row[name] == model)
    ]


def covers(ranges: list[str], version: str) -> bool:
    """Whether `0.5.0..0.7.2` or the like, both ends included, has a version."""
    order = _order()
    bounds = (text.partition("..") for text in ranges)
    return any(order[a] <= order[version] <= order[b or a] for a, _, b in bounds)


@lru_cache(maxsize=1)
def _order() -> dict[str, int]:
    return {row["version"]: place for place, row in enumerate(shared()["versions"])}
