"""From a lock to an image: base from packages, wheels from source, one canonical layer on top."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.digest import Digest
from kit.errors import content_error, environment_error, usage_error
from kit.files import disk_errors, locked, make_folder, write_json
from kit.images import base, delta, dockerfile
from kit.images.engine import BuildRequest
from kit.images.normalise import merge, settings
from kit.images.oci import Image, Layout
from kit.locks import intent, lock, resolve
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kit.images.engine import Engine
    from kit.locks.intent import Intent
    from kit.locks.lock import Lock
    from kit.project import Project

FORMAT = 1
"""Raised when this module builds something else from the same lock."""
TARGET = "release"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_ABANDONED = 3600
"""Seconds after which a scratch file is a killed build's: another stack's may be at work."""
LOCK_LABEL = "org.trtllm-kit.lock"
STACK_LABEL = "org.trtllm-kit.stack"


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

    `before` is the manifest digest of the last build from the same inputs, if there was one.
    """

    image: BuiltImage
    was_current: bool
    before: Digest | None


def build(
    project: Project,
    stack: str,
    engine: Engine,
    log: Callable[[str], None],
    *,
    fresh: bool = False,
) -> BuildReport:
    """Build a stack's image with the network off; nothing is done when it is there already.

    Args:
        project: where locks, Dockerfiles and store are.
        stack: name of the stack.
        engine: what builds.
        log: gets every line of the engine's output.
        fresh: build again from nothing, no cached step used.

    Raises:
        KitError: no lock or a stale one, inputs not fetched, or the build failed.
    """
    with locked(project.home / "locks" / f"build-{stack}"):
        return _Build(project, stack, engine, log).run(fresh=fresh)


@contextlib.contextmanager
def log_file(project: Project, stack: str) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """The log of a stack's build: its path, and what takes a line."""
    path = project.home / "logs" / f"build-{stack}.log"
    with disk_errors(path):
        make_folder(path.parent)
        stream = path.open("w", encoding="utf-8", errors="replace")

    def line(text: str) -> None:
        stream.write(text + "\n")
        stream.flush()

    with stream:
        yield path, line


def built(project: Project, stack: str) -> BuiltImage:
    """The image of a stack as it was built last.

    Raises:
        KitError: not built yet (exit 2), or built from another lock than the present one (exit 4).
    """
    current = lock.load(project.lock_path(stack))
    record = _record(project, stack)
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
    return engine.load(stored, _reference(image.stack))


class _Build:
    def __init__(
        self, project: Project, stack: str, engine: Engine, log: Callable[[str], None]
    ) -> None:
        self.project = project
        self.stack = stack
        self.engine = engine
        self.log = log
        self.layout = Layout(project.images)
        self.intent: Intent = intent.load(project.intent_path(stack))
        self.lock: Lock = lock.load(project.lock_path(stack))
        resolve.check_current(self.lock, self.intent)
        self.folder = project.root / "dockerfiles" / self.intent.family
        self.family = base.load_family(self.folder / "family.yaml")

    def run(self, *, fresh: bool) -> BuildReport:
        _check_platform(self.intent.platform)
        key = self._key()
        record = _record(self.project, self.stack)
        before = (
            Digest.parse(record["manifest_digest"]) if record and record["key"] == key else None
        )
        if before is not None and not fresh and self.layout.blob(before).exists():
            image = self.layout.image(before, self.stack)
            return BuildReport(_built_image(self.stack, image), was_current=True, before=before)
        self._clear()
        image = self._image(fresh=fresh)
        if before not in (None, image.manifest_digest):
            # The record stays: it is what the next build has to be held against.
            return BuildReport(_built_image(self.stack, image), was_current=False, before=before)
        report = {
            "key": key,
            "lock": str(self.lock.digest),
            "manifest_digest": str(image.manifest_digest),
        }
        write_json(_record_path(self.project, self.stack), report)
        self.engine.load(image, _reference(self.stack))
        return BuildReport(_built_image(self.stack, image), was_current=False, before=before)

    def _clear(self) -> None:
        """Remove what a killed build left; nobody else builds this stack now."""
        for left in [*self.layout.root.glob("spool-*"), *self.layout.root.glob("blobs/.new-*")]:
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)

    def _image(self, *, fresh: bool) -> Image:
        names = [group.name.upper() for group in self.family.groups]
        dockerfile.check(self.folder / "Dockerfile", names)
        store = Store(self.project.store)
        packages = {
            group.name: {
                item.file: store.checked(item.sha256, str(item), self.stack)
                for item in self.lock.select(kind="deb", group=group.name)
            }
            for group in self.family.groups
        }
        bases = base.assemble(
            self.layout,
            self.family,
            packages,
            platform=self.intent.platform,
            epoch=self.intent.epoch,
            name=lambda group: f"localhost/trtllm-kit/{self.stack}-{group}:latest",
            fresh=fresh,
        )
        arguments = {"SOURCE_DATE_EPOCH": str(self.intent.epoch)}
        for group, image in zip(self.family.groups, bases, strict=True):
            name = f"localhost/trtllm-kit/{self.stack}-{group.name}:{image.image_id.short}"
            if not self.engine.has(name):
                self.engine.load(image, name)
            arguments[group.name.upper()] = name
        tag = f"localhost/trtllm-kit/{self.stack}:building"
        context = self.project.home / "contexts" / self.stack
        try:
            self._fill(context, store)
            request = BuildRequest(tag, TARGET, arguments, self.log, fresh=fresh)
            self.engine.build(context, context / "Dockerfile", request)
            return self._normalised(tag, bases[0])
        finally:
            shutil.rmtree(context, ignore_errors=True)
            self.engine.remove(tag)

    def _normalised(self, tag: str, below: Image) -> Image:
        inspected = self.engine.inspect(tag)
        given = settings(inspected["Config"])
        labels = {
            **given.get("Labels", {}),
            STACK_LABEL: self.stack,
            LOCK_LABEL: str(self.lock.digest),
        }
        lower = tuple(layer.digest for layer in below.layers)
        with tempfile.TemporaryDirectory(prefix="spool-", dir=self.layout.root) as scratch:
            layers = delta.from_overlay(inspected, lower)
            if layers is None:
                layers = delta.from_archive(self.engine.save(tag), Path(scratch), lower)
            layer = merge(
                layers,
                self.layout,
                base.base_index(self.layout, below),
                self.intent.epoch,
                dockerfile.mount_points((self.folder / "Dockerfile").read_text(encoding="utf-8")),
            )
        history = [line["created_by"] for line in below.config["history"]]
        return self.layout.write_image(
            name=_reference(self.stack),
            layers=(*below.layers, layer),
            settings={**given, "Labels": labels},
            history=(*history, f"kit: build {self.stack}"),
            platform=self.intent.platform,
            epoch=self.intent.epoch,
        )

    def _sources(self) -> dict[str, Path]:
        """Every file of the build context that is not an input of the lock: name → file."""
        files = {
            path.relative_to(self.folder).as_posix(): path
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not any(map(_is_litter, path.relative_to(self.folder).parts))
        }
        for name, source in self.family.context.items():
            files[name] = self.project.root / source
        for name, path in files.items():
            if path.is_symlink() or not path.is_file():
                raise usage_error(f"build context of {self.stack}: {name}: no plain file {path}")
        return files

    def _key(self) -> str:
        """What the image depends on: the lock, the files of the family, the way this works."""
        files = {name: str(Digest.of_file(path)) for name, path in self._sources().items()}
        return str(Digest.of_document([FORMAT, base.FORMAT, str(self.lock.digest), files]))

    def _fill(self, context: Path, store: Store) -> None:
        """Lay out the build context: modes do not depend on the umask, inputs are links."""
        shutil.rmtree(context, ignore_errors=True)
        with disk_errors(context):
            for name, source in self._sources().items():
                target = context / name
                _folder(target.parent)
                shutil.copyfile(source, target)
                target.chmod(0o644)
            for item in self.lock.inputs:
                if item.kind in ("wheel", "sdist", "file"):
                    target = context / "inputs" / item.group / item.file
                    _folder(target.parent)
                    _place(store.checked(item.sha256, str(item), self.stack), target)


def _check_platform(wanted: str) -> None:
    machine = platform.machine()
    found = f"linux/{_ARCHITECTURES.get(machine, machine)}"
    if found != wanted:
        raise environment_error(f"the stack is for {wanted}, this host is {found}")


def _is_litter(name: str) -> bool:
    """What editors and earlier builds leave beside sources."""
    return (
        name.startswith(".")
        or name in ("__pycache__", "build", "dist")
        or (name.endswith(("~", ".egg-info", ".pyc")))
    )


def _folder(folder: Path) -> None:
    """Make folders of mode 0755 whatever the umask."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir()
        path.chmod(0o755)


def _place(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        target.chmod(0o444)


def _reference(stack: str) -> str:
    return f"localhost/trtllm-kit/{stack}:latest"


def _record_path(project: Project, stack: str) -> Path:
    return project.images / "builds" / f"{stack}.json"


def _record(project: Project, stack: str) -> dict[str, Any] | None:
    path = _record_path(project, stack)
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_bytes())
    return record


def _built_image(stack: str, image: Image) -> BuiltImage:
    labels = image.labels
    return BuiltImage(
        stack, Digest.parse(labels[LOCK_LABEL]), image.manifest_digest, image.image_id, labels
    )
