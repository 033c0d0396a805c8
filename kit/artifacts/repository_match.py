"""Which version of the Triton backend a model repository was made for, by the names in it.

No config.pbtxt says so. Its parameters, tensors and placeholders are held against those that the
backend's own repository has in each version (`kit/data/repository.json`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from kit.data import repository as table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ENGINE_BACKEND = "tensorrtllm"
_ENGINE_MODEL = "tensorrt_llm"


@dataclass(frozen=True, slots=True)
class Names:
    """The names that one model's config.pbtxt uses; tensors as `input:NAME` and `output:NAME`."""

    model: str
    role: str
    parameters: frozenset[str]
    tensors: frozenset[str]
    placeholders: frozenset[str]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A parameter that a version of the backend does not have; `why` names the nearest, if any."""

    model: str
    parameter: str
    why: str


@dataclass(frozen=True, slots=True)
class Match:
    """The versions of the backend that the repository fits best.

    Attributes:
        versions: oldest first, all of them equally near; empty where no model is known.
        is_exact: every name is there and no other, as in the backend's own repository.
        unknown: parameters that even the newest of `versions` does not have.
        families: of each known model, the folder of the backend's repository it is nearest to.
    """

    versions: tuple[str, ...]
    is_exact: bool
    unknown: tuple[Unknown, ...]
    families: Mapping[str, str]


def role(model: str, backend: str | None) -> str | None:
    """The model of the backend's repository that one of this name and backend stands for.

    With several engines in one repository the models carry a prefix or a suffix of their own.
    """
    known: set[str] = {row["name"] for row in table.table()["models"]}
    if model in known:
        return model
    named = [name for name in known if model.startswith(f"{name}_") or model.endswith(f"_{name}")]
    if named:
        return max(named, key=len)
    return _ENGINE_MODEL if backend == _ENGINE_BACKEND else None


def match(models: Sequence[Names]) -> Match:
    """The versions whose repository these models are nearest to."""
    if not models:
        return Match((), is_exact=False, unknown=(), families={})
    distances = {version: _distance(models, version) for version in table.versions()}
    nearest = min(distances.values())
    versions = tuple(version for version, found in distances.items() if found == nearest)
    newest = versions[-1]
    families = {names.model: _family(names, newest) for names in models}
    return Match(
        versions=versions,
        is_exact=nearest == (0, 0),
        unknown=tuple(
            Unknown(names.model, parameter, _why(names, parameter, newest))
            for names in models
            for parameter in sorted(
                names.parameters
                - set(table.parameters(families[names.model] or "", names.role, newest))
            )
        ),
        families={model: family for model, family in families.items() if family is not None},
    )


def _distance(models: Sequence[Names], version: str) -> tuple[int, int]:
    """Names that the version does not have, then all names by which the two differ."""
    found = [_nearest(names, version)[0] for names in models]
    return sum(item[0] for item in found), sum(item[1] for item in found)


def _family(names: Names, version: str) -> str | None:
    return _nearest(names, version)[1]


def _nearest(names: Names, version: str) -> tuple[tuple[int, int], str | None]:
    """The distance to the nearest family that has such a model, and that family."""
    mine = names.parameters | names.tensors
    best: tuple[tuple[int, int], str | None] = ((len(mine) + 1, len(mine) + 1), None)
    for row in table.models(version):
        if row["name"] != names.role:
            continue
        family = row["family"]
        theirs, blanks = _known(family, names.role, version)
        unknown = len(mine - theirs) + len(names.placeholders - blanks)
        best = min(best, ((unknown, len(mine ^ theirs)), family), key=lambda item: item[0])
    return best


@lru_cache(maxsize=4096)  # a repository may hold the same model many times
def _known(family: str, role: str, version: str) -> tuple[frozenset[str], frozenset[str]]:
    """The parameters and tensors of a model in a version, and its placeholders."""
    used = table.parameters(family, role, version).keys() | table.tensors(family, role, version)
    blanks = {item["name"] for item in table.placeholders(family, role, version)}
    return frozenset(used), frozenset(blanks)


def _why(names: Names, parameter: str, version: str) -> str:
    import difflib

    renamed = table.renamed(names.role, parameter)
    if renamed is not None:
        old, new, since = renamed["old"], renamed["new"], renamed["since"]
        return f"since {since} {old} is called {new}"
    known = {
        name
        for row in table.models(version)
        for name in table.parameters(row["family"], names.role, version)
    }
    close = difflib.get_close_matches(parameter, sorted(known), n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]}?"
    return _elsewhere(names.role, parameter)


def _elsewhere(model: str, parameter: str) -> str:
    """In which versions the parameter exists at all."""
    having = [
        version
        for version in table.versions()
        for row in table.models(version)
        if parameter in table.parameters(row["family"], model, version)
    ]
    return f"it belongs to {having[0]} to {having[-1]}" if having else "no version has it"
