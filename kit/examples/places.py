"""Where an example can be run: the stacks that lock its model, and the releases they hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.data import releases
from kit.examples import dialect
from kit.examples.program import Program
from kit.locks import intent

if TYPE_CHECKING:
    from kit.examples.recipe import Recipe
    from kit.project import Project

# What the Dockerfile of a family with all releases writes into its images, `${RELEASE}` elsewhere.
_LABEL = re.compile(r'org\.trtllm-kit\.releases="([0-9. ]+)"')

# The family of the release images, the only ones with the headers of the runtime.
_RELEASE_IMAGES = "trtllm"


@dataclass(frozen=True, slots=True)
class Stack:
    """What of a stack's intent decides whether it can run an example.

    Attributes:
        name: of the stack.
        releases: that its image holds.
        models: that its lock names.
        has_runtime: whether a program finds the runtime's headers and libraries in it.
    """

    name: str
    releases: tuple[str, ...]
    models: tuple[str, ...]
    has_runtime: bool

    def able(self, example: Recipe | Program) -> tuple[str, ...]:
        """The releases in this stack that can run an example, none where the model is missing."""
        held = tuple(name for name in self.releases if name in example.releases)
        if isinstance(example, Program):
            return held if self.has_runtime else ()
        if example.model not in self.models:
            return ()
        return tuple(name for name in held if dialect.refusal(example, name) is None)


def stacks(project: Project) -> list[Stack]:
    """All stacks of a project that hold a release, in the order of the releases.

    Raises:
        KitError: an intent is malformed (exit 2).
    """
    order = releases.versions()
    found = []
    for name in project.stacks:
        content = intent.load(project.intent_path(name))
        held = content.release.split() if content.release else _all_in_one(project, content.family)
        known = tuple(version for version in order if version in held)
        if known:
            models = tuple(model.name for model in content.models)
            found.append(Stack(name, known, models, content.family == _RELEASE_IMAGES))
    return sorted(found, key=lambda stack: (order.index(stack.releases[0]), stack.name))


def _all_in_one(project: Project, family: str) -> list[str]:
    try:
        text = (project.root / "dockerfiles" / family / "Dockerfile").read_text(encoding="utf-8")
    except OSError:
        return []  # `kit build` says what is wrong with the family
    match = _LABEL.search(text)
    return match.group(1).split() if match else []
