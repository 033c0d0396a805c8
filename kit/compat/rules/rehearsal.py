"""Rehearsal engines that hold a TensorRT plan: as particular as any plan."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit.compat.facts import REHEARSAL, ranks
from kit.compat.rule import Result, Rule
from kit.data import tensorrt as table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.artifacts.plan import Built
    from kit.compat.facts import Facts, GpuFacts, StackImage

_WITH_PLANS = "rehearsal-gpu"


def _plans(facts: Facts) -> Iterable[Result]:
    """Its TensorRT, and its kind of GPU."""
    if facts.engine is None:
        return
    where = str(facts.engine.folder)
    said = (rank.header.rehearsal for rank in ranks(facts.engine))
    for plan in dict.fromkeys(one.plan for one in said if one is not None and one.plan is not None):
        if facts.stack is not None and facts.stack.backend == REHEARSAL:
            yield _in_image(plan, facts.stack, where)
        yield from (_on_gpu(plan, gpu, where) for gpu in facts.target_gpus())


def _in_image(plan: Built, stack: StackImage, where: str) -> Result:
    built, have = plan.tensorrt, stack.plans
    if built is not None and have is not None and table.same(have, built):
        return Result("ok", "engine plan", have, built, where)
    holds = "computes in NumPy alone" if have is None else f"has TensorRT {have}"
    message = f"engine holds a plan of TensorRT {built}, the image of stack {stack.stack} {holds}"
    hint = shlex.join(["kit", "verify-compat", "--stack", _WITH_PLANS, "--engine", where])
    return Result("mismatch", "engine plan", have or "no plan", built, where, message, hint)


def _on_gpu(plan: Built, gpu: GpuFacts, where: str) -> Result:
    wanted, have = plan.compute_capability, gpu.compute_capability
    component = f"engine plan on {gpu.label}"
    if have is None or wanted is None:
        message = f"{component}: {gpu.hole or 'its compute capability is not known'}"
        return Result("unknown", component, wanted, have, where, message)
    if have == wanted:
        return Result("ok", component, wanted, have, where)
    message = f"engine was built for compute capability {wanted}, {gpu.label} has {have}"
    return Result("mismatch", component, wanted, have, where, f"{message}: build it there")


RULES = (
    Rule(
        "rehearsal-plan",
        "A rehearsal engine with a plan runs in the rehearsal's image of the very TensorRT that "
        "built it, on GPUs of the compute capability that it was built on.",
        ("kit: the engine's header, and the label org.trtllm-kit.tensorrt",),
        _plans,
    ),
)
