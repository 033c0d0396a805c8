"""What is known of the things to compare: observations with their place and the way they were made.

Nothing here loads an engine: headers and configurations are read as files.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from kit.compat.image import cached_versions
from kit.errors import ExitCode, KitError, content_error, usage_error
from kit.images.build import built
from kit.images.oci import Layout
from kit.locks import lock as locks
from kit.manifests import record

if TYPE_CHECKING:
    from pathlib import Path

    from kit.digest import Digest
    from kit.manifests.record import Manifest
    from kit.project import Project

Backend = Literal["rehearsal", "TensorRT"]
EngineLayout = Literal["none", "builder_config", "version"]

REHEARSAL: Backend = "rehearsal"
REAL: Backend = "TensorRT"
_LABEL = "org.trtllm-kit."
_PLAN_MAGIC = b"ftrt"
_REHEARSAL_MAGIC = b"KIT-REHEARSAL\0\0\0"
_REHEARSAL_FIXED = struct.Struct("<16sII")
_HEADER_LIMIT = 1 << 20
_RANK = re.compile(r"(?:.+_)?rank(\d+)\.engine")


@dataclass(frozen=True, slots=True)
class Observation:
    """One fact: which component has which version, where that was seen, and how.

    `version` is None where the thing was looked at and does not say.
    """

    component: str
    version: str | None
    where: str
    how: str


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """A built image of a stack; `tensorrt` is None as long as nothing was run in it."""

    stack: str
    manifest_digest: str
    lock: str
    releases: tuple[str, ...]
    backend: Backend
    tensorrt: str | None

    def observations(self) -> list[Observation]:
        """What the labels and the probe say."""
        where = f"image of stack {self.stack}"
        return [
            Observation("tensorrt_llm", " ".join(self.releases) or None, where, "label"),
            Observation("backend", self.backend, where, "label"),
            Observation("tensorrt", self.tensorrt, where, "probe"),
            Observation("lock", self.lock, where, "label"),
        ]


@dataclass(frozen=True, slots=True)
class RankHeader:
    """The head of one rank's engine file.

    Attributes:
        file: its name.
        rank: the number in its name.
        backend: by the magic; None for neither of the two.
        version: TensorRT's of a plan, the release of a rehearsal engine; None if unreadable.
        says: rank and world size by the header; None for plans, which do not hold them.
    """

    file: str
    rank: int
    backend: Backend | None
    version: str | None
    says: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """An engine directory.

    Attributes:
        folder: where it is.
        layout: of config.json: none at all, the old `builder_config`, or one with `version`.
        version: the release with its local label, as config.json or a rehearsal header says.
        world_size: tp times pp by config.json.
        headers: one a rank file, by rank.
    """

    folder: Path
    layout: EngineLayout
    version: Observation
    world_size: int | None
    headers: tuple[RankHeader, ...]

    @property
    def backend(self) -> Backend | None:
        """What made the engine; a label in config.json is enough to know a rehearsal."""
        if (self.version.version or "").endswith(f"+{REHEARSAL}"):
            return REHEARSAL
        kinds = {header.backend for header in self.headers}
        return REHEARSAL if REHEARSAL in kinds else (REAL if kinds == {REAL} else None)

    @property
    def release(self) -> str | None:
        """The release without a label, None where the engine does not say."""
        return (self.version.version or "").partition("+")[0] or None

    def observations(self) -> list[Observation]:
        """What config.json and the headers say."""
        headers = [
            Observation(
                "tensorrt" if header.backend == REAL else "tensorrt_llm",
                header.version,
                str(self.folder / header.file),
                "header",
            )
            for header in self.headers
        ]
        return [self.version, *headers]


@dataclass(frozen=True, slots=True)
class LockFacts:
    """A lock file by its digest."""

    path: str
    stack: str
    digest: str


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that a check was given; None for what it was not."""

    release: str | None = None
    image: ImageFacts | None = None
    engine: EngineFacts | None = None
    manifest: Manifest | None = None
    manifest_path: str = ""
    lock: LockFacts | None = None


def of_image(project: Project, stack: str) -> ImageFacts:
    """The image of a stack, also one that was built from another lock than the present one.

    Raises:
        KitError: it is not built yet (exit 2).
    """
    try:
        image = built(project, stack)
        labels, digest = dict(image.labels), image.manifest_digest
    except KitError as error:
        if error.exit_code != ExitCode.CONTENT:
            raise
        digest = _stored(project, stack, error)
        labels = Layout(project.images).image(digest).labels
    versions = cached_versions(project, digest) or {}
    return ImageFacts(
        stack=stack,
        manifest_digest=str(digest),
        lock=labels.get(f"{_LABEL}lock", ""),
        releases=tuple(labels.get(f"{_LABEL}releases", "").split()),
        backend=REHEARSAL if labels.get(f"{_LABEL}backend") == REHEARSAL else REAL,
        tensorrt=versions.get("tensorrt"),
    )


def of_lock(path: Path) -> LockFacts:
    """A lock file."""
    lock = locks.load(path)
    return LockFacts(str(path), lock.stack, str(lock.digest))


def of_engine(folder: Path) -> EngineFacts:
    """An engine directory, from config.json and the first bytes of each rank file.

    Raises:
        KitError: there is no such folder (exit 2), or config.json is not readable (exit 4).
    """
    if not folder.is_dir():
        raise usage_error(f"{folder}: there is no such engine directory")
    path = folder / "config.json"
    config = _config(path)
    headers = _headers(folder)
    if config is None:
        told = Observation("tensorrt_llm", None, str(path), "no such file")
        return EngineFacts(folder, "none", _or_header(told, headers, folder), None, headers)
    if isinstance(config.get("version"), str):
        told = Observation("tensorrt_llm", config["version"], str(path), "version")
        mapping = _mapping(config, "pretrained_config").get("mapping")
        world = _product(mapping if isinstance(mapping, dict) else {}, "tp_size", "pp_size")
        return EngineFacts(folder, "version", told, world, headers)
    builder = _mapping(config, "builder_config")
    told = Observation("tensorrt_llm", None, str(path), "builder_config holds no version")
    world = _product(builder, "tensor_parallel", "pipeline_parallel")
    layout: EngineLayout = "builder_config" if builder else "none"
    return EngineFacts(folder, layout, _or_header(told, headers, folder), world, headers)


def of_manifest(path: Path) -> tuple[str, Manifest]:
    """A manifest and where it lies."""
    found = record.locate(path)
    return str(found), record.read(found)


def _stored(project: Project, stack: str, error: KitError) -> Digest:
    """The image that the stack's name points to, whatever it was built from."""
    for name, digest in Layout(project.images).names().items():
        if name.rpartition("/")[2].partition(":")[0] == stack:
            return digest
    raise error


def _config(path: Path) -> dict[str, Any] | None:
    try:
        content: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise content_error(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise content_error(f"{path}: expected an object")
    return content


def _mapping(config: dict[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _product(sizes: dict[str, Any], tp: str, pp: str) -> int | None:
    # 0.5.0 writes no pipeline_parallel for GPT, which has none there.
    found = (sizes.get(tp), sizes.get(pp, 1))
    if not all(type(size) is int and size > 0 for size in found):
        return None
    return int(found[0] or 0) * int(found[1] or 0)


def _or_header(told: Observation, headers: tuple[RankHeader, ...], folder: Path) -> Observation:
    """The release of a rehearsal header, where config.json has no version."""
    for header in headers:
        if header.backend == REHEARSAL and header.version is not None:
            where = str(folder / header.file)
            version = f"{header.version}+{REHEARSAL}"
            return Observation("tensorrt_llm", version, where, "header")
    return told


def _headers(folder: Path) -> tuple[RankHeader, ...]:
    found = []
    for path in folder.iterdir():
        match = _RANK.fullmatch(path.name)
        if match and path.is_file():
            found.append(_header(path, int(match.group(1))))
    return tuple(sorted(found, key=lambda header: (header.rank, header.file)))


def _header(path: Path, rank: int) -> RankHeader:
    """Read a rank file's head.

    A plan begins with `ftrt` and has TensorRT's version in bytes 24 to 27 (`printPlanVersion` in
    samples/common/sampleEngines.cpp of NVIDIA/TensorRT); a rehearsal engine has its magic, format
    1, the length of a JSON header, and the header.
    """
    with path.open("rb") as stream:
        head = stream.read(28)
        if head.startswith(_PLAN_MAGIC):
            whole = len(head) == 28 and head[4:8] == bytes(4)
            version = ".".join(map(str, head[24:28])) if whole else None
            return RankHeader(path.name, rank, REAL, version, None)
        if head.startswith(_REHEARSAL_MAGIC) and len(head) >= _REHEARSAL_FIXED.size:
            _, form, length = _REHEARSAL_FIXED.unpack(head[: _REHEARSAL_FIXED.size])
            stream.seek(_REHEARSAL_FIXED.size)
            content = _json(stream.read(min(length, _HEADER_LIMIT))) if form == 1 else {}
            release = content.get("release")
            said, world = content.get("rank"), content.get("world_size")
            return RankHeader(
                path.name,
                rank,
                REHEARSAL,
                release if isinstance(release, str) else None,
                (said, world) if isinstance(said, int) and isinstance(world, int) else None,
            )
    return RankHeader(path.name, rank, None, None, None)


def _json(content: bytes) -> dict[str, Any]:
    try:
        found: Any = json.loads(content)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
