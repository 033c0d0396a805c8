"""`kit example list`: what can be run where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit import project
from kit.console import envelope, result, table
from kit.examples import catalogue, places
from kit.examples.recipe import Recipe

if TYPE_CHECKING:
    import argparse

    from kit.examples.program import Program


def run(options: argparse.Namespace) -> int:
    """Print the catalogue: each example, its releases, the stacks that can run it."""
    examples = [catalogue.find(name) for name in catalogue.names()]
    stacks = places.stacks(project.find())
    if options.json:
        rows = [
            {
                "name": item.name,
                "description": item.description,
                "model": item.model if isinstance(item, Recipe) else None,
                "repository": item.repository if isinstance(item, Recipe) else None,
                "world_size": _ranks(item),
                "releases": list(item.releases),
                "stacks": [
                    {"stack": stack.name, "releases": list(able)}
                    for stack in stacks
                    if (able := stack.able(item))
                ],
            }
            for item in examples
        ]
        envelope("example", ok=True, examples=rows)
        return 0
    rows_ = [
        [
            item.name,
            str(_ranks(item)),
            _range(item.releases),
            _places(item, [stack.name for stack in stacks if stack.able(item)]),
            item.description,
        ]
        for item in examples
    ]
    result(table(rows_, ["EXAMPLE", "RANKS", "RELEASES", "STACKS", "WHAT"]))
    return 0


def _ranks(item: Recipe | Program) -> int:
    return item.world_size if isinstance(item, Recipe) else 1


def _range(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"


def _places(item: Recipe | Program, names: list[str]) -> str:
    """Stacks of one kind as a range, in the order of their releases."""
    if not names:
        missing = f": no stack locks {item.model}" if isinstance(item, Recipe) else ""
        return f"plan only{missing}"
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.partition("-")[0], []).append(name)
    return ", ".join(_range(tuple(kind)) for kind in kinds.values())
