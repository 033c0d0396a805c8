"""Stacks that the tables describe: intents and partial locks, written by `python -m kit.stacks`."""

from __future__ import annotations

from kit.stacks import partial, triton, trtllm, writing


def documents() -> dict[str, str]:
    """Every file below `lockfiles/` that comes from the tables: name and content."""
    found = {}
    stacks = [trtllm.stack(release) for release in trtllm.releases()]
    stacks += [triton.stack(container) for container in triton.containers()]
    for stack in stacks:
        name = stack.intent.stack
        found[f"{name}.yaml"] = writing.text(stack)
        found[f"{name}.lock.yaml"] = partial.lock(stack.intent).text()
    return found


def is_generated(name: str) -> bool:
    """Whether a file of this name below `lockfiles/` is one that the tables write."""
    return name.startswith(("trtllm-", "triton-")) and name.endswith(".yaml")
