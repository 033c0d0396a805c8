"""Which steps of a plan a run is asked for, and whether this one host can do them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.errors import nearest, usage_error
from kit.slurm.allocation import is_inside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kit.examples.plan import Plan, Step
    from kit.images.engine import Gpus


@dataclass(frozen=True, slots=True)
class Asked:
    """Steps up to the last that is asked for; the `first` of those that are is a place in them."""

    steps: tuple[Step, ...]
    first: int


def select(planned: Plan, only: Sequence[str], again: str) -> Asked:
    """The steps that `only` names, and those that they need; without names all.

    Args:
        planned: the plan.
        only: names of steps; `run` means `run-1`, `run-2` … too, `fill` all that fill something in.
        again: the command line of the run without `--only`.

    Raises:
        KitError: a name that no step has, or steps that leave one out (exit 2).
    """
    steps = planned.steps
    if not only:
        return Asked(steps, 0)
    chosen: set[int] = set()
    for name in only:
        found = [
            at for at, step in enumerate(steps) if name in (step.name, step.name.partition("-")[0])
        ]
        if not found:
            known = dict.fromkeys(step.name for step in steps)
            raise usage_error(
                f"--only {name}: {planned.example} has no such step with release "
                f"{planned.release}; {nearest(name, known)}",
                hint=f"{again} --only {steps[0].name}",
            )
        chosen.update(found)
    first, last = min(chosen), max(chosen)
    wanted = steps[first : last + 1]
    left_out = [step.name for at, step in enumerate(wanted, first) if at not in chosen]
    if left_out:
        raise usage_error(
            f"--only {','.join(only)}: leaves out {', '.join(left_out)} between them",
            hint=f"{again} --only {','.join(step.name for step in wanted)}",
        )
    return Asked(steps[: last + 1], first)


def refuse_impossible(
    steps: Sequence[Step], gpus: Gpus, present: int | None, again: str, submit: str
) -> None:
    """Refuse what one host, or the GPUs that are given, cannot do.

    Args:
        steps: what is to be done.
        gpus: what is given.
        present: GPUs of this host; None where nobody has counted them.
        again: the command line of the run.
        submit: the command line that makes a job of the run.

    Raises:
        KitError: ranks on several hosts outside a job, GPUs that they do not all have, more ranks
            than GPUs (exit 2).
    """
    for step in steps:
        each = step.mpi_ranks // step.nodes
        if step.nodes > 1 and not is_inside():
            raise usage_error(
                f"step {step.name} wants {step.mpi_ranks} ranks on {step.nodes} hosts, "
                f"{each} on each: this is one host, and no job of Slurm's",
                hint=submit,
            )
        if step.nodes > 1 and any(not device.isdecimal() for device in gpus.devices):
            raise usage_error(
                f"--gpus {gpus}: step {step.name} runs on {step.nodes} hosts, each of which has "
                "other UUIDs",
                hint=again.replace(f"--gpus {gpus}", f"--gpus {','.join(map(str, range(each)))}"),
            )
    # Each host gives its own.
    wanted = max((step.mpi_ranks // step.nodes for step in steps), default=1)
    given = present if gpus.all else len(gpus.devices)
    if gpus and given is not None and given < wanted:
        raise usage_error(
            f"--gpus {gpus}: {given} GPUs for {wanted} ranks, which want one each",
            hint=again.replace(f"--gpus {gpus}", f"--gpus {','.join(map(str, range(wanted)))}")
            if gpus.devices
            else "nvidia-smi -L",
        )
