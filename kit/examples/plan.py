"""Plans: the exact commands of a recipe for one release, to read, to run by hand, to execute."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit import console
from kit.data import releases
from kit.examples import dialect, program
from kit.examples.program import Program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.examples.recipe import Recipe

SCHEMA = "kit.plan/1"
DEFAULT_ROOT = "/app/tensorrt_llm"
"""Where NVIDIA's release images have the source tree; a built stack says its own by a label."""

# What every step gets on top of the image's own environment.
_ENVIRONMENT = {
    "HOME": "/tmp",  # noqa: S108 - the one folder of a container that anyone may write
    "PYTHONUNBUFFERED": "1",  # lines come when they are written
    "HF_HUB_OFFLINE": "1",  # without a network: fail at once, do not wait for time-outs
}
# Open MPI on one host, in a container without network or capabilities.
_MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",  # a rootless engine may map the caller to root
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # no ptrace there: open-mpi/ompi#4948
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # ranks are bound to GPUs, not to cores
}


@dataclass(frozen=True, slots=True)
class Step:
    """One command in the container.

    Attributes:
        name: `convert`, `build`, `run`, or `run-<n>` where a release takes one prompt at a time; of
            a program `configure`, `build`, `run`.
        argv: the command, MPI launcher included.
        cwd: the folder that it runs in, the release's own tree.
        env: variables set on top of the image's.
        path: folder that comes first on PATH.
        mpi_ranks: processes that MPI starts; 1 without MPI.
        produces: files or folders below the work folder that must exist afterwards.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    path: str
    mpi_ranks: int
    produces: tuple[str, ...]

    def line(self) -> str:
        """The command, quoted for a POSIX shell."""
        return shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class Plan:
    """All commands of one example for one release.

    `folders`: of a user's own build, each with what the commands call it.
    """

    example: str
    release: str
    steps: tuple[Step, ...]
    folders: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The content of `kit.plan/1`, without the envelope's `schema` and `ok`."""
        content: dict[str, Any] = {
            "example": self.example,
            "release": self.release,
            "steps": [
                {
                    "name": step.name,
                    "argv": list(step.argv),
                    "cwd": step.cwd,
                    "env": dict(step.env),
                    "path": step.path,
                    "mpi_ranks": step.mpi_ranks,
                    "produces": list(step.produces),
                }
                for step in self.steps
            ],
        }
        if self.folders:
            content["folders"] = [{"path": path, "mount": mount} for path, mount in self.folders]
        return content

    def table(self) -> str:
        """For people: one row a step."""
        return console.table(
            [[step.name, str(step.mpi_ranks), step.line()] for step in self.steps],
            ["STEP", "RANKS", "COMMAND"],
        )

    def script(self) -> str:
        """A POSIX shell script that runs the plan by hand, in a container of the release."""
        lines = [
            "#!/bin/sh",
            f"# {self.example} for TensorRT-LLM {self.release}, written by `kit plan`.",
            f"# Expects the model's files, or a program's, in {dialect.MODEL}.",
            f"# Writes below {dialect.WORK}.",
            # As JSON: no name of a folder begins a line of its own.
            *(f"# {mount} is {json.dumps(path)}." for path, mount in self.folders),
            "set -eu",
            "mkdir -p "
            + shlex.join([dialect.CHECKPOINT, dialect.ENGINE, dialect.OUTPUT, dialect.CACHE]),
        ]
        for step in self.steps:
            lines += ["", f"# {step.name}"]
            lines += [f"cd {shlex.quote(step.cwd)}"]
            words = [f"{name}={shlex.quote(value)}" for name, value in step.env.items()]
            words.append(f'PATH={shlex.quote(step.path)}:"$PATH"')
            lines.append(" \\\n  ".join([*words, step.line()]))
        return "\n".join(lines) + "\n"


def plan(example: Recipe | Program, release: str, root: str = DEFAULT_ROOT) -> Plan:
    """The commands of `example` for `release` in an image that keeps the release's tree at `root`.

    Raises:
        KitError: unknown release, or one that cannot do what the example asks (exit 2).
    """
    release = releases.known(release)
    if isinstance(example, Program):
        commands = program.commands(example, release, root)
    else:
        commands = dialect.commands(example, release)
    folders = () if isinstance(example, Program) else example.folders
    return Plan(example.name, release, tuple(_step(item, root) for item in commands), folders)


def _step(command: dialect.Command, root: str) -> Step:
    # `mpirun -n N python3 …` is what the examples' READMEs of all releases say.
    launcher = ("mpirun", "-n", str(command.ranks)) if command.ranks else ()
    return Step(
        name=command.name,
        argv=(*launcher, *command.argv),
        cwd=root,
        env={**_ENVIRONMENT, **(_MPI_ENVIRONMENT if command.ranks else {})},
        path=f"{root}/bin",
        mpi_ranks=command.ranks or 1,
        produces=command.produces,
    )
