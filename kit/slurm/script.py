"""Batch scripts: a job of Slurm's that does one `kit run`."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.errors import environment_error
from kit.host import cluster, programs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

GPUS = '"${SLURM_JOB_GPUS:-all}"'
"""The GPUs that Slurm has given to a job on one node; as a shell reads it."""
_ANSWER = re.compile(r"(\d+)(;\S+)?")


@dataclass(frozen=True, slots=True)
class Job:
    """What a script says.

    Attributes:
        name: of the example.
        release: that it is for.
        nodes: how many hosts.
        command: `kit run …`, without `--gpus`.
        folder: where it runs.
        environment: variables that the command needs.
        partition: and the next three: of Slurm's; None for its defaults.
        account: who pays.
        time: at most.
        gpus_per_node: that it gets and uses.
        further: further options of sbatch, quoted for their line.
    """

    name: str
    release: str
    nodes: int
    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str]
    partition: str | None = None
    account: str | None = None
    time: str | None = None
    gpus_per_node: int | None = None
    further: tuple[str, ...] = ()

    def options(self) -> list[str]:
        """The options of sbatch, as they stand in its lines."""
        found = [f"--job-name=kit-{self.name}", f"--nodes={self.nodes}", "--ntasks-per-node=1"]
        # Ranks on several nodes meet on fixed terms: nobody else's work beside them.
        found += ["--exclusive"] if self.nodes > 1 else []
        # What Slurm started again from the beginning would race with a resumed run.
        found += ["--no-requeue"]
        given = {option.partition("=")[0] for option in self.further}
        found += [] if "--output" in given else [f"--output=kit-{self.name}-%j.log"]
        for option, value in (
            ("partition", self.partition),
            ("account", self.account),
            ("time", self.time),
            ("gpus-per-node", self.gpus_per_node),
        ):
            found += [] if value is None else [f"--{option}={value}"]
        return [*found, *self.further]

    def text(self) -> str:
        """The script."""
        gpus = ""
        if self.gpus_per_node:
            # On several nodes the job has all of each.
            gpus = f" --gpus {GPUS if self.nodes == 1 else 'all'}"
        lines = [
            "#!/bin/bash",
            f"# {self.name} for TensorRT-LLM {self.release}, written by `kit slurm`.",
            *(f"#SBATCH {option}" for option in self.options()),
            "set -euo pipefail",
            *(f"export {name}={shlex.quote(text)}" for name, text in self.environment.items()),
            f"cd -- {shlex.quote(str(self.folder))}",
            # In the shell's place: signals of Slurm's reach the kit itself.
            f"exec {shlex.join(self.command)}{gpus}",
        ]
        return "\n".join(lines) + "\n"


def submit(script: str, *arguments: str) -> int:
    """Hand a script to sbatch; returns the number of the job.

    Raises:
        KitError: no sbatch, no controller that answers, or it refuses the job (exit 3).
    """
    command = programs.find("sbatch")
    facts, gaps = cluster.slurm()
    if command is None or facts is None:
        raise environment_error(
            "no sbatch on PATH: this host does not submit jobs", hint="kit slurm … --output FILE"
        )
    if facts.is_reachable is False:
        why = "; ".join(reason for _, reason in gaps)
        raise environment_error(f"Slurm does not answer: {why}", hint="sinfo")
    done = subprocess.run(
        [command, "--parsable", *arguments],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    answer = _ANSWER.fullmatch(done.stdout.strip())
    if done.returncode != 0 or answer is None:
        said = (done.stderr or done.stdout).strip()
        raise environment_error(f"sbatch refused the job: {said}", hint="sinfo; squeue --me")
    return int(answer.group(1))


def command_line(python: str, words: Sequence[str]) -> tuple[str, ...]:
    """`kit run` as a job calls it: by this very Python, which all nodes see."""
    return (python, "-m", "kit", "run", *words)
