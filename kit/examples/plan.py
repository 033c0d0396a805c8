"""Plans: the exact commands of a recipe for one release, to read, to run by hand, to execute."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit import console, data
from kit.data import releases
from kit.examples import dialect, model_facts, program, shape_checks
from kit.examples.program import Program

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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
# Open MPI in a container without capabilities.
_MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",  # a rootless engine may map the caller to root
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",  # no ptrace there: open-mpi/ompi#4948
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # ranks are bound to GPUs, not to cores
}
# What ranks on several hosts talk by, where the image says that one host is all there is.
_SPREAD_ENVIRONMENT = {"OMPI_MCA_btl": "self,vader,tcp"}
_END = "END_OF_FILE"
"""Ends a file that a script brings along; no line of one is this."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command in the container.

    Attributes:
        name: `convert`, `quantize`, `configure`, `build`, `python`, `prompts`, `run`, or
            `run-<n>` where a release takes one prompt at a time, `summarize`; `repository`,
            `fill-<model>`, `serve`; of a program `configure`, `build`, `run`.
        argv: the command, MPI launcher included.
        cwd: the folder that it runs in, the release's own tree.
        env: variables set on top of the image's.
        path: folder that comes first on PATH.
        mpi_ranks: processes that MPI starts; 1 without MPI.
        produces: files or folders below the work folder that must exist afterwards.
        writes: files that must be there before: path in the container, content.
        nodes: hosts that share the ranks evenly.
        image: whose container it runs in, where that is not the release's.
        doubt: why it is not certain that the release takes the command.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    path: str
    mpi_ranks: int
    produces: tuple[str, ...]
    writes: tuple[tuple[str, str], ...] = ()
    nodes: int = 1
    image: str | None = None
    doubt: str | None = None

    @property
    def is_served(self) -> bool:
        """Whether it is of the server, which does not end by itself."""
        return self.name.partition("-")[0] in dialect.SERVING

    def to_dict(self) -> dict[str, Any]:
        """As plain data; what is the rule is not said."""
        content: dict[str, Any] = {
            "name": self.name,
            "argv": list(self.argv),
            "cwd": self.cwd,
            "env": dict(self.env),
            "path": self.path,
            "mpi_ranks": self.mpi_ranks,
            "produces": list(self.produces),
        }
        if self.writes:
            content["writes"] = [{"path": path, "content": text} for path, text in self.writes]
        if self.nodes > 1:
            content["nodes"] = self.nodes
            content["ranks_per_node"] = self.mpi_ranks // self.nodes
        if self.image is not None:
            content["image"] = self.image
        if self.doubt is not None:
            content["doubt"] = self.doubt
        return content

    def line(self) -> str:
        """The command, quoted for a POSIX shell."""
        return shlex.join(self.argv)


@dataclass(frozen=True, slots=True)
class Plan:
    """All commands of one example for one release.

    `folders`: what is of the user's own, folders and files, each with what the commands call it.
    `wanted`: what the commands read, has no place yet, and is to be given: what they call it, and
    the option that gives it.
    """

    example: str
    release: str
    steps: tuple[Step, ...]
    folders: tuple[tuple[str, str], ...] = ()
    wanted: tuple[tuple[str, str], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The content of `kit.plan/1`, without the envelope's `schema` and `ok`."""
        content: dict[str, Any] = {
            "example": self.example,
            "release": self.release,
            "steps": [step.to_dict() for step in self.steps],
        }
        if self.folders:
            content["folders"] = [{"path": path, "mount": mount} for path, mount in self.folders]
        if self.wanted:
            content["wanted"] = [{"mount": mount, "option": how} for mount, how in self.wanted]
        return content

    def table(self) -> str:
        """For people: one row a step."""
        return console.table(
            [[step.name, _ranks(step), step.line()] for step in self.steps],
            ["STEP", "RANKS", "COMMAND"],
        )

    def notes(self) -> list[str]:
        """What a table of commands does not say: folders, files, nodes, other containers."""
        found = [f"{mount} is {path}" for path, mount in self.folders]
        found += [f"{mount} is to be given: {how}" for mount, how in self.wanted]
        found += [f"{step.name} runs in {step.image}" for step in self.steps if step.image]
        found += [
            f"{step.name} has {step.mpi_ranks // step.nodes} ranks on each of {step.nodes} nodes: "
            "kit slurm makes a job of it"
            for step in self.steps
            if step.nodes > 1
        ]
        found += [f"{step.name}: {step.doubt}" for step in self.steps if step.doubt]
        for step in self.steps:
            found += [f"{step.name} needs the file {path}:\n{text}" for path, text in step.writes]
        return found

    def script(self) -> str:
        """A POSIX shell script that runs the plan by hand, in a container of the release."""
        lines = [
            "#!/bin/sh",
            f"# {self.example} for TensorRT-LLM {self.release}, written by `kit plan`.",
            f"# Expects the model's files, or a program's, in {dialect.MODEL}.",
            f"# Writes below {dialect.WORK}.",
            # As JSON: no name of a folder begins a line of its own.
            *(f"# {mount} is {json.dumps(path)}." for path, mount in self.folders),
            *(f"# {mount} is to be given." for mount, _ in self.wanted),
            "set -eu",
            "mkdir -p "
            + shlex.join([dialect.CHECKPOINT, dialect.ENGINE, dialect.OUTPUT, dialect.CACHE]),
        ]
        for step in self.steps:
            lines += ["", f"# {step.name}"]
            if step.doubt is not None:
                lines += [f"# {step.doubt}."]
            if step.image is not None:
                lines += [f"# In a container of {step.image}."]
            if step.nodes > 1:
                each = step.mpi_ranks // step.nodes
                lines += [
                    f"# On {step.nodes} nodes, {each} ranks each, a container on each, with the",
                    "# network of the host. In a job of Slurm's (`kit slurm`) `kit run` tells",
                    "# mpirun the nodes, and how to start its daemons in their containers; by hand",
                    "# add --hostfile FILE --mca plm_rsh_agent COMMAND.",
                ]
            for path, text in step.writes:
                lines += [f"cat > {shlex.quote(path)} <<'{_END}'", text.rstrip("\n"), _END]
            lines += [f"cd {shlex.quote(step.cwd)}"]
            words = [f"{name}={shlex.quote(value)}" for name, value in step.env.items()]
            words.append(f'PATH={shlex.quote(step.path)}:"$PATH"')
            lines.append(" \\\n  ".join([*words, step.line()]))
        return "\n".join(lines) + "\n"


def _ranks(step: Step) -> str:
    return f"{step.mpi_ranks} in {step.nodes}" if step.nodes > 1 else str(step.mpi_ranks)


def plan(
    example: Recipe | Program,
    release: str,
    root: str = DEFAULT_ROOT,
    server_root: str | None = None,
) -> Plan:
    """The commands of `example` for `release` in an image that keeps the release's tree at `root`.

    `server_root` is where Triton's container has the backend, if not where its documents say.

    Raises:
        KitError: unknown release, or one that cannot do what the example asks (exit 2).
    """
    release = releases.known(release)
    if isinstance(example, Program):
        made = program.commands(example, release, root)
        return Plan(example.name, release, tuple(_step(item, release, root, 1) for item in made))
    commands = dialect.commands(example, release, server_root)
    shape_checks.refuse_impossible(example, release, model_facts.of_recipe(example))
    steps = tuple(_step(item, release, root, example.run.nodes or 1) for item in commands)
    folders = example.folders or _given(example)
    return Plan(example.name, release, steps, folders, tuple(_wanted(example)))


def _given(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """What of the user's own a recipe names, each with its name in the container."""
    found = [(str(path), place) for path, place in recipe.inputs if path.is_absolute()]
    if recipe.own_model is not None:
        found.insert(0, (str(recipe.own_model), dialect.MODEL))
    summarize = recipe.evaluate.summarize if recipe.evaluate else None
    if summarize is not None and summarize.dataset is not None:
        found.append((str(summarize.dataset), dialect.DATASET))
    return tuple(found)


def _wanted(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """What a recipe names that no stack has and nobody has given yet."""
    places = [place for path, place in recipe.inputs if not path.is_absolute()]
    single = len(places) == 1 and recipe.source.nemo is not None
    for place in places:
        name = place.rpartition("/")[2]
        yield place, "--model FILE.nemo" if single else f"--model DIR, with {name} in it"
    if recipe.evaluate is not None and recipe.evaluate.summarize.dataset is None:
        yield dialect.DATASET, "--dataset DIR"


def _step(command: dialect.Command, release: str, root: str, nodes: int) -> Step:
    # `mpirun -n N python3 …` is what the examples' READMEs of all releases say.
    launcher = ["mpirun", "-n", str(command.ranks)] if command.ranks else []
    spread = bool(launcher) and nodes > 1
    if spread:
        launcher += ["-N", str(command.ranks // nodes)]  # on each node
    return Step(
        name=command.name,
        argv=(*launcher, *command.argv),
        cwd=command.cwd or root,
        env={
            **_ENVIRONMENT,
            **(_MPI_ENVIRONMENT if command.ranks else {}),
            **(_SPREAD_ENVIRONMENT if spread else {}),
        },
        path=f"{root}/bin",
        mpi_ranks=command.ranks or 1,
        produces=command.produces,
        writes=command.writes,
        nodes=nodes if spread else 1,
        image=command.image,
        doubt=_doubt(command.argv, release),
    )


def _doubt(argv: tuple[str, ...], release: str) -> str | None:
    """Whether nobody has read the script at that release, and its options are an older one's."""
    script = argv[1] if argv[0] == "python3" else argv[0]
    if script not in data.cli_table()["scripts"]:
        return None
    found = data.source(script, release)
    if found is None or found["status"] != "nearest":
        return None
    return f"{script} was not read at release {release}: its options are an older one's"
