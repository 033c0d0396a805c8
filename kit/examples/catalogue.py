"""Everything that can be run: recipes, which make an engine, and programs, which are built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit import document
from kit.errors import nearest, usage_error
from kit.examples import buildconfig, program, recipe

if TYPE_CHECKING:
    from kit.examples.program import Program
    from kit.examples.recipe import Recipe


def names() -> list[str]:
    """The names of all examples."""
    return sorted([*recipe.names(), *program.names()])


def find(name: str) -> Recipe | Program:
    """The example of that name; an unknown one is an error with the nearest (exit 2)."""
    if name in program.names():
        return program.find(name)
    if name not in recipe.names():
        raise usage_error(
            f"unknown example {name!r}; {nearest(name, names())}", hint="kit example list"
        )
    return recipe.find(name)


def load(path: Path) -> Recipe:
    """The recipe in a file, or in a plain build configuration, which has no `schema`.

    Raises:
        KitError: unreadable or malformed; with file, line and column (exit 2).
    """
    top = document.load(path)
    if "schema" in top:
        return recipe.parse(top, path)
    return buildconfig.parse(top, path)


def chosen(name: str | None, config: str | None) -> Recipe | Program:
    """What a command line means: the example of that name, or the file; one of both (exit 2)."""
    if name is not None and config is None:
        return find(name)
    if config is not None and name is None:
        return load(Path(config))
    raise usage_error(
        "expected the name of an example, or --config FILE",
        hint="kit example list",
    )
