"""The manifest: what went into a run, what was done, what came out; all of it with digests.

The published form is `schema/manifest-1.json`; the classes here are the same thing in Python.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from kit import files
from kit.digest import Digest
from kit.errors import content_error, usage_error
from kit.files import safe_member, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA: Literal["kit.manifest/1"] = "kit.manifest/1"
FILE = "manifest.json"
_LARGEST = 64 << 20
"""Bytes; one of a run with a thousand files takes some 200 KB."""
PUBLISHED = Path(__file__).with_name("schema") / "manifest-1.json"

Role = Literal["checkpoint", "engine", "output", "cache"]
ROLES: tuple[Role, ...] = get_args(Role)

ENVIRONMENT = re.compile(
    r"HOME|PYTHON(UNBUFFERED|HASHSEED)|(OMPI|PMIX|PRTE|UCX|CUDA|NCCL|TRTLLM|TLLM|OMP|OPENBLAS|MKL)_[A-Z0-9_a-z]+"
    r"|HF_HUB_OFFLINE|SKIP_GEMM_PLUGIN_PROFILINGS|FORCE_DETERMINISTIC"
)
"""Variables that a manifest may hold: what steers a command, never a name or a secret."""

_GPU = r"([0-9]+|(GPU|MIG)-[0-9a-fA-F-]{8,})"
GPUS = re.compile(rf"none|all|{_GPU}(,{_GPU})*")
"""Which GPUs were asked for: indices or UUIDs, in the order of the request."""

_OPTIONAL = frozenset(
    {
        "given",
        "written",
        "reused_from",
        "spread",
        "dataset",
        "evaluations",
        "only",
        "cluster",
        "server",
    }
)
"""Keys that came later: a manifest without them is as good."""

_CREATED = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class File:
    """A file by its path below the folder it belongs to, bytes, and SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        _check_file(self.path, self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file that the commands wrote, below the run's folder."""

    path: str
    size: int
    sha256: str
    role: Role

    def __post_init__(self) -> None:
        _check_file(self.path, self.size, self.sha256)


@dataclass(frozen=True, slots=True)
class Kit:
    """The program that wrote the manifest."""

    version: str


@dataclass(frozen=True, slots=True)
class Example:
    """The recipe by name and digest."""

    name: str
    digest: str

    def __post_init__(self) -> None:
        _check_digest(self.digest)


@dataclass(frozen=True, slots=True)
class Image:
    """The image that the commands ran in."""

    manifest_digest: str
    image_id: str

    def __post_init__(self) -> None:
        _check_digest(self.manifest_digest)
        _check_digest(self.image_id)


@dataclass(frozen=True, slots=True)
class ContainerEngine:
    """Podman or Docker."""

    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Versions:
    """What the probe found inside the image; None where a thing is not there."""

    python: str
    os: str | None
    openmpi: str | None
    cuda: str | None
    tensorrt: str | None
    nccl: str | None
    distributions: dict[str, str]


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of the host."""

    name: str
    compute_capability: str
    memory_bytes: int | None

    def __post_init__(self) -> None:
        if self.memory_bytes is not None and self.memory_bytes < 0:
            raise ValueError(f"memory_bytes: expected 0 or more, found {self.memory_bytes}")


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, without its name."""

    os: str
    kernel: str
    architecture: str
    cpu: str | None
    cores: int
    memory_bytes: int
    gpus: tuple[Gpu, ...]
    driver: str | None

    def __post_init__(self) -> None:
        if self.cores < 1 or self.memory_bytes < 0:
            raise ValueError("cores or memory_bytes is out of range")


@dataclass(frozen=True, slots=True)
class Model:
    """The files of a model, or of a dataset, as they were mounted."""

    name: str
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class Spread:
    """How a step was shared out: a container a node, each with that many ranks.

    `network` is what the containers had; `options` is what the MPI launcher was told in addition
    to the command; `logs` is what each rank said, in their order.
    """

    nodes: int
    ranks_per_node: int
    network: Literal["host"]
    options: tuple[str, ...]
    logs: tuple[File, ...]

    def __post_init__(self) -> None:
        if self.nodes < 2 or self.ranks_per_node < 1:
            raise ValueError("nodes or ranks_per_node is out of range")


@dataclass(frozen=True, slots=True)
class Command:
    """One step as it was executed; memory is that of its largest process.

    `given` are files below the run's folder that the kit wrote for it. `written` are those that it
    made or changed, as they were when it ended; None where nobody looked. `reused_from` names the
    run that executed it, where that was an earlier one whose files were taken over. `spread` is
    there where its ranks were on several hosts.
    """

    name: str
    argv: tuple[str, ...]
    cwd: str
    env: dict[str, str]
    path: str
    mpi_ranks: int
    exit_code: int
    seconds: float
    peak_memory_bytes: int
    log: File
    given: tuple[File, ...] = ()
    written: tuple[File, ...] | None = None
    reused_from: str | None = None
    spread: Spread | None = None

    def __post_init__(self) -> None:
        for name in self.env:
            if not ENVIRONMENT.fullmatch(name):
                raise ValueError(f"env: {name} may not be recorded")
        if self.mpi_ranks < 1 or self.peak_memory_bytes < 0 or not self.seconds >= 0:
            raise ValueError("mpi_ranks, seconds or peak_memory_bytes is out of range")
        if not self.argv:
            raise ValueError("argv: expected at least one word")

    @property
    def logs(self) -> tuple[File, ...]:
        """All that it said, and what each rank said where those were on several hosts."""
        return (self.log, *(self.spread.logs if self.spread else ()))


@dataclass(frozen=True, slots=True)
class Cluster:
    """The job whose nodes did the steps on several hosts; `mpi_plugin` is of Slurm's.

    `nodes` are the hosts without their names, first the one that did all other steps.
    """

    scheduler: Literal["slurm"]
    version: str
    mpi_plugin: str
    nodes: tuple[Host, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """What the engine said to one prompt.

    `token_ids` are the new tokens, the end mark and what follows it left out. Where the prompt
    could not be told apart (a tokenizer that the kit cannot read), `prompt_token_ids` and `text`
    are None and `token_ids` is the whole row.
    """

    prompt: str
    prompt_token_ids: tuple[int, ...] | None
    token_ids: tuple[int, ...]
    text: str | None

    def __post_init__(self) -> None:
        if any(token < 0 for token in (*(self.prompt_token_ids or ()), *self.token_ids)):
            raise ValueError("token_ids: expected 0 or more")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One figure that a step measured, such as ROUGE-1 in percent.

    `subject` is whose it is: the engine's, or that of the model it is compared with. It has to be
    `least` at least and `most` at most; None where nothing was asked for.
    """

    step: str
    subject: str
    metric: str
    value: float
    least: float | None
    most: float | None

    def __post_init__(self) -> None:
        for number in (self.value, self.least, self.most):
            if number is not None and not math.isfinite(number):
                raise ValueError("value, least, most: expected numbers that are finite")

    @property
    def is_good(self) -> bool:
        """Whether it is what was asked for."""
        enough = self.least is None or self.value >= self.least
        return enough and (self.most is None or self.value <= self.most)

    def __str__(self) -> str:
        asked = "" if self.least is None else f", expected {self.least:g} or more"
        asked += "" if self.most is None else f", expected {self.most:g} or less"
        metric = self.metric.replace("rouge", "ROUGE-")
        return f"{metric} of {self.subject} is {self.value:g}{asked}"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model of a server, and whether it was ready when the server was asked."""

    name: str
    version: str
    state: str
    ready: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to one prompt, by way of all its models."""

    prompt: str
    text: str


@dataclass(frozen=True, slots=True)
class Server:
    """The server of an engine: its image, and what it said of itself where it was started."""

    stack: str
    image: Image
    name: str | None = None
    version: str | None = None
    models: tuple[ServedModel, ...] = ()
    answers: tuple[Answer, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """The record of one example run; stands as `manifest.json` in the run's folder.

    `gpus` are those that the containers were given; what the host has stands in `host`. `only`
    are the steps that were asked for, where those were not all.
    """

    schema: Literal["kit.manifest/1"]
    kind: Literal["run"]
    created: str
    kit: Kit
    example: Example
    release: str
    stack: str
    lock: str
    image: Image
    engine: ContainerEngine
    versions: Versions
    host: Host
    gpus: str
    model: Model
    commands: tuple[Command, ...]
    artifacts: tuple[Artifact, ...]
    outputs: tuple[Output, ...]
    dataset: Model | None = None
    evaluations: tuple[Evaluation, ...] = ()
    only: tuple[str, ...] = ()
    cluster: Cluster | None = None
    server: Server | None = None

    def __post_init__(self) -> None:
        _check_digest(self.lock)
        if not _CREATED.fullmatch(self.created):
            raise ValueError(f"created: expected YYYY-MM-DDThh:mm:ssZ, found {self.created!r}")
        if not GPUS.fullmatch(self.gpus):
            raise ValueError(f"gpus: expected none, all or a list, found {self.gpus!r}")
        paths = [file.path for file in self.files()]
        if len(paths) != len(set(paths)):
            raise ValueError("artifacts: a path stands twice")

    def files(self) -> list[File | Artifact]:
        """Every file of the run's folder that the manifest vouches for: logs and artifacts."""
        logs = [log for command in self.commands for log in command.logs]
        return [*logs, *self.artifacts]

    def select(self, role: Role) -> list[Artifact]:
        """The artifacts of one role."""
        return [artifact for artifact in self.artifacts if artifact.role == role]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form; optional keys that say nothing are left out."""
        content: dict[str, Any] = asdict(self, dict_factory=_said)
        return content

    def write(self, folder: Path) -> Path:
        """Write `manifest.json` atomically; returns its path."""
        path = folder / FILE
        content = self.to_dict()
        # What an image said about itself is in here: never write what could not be read again.
        parse(json.loads(json.dumps(content)), str(path))
        write_json(path, content)
        return path


def locate(path: Path) -> Path:
    """The manifest's file, given itself or the run's folder.

    Raises:
        KitError: there is none (exit 2).
    """
    found = path / FILE if path.is_dir() else path
    if not found.is_file():
        raise usage_error(f"{found}: there is no manifest", hint="kit example list")
    return found


def read(path: Path) -> Manifest:
    """Read a manifest, strictly.

    Raises:
        KitError: absent (exit 2); not JSON, another schema, a key too many or too few, a value that
            cannot be; names the file and the key (exit 4).
    """
    path = locate(path)
    try:
        content = json.loads(files.content(path, _LARGEST))
    except (OSError, ValueError, RecursionError) as error:
        raise content_error(f"{path}: cannot be read as JSON: {error}") from error
    return parse(content, str(path))


def parse(content: Any, where: str) -> Manifest:
    """Read the JSON form; `where` stands for the file in messages."""
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise content_error(f"{where}: schema: expected {SCHEMA}, found {schema!r}")
    try:
        return decode(Manifest, content)
    except ValueError as error:
        raise content_error(f"{where}: {error}") from error


def decode(kind: type[_T], value: Any, key: str = "") -> _T:
    """Turn JSON into one of the classes of a manifest, refusing whatever does not fit exactly.

    Raises:
        ValueError: names the key.
    """
    found: Any = _value(kind, value, key)
    return found  # type: ignore[no-any-return]


def _said(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {key: value for key, value in items if key not in _OPTIONAL or value not in (None, ())}


def _check_file(path: str, size: int, sha256: str) -> None:
    path.encode()
    try:
        member = safe_member(path, "path")
    except Exception as error:
        raise ValueError(str(error)) from error
    if str(member) != path or "\\" in path:
        raise ValueError(f"path: {path!r} is not in its simplest form")
    if size < 0:
        raise ValueError(f"size: expected 0 or more, found {size}")
    Digest(sha256)


def _check_digest(text: str) -> None:
    if not text.startswith("sha256:"):
        raise ValueError(f"expected sha256:…, found {text!r}")
    Digest.parse(text)


def _value(kind: Any, value: Any, key: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        inner = [option for option in get_args(kind) if option is not NoneType]
        return None if value is None else _value(inner[0], value, key)
    if origin is Literal:
        if value not in get_args(kind) or not isinstance(value, str):
            raise ValueError(f"{key}: expected {' or '.join(get_args(kind))}, found {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{key}: expected a list")
        item_kind = get_args(kind)[0]
        return tuple(_value(item_kind, item, f"{key}[{at}]") for at, item in enumerate(value))
    if origin is dict:
        return {name: _value(get_args(kind)[1], item, key) for name, item in _object(value, key)}
    if is_dataclass(kind):
        return _instance(kind, value, key)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{key}: expected {kind.__name__}, found {value!r}")
    return value


def _instance(kind: Any, value: Any, key: str) -> Any:
    given = dict(_object(value, key))
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    needed = [field.name for field in fields(kind) if field.default is MISSING]
    prefix = f"{key}." if key else ""
    for name in needed:
        if name not in given:
            raise ValueError(f"missing key {prefix}{name}")
    for name in given:
        if name not in names:
            raise ValueError(f"unknown key {prefix}{name}")
    values = {name: _value(hints[name], given[name], f"{prefix}{name}") for name in given}
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{key}: {error}" if key else str(error)) from error


def _object(value: Any, key: str) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        raise ValueError(f"{key}: expected an object")  # noqa: TRY004 - about the JSON
    mapping: Mapping[str, Any] = value
    return list(mapping.items())
