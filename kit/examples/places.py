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
    from pathlib import Path

    from kit.examples.recipe import Recipe
    from kit.project import Project

# What the Dockerfile of a family with all releases writes into its images, `${RELEASE}` elsewhere.
_LABEL = re.compile(r'org\.trtllm-kit\.releases="([0-9. ]+)"')

# The family of the release images, the only ones with the headers of the runtime.
_RELEASE_IMAGES = "trtllm"

# Families of servers, whose images have the wheel of a release and none of its scripts.
_SERVERS = ("triton", "rehearsal-triton")

# The family whose engines are plans that the reference backend has TensorRT build: of one rank,
# without quantization, in types that it takes (`kit_rehearsal.tensorrt_network.refuse`).
_PLANS = "rehearsal-gpu"
_TYPES_OF_PLANS = ("float16", "float32")


@dataclass(frozen=True, slots=True)
class Stack:
    """What of a stack's intent decides whether it can run an example.

    Attributes:
        name: of the stack.
        releases: that its image holds.
        models: that its lock names.
        has_runtime: whether a program finds the runtime's headers and libraries in it.
        has_examples: whether it has the scripts of the release, not its wheel alone.
        has_plans: whether it is the rehearsal on a GPU, which computes less than the one without.
    """

    name: str
    releases: tuple[str, ...]
    models: tuple[str, ...]
    has_runtime: bool
    has_examples: bool
    has_plans: bool = False

    def able(self, example: Recipe | Program) -> tuple[str, ...]:
        """The releases in this stack that can run an example, none where the model is missing."""
        if isinstance(example, Program):
            held = tuple(name for name in self.releases if name in example.releases)
            return held if self.has_runtime else ()
        locked = example.locked_model
        if needs_model(example) or (locked is not None and locked not in self.models):
            return ()
        return self.able_with_model(example)

    def able_with_model(self, example: Recipe) -> tuple[str, ...]:
        """The releases in this stack that can run an example whose model the user gives."""
        if not self.has_examples or (self.has_plans and not _is_for_plans(example)):
            return ()
        return tuple(name for name in self.releases if dialect.refusal(example, name) is None)


def _is_for_plans(example: Recipe) -> bool:
    chosen = example.options
    coded = chosen.quantization or chosen.kv_cache_dtype or chosen.prompt_table_size or chosen.lora
    is_plain = coded is None and example.checkpoint.dtype in _TYPES_OF_PLANS
    return is_plain and example.world_size == 1


def needs_model(example: Recipe) -> bool:
    """Whether no stack can have the model: an archive of NeMo's, with what belongs to it."""
    return example.source.nemo is not None


def options(example: Recipe | Program, stacks: list[Stack]) -> str:
    """What the command line has to give for an example to run in any of the stacks; mostly nothing.

    As it is typed: `--model DIR`, `--model FILE.nemo`, `--dataset DIR`.
    """
    if isinstance(example, Program):
        return ""
    found = []
    if not any(stack.able(example) for stack in stacks):
        single = needs_model(example) and len(example.inputs) == 1
        found.append("--model FILE.nemo" if single else "--model DIR")
    if example.evaluate is not None and example.evaluate.summarize.dataset is None:
        found.append("--dataset DIR")
    return " ".join(found)


def stacks(project: Project) -> list[Stack]:
    """All stacks of a project that hold a release, in the order of the releases.

    Raises:
        KitError: an intent is malformed (exit 2).
    """
    order = releases.versions()
    found = []
    for name in project.stacks:
        content = intent.load(project.intent_path(name))
        held = (
            content.release.split()
            if content.release
            else _all_in_one(project.root_of(name), content.family)
        )
        known = tuple(version for version in order if version in held)
        if known:
            models = tuple(model.name for model in content.models)
            found.append(
                Stack(
                    name,
                    known,
                    models,
                    has_runtime=content.family == _RELEASE_IMAGES,
                    has_examples=content.family not in _SERVERS,
                    has_plans=content.family == _PLANS,
                )
            )
    return sorted(found, key=lambda stack: (order.index(stack.releases[0]), stack.name))


def _all_in_one(root: Path, family: str) -> list[str]:
    try:
        text = (root / "dockerfiles" / family / "Dockerfile").read_text(encoding="utf-8")
    except OSError:
        return []  # `kit build` says what is wrong with the family
    match = _LABEL.search(text)
    return match.group(1).split() if match else []
