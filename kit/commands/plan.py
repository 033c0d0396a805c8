"""`kit plan`: the commands of an example for a release."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.console import envelope, note, result
from kit.errors import usage_error
from kit.examples import catalogue, memory, model_facts, plan, shape_checks
from kit.examples.memory import Memory
from kit.examples.recipe import Recipe

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from kit.examples.model_facts import Unknown
    from kit.examples.program import Program


def run(options: argparse.Namespace) -> int:
    """Print the plan as a table, as a script, or as JSON; or what it needs in memory."""
    example = catalogue.chosen(options.example, options.config)
    example = catalogue.with_given(example, options.model, options.dataset)
    planned = plan.plan(example, options.release)
    needed = _memory(options, example)
    if isinstance(example, Recipe):
        for warning in shape_checks.warnings(example, model_facts.of_recipe(example)):
            note(f"warning: {warning}")
    if options.json:
        content = planned.to_dict()
        if needed is not None:
            content["memory"] = _plain(needed)
        envelope("plan", ok=True, **content)
    elif needed is not None:
        result(needed.text() if isinstance(needed, Memory) else f"not known: {needed.reason}")
    elif options.shell:
        result(planned.script().rstrip("\n"))
    else:
        for line in planned.notes():
            note(line)
        result(planned.table())
    return 0


def _memory(options: argparse.Namespace, example: Recipe | Program) -> Memory | Unknown | None:
    """What was asked of the memory; None where nothing was."""
    if not options.memory:
        for name, value in (("--gpu", options.gpu), ("--kv-fraction", options.kv_fraction)):
            if value is not None:
                raise usage_error(f"{name} is of --memory: expected both, or neither")
        return None
    if options.shell:
        raise usage_error("--memory and --shell: expected one of them")
    if not isinstance(example, Recipe):
        raise usage_error(f"{example.name} builds a program, no engine: no memory to tell")
    return memory.of_recipe(example, options.release, options.gpu, options.kv_fraction)


def _plain(needed: Memory | Unknown) -> dict[str, Any]:
    if isinstance(needed, Memory):
        return needed.to_dict()
    return {"source": None, "gpu": None, "stages": None, "reason": needed.reason}
