"""Which stack a command means when none is named."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from kit.cli import guarded
from kit.console import note, result
from kit.errors import KitError
from kit.locks import intent
from kit.project import find

if TYPE_CHECKING:
    from packaging.version import Version

    from kit.project import Project

FALLBACK = "rehearsal"
_FAMILY = "trtllm-"


def main() -> int:
    """Print the stack of `make release_build`: the one that is named, or the choice."""
    named = sys.argv[1] if len(sys.argv) > 1 else None
    result(choose(find(), named))
    return 0


def choose(project: Project, named: str | None) -> str:
    """The named stack, or the one that suits this host; says which and why."""
    if named is not None:
        project.intent_path(named)
        return named
    if (reason := _no_gpu()) is not None:
        note(f"stack {FALLBACK}: {reason}")
        return FALLBACK
    releases = _releases(project)
    why = "whose inputs are all known, since this host has an NVIDIA GPU"
    if not releases:
        note(f"stack {FALLBACK}: this host has an NVIDIA GPU, but there is no {_FAMILY}* stack")
        return FALLBACK
    for release in sorted(releases, reverse=True):
        stack = releases[release]
        if not intent.load(project.intent_path(stack)).gaps:
            note(f"stack {stack}: the newest TensorRT-LLM {why}")
            return stack
    note(f"stack {FALLBACK}: every {_FAMILY}* stack needs files that its intent does not name")
    return FALLBACK


def _no_gpu() -> str | None:
    """Why this host's GPUs are none; None where there is one that answers."""
    from kit.images import cdi

    try:
        _, found = cdi.gpus()
    except KitError as error:
        return str(error)
    return None if found else "this host has an NVIDIA driver, but no GPU"


def _releases(project: Project) -> dict[Version, str]:
    """The stacks of releases by version; a name such as `trtllm-main` is none."""
    from packaging.version import InvalidVersion, Version

    found = {}
    for name in project.stacks:
        if name.startswith(_FAMILY):
            try:
                found[Version(name.removeprefix(_FAMILY))] = name
            except InvalidVersion:
                continue
    return found


if __name__ == "__main__":
    sys.exit(guarded(main))
