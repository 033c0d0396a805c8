"""Everything that a check was given: what its readers saw, each None where nothing was named."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kit.data import gpus, triton
from kit.errors import usage_error

if TYPE_CHECKING:
    from pathlib import Path

    from kit.artifacts.checkpoint import CheckpointFolder
    from kit.artifacts.engine import EngineDirectory, RankFile
    from kit.artifacts.image import ImageContents
    from kit.artifacts.repository import ModelRepository
    from kit.artifacts.source import SourceTree
    from kit.artifacts.wheel import WheelContents
    from kit.host.facts import HostFacts
    from kit.locks.lock import Lock
    from kit.manifests.record import Manifest

Backend = Literal["rehearsal", "TensorRT"]
REHEARSAL: Backend = "rehearsal"
_ARGUMENTS = {"tensorrt_llm": "RELEASE", "tensorrt": "TENSORRT_VERSION"}
REAL: Backend = "TensorRT"
ENCODER = "encoder_model_path"
"""The parameter of a model repository that names the engine of an encoder beside the main one."""
_FALLBACK_KEY = "A100-SXM-80GB"
"""The cluster key that 0.9 and 0.10 write for every GPU that they do not know.

Source: their log, "Fail to infer cluster key, use A100-SXM-80GB as fallback"; from 0.12 at the
latest the key of such a GPU is its own name.
"""
_FALLBACK_RELEASES = ("0.9.", "0.10.", "0.11.")


@dataclass(frozen=True, slots=True)
class Container:
    """A Triton container: the text that named it, its month, and its flavour if that was said."""

    text: str
    month: str
    flavour: str | None

    @property
    def label(self) -> str:
        """How a sentence calls it."""
        return f"tritonserver:{self.month}"

    @property
    def row(self) -> dict[str, Any] | None:
        """What the table has of it; None for a container without TensorRT-LLM."""
        return triton.row(self.month) if triton.has_tensorrt_llm(self.flavour) else None


@dataclass(frozen=True, slots=True)
class StackImage:
    """A built image of a stack, by its labels; versions are None as long as nothing ran in it.

    `plans` is the TensorRT whose plans a rehearsal image loads, `a.b.c.d`; None for NumPy's.
    """

    stack: str
    manifest_digest: str
    lock: str
    releases: tuple[str, ...]
    backend: Backend
    tensorrt: str | None = None
    cuda: str | None = None
    plans: str | None = None


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """A GPU that is to run an engine, or that built it; `hole` says why something is None."""

    name: str | None
    compute_capability: str | None
    where: str
    hole: str | None = None

    @property
    def label(self) -> str:
        """How a sentence calls it."""
        return self.name or f"compute capability {self.compute_capability}"


@dataclass(frozen=True, slots=True)
class LockFile:
    """A lock and where it lies."""

    path: str
    lock: Lock

    @property
    def stack(self) -> str:
        """The stack that it is for."""
        return self.lock.stack

    @property
    def digest(self) -> str:
        """Its identity."""
        return str(self.lock.digest)

    @property
    def pins(self) -> dict[str, str]:
        """Versions that it pins: of Python distributions (names with underscores), of arguments.

        A stack that builds TensorRT-LLM from source has no wheel of it, it says its release.
        """
        found = (item for item in self.lock.inputs if item.kind in ("wheel", "sdist"))
        said = dict(self.lock.arguments)
        pins = {re.sub(r"[-_.]+", "_", item.name).lower(): item.version for item in found}
        return {name: said[key] for name, key in _ARGUMENTS.items() if key in said} | pins


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a check was given.

    Attributes:
        host_where: `this host`, or the file that its facts were read from.
        gpu: what `--gpu` names.
    """

    release: str | None = None
    triton: Container | None = None
    stack: StackImage | None = None
    image: ImageContents | None = None
    engine: EngineDirectory | None = None
    checkpoint: CheckpointFolder | None = None
    repository: ModelRepository | None = None
    source: SourceTree | None = None
    wheel: WheelContents | None = None
    manifest: Manifest | None = None
    manifest_path: str = ""
    lock: LockFile | None = None
    host: HostFacts | None = None
    host_where: str = ""
    gpu: GpuFacts | None = None

    def target_gpus(self) -> list[GpuFacts]:
        """The GPUs that are to run it, each kind once: the named one, and those of the host."""
        found: dict[tuple[str | None, str | None], GpuFacts] = {}
        if self.gpu is not None:
            found[self.gpu.name, self.gpu.compute_capability] = self.gpu
        for place, gpu in enumerate(self.host.gpus if self.host else ()):
            hole = self.host.reason(f"gpus[{place}].compute_capability") if self.host else None
            key = (gpu.name, gpu.compute_capability)
            found.setdefault(key, GpuFacts(*key, self.host_where, hole))
        return list(found.values())

    def built_on(self) -> list[GpuFacts]:
        """The GPUs that are recorded to have built the engine; empty where nothing says it."""
        if self.manifest is not None and self.manifest.host.gpus:
            kinds = {gpu.name: gpu for gpu in self.manifest.host.gpus}.values()
            return [GpuFacts(gpu.name, gpu.compute_capability, self.manifest_path) for gpu in kinds]
        if self.engine is None or self.engine.gpu_hint is None:
            return []
        row = gpus.find(self.engine.gpu_hint)
        where = f"cluster key in {self.engine.folder / 'config.json'}"
        hint = self.engine.gpu_hint
        if row is None:
            return [GpuFacts(hint, None, where, f"{hint} is in no table")]
        if hint == _FALLBACK_KEY and (self.engine.release or "").startswith(_FALLBACK_RELEASES):
            hole = f"{hint} stands there for every GPU that the release does not know"
            return [GpuFacts(hint, None, where, hole)]
        return [GpuFacts(hint, row["compute_capability"], where)]

    def needs_gpu(self) -> bool:
        """Whether anything named here is the real thing, which runs on a GPU."""
        engine_is_real = self.engine is not None and self.engine.backend != REHEARSAL
        if self.stack is not None:
            return self.stack.backend == REAL or engine_is_real
        if self.engine is not None:
            return engine_is_real
        wheel_is_real = self.wheel is not None and not self.wheel.version.endswith(f"+{REHEARSAL}")
        return any((self.release, self.triton, self.image, wheel_is_real))


def container(text: str) -> Container:
    """What a tag, a month or a full image name says.

    Raises:
        KitError: it is none of these (exit 2).
    """
    found = triton.month(text)
    name = text.partition("@")[0].rpartition("/")[2].partition(":")
    if found is None or (name[1] and name[0] != "tritonserver"):
        known = ["--image", text] if name[1] else ["--triton", triton.containers()[-1]]
        raise usage_error(
            f"--triton {text}: expected YY.MM, a tag, or nvcr.io/nvidia/tritonserver:TAG",
            hint=shlex.join(["kit", "verify-compat", *known]),
        )
    return Container(text, *found)


def ranks(engine: EngineDirectory) -> list[RankFile]:
    """The rank files of an engine, those of its parts where it has some."""
    return [*engine.ranks, *(rank for part in engine.parts for rank in ranks(part))]


def built_by(engine: EngineDirectory) -> tuple[str, ...]:
    """The TensorRT that built an engine, as its plans say; more than one where they differ."""
    found = (rank.header.tensorrt for rank in ranks(engine))
    return tuple(dict.fromkeys(version for version in found if version is not None))


def place_of(engine: EngineDirectory, rank: RankFile) -> Path:
    """Where a rank file lies."""
    return engine.folder / rank.file
