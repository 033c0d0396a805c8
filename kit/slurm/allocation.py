"""The allocation that this process is in: which nodes, and whether they are enough."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from kit.errors import environment_error, usage_error
from kit.host import programs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType


_SIGNAL_SECONDS = 10
"""Longest time that SIGTERM may take from the controller to a process of the job."""


@dataclass(frozen=True, slots=True)
class Allocation:
    """A job's nodes, the one that this process runs on first."""

    job: str
    nodes: tuple[str, ...]

    def wait_if_ending(self) -> None:
        """What a step ends with that Slurm has ended is no failure: wait for the signal.

        `srun` may learn of a job's end before SIGTERM reaches this process. Returns at once while
        the job runs, and where Slurm does not say.
        """
        said = programs.ask(["scontrol", "show", "job", self.job])
        # Of an array, all of it is shown.
        state = re.search(rf"\bJobId={self.job}\s.*?\bJobState=(\w+)", said.out, re.DOTALL)
        if said.problem is None and state is not None and state.group(1) != "RUNNING":
            time.sleep(_SIGNAL_SECONDS)


def is_inside() -> bool:
    """Whether this process belongs to a job."""
    return "SLURM_JOB_ID" in os.environ


def node_home(home: Path) -> Path:
    """Where what was found out about this very host is kept, and which containers are at work.

    In a job the home is on storage that other nodes see too; each has a folder of its own.
    """
    node = os.environ.get("SLURMD_NODENAME", "")
    return home / "nodes" / node if is_inside() and _is_name(node) else home


def current(nodes: int, submit: str) -> Allocation:
    """The allocation around this process, cut to that many nodes.

    Args:
        nodes: how many a step wants.
        submit: the command line that makes and submits a batch script.

    Raises:
        KitError: this is no job, not one of its nodes, or one of several copies of the kit
            (exit 2); too few nodes, no Slurm commands (exit 3).
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    if not job.isdecimal():
        raise usage_error(f"{nodes} hosts are a job of Slurm's, which this is not", hint=submit)
    copies = os.environ.get("SLURM_STEP_NUM_TASKS", "1")
    if copies != "1":
        raise usage_error(
            f"srun has started kit {copies} times: once is enough, it calls srun itself",
            hint=submit,
        )
    listed = os.environ.get("SLURM_JOB_NODELIST", "")
    for program in ("srun", "scontrol"):
        if programs.find(program) is None:
            raise environment_error(f"job {job}: {program} is not on PATH", hint="module avail")
    said = programs.ask(["scontrol", "show", "hostnames", listed])
    if said.problem is not None:
        raise environment_error(
            f"job {job}: scontrol cannot read the nodes {listed!r}: {said.problem}", hint="sinfo"
        )
    found = tuple(said.out.split())
    here = os.environ.get("SLURMD_NODENAME", "")
    if here not in found:
        raise usage_error(
            f"job {job}: kit run has to be started on one of its nodes ({', '.join(found)}), "
            f"not on {here or 'a host outside'}",
            hint=submit,
        )
    if len(found) < nodes:
        raise environment_error(
            f"job {job} has too few nodes: expected {nodes}, found {len(found)} "
            f"({', '.join(found)})",
            hint=submit,
        )
    others = [name for name in found if name != here]
    return Allocation(job, (here, *others[: nodes - 1]))


@contextlib.contextmanager
def cancellable() -> Iterator[None]:
    """While the block runs in a job, SIGTERM is an interruption: Slurm's way to say that it ends.

    So a cancelled job, or one at the end of its time, leaves behind what can be gone on with.
    After the block SIGTERM is ignored: what is left is to say how it went.
    """
    if not is_inside():
        yield
        return
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough; what comes next cleans up
    raise KeyboardInterrupt


def _is_name(text: str) -> bool:
    return bool(text) and "/" not in text and text not in (".", "..")
