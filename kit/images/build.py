"""From a lock to an image: the stages that are not done, and labels that say what it is of."""

from __future__ import annotations

import json
import platform
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.errors import content_error, environment_error, usage_error
from kit.files import locked, write_json
from kit.images import builder, records, stages
from kit.images.builder import Builder
from kit.images.engine import load
from kit.images.oci import Image, Layout
from kit.locks import intent, lock, resolve
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kit.images.account import StageReport
    from kit.images.engine import Engine
    from kit.images.stages import Recipe
    from kit.locks.intent import Intent
    from kit.locks.lock import Lock
    from kit.project import Project

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
LOCK_LABEL = "org.trtllm-kit.lock"
STACK_LABEL = "org.trtllm-kit.stack"
ARGUMENTS_LABEL = "org.trtllm-kit.arguments"


@dataclass(frozen=True, slots=True)
class Choices:
    """What whoever builds may choose.

    Attributes:
        target: the stage whose image is wanted; None for the family's last one.
        arguments: ARGs that differ from those of the lock.
        jobs: compilers at a time; None decides by this host. The image does not depend on it.
    """

    target: str | None = None
    arguments: tuple[tuple[str, str], ...] = ()
    jobs: int | None = None


@dataclass(frozen=True, slots=True)
class BuiltImage:
    """The image that a stack's lock gave.

    Attributes:
        stack: its name.
        lock: digest of the lock it was built from.
        manifest_digest: its identity.
        image_id: digest of its configuration, the id that engines know it by.
        labels: of its configuration.
    """

    stack: str
    lock: Digest
    manifest_digest: Digest
    image_id: Digest
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """A finished build, and whether anything had to be done for it.

    `before` is the manifest digest of the last build from the same inputs, if there was one;
    `reference` is what the engine knows the image by.
    """

    image: BuiltImage
    was_current: bool
    before: Digest | None
    reference: str = ""
    stages: tuple[StageReport, ...] = ()


def build(
    project: Project,
    stack: str,
    engine: Engine,
    log: Callable[[str], None],
    *,
    fresh: bool = False,
    choices: Choices | None = None,
) -> BuildReport:
    """Build a stack's image with the network off; nothing is done when it is there already.

    A stage that is done is not built again, also when this was killed after it.

    Args:
        project: where locks, Dockerfiles and store are.
        stack: name of the stack.
        engine: what builds.
        log: gets every line of the engine's output; the log of each stage gets them too.
        fresh: build again from nothing, no cached step used.
        choices: target, arguments, jobs.

    Raises:
        KitError: no lock or a stale one, inputs not fetched, or the build failed.
    """
    with locked(project.home / "locks" / f"build-{stack}"):
        return _Build(project, stack, choices or Choices()).run(engine, log, fresh=fresh)


def is_current(project: Project, stack: str, choices: Choices) -> bool:
    """Whether a build would find its image there.

    Raises:
        KitError: no lock or a stale one.
    """
    return _Build(project, stack, choices).current() is not None


def opened(project: Project, stack: str, choices: Choices) -> tuple[Intent, Lock | None, Recipe]:
    """What a build starts from; the lock is None where there is none yet.

    Raises:
        KitError: a malformed file, an unknown ARG (exit 2).
    """
    wanted = intent.load(project.intent_path(stack))
    path = project.lock_path(stack)
    found = lock.load(path) if path.exists() else None
    arguments = dict(found.arguments if found else wanted.arguments)
    return wanted, found, stages.recipe(project, wanted, dict(choices.arguments), arguments)


def built(project: Project, stack: str) -> BuiltImage:
    """The image of a stack as it was built last.

    Raises:
        KitError: not built yet (exit 2), or built from another lock than the present one (exit 4).
    """
    current = lock.load(project.lock_path(stack))
    record = records.read(records.of_stack(project, stack))
    if record is None:
        raise usage_error(f"stack {stack!r} is not built yet", hint=f"kit build {stack}")
    image = Layout(project.images).image(Digest.parse(record["manifest_digest"]), stack)
    found = Digest.parse(record["lock"])
    if found != current.digest:
        raise content_error(
            f"the image of {stack} was built from another lock: expected {current.digest}, "
            f"found {found}",
            hint=f"kit build {stack}",
        )
    return _built_image(stack, image)


def ready(project: Project, engine: Engine, image: BuiltImage) -> str:
    """Bring a built image into the engine, if it is not there; returns what to run it by."""
    # Docker's older store knows an image by its configuration, its newer one by its manifest.
    for digest in (image.image_id, image.manifest_digest):
        if engine.has(digest.hex):
            return digest.hex
    stored = Layout(project.images).image(image.manifest_digest, image.stack)
    return load(engine, stored, _reference(image.stack), image.stack)


class _Build:
    def __init__(self, project: Project, stack: str, choices: Choices) -> None:
        self.project = project
        self.stack = stack
        self.choices = choices
        self.layout = Layout(project.images)
        self.intent, found, self.recipe = opened(project, stack, choices)
        # Without a lock this says how to make one.
        self.lock: Lock = found or lock.load(project.lock_path(stack))
        resolve.check_current(self.lock, self.intent)
        self.target = choices.target or self.recipe.default_target
        self.plans = self.recipe.plan(self.lock, self.target)
        is_main = self.target == self.recipe.default_target
        self.name = stack if is_main else f"{stack}-{self.target}"
        self.record_path = records.of_stack(project, stack, None if is_main else self.target)

    def run(self, engine: Engine, log: Callable[[str], None], *, fresh: bool) -> BuildReport:
        _check_platform(self.intent.platform)
        before = self.before()
        reference = _reference(self.name)
        image = None if fresh else self.current()
        if image is not None:
            if not _is_loaded(engine, image, reference):
                load(engine, image, reference, self.stack)
            done = (builder.current(self.project, plan) for plan in self.plans)
            return BuildReport(
                _built_image(self.stack, image),
                was_current=True,
                before=before,
                reference=reference,
                stages=tuple(report for report in done if report),
            )
        work = Builder(
            project=self.project,
            recipe=self.recipe,
            lock=self.lock,
            layout=self.layout,
            store=Store(self.project.store),
            engine=engine,
            jobs=self.choices.jobs or stages.default_jobs(),
            log=log,
            command=self.command(),
        )
        reports = work.run(self.plans, fresh=fresh)
        image = self.product(Digest.parse(reports[-1].manifest_digest))
        # If it came out another one, the record stays: the next build is held against it too.
        if before in (None, image.manifest_digest):
            load(engine, image, reference, self.stack)
            self.record(image, engine, reports)
            work.forget(reports)
        return BuildReport(
            _built_image(self.stack, image),
            was_current=False,
            before=before,
            reference=reference,
            stages=tuple(reports),
        )

    def key(self) -> str:
        """What the image depends on: its stages, and what its labels say."""
        overrides = dict(self.recipe.overrides)
        last = str(self.plans[-1].key)
        return str(Digest.of_document([stages.FORMAT, last, str(self.lock.digest), overrides]))

    def before(self) -> Digest | None:
        """What the last build from the same inputs gave."""
        record = records.read(self.record_path)
        if record is None or record["key"] != self.key():
            return None
        return Digest.parse(record["manifest_digest"])

    def current(self) -> Image | None:
        """The image, if it is there."""
        before = self.before()
        if before is None or not self.layout.blob(before).exists():
            return None
        return self.layout.image(before, self.stack)

    def command(self) -> str:
        """This build as it is typed."""
        words = ["kit", "build", self.stack]
        words += ["--target", self.target] if self.choices.target else []
        for name, value in self.choices.arguments:
            words += ["--arg", f"{name}={value}"]
        words += ["--jobs", str(self.choices.jobs)] if self.choices.jobs else []
        return shlex.join(words)

    def record(self, image: Image, engine: Engine, reports: list[StageReport]) -> None:
        """Write down that it is done, and what it took."""
        write_json(
            self.record_path,
            {
                "key": self.key(),
                "lock": str(self.lock.digest),
                "manifest_digest": str(image.manifest_digest),
                "engine": {"name": engine.name, "version": engine.version()},
                "stages": [report.to_dict() for report in reports],
            },
        )

    def product(self, stage: Digest) -> Image:
        """The image of the last stage with the labels that say what it was built from."""
        image = self.layout.image(stage, self.stack)
        labels = {**image.labels, STACK_LABEL: self.stack, LOCK_LABEL: str(self.lock.digest)}
        if self.recipe.overrides:
            labels[ARGUMENTS_LABEL] = json.dumps(dict(self.recipe.overrides), sort_keys=True)
        return self.layout.write_image(
            name=_reference(self.name),
            layers=image.layers,
            settings={**image.config.get("config", {}), "Labels": labels},
            history=(*image.config["history"][:-1], f"kit: build {self.stack}"),
            platform=self.intent.platform,
            epoch=self.intent.epoch,
        )


def _check_platform(wanted: str) -> None:
    machine = platform.machine()
    found = f"linux/{_ARCHITECTURES.get(machine, machine)}"
    if found != wanted:
        raise environment_error(f"the stack is for {wanted}, this host is {found}")


def _is_loaded(engine: Engine, image: Image, reference: str) -> bool:
    """Whether the engine has this very image by that name: another one may have built it."""
    if not engine.has(reference):
        return False
    found = str(engine.inspect(reference)["Id"]).removeprefix("sha256:")
    return found in (image.image_id.hex, image.manifest_digest.hex)


def _reference(name: str) -> str:
    return f"localhost/trtllm-kit/{name}:latest"


def _built_image(stack: str, image: Image) -> BuiltImage:
    labels = image.labels
    return BuiltImage(
        stack, Digest.parse(labels[LOCK_LABEL]), image.manifest_digest, image.image_id, labels
    )
