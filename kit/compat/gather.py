"""From what the command line names to `Facts`: every reader is called here, and only if needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from kit.compat.facts import (
    ENCODER,
    REAL,
    REHEARSAL,
    Facts,
    GpuFacts,
    LockFile,
    StackImage,
    container,
)
from kit.data import gpus, releases
from kit.errors import ExitCode, KitError, nearest, usage_error

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.artifacts.checkpoint import CheckpointFolder
    from kit.artifacts.engine import EngineDirectory
    from kit.artifacts.image import ImageContents
    from kit.artifacts.repository import ModelRepository
    from kit.artifacts.source import SourceTree
    from kit.artifacts.wheel import WheelContents
    from kit.digest import Digest
    from kit.host.facts import HostFacts
    from kit.manifests.record import Manifest
    from kit.project import Project

_T = TypeVar("_T")
_R = TypeVar("_R")
_LABEL = "org.trtllm-kit."


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be compared, as it was named; None for what was not."""

    release: str | None = None
    triton: str | None = None
    stack: str | None = None
    image: str | None = None
    engine: Path | None = None
    checkpoint: Path | None = None
    model_repository: Path | None = None
    source: Path | None = None
    wheel: Path | None = None
    manifest: Path | None = None
    lock: Path | None = None
    bundle: Path | None = None
    host: bool = False
    host_facts: Path | None = None
    gpu: str | None = None

    def is_empty(self) -> bool:
        """Whether nothing at all was named."""
        return not any(getattr(self, name) for name in self.__slots__)


def gather(project: Project, request: Request) -> Facts:
    """Read everything that is named.

    Raises:
        KitError: nothing is named, a named thing is not there or is no such thing (exit 2), or it
            cannot be read (exit 4).
    """
    if request.is_empty():
        raise usage_error(
            "nothing to compare: name a release, a container, an engine, an image, a host …",
            hint="kit verify-compat --release 0.16.0 --triton 24.12",
        )
    manifest_path, manifest = _manifest(request)
    repository = _given(_repository, request.model_repository)
    host, host_where = _host(project, request)
    return Facts(
        release=_given(releases.recorded, request.release),
        triton=_given(container, request.triton),
        stack=None if request.stack is None else of_stack(project, request.stack),
        image=None if request.image is None else _image(project, request.image),
        engine=_given(_engine, request.engine or _served(repository)),
        checkpoint=_given(_checkpoint, request.checkpoint),
        repository=repository,
        source=_given(_source, request.source),
        wheel=_given(_wheel, request.wheel),
        manifest=manifest,
        manifest_path=manifest_path,
        lock=_lock(project, request),
        host=host,
        host_where=host_where,
        gpu=_given(of_gpu, request.gpu),
    )


def _given(read: Callable[[_T], _R], named: _T | None) -> _R | None:
    return None if named is None else read(named)


def of_stack(project: Project, stack: str) -> StackImage:
    """The image of a stack, also one that was built from another lock than the present one.

    Raises:
        KitError: it is not built yet (exit 2).
    """
    from kit.compat.image import cached_versions
    from kit.images.build import built
    from kit.images.oci import Layout

    try:
        image = built(project, stack)
        labels, digest = dict(image.labels), image.manifest_digest
    except KitError as error:
        if error.exit_code != ExitCode.CONTENT:
            raise
        digest = _stored(project, stack, error)
        labels = Layout(project.images).image(digest).labels
    versions = cached_versions(project, digest) or {}
    return StackImage(
        stack=stack,
        manifest_digest=str(digest),
        lock=labels.get(f"{_LABEL}lock", ""),
        releases=tuple(labels.get(f"{_LABEL}releases", "").split()),
        backend=REHEARSAL if labels.get(f"{_LABEL}backend") else REAL,
        tensorrt=versions.get("tensorrt"),
        cuda=versions.get("cuda"),
        plans=labels.get(f"{_LABEL}tensorrt"),
    )


def of_gpu(text: str) -> GpuFacts:
    """A GPU by name or compute capability: `H100`, `NVIDIA A100-SXM4-80GB`, `9.0`, `sm_90`.

    Raises:
        KitError: it is neither in the table nor a compute capability (exit 2).
    """
    where = "the command line"
    if (capability := gpus.capability(text)) is not None:
        return GpuFacts(None, capability, where)
    row = gpus.find(text)
    if row is None:
        names = [row["name"] for row in gpus.table()["gpus"]]
        raise usage_error(
            f"unknown GPU {text!r}; {nearest(text, names)}",
            hint="kit verify-compat --release 0.16.0 --gpu 9.0",
        )
    return GpuFacts(row["name"], row["compute_capability"], where)


def _stored(project: Project, stack: str, error: KitError) -> Digest:
    """The image that the stack's name points to, whatever it was built from."""
    from kit.images.oci import Layout

    for name, digest in Layout(project.images).names().items():
        if name.rpartition("/")[2].partition(":")[0] == stack:
            return digest
    raise error


def _image(project: Project, reference: str) -> ImageContents:
    from kit.artifacts import image

    return image.look(reference, project)


def _engine(folder: Path) -> EngineDirectory:
    from kit.artifacts import engine

    return engine.look(folder)


def _checkpoint(folder: Path) -> CheckpointFolder:
    from kit.artifacts import checkpoint

    return checkpoint.look(folder)


def _repository(folder: Path) -> ModelRepository:
    from kit.artifacts import repository

    return repository.look(folder)


def _served(found: ModelRepository | None) -> Path | None:
    """The engine that a model repository serves, where its path leads to one from here."""
    for named in found.engines if found else ():
        if named.parameter != ENCODER and named.resolved is not None and named.resolved.is_dir():
            return named.resolved
    return None


def _source(folder: Path) -> SourceTree:
    from kit.artifacts import source

    return source.look(folder)


def _wheel(path: Path) -> WheelContents:
    from kit.artifacts import wheel

    return wheel.look(path)


def _manifest(request: Request) -> tuple[str, Manifest | None]:
    path = request.manifest
    if path is None and request.bundle is not None:
        from kit.artifacts import bundle

        found_in = bundle.records(request.bundle)
        if not found_in.manifests and not found_in.locks:
            raise usage_error(
                f"{request.bundle}: no record of a run and no lock in it that is carried and here",
                hint=f"kit inspect {request.bundle}",
            )
        return _single(request.bundle, found_in.manifests, "--manifest") or ("", None)
    if path is None:
        return "", None
    from kit.manifests import record

    found = record.locate(path)
    return str(found), record.read(found)


def _single(bundle: Path, found: tuple[tuple[str, _T], ...], option: str) -> tuple[str, _T] | None:
    """The one record of its kind in a bundle; None where there is none.

    Raises:
        KitError: there are several, and nobody said which (exit 2).
    """
    if len(found) > 1:
        raise usage_error(
            f"{bundle}: several that {option} could mean: "
            + ", ".join(where for where, _ in found),
            hint=f"kit bundle load {bundle}, then {option} FILE",
        )
    return found[0] if found else None


def _lock(project: Project, request: Request) -> LockFile | None:
    path = request.lock or (project.lock_path(request.stack) if request.stack else None)
    if path is None and request.bundle is not None:
        from kit.artifacts import bundle

        single = _single(request.bundle, bundle.records(request.bundle).locks, "--lock")
        return LockFile(*single) if single else None
    if path is None:
        return None
    from kit.locks import lock

    return LockFile(str(path), lock.load(path))


def _host(project: Project, request: Request) -> tuple[HostFacts | None, str]:
    if request.host_facts is not None:
        from kit.host import facts

        return facts.read(request.host_facts), str(request.host_facts)
    if request.host:
        from kit.host import gather as host

        return host.gather(project), "this host"
    return None, ""
