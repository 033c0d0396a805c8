"""`kit example list`: what can be run where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit import project
from kit.console import envelope, result, table
from kit.examples import catalogue, dialect, places
from kit.examples.recipe import Recipe

if TYPE_CHECKING:
    import argparse

    from kit.examples.places import Stack
    from kit.examples.program import Program


def run(options: argparse.Namespace) -> int:
    """Print the catalogue: each example, its releases, the stacks that can run it."""
    examples = [catalogue.find(name) for name in catalogue.names()]
    stacks = places.stacks(project.find())
    if options.json:
        envelope("example", ok=True, examples=[_entry(item, stacks) for item in examples])
        return 0
    rows = [
        [
            item.name,
            str(_ranks(item)),
            _range(_releases(item)),
            _places(item, stacks),
            item.description,
        ]
        for item in examples
    ]
    result(table(rows, ["EXAMPLE", "RANKS", "RELEASES", "STACKS", "WHAT"]))
    return 0


def _entry(item: Recipe | Program, stacks: list[Stack]) -> dict[str, Any]:
    """One example as plain data; `needs` is what the command line has to give."""
    able = [{"stack": stack.name, "releases": list(stack.able(item))} for stack in stacks]
    content: dict[str, Any] = {
        "name": item.name,
        "description": item.description,
        "model": None,
        "repository": None,
        "world_size": _ranks(item),
        "nodes": 1,
        "releases": _releases(item),
        "needs": places.options(item, stacks) or None,
        "stacks": [row for row in able if row["releases"]],
    }
    if isinstance(item, Recipe):
        given = [
            {"stack": stack.name, "releases": list(stack.able_with_model(item))} for stack in stacks
        ]
        content |= {
            "model": item.model,
            "repository": item.repository,
            "commit": item.source.commit,
            "nodes": item.run.nodes or 1,
            "stacks_with_model": [row for row in given if row["releases"]],
        }
    return content


def _ranks(item: Recipe | Program) -> int:
    return item.world_size if isinstance(item, Recipe) else 1


def _releases(item: Recipe | Program) -> list[str]:
    """Those that it is meant for and that can do it."""
    if not isinstance(item, Recipe):
        return list(item.releases)
    return [name for name in item.releases if dialect.refusal(item, name) is None]


def _range(names: list[str]) -> str:
    return ", ".join(names) if len(names) < 3 else f"{names[0]} … {names[-1]}"


def _places(item: Recipe | Program, stacks: list[Stack]) -> str:
    """Stacks of one kind as a range, in the order of their releases."""
    names = [stack.name for stack in stacks if stack.able(item)]
    if not names and isinstance(item, Recipe):
        names = [stack.name for stack in stacks if stack.able_with_model(item)]
    if not names:
        return "plan only"
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.partition("-")[0], []).append(name)
    shown = ", ".join(_range(kind) for kind in kinds.values())
    needed = places.options(item, stacks)
    nodes = (item.run.nodes or 1) if isinstance(item, Recipe) else 1
    job = f"kit slurm: {nodes} nodes" if nodes > 1 else ""
    return "; ".join(part for part in (shown, needed, job) if part)
