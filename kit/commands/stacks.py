"""Which stack a command means when none is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.console import note

if TYPE_CHECKING:
    from kit.project import Project

FALLBACK = "rehearsal"
_FAMILY = "trtllm-"


def choose(project: Project, named: str | None) -> str:
    """The named stack, or the one that suits this host; says which and why."""
    if named is not None:
        project.intent_path(named)
        return named
    from kit.images.cdi import smi

    releases = [name for name in project.stacks if name.startswith(_FAMILY)]
    if smi() is None:
        note(f"stack {FALLBACK}: this host has no NVIDIA GPU (no nvidia-smi)")
        return FALLBACK
    if not releases:
        note(f"stack {FALLBACK}: this host has an NVIDIA GPU, but there is no {_FAMILY}* stack")
        return FALLBACK
    from packaging.version import Version

    newest = max(releases, key=lambda name: Version(name.removeprefix(_FAMILY)))
    note(f"stack {newest}: the newest TensorRT-LLM, since this host has an NVIDIA GPU")
    return newest
