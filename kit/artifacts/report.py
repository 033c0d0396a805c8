"""What is said of anything: its kind, the versions in it, what they need, what is wrong with it."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.artifacts import kind as kinds
from kit.artifacts.problem import Problem
from kit.errors import KitError, usage_error
from kit.observation import Observation

if TYPE_CHECKING:
    from kit.artifacts.repository import ModelRepository
    from kit.host.facts import HostFacts
    from kit.locks.lock import Lock
    from kit.manifests.record import Manifest
    from kit.project import Project

_READERS: dict[kinds.Kind, tuple[str, str]] = {
    "plan": ("kit.artifacts.plan", "look"),
    "engine": ("kit.artifacts.engine", "look"),
    "checkpoint": ("kit.artifacts.checkpoint", "look"),
    "safetensors": ("kit.artifacts.tensors", "look"),
    "wheel": ("kit.artifacts.wheel", "look"),
    "sdist": ("kit.artifacts.wheel", "look"),
    "source": ("kit.artifacts.source", "look"),
    "lfs-pointer": ("kit.artifacts.pointer", "look"),
    "model-repository": ("kit.artifacts.repository", "look"),
    "snapshot": ("kit.artifacts.snapshot", "look"),
    "bundle": ("kit.artifacts.bundle", "look"),
    "lock": ("kit.locks.lock", "load"),
    "manifest": ("kit.manifests.record", "read"),
    "host-facts": ("kit.host.facts", "read"),
}
"""Of each kind the module and the function that reads it; imported only when it is needed."""

_APART = frozenset({"observations", "problems", "problem"})
_LOOKED_FOR = (
    "config.json of an engine, a checkpoint or a model, rank*.engine, rank*.safetensors, "
    "config.pbtxt, index.json of an image, tensorrt_llm/version.py; of a file its first bytes"
)


@dataclass(frozen=True, slots=True)
class Need:
    """What a version means for whoever wants to use the thing: its release, its container."""

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Report:
    """What was found.

    Attributes:
        kind: what it is; `image` for one that an engine has.
        path: as it was asked for.
        versions: who says which version of what.
        details: what the reader saw, as JSON can hold it.
        needs: what follows from the versions.
        problems: what is wrong with it.
    """

    kind: str
    path: str
    versions: tuple[Observation, ...] = ()
    details: Any = None
    needs: tuple[Need, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether it could be read: what is incomplete can, what is damaged or unknown cannot."""
        return self.kind != "unknown" and not any(item.is_corrupt for item in self.problems)


def of(text: str, project: Callable[[], Project], more: Sequence[str] = ()) -> Report:
    """Look at a path, or at an image if there is no such path.

    Args:
        text: a path, `LAYOUT:NAME`, or the name of an image with tag or digest.
        project: asked only for images, whose reader keeps what it saw in its home.
        more: further folders that hold parts of a bundle.

    Raises:
        KitError: nothing there (exit 2), no container engine (exit 3), not readable (exit 4).
    """
    path = Path(text)
    if more:
        return _bundle(path, more)
    if not _is_there(path):
        return _image(text, "image", project)
    kind = kinds.of(path)
    if kind in {"oci-layout", "image-archive"}:
        return _image(text, kind, project)
    if kind == "unknown":
        message = f"{text}: nothing that kit knows: looked for {_LOOKED_FOR}"
        return Report(kind, text, problems=(Problem("unknown", message),))
    if kind not in _READERS:
        return Report(kind, text)
    module, function = _READERS[kind]
    seen: Any = getattr(importlib.import_module(module), function)(path)
    return _told(kind, text, seen)


def _bundle(path: Path, more: Sequence[str]) -> Report:
    """The report on a bundle whose parts lie in several folders."""
    from kit.artifacts import bundle

    places = [path, *map(Path, more)]
    kinds_found = [(place, kinds.of(place)) for place in places]
    odd = [f"{place} ({kind})" for place, kind in kinds_found if kind != "bundle"]
    if odd:
        raise usage_error(
            "several folders are told of only where each has parts of one bundle; these have not: "
            + ", ".join(odd)
        )
    return _told("bundle", str(path), bundle.look(path, places[1:]))


def _image(text: str, kind: str, project: Callable[[], Project]) -> Report:
    from kit.artifacts import image, stored

    if kind == "image" and not kinds.is_reference(text) and stored.split(text) is None:
        raise kinds.absent(text)
    return _told(kind, text, image.look(text, project(), probe=False))


def _told(kind: str, text: str, seen: Any) -> Report:
    """The report on what a reader returned; not all of them have versions or problems to tell."""
    observations = getattr(seen, "observations", ())
    versions = tuple(observations() if callable(observations) else observations)
    problems = tuple(getattr(seen, "problems", ()))
    if (problem := getattr(seen, "problem", None)) is not None:
        problems += (Problem(f"{kind}-damaged", f"{text}: {problem}", is_corrupt=True),)
    needs = tuple(_needs(versions))
    if kind == "model-repository":
        more, wrong = _engines(seen)
        versions, problems, needs = versions + more, problems + wrong, tuple(_needs(more))
    elif kind in _RECORDED:
        versions = tuple(_RECORDED[kind](seen, text))
    details = {name: value for name, value in plain(seen).items() if name not in _APART}
    return Report(kind, text, versions, details, needs, problems)


def _of_manifest(manifest: Manifest, text: str) -> Iterator[Observation]:
    yield Observation("tensorrt_llm", manifest.release, text, "manifest")
    for name, version in plain(manifest.versions).items():
        if isinstance(version, str):
            yield Observation(name, version, text, "manifest")


def _of_lock(lock: Lock, text: str) -> Iterator[Observation]:
    for item in lock.inputs:
        if item.version:
            yield Observation(item.name, item.version, text, f"lock, {item.kind}")


def _of_host(host: HostFacts, text: str) -> Iterator[Observation]:
    yield Observation("os", host.system.name, text, "host facts")
    version = host.driver.version if host.driver else None
    yield Observation("driver", version, text, "host facts")


_RECORDED: dict[str, Callable[[Any, str], Iterator[Observation]]] = {
    "manifest": _of_manifest,
    "lock": _of_lock,
    "host-facts": _of_host,
}
"""Of the kit's own records: which of their fields are versions."""


def _engines(repository: ModelRepository) -> tuple[tuple[Observation, ...], tuple[Problem, ...]]:
    """What the engines say that a model repository names and that can be reached from here."""
    from kit.artifacts import engine

    versions: list[Observation] = []
    problems: list[Problem] = []
    for place in dict.fromkeys(item.resolved for item in repository.engines if item.resolved):
        with _noted(problems):
            found = engine.look(place)
            versions += found.observations
            problems += found.problems
    return tuple(versions), tuple(problems)


@contextlib.contextmanager
def _noted(problems: list[Problem]) -> Iterator[None]:
    try:
        yield
    except KitError as error:
        problems.append(Problem("engine-unreadable", str(error)))


def _needs(versions: tuple[Observation, ...]) -> Iterator[Need]:
    """Which release a TensorRT belongs to, which containers ship a TensorRT-LLM."""
    from kit.data import releases, triton

    said = dict.fromkeys((item.component, item.version) for item in versions)
    rehearsed: list[str] = []
    for component, version in said:
        if component == "tensorrt" and version is not None:
            known = releases.with_tensorrt(version)
            which = f"that of {' '.join(known)}" if known else "of no release that kit knows"
            yield Need("tensorrt", f"TensorRT {version}: {which}")
        elif component == "tensorrt_llm" and version is not None:
            release, _, label = version.partition("+")
            if label == "rehearsal":
                rehearsed.append(version)
            elif containers := triton.shipping(release):
                shown = ", ".join(triton.image(container) for container in containers)
                yield Need("tensorrt_llm", f"TensorRT-LLM {release}: served by {shown}")
    if rehearsed:
        yield Need("tensorrt_llm", f"{', '.join(rehearsed)}: of the rehearsal stacks alone")


def plain(value: Any) -> Any:
    """Anything that readers return as JSON can hold it; what repeats elsewhere is left out."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except PermissionError:  # nobody can tell what lies there
        raise
    except (OSError, ValueError):  # a name that no file can have
        return False
    return True
