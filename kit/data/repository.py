"""Model repositories of the Triton backend, by version of the backend: `repository.json`."""

from __future__ import annotations

import json
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("repository.json")
_PARAMETER = ("parameters[", "].string_value")


@lru_cache(maxsize=1)
def table() -> dict[str, Any]:
    """The table as it stands in `repository.json`; shared, not to be changed by the caller."""
    content: dict[str, Any] = json.loads(TABLE.read_bytes())
    return content


def versions() -> list[str]:
    """The versions of the backend, oldest first."""
    return list(_order())


def models(version: str) -> list[dict[str, Any]]:
    """The models of a version: `family`, `name`, `backend`, `files`, the `steps` of an ensemble.

    Several families have a model of the same name, and a repository is made of one of them.
    """
    return _rows("models", version)


def placeholders(family: str, model: str, version: str) -> list[dict[str, Any]]:
    """What is to be filled in: `name`, `fields`, `kind`, `required`, `default`, `if_left`."""
    rows = _rows("placeholders", version)
    return [row for row in rows if (row["family"], row["model"]) == (family, model)]


@cache
def parameters(family: str, model: str, version: str) -> dict[str, dict[str, Any]]:
    """The parameters of a model by name: the row of their placeholder, or of their fixed value.

    Shared, not to be changed by the caller.
    """
    found = {
        name: row
        for row in placeholders(family, model, version)
        for field in row["fields"]
        if (name := parameter(field)) is not None
    }
    for row in _rows("parameters", version):
        if (row["family"], row["model"]) == (family, model):
            found.setdefault(row["name"], row)
    return found


@cache
def tensors(family: str, model: str, version: str) -> frozenset[str]:
    """Names of a model's inputs and outputs, as `input:NAME` and `output:NAME`."""
    return frozenset(
        f"{row['direction']}:{name}"
        for row in _rows("tensors", version)
        if (row["family"], row["model"]) == (family, model)
        for name in row["names"]
    )


def renamed(model: str, name: str) -> dict[str, str] | None:
    """How a placeholder of a model got, or lost, this name: `old`, `new`, `since`."""
    for row in table()["renames"]:
        if row["model"] == model and name in (row["old"], row["new"]):
            found: dict[str, str] = row
            return found
    return None


def parameter(field: str) -> str | None:
    """`gpt_model_path` of `parameters[gpt_model_path].string_value`; None for another field."""
    start, end = _PARAMETER
    if not (field.startswith(start) and field.endswith(end)):
        return None
    return field.removeprefix(start).removesuffix(end)


@lru_cache(maxsize=1)
def paths() -> frozenset[str]:
    """Names of all parameters, of any version, that name a file or a folder."""
    return frozenset(
        name
        for row in table()["placeholders"]
        if row["kind"] == "path"
        for field in row["fields"]
        if (name := parameter(field)) is not None
    )


def _rows(kind: str, version: str) -> list[dict[str, Any]]:
    return [row for row in table()[kind] if _covers(row["releases"], version)]


def _covers(ranges: list[str], version: str) -> bool:
    order = _order()
    bounds = (text.partition("..") for text in ranges)
    return any(order[a] <= order[version] <= order[b or a] for a, _, b in bounds)


@lru_cache(maxsize=1)
def _order() -> dict[str, int]:
    return {row["version"]: place for place, row in enumerate(table()["versions"])}
