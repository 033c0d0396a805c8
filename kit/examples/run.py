"""Runs: a plan's commands, each in its own closed container, recorded in a manifest."""

from __future__ import annotations

import contextlib
import shlex
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kit
from kit import console
from kit.compat.host import host_facts
from kit.compat.image import versions as image_versions
from kit.compat.script import mountable
from kit.errors import KitError, content_error, nearest, usage_error
from kit.examples import evaluation, known, launcher, layout, results, serving, text
from kit.examples import folder as folders
from kit.examples.asked import refuse_impossible, select
from kit.examples.execution import LAUNCHER, Bench, execute
from kit.examples.fingerprints import Fingerprints
from kit.examples.folder import run_folder
from kit.examples.given import given
from kit.examples.model_checks import check_inputs, check_locked, check_model
from kit.examples.past import Ground
from kit.examples.plan import Plan, plan
from kit.examples.program import Program
from kit.examples.recipe import refuse_incomplete
from kit.examples.taken import Choices, sources, taken
from kit.host.cluster import slurm
from kit.images.build import ready
from kit.images.engine import Gpus, Mount
from kit.manifests import record
from kit.slurm import allocation
from kit.slurm.hosts import MPI_PLUGIN, Hosts
from kit.triton import session

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kit.examples.asked import Asked
    from kit.examples.folder import RunFolder
    from kit.examples.given import Given
    from kit.examples.plan import Step
    from kit.examples.recipe import Recipe
    from kit.images.build import BuiltImage
    from kit.images.engine import Engine
    from kit.manifests.record import Command
    from kit.project import Project

ROOT_LABEL = "org.trtllm-kit.root"
RELEASES_LABEL = "org.trtllm-kit.releases"


def argument(example: Recipe | Program) -> str:
    """How the command line names `example`, quoted for a shell."""
    return example.name if isinstance(example, Program) else example.argument or example.name


def image_plan(
    image: BuiltImage,
    example: Recipe | Program,
    release: str,
    server: BuiltImage | None = None,
) -> Plan:
    """The plan of `example` with the paths of `image`, and of the `server` where it serves.

    Raises:
        KitError: the image does not hold that release, or the release cannot (exit 2).
    """
    held = image.labels.get(RELEASES_LABEL, "").split()
    if release not in held:
        raise usage_error(
            f"stack {image.stack} does not hold release {release}; {nearest(release, held)}",
            hint=f"kit run {argument(example)} --stack {image.stack} --release {held[-1]}"
            if held
            else f"kit build {image.stack}",
        )
    root = image.labels.get(ROOT_LABEL, "")
    if not root.startswith("/"):
        raise content_error(
            f"image {image.manifest_digest} of stack {image.stack}: label {ROOT_LABEL}: "
            f"expected an absolute path, found {root!r}",
            hint=f"kit build {image.stack}",
        )
    server_root = serving.root(server, release) if server else None
    return plan(example, release, root.replace("{release}", release), server_root)


def run(
    project: Project,
    engine: Engine,
    image: BuiltImage,
    example: Recipe | Program,
    release: str,
    output: Path | None,
    gpus: Gpus,
    choices: Choices | None = None,
) -> Path:
    """Execute `example` in `image`; returns the path of the manifest.

    Args:
        project: where the lock and the store are.
        engine: what runs the containers; the network is off in them.
        image: what `kit.images.build.built` has just said of a stack whose lock has the
            model of a recipe.
        example: what to make.
        release: whose command lines to use; the image must hold it.
        output: folder of all runs instead of the project's `runs/`.
        gpus: which GPUs the containers see.
        choices: how it goes, where not all from the beginning.

    Raises:
        KitError: the request does not fit the image (exit 2), the host cannot (exit 3), a step
            failed, wrote nothing or measured too little (exit 4).
    """
    choices = choices or Choices()
    release = release.removeprefix("v")
    planned = image_plan(image, example, release)
    whole = _command_line(image, example, release, output, gpus, choices)
    again = f"{whole} --only {','.join(choices.only)}" if choices.only else whole
    asked = select(planned, choices.only, whole)
    server = None
    if any(step.is_served for step in asked.steps):
        chosen = choices.triton_stack
        server = serving.server_image(project, image, release, chosen, whole)
        planned = image_plan(image, example, release, server)
        asked = select(planned, choices.only, whole)
    elif choices.triton_stack is not None:
        raise usage_error(
            f"--triton-stack {choices.triton_stack}: no step here serves",
            hint=f"kit plan {argument(example)} --release {release}",
        )
    present = len(host_facts()["gpus"]) if gpus.all else None
    each = max(step.mpi_ranks // step.nodes for step in asked.steps)
    submit = _job_line(image, example, release, output, each if gpus else 0, choices)
    refuse_impossible(asked.steps, gpus, present, again, submit)
    _refuse_missing(asked, example, whole)
    _refuse_bad_model(example, release, choices)
    inputs = given(project, image, example)
    _refuse_unfit(example, release, inputs)
    dataset = inputs.dataset.files if inputs.dataset else ()
    digest = str(image.manifest_digest)
    served_by = str(server.manifest_digest) if server else None
    ground = Ground(digest, release, str(gpus), inputs.model.files, dataset, served_by)
    asked = _with_questions(asked, example, inputs)
    runs = output or project.runs
    # Asked while the containers work: neither is quick on every host.
    with ThreadPoolExecutor(max_workers=2) as pool, contextlib.ExitStack() as stack:
        host = pool.submit(host_facts)
        engine_version = pool.submit(engine.version)
        reference = ready(project, engine, image)
        versions = image_versions(project, engine, reference, image.manifest_digest)
        seen = Fingerprints()
        earlier = stack.enter_context(sources(runs, example.name, release, choices))
        old = taken(project, ground, asked, earlier, seen, choices, whole)
        to_do = asked.steps[len(old.commands) :]
        if not to_do and (done := old.manifest(example.digest)) is not None:
            console.note("every step is done, and nothing has changed since")
            return done
        hosts = _hosts(project, engine, image, gpus, to_do, submit)
        cluster = None if hosts is None else _cluster(hosts, runs, inputs, to_do)
        fresh = not (choices.only or earlier)
        with run_folder(runs, example.name, release, fresh=fresh) as folder:
            own = old.adopt(folder, to_do)
            script = Mount(mountable(project, Path(launcher.__file__)), LAUNCHER)
            asker = Mount(mountable(project, Path(session.__file__)), serving.SESSION)
            work = Mount(folder.work, layout.WORK, writable=True)
            bench = Bench(
                engine=engine,
                reference=reference,
                folder=folder,
                ground=ground,
                mounts=(*inputs.mounts, script, *([asker] if server else []), work, *own),
                gpus=gpus,
                seen=seen,
                examine=_examiner(example, release, server),
                repeat=again,
                go_on=again if choices.only else f"{submit if hosts else again} --resume",
                server=ready(project, engine, server) if server else None,
                hosts=hosts,
            )
            try:
                commands = execute(bench, old.named(), to_do)
                outputs = _outputs(example, release, folder, inputs, commands)
                names = {command.name for command in commands}
                manifest = record.Manifest(
                    schema=record.SCHEMA,
                    kind="run",
                    created=folder.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
                    kit=record.Kit(kit.__version__),
                    example=record.Example(example.name, str(example.digest)),
                    release=release,
                    stack=image.stack,
                    lock=str(image.lock),
                    image=record.Image(digest, str(image.image_id)),
                    engine=record.ContainerEngine(engine.name, engine_version.result()),
                    versions=record.Versions(**versions),
                    host=_host(host),
                    gpus=str(gpus),
                    model=inputs.model,
                    commands=commands,
                    artifacts=results.artifacts(folder.work, seen),
                    outputs=outputs,
                    dataset=inputs.dataset,
                    evaluations=_evaluations(example, folder, commands),
                    only=choices.only,
                    cluster=cluster,
                    server=serving.said(server, folder.work, names, outputs) if server else None,
                )
                manifest.write(folder.work)
                finished = folder.finish()
            except KitError:
                if folder.logs.exists():
                    console.note(f"the logs are kept in {folder.fail()}")
                raise
            except KeyboardInterrupt:
                if folder.journal.exists():
                    console.note(f"to go on after the last finished step: {bench.go_on}")
                raise
    known.remember(project, ground, known.conversion(planned.steps), finished, commands)
    if not choices.only:
        folders.clear(runs, example.name, release)
    return finished / record.FILE


def _hosts(
    project: Project,
    engine: Engine,
    image: BuiltImage,
    gpus: Gpus,
    steps: Sequence[Step],
    submit: str,
) -> Hosts | None:
    """The nodes of the job around this process, where a step has ranks on several."""
    nodes = max((step.nodes for step in steps), default=1)
    if nodes == 1:
        return None
    around = allocation.current(nodes, submit)
    found, _ = slurm()
    version = (found.version if found else None) or "unknown"
    return Hosts(around, project, image, engine.name, gpus, version)


def _cluster(hosts: Hosts, runs: Path, inputs: Given, steps: Sequence[Step]) -> record.Cluster:
    """Look at all nodes before a step costs time; returns what the manifest says of them."""
    each = max(step.mpi_ranks // step.nodes for step in steps if step.nodes > 1)
    found = hosts.check(runs, [mount.source for mount in inputs.mounts], each)
    nodes = tuple(_host_of(facts) for facts in found)
    return record.Cluster("slurm", hosts.version, MPI_PLUGIN, nodes)


def _with_questions(asked: Asked, example: Recipe | Program, inputs: Given) -> Asked:
    """What is asked for, with the questions for a server that is started."""
    if isinstance(example, Program):
        return asked
    tokenizer = None if inputs.tokenizer is None else text.load(inputs.tokenizer)
    end_id = example.run.end_id
    if end_id is None and tokenizer is not None:
        end_id = tokenizer.end_id
    return replace(asked, steps=serving.asking(asked.steps, example, end_id))


def _refuse_missing(asked: Asked, example: Recipe | Program, again: str) -> None:
    """Refuse steps that read a dataset that nobody gave."""
    evaluate = None if isinstance(example, Program) else example.evaluate
    for step in asked.steps[asked.first :]:
        reads = any(layout.DATASET in word for word in step.argv)
        if reads and evaluate is not None and evaluate.summarize.dataset is None:
            raise usage_error(
                f"step {step.name} reads articles, which {example.name} does not bring along",
                hint=f"{again} --dataset DIR",
            )


def _refuse_bad_model(example: Recipe | Program, release: str, choices: Choices) -> None:
    """Look at a model of the user's own before a container starts; a stack's lock is trusted."""
    if isinstance(example, Program):
        return
    # Not every step reads a dataset: that is looked at step by step.
    refuse_incomplete(replace(example, evaluate=None))
    for place in (example.source.directory, example.source.nemo):
        if place is not None:
            for warning in check_model(place, example, release, choices.allow_pickle):
                console.note(f"warning: {warning}")
    for warning in check_inputs(example, release, choices.allow_pickle):
        console.note(f"warning: {warning}")


def _refuse_unfit(example: Recipe | Program, release: str, inputs: Given) -> None:
    """Hold a recipe against its model in the stack's lock, which has only now been put together."""
    if isinstance(example, Program) or example.locked_model is None or inputs.tokenizer is None:
        return
    for warning in check_locked(inputs.tokenizer, example, release):
        console.note(f"warning: {warning}")


def _outputs(
    example: Recipe | Program,
    release: str,
    folder: RunFolder,
    inputs: Given,
    commands: Sequence[Command],
) -> tuple[record.Output, ...]:
    if isinstance(example, Program):
        return ()
    done = {command.name for command in commands}
    return results.outputs(example, release, folder.work, inputs.tokenizer, done)


def _examiner(
    example: Recipe | Program, release: str, server: BuiltImage | None
) -> Callable[[str, Path, bool], KitError | None]:
    asked = None if isinstance(example, Program) else example.evaluate

    def examine(step: str, log: Path, ended_well: bool) -> KitError | None:
        if step == serving.SERVER and not ended_well:
            return serving.problem(log, release, server) if server else None
        if asked is None or not evaluation.is_by(step):
            return None
        found = evaluation.read(step, evaluation.lines(log), asked)
        return evaluation.problem(found, asked, ended_well=ended_well)

    return examine


def _evaluations(
    example: Recipe | Program, folder: RunFolder, commands: Sequence[Command]
) -> tuple[record.Evaluation, ...]:
    if isinstance(example, Program) or example.evaluate is None:
        return ()
    return tuple(
        item
        for command in commands
        if evaluation.is_by(command.name)
        for item in evaluation.read(
            command.name,
            evaluation.lines(folder.logs / Path(command.log.path).name),
            example.evaluate,
        )
    )


def _command_line(
    image: BuiltImage,
    example: Recipe | Program,
    release: str,
    output: Path | None,
    gpus: Gpus,
    choices: Choices,
) -> str:
    words = ["--stack", image.stack, "--release", release]
    words += ["--gpus", str(gpus)] if gpus else []
    words += ["--output", str(output)] if output else []
    words += choices.words
    return f"kit run {argument(example)} {shlex.join(words)}"


def _job_line(
    image: BuiltImage,
    example: Recipe | Program,
    release: str,
    output: Path | None,
    gpus_per_node: int,
    choices: Choices,
) -> str:
    """What makes a job of the run."""
    words = ["--stack", image.stack, "--release", release]
    words += ["--gpus-per-node", str(gpus_per_node)] if gpus_per_node else []
    words += ["--runs", str(output)] if output else []
    words += [*choices.words, "--submit"]
    return f"kit slurm {argument(example)} {shlex.join(words)}"


def _host(future: Future[dict[str, Any]]) -> record.Host:
    return _host_of(future.result())


def _host_of(facts: dict[str, Any]) -> record.Host:
    return record.Host(**{**facts, "gpus": tuple(record.Gpu(**gpu) for gpu in facts["gpus"])})
