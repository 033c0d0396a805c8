"""One stage after the other: each is built alone by an engine, and made one canonical layer."""

from __future__ import annotations

import contextlib
import shlex
import shutil
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.console import Stopwatch
from kit.digest import Digest
from kit.errors import ExitCode, KitError, content_error
from kit.files import disk_errors, make_folder, write_json
from kit.images import base, context, delta, dockerfile, normalise, records, stages
from kit.images.account import CacheStatistics, StageReport
from kit.images.engine import BuildRequest, load
from kit.images.index import base_index, write_index
from kit.images.pulled import pulled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kit.images.engine import Engine
    from kit.images.oci import Image, Layout
    from kit.images.stages import Plan, Recipe
    from kit.locks.lock import Lock
    from kit.project import Project
    from kit.store import Store

_ABANDONED = 3600
"""Seconds after which a scratch file is a killed build's: another stack's may be at work."""
_CLIPPED = (
    "the log is not whole: Docker keeps 2 MiB of a step; KIT_ENGINE=podman keeps all, or "
    "BUILDKIT_STEP_LOG_MAX_SIZE=-1 and BUILDKIT_STEP_LOG_MAX_SPEED=-1 in dockerd's environment"
)


@dataclass(frozen=True, slots=True)
class Builder:
    """Builds stages of one stack; nobody else builds that stack meanwhile.

    Attributes:
        project: where contexts, logs and records go.
        recipe: of the stack.
        lock: its inputs.
        layout: where images go.
        store: where inputs are.
        engine: what builds.
        jobs: compilers at a time.
        log: gets every line of the engine's output.
        command: what is typed to go on after a failure.
        bases: base images that are there already.
    """

    project: Project
    recipe: Recipe
    lock: Lock
    layout: Layout
    store: Store
    engine: Engine
    jobs: int
    log: Callable[[str], None]
    command: str
    bases: dict[str, Image] = field(default_factory=dict)

    @property
    def stack(self) -> str:
        """Name of the stack."""
        return self.recipe.intent.stack

    def run(self, plans: Sequence[Plan], *, fresh: bool) -> list[StageReport]:
        """Build what is not done; `fresh` builds all of it again and compares.

        Raises:
            KitError: a step failed, a stage came out another one than before (exit 4); the
                engine, the disk, an input that is not there (exit 3).
        """
        self._clear()
        reports = []
        images: dict[str, Image] = {}
        try:
            for plan in plans:
                report = None if fresh else current(self.project, plan)
                if report is None:
                    report = self._build(plan, images, fresh=fresh)
                images[plan.name] = self.layout.image(Digest.parse(report.manifest_digest))
                reports.append(report)
        finally:
            shutil.rmtree(self._contexts, ignore_errors=True)
        return reports

    def forget(self, reports: Sequence[StageReport]) -> None:
        """Take stages out of the engine: the layout has them, and they would fill its disk.

        Layers that the image of the last one has stay, if that is loaded by now.
        """
        for report in reports:
            image = self.layout.image(Digest.parse(report.manifest_digest))
            self.engine.remove(self._reference(report.name, image))

    def _clear(self) -> None:
        """Remove what a killed build left; nobody else builds this stack now."""
        for left in self.layout.root.glob(f"{self._spool}*"):
            shutil.rmtree(left)
        for left in [*self.layout.root.glob("spool-*"), *self.layout.root.glob("blobs/*new-*")]:
            with contextlib.suppress(FileNotFoundError):  # its own build has just removed it
                if time.time() - left.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
        shutil.rmtree(self._contexts, ignore_errors=True)

    @property
    def _spool(self) -> str:
        # No name of a stack has an @: that of another one may begin with this one's.
        return f"spool-{self.stack}@"

    @property
    def _contexts(self) -> Path:
        return self.project.home / "contexts" / self.stack

    def _build(self, plan: Plan, images: Mapping[str, Image], *, fresh: bool) -> StageReport:
        """Build one stage, keep its image, write down that it is done."""
        watch = Stopwatch()
        statistics = CacheStatistics()
        references = {name: self._ready(name, images[name]) for name in plan.uses}
        for name, what in self.recipe.family.bases.items():
            if what in plan.bases:
                references[name] = self._ready(what, self._base(what, fresh=fresh))
        arguments = self._arguments(plan)
        parent = self._parent(plan, images)
        folder = self._contexts / plan.name
        text = self.recipe.text(plan, references, fresh=fresh)
        # JOBS too: the steps read the file after the ARG, and its default would take it away.
        told = replace(plan, values={**plan.values, **arguments})
        context.fill(folder, text, told, self.project, self.lock, self.store)
        tag = f"localhost/trtllm-kit/{self.stack}-{plan.name}:building"
        path = records.stage_log(self.project, self.stack, plan.name)
        try:
            with _log_file(path) as write:

                def line(said: str) -> None:
                    write(said)
                    statistics.see(said)
                    self.log(said)

                inner = Stopwatch()
                request = BuildRequest(
                    tag, plan.name, arguments, line, fresh=fresh, images=tuple(references.values())
                )
                self._run(plan, request, folder, path, statistics)
                engine_seconds = inner.seconds
            image = self._normalised(tag, plan, parent)
        finally:
            self.engine.remove(tag)
            shutil.rmtree(folder, ignore_errors=True)
        seconds = watch.seconds
        report = StageReport(
            name=plan.name,
            manifest_digest=str(image.manifest_digest),
            was_current=False,
            seconds=seconds,
            own_seconds=seconds - engine_seconds,
            ccache=statistics.counters,
            log=path,
        )
        assert plan.key is not None
        record_path = records.of_stage(self.project, plan.key)
        known = records.read(record_path)
        if fresh and known and known["manifest_digest"] != report.manifest_digest:
            raise content_error(
                f"{self.stack} did not come out the same: stage {plan.name}: expected "
                f"{known['manifest_digest']}, found {report.manifest_digest}; the log is {path}",
            )
        write_json(record_path, report.to_dict())
        return report

    def _arguments(self, plan: Plan) -> dict[str, str]:
        """The ARGs that the engine is told."""
        told = {stages.EPOCH: str(self.recipe.intent.epoch), **self.recipe.arguments}
        told[stages.JOBS] = str(self.jobs)
        declared = plan.stage.arguments
        return {name: value for name, value in told.items() if name in declared}

    def _run(
        self,
        plan: Plan,
        request: BuildRequest,
        folder: Path,
        path: Path,
        statistics: CacheStatistics,
    ) -> None:
        try:
            self.engine.build(folder, folder / "Dockerfile", request)
        except KitError as error:
            if error.exit_code is not ExitCode.CONTENT:
                raise
            raise self._explained(plan, error, path, statistics) from error

    def _explained(
        self, plan: Plan, error: KitError, path: Path, statistics: CacheStatistics
    ) -> KitError:
        """What is known of the failure that the log shows, and where the log is."""
        from kit.data.releases import order
        from kit.diagnose.diagnosis import diagnose

        release = self.recipe.intent.release
        release = release if release in order() else None
        lines = [f"stage {plan.name} of {self.stack} failed"]
        hint = f"kit diagnose {f'--release {release} ' if release else ''}{shlex.quote(str(path))}"
        found = [match for match in diagnose(path, release).matches if match.kind == "cause"]
        if found:
            best = found[0]
            lines[0] += f": {best.id}"
            lines += [f"  cause: {best.cause}", f"  fix: {best.fix}"]
            hint = self.command
        if statistics.is_clipped:
            lines.append(f"  {_CLIPPED}")
        return content_error("\n".join([*lines, f"  log: {path}", str(error)]), hint=hint)

    def _base(self, what: str, *, fresh: bool = False) -> Image:
        if what in self.bases:
            return self.bases[what]
        family = self.recipe.family
        if family.image is not None:
            reference = f"localhost/trtllm-kit/{self.stack}-{what}:pulled"
            self.bases[what] = pulled(self.layout, self.lock, self.store, what, reference)
            return self.bases[what]
        debs = self.lock.select(kind="deb")
        names = [group.name for group in family.groups]
        places = self.store.check_all([deb for deb in debs if deb.group in names], self.stack)
        images = base.assemble(
            self.layout,
            family,
            {
                name: {item.file: places[item.sha256] for item in debs if item.group == name}
                for name in names
            },
            platform=self.recipe.intent.platform,
            epoch=self.recipe.intent.epoch,
            name=lambda group: f"localhost/trtllm-kit/{self.stack}-{group}:latest",
            fresh=fresh,
        )
        self.bases.update(zip(names, images, strict=True))
        return self.bases[what]

    def _parent(self, plan: Plan, images: Mapping[str, Image]) -> Image | None:
        """The image that a stage stands on; None for `scratch`."""
        parent = plan.stage.parent
        if parent in images:
            return images[parent]
        bases = self.recipe.family.bases
        return self._base(bases[parent]) if parent in bases else None

    def _ready(self, name: str, image: Image) -> str:
        """The name of a stage or a base in the engine, where it is brought if it is not there."""
        reference = self._reference(name, image)
        if not self.engine.has(reference):
            load(self.engine, image, reference, self.stack)
        return reference

    def _reference(self, name: str, image: Image) -> str:
        return f"localhost/trtllm-kit/{self.stack}-{name}:{image.image_id.short}"

    def _normalised(self, tag: str, plan: Plan, parent: Image | None) -> Image:
        """The stage as the engine has it → its image in the layout, one layer on its parent's."""
        inspected = self.engine.inspect(tag)
        below = parent.layers if parent else ()
        lower = tuple(layer.diff_id for layer in below)
        make_folder(self.layout.root)
        with tempfile.TemporaryDirectory(prefix=self._spool, dir=self.layout.root) as scratch:
            layers = delta.from_overlay(inspected, lower)
            if layers is None:
                layers = delta.from_archive(self.engine.save(tag), Path(scratch), lower)
            layer, entries = normalise.merge(
                layers,
                self.layout,
                base_index(self.layout, parent) if parent else {},
                self.recipe.intent.epoch,
                dockerfile.mount_points(plan.stage.steps),
                Path(scratch),
            )
        write_index(self.layout, layer.diff_id, entries)
        given = normalise.settings(inspected["Config"], parent.config if parent else {})
        return self.layout.write_image(
            name=f"localhost/trtllm-kit/{self.stack}-{plan.name}:stage",
            layers=(*below, layer),
            settings=given,
            history=(*_history(parent), f"kit: stage {plan.name}"),
            platform=self.recipe.intent.platform,
            epoch=self.recipe.intent.epoch,
        )


def current(project: Project, plan: Plan) -> StageReport | None:
    """How a stage that is done came about; None if it is not."""
    record = records.finished(project, plan)
    if record is None:
        return None
    return StageReport(
        name=plan.name,
        manifest_digest=record["manifest_digest"],
        was_current=True,
        seconds=record["seconds"],
        own_seconds=record["own_seconds"],
        ccache=record["ccache"],
        log=Path(record["log"]),
    )


def _history(image: Image | None) -> Sequence[str | Mapping[str, Any]]:
    """What an image says of its layers: word for word, or a line each where it says too little."""
    if image is None:
        return ()
    said: list[Mapping[str, Any]] = list(image.config.get("history") or [])
    if sum(not entry.get("empty_layer") for entry in said) == len(image.layers):
        return said
    return [f"layer {layer.digest}" for layer in image.layers]


@contextlib.contextmanager
def _log_file(path: Path) -> Iterator[Callable[[str], None]]:
    """The log of a stage: what takes a line."""
    with disk_errors(path):
        make_folder(path.parent)
        stream = path.open("w", encoding="utf-8", errors="replace")

    def line(text: str) -> None:
        stream.write(text + "\n")
        stream.flush()

    with stream:
        yield line
