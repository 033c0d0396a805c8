"""What a request means: the contents of a bundle, found in store, images, runs and folders."""

from __future__ import annotations

import contextlib
import json
import operator
import os
import re
import stat
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kit.bundles import fingerprint
from kit.bundles.contents import Content, Entry
from kit.console import note
from kit.errors import content_error, nearest, usage_error
from kit.files import disk_errors

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kit.digest import Digest
    from kit.images.oci import Image, Layout
    from kit.locks.lock import Input, Lock
    from kit.manifests.record import Manifest
    from kit.project import Project
    from kit.store import Store

_BUILD = "build.json"
_RECORDED = ("key", "lock", "manifest_digest", "engine")
"""What of the record of a build leaves the host: nothing with a path in it."""


class Request(NamedTuple):
    """What whoever makes a bundle asks for."""

    stacks: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    datasets: tuple[Path, ...] = ()
    manifests: tuple[Path, ...] = ()
    files: tuple[Path, ...] = ()
    inputs: bool = True
    own: bool = True

    @property
    def name(self) -> str:
        """What the bundle is called if it gets no name."""
        words = (*self.stacks, *self.examples, *self.models) or ("bundle",)
        names = dict.fromkeys(Path(word).name for word in words)
        kept = re.sub(r"[^a-z0-9._+-]+", "-", "+".join(names).lower())
        return kept.strip("-.+_")[:100] or "bundle"


def gather(project: Project, request: Request) -> list[Content]:
    """Everything that is asked for and what it needs, sorted by kind and name.

    Raises:
        KitError: nothing asked for, an unknown name, not built (exit 2); not in the store (exit 3);
            a file of a run is not what its manifest says (exit 4).
    """
    work = _Gathering(project, request)
    for stack in request.stacks:
        work.add_stack(stack)
    for example in request.examples:
        work.add_example(example)
    for model in request.models:
        work.add_model(model, "asked for")
    for path in request.datasets:
        work.add(_folder("dataset", path, "evaluation data, asked for", "dataset"))
    for path in request.manifests:
        work.add_run(path)
    for path in request.files:
        work.add(_folder("file", path, "asked for", "file"))
    if not work.found:
        raise usage_error(
            "nothing to carry",
            hint="kit bundle create OUT --stack rehearsal --manifest runs/…/manifest.json",
        )
    if request.own:
        from kit.bundles import wheels

        work.add(wheels.content(project))
    return sorted(work.found.values(), key=lambda content: (content.kind, content.name))


class _Gathering:
    def __init__(self, project: Project, request: Request) -> None:
        self.project = project
        self.request = request
        self.found: dict[tuple[str, str], Content] = {}
        self.images: set[Digest] = set()

    @cached_property
    def layout(self) -> Layout:
        from kit.images.oci import Layout

        return Layout(self.project.images)

    @cached_property
    def store(self) -> Store:
        from kit.store import Store

        return Store(self.project.store)

    def add(self, content: Content) -> None:
        there = self.found.setdefault((content.kind, content.name), content)
        if there is not content and _unmarked(there) != _unmarked(content):
            raise usage_error(f"two different things are called {content.label}: rename one")

    def add_stack(self, stack: str) -> None:
        """Image, intent, lock, inputs, models, bill of materials, provenance."""
        from kit.bundles.documents import canonical
        from kit.images import build, records
        from kit.locks import lock as locks

        project = self.project
        built = build.built(project, stack)
        lock = locks.load(project.lock_path(stack))
        image = self.layout.image(built.manifest_digest, stack)
        self.add_image(image, stack, stack, "built from its lock")
        said = records.read(records.of_stack(project, stack)) or {}
        kept = {key: said[key] for key in _RECORDED if key in said}
        entries = (Entry(_BUILD, "build-record", canonical(kept)), *self.files_of(stack))
        why = "what the image was built from"
        self.add(Content("stack", stack, stack, why, _by_title(entries)))
        self.add_documents(stack, lock, image)
        if self.request.inputs:
            inputs = [item for item in lock.inputs if item.kind != "model"]
            if inputs:
                entries = tuple(self.entry(item, stack, _title(item)) for item in inputs)
                why = "to build the image again"
                self.add(Content("inputs", stack, stack, why, _by_title(entries)))
            for name in sorted({item.group for item in lock.select(kind="model")}):
                self.add_locked_model(lock, name, f"locked by stack {stack}")

    def files_of(self, stack: str) -> Iterator[Entry]:
        """A stack as a project of its own: intent, lock, and all that the stages read."""
        from kit.images import build

        root = self.project.root_of(stack)
        _, lock, recipe = build.opened(self.project, stack, build.Choices())
        plans = [plan for target in recipe.file.stages for plan in recipe.plan(lock, target)]
        read = {path for plan in plans for path in plan.files.values()}
        read |= {recipe.folder / name for name in ("Dockerfile", "family.yaml")}
        for path in read:
            yield Entry(path.relative_to(root).as_posix(), "recipe", str(path))
        for role, path in (
            ("intent", self.project.intent_path(stack)),
            ("lock", self.project.lock_path(stack)),
        ):
            yield Entry(path.relative_to(root).as_posix(), role, str(path))

    def add_documents(self, stack: str, lock: Lock, image: Image) -> None:
        from kit.manifests import provenance, sbom

        bill, statement = sbom.of_stack(lock, image), provenance.of_stack(lock, image)
        for kind, file, document in (
            ("sbom", f"{stack}.cdx.json", bill),
            ("provenance", f"{stack}.intoto.json", statement),
        ):
            entry = Entry(file, kind, _pretty(document))
            self.add(Content(kind, stack, stack, "of the image", (entry,)))

    def add_image(self, image: Image, name: str, stack: str, why: str) -> None:
        layout = self.layout
        entries = [Entry("config", "config", str(layout.blob(image.image_id)), image.image_id)]
        for number, layer in enumerate(image.layers, 1):
            path = layout.blob(layer.digest)
            entries.append(Entry(f"layer-{number:02}", "layer", str(path), layer.digest))
        digest = image.manifest_digest
        manifest = Entry("manifest", "manifest", str(layout.blob(digest)), digest)
        self.images.add(digest)
        self.add(
            Content("image", name, stack, why, tuple(entries), manifest, image.media_type),
        )

    def entry(self, item: Input, stack: str, title: str) -> Entry:
        path = self.store.path(item.sha256, str(item), stack)
        return Entry(title, item.kind, str(path), item.sha256)

    def add_locked_model(self, lock: Lock, name: str, why: str) -> None:
        files = [item for item in lock.select(kind="model") if item.group == name]
        entries = tuple(self.entry(item, lock.stack, item.file) for item in files)
        self.add(Content("model", name, lock.stack, why, _by_title(entries)))

    def add_model(self, given: str, why: str) -> None:
        """A model that a stack locks, or a folder of this host."""
        path = Path(given)
        if path.exists() and (os.sep in given or not self.locked(given)):
            self.add(_folder("model", path, why, "model"))
            return
        found = self.locked(given)
        if not found:
            known = [name for lock in self.locks() for name in _models(lock)]
            raise usage_error(
                f"--model {given}: no folder, and no stack that is carried locks such a model; "
                + nearest(given, known),
                hint=f"kit bundle create OUT --stack STACK --model {given}",
            )
        self.add_locked_model(found[0], given, why)

    def locks(self) -> Iterator[Lock]:
        from kit.locks import lock as locks

        for stack in self.request.stacks:
            yield locks.load(self.project.lock_path(stack))

    def locked(self, name: str) -> list[Lock]:
        return [lock for lock in self.locks() if name in _models(lock)]

    def add_example(self, given: str) -> None:
        """A recipe, and its model where a stack that is carried locks it."""
        from kit.examples import catalogue, program, recipe
        from kit.examples.program import Program

        path = Path(given)
        is_file = path.suffix in (".yaml", ".yml")
        example = catalogue.load(path) if is_file else catalogue.find(given)
        if isinstance(example, Program):
            folder = program.FOLDER / given
            self.add(_folder("example", folder, "asked for", "program"))
            return
        source = path if is_file else recipe.CATALOG / f"{given}.yaml"
        entry = Entry(f"{example.name}.yaml", "recipe", str(source))
        self.add(Content("example", example.name, "", "asked for", (entry,)))
        name = example.locked_model
        if name is not None and (found := self.locked(name)):
            self.add_locked_model(found[0], name, f"example {example.name} runs it")

    def add_run(self, given: Path) -> None:
        """A manifest, every file beside it that it vouches for, and the image that it ran in."""
        from kit.digest import Digest
        from kit.manifests import record

        path = record.locate(given)
        manifest = record.read(path)
        stamp = manifest.created.replace(":", "").replace("-", "")
        name = f"{manifest.example.name}-{manifest.release}-{stamp}"
        roles: dict[str, str] = {item.path: item.role for item in manifest.artifacts}
        entries = [Entry(record.FILE, "manifest", str(path))]
        for file in manifest.files():
            place = path.parent / file.path
            if place.exists():
                role = roles.get(file.path, "log")
                entries.append(Entry(file.path, role, str(place), Digest(file.sha256)))
        why = f"run of {manifest.example.name} with release {manifest.release}"
        self.add(Content("run", name, manifest.stack, why, _by_title(entries)))
        self.add_run_documents(name, manifest)
        self.add_model_of(manifest, name)
        digest = Digest.parse(manifest.image.manifest_digest)
        if digest in self.images:
            return
        if not self.layout.blob(digest).exists():
            raise content_error(
                f"{path}: it ran in image {digest}, which is not on this host",
                hint=f"kit build {manifest.stack}",
            )
        image = self.layout.image(digest, manifest.stack)
        short = f"{manifest.stack}-{digest.short}"
        self.add_image(image, short, manifest.stack, f"run {name} ran in it")

    def add_model_of(self, manifest: Manifest, run: str) -> None:
        """The model that a run read, so that it can be run again; one of a user's own is named."""
        from kit.digest import Digest

        model = manifest.model
        store = self.store
        if not model.files or any(Path(given).name == model.name for given in self.request.models):
            return
        if any(not store.has(Digest(file.sha256), file.size) for file in model.files):
            note(f"run {run} read model {model.name}, which no store has: --model DIR carries it")
            return
        entries = (
            Entry(file.path, "model", str(store.place(Digest(file.sha256))), Digest(file.sha256))
            for file in model.files
        )
        why = f"run {run} reads it"
        found = Content("model", model.name, manifest.stack, why, _by_title(entries))
        there = self.found.get((found.kind, found.name), found)
        # Two states of one model may have been run: a site finds their files by digest.
        self.add(
            found if there.entries == found.entries else found._replace(name=f"{model.name}-{run}")
        )

    def add_run_documents(self, name: str, manifest: Manifest) -> None:
        from kit.manifests import provenance, sbom

        bill, statement = sbom.of_run(manifest), provenance.of_run(manifest)
        for kind, file, document in (
            ("sbom", f"{name}.cdx.json", bill),
            ("provenance", f"{name}.intoto.json", statement),
        ):
            entry = Entry(file, kind, _pretty(document))
            self.add(Content(kind, name, manifest.stack, "of the run", (entry,)))


def _models(lock: Lock) -> set[str]:
    return {item.group for item in lock.select(kind="model")}


def _title(item: Input) -> str:
    return f"{item.kind}/{item.group}/{item.file}"


def _by_title(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=operator.itemgetter(0)))


def _pretty(document: object) -> bytes:
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def _folder(kind: str, path: Path, why: str, role: str) -> Content:
    """A file or all files of a folder; links are followed where they stay inside."""
    name = path.resolve().name
    if path.is_file():
        return Content(kind, name, "", why, (Entry(name, role, str(path.absolute())),))
    if not path.is_dir():
        raise usage_error(f"{path}: there is no such file or folder")
    entries = _walk(path.absolute(), role)
    if not entries:
        raise usage_error(f"{path}: nothing in it")
    return Content(kind, name, "", why, _by_title(entries))


def _walk(folder: Path, role: str) -> list[Entry]:
    """All files, as they are now; written for ten thousand of them at every `create`."""
    found = []
    left = [("", str(folder))]
    while left:
        prefix, base = left.pop()
        with disk_errors(base), _opened(base) as descriptor:
            for name in os.listdir(descriptor):  # noqa: PTH208 (an open one)
                path = f"{base}/{name}"
                try:
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                except OSError:
                    status = os.lstat(path)  # whose error has the whole path
                if stat.S_ISDIR(status.st_mode):
                    left.append((f"{prefix}{name}/", path))
                    continue
                if stat.S_ISREG(status.st_mode):
                    mark = fingerprint.mark_of(status)
                else:
                    _refuse_link_out(Path(path), folder)
                    mark = fingerprint.looked_at(path)
                found.append(Entry(prefix + name, role, path, None, mark))
    return found


@contextlib.contextmanager
def _opened(folder: str) -> Iterator[int]:
    """A folder to look into.

    Raises:
        KitError: it is gone, or what was in it (exit 4).
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise content_error(
            f"{error.filename}: gone while the bundle was made", hint="run the same command again"
        ) from error


def _refuse_link_out(path: Path, folder: Path) -> None:
    """Refuse what a site would not have, or have twice.

    Raises:
        KitError: a link out of the folder, or to a folder (exit 2).
    """
    if not path.is_symlink():
        return
    hint = f"cp -rL {folder} COPY"
    if not os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep):
        raise usage_error(f"{path}: a link out of the folder", hint=hint)
    if path.is_dir():
        raise usage_error(f"{path}: a link to a folder", hint=hint)


def _unmarked(content: Content) -> Content:
    """What it carries, whoever wants it and whenever it was looked at."""
    plain = tuple(entry._replace(mark=None) for entry in content.entries)
    return content._replace(why="", stack="", entries=plain)
