"""`kit plan`: the commands of an example for a release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.console import envelope, note, result
from kit.examples import catalogue, plan

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Print the plan as a table, as a script, or as JSON."""
    example = catalogue.chosen(options.example, options.config)
    planned = plan.plan(example, options.release)
    if options.json:
        envelope("plan", ok=True, **planned.to_dict())
    elif options.shell:
        result(planned.script().rstrip("\n"))
    else:
        for path, mount in planned.folders:
            note(f"{mount} is {path}")
        result(planned.table())
    return 0
