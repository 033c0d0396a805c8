"""Everything that can be run: recipes, which make an engine, and programs, which are built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit import document
from kit.errors import nearest, usage_error
from kit.examples import buildconfig, program, recipe
from kit.examples.program import Program

if TYPE_CHECKING:
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


def with_given(
    example: Recipe | Program, model: str | None, dataset: str | None
) -> Recipe | Program:
    """The example with what the command line gives: a folder or .nemo file, a folder of articles.

    Raises:
        KitError: it is not there, or the example has no place for it (exit 2).
    """
    for option, value in (("--model", model), ("--dataset", dataset)):
        if value is None:
            continue
        if isinstance(example, Program):
            raise usage_error(f"{example.name} is a program: it takes no {option}")
        given = recipe.with_model if option == "--model" else recipe.with_dataset
        example = given(example, Path(value))
    return example
