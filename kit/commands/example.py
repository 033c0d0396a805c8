"""`kit example list`: what can be run where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.console import envelope, result, table
from kit.examples import recipe

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Print the catalogue."""
    recipes = recipe.catalog()
    if options.json:
        rows = [
            {
                "name": item.name,
                "description": item.description,
                "model": item.model,
                "world_size": item.world_size,
                "releases": list(item.releases),
            }
            for item in recipes
        ]
        envelope("example", ok=True, examples=rows)
        return 0
    rows_ = [
        [item.name, str(item.world_size), _range(item.releases), item.description]
        for item in recipes
    ]
    result(table(rows_, ["EXAMPLE", "RANKS", "RELEASES", "WHAT"]))
    return 0


def _range(releases: tuple[str, ...]) -> str:
    return releases[0] if len(releases) == 1 else f"{releases[0]} … {releases[-1]}"
