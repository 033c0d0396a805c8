"""What a host is and has, as plain data: `kit doctor --export` writes it, `verify-compat` reads it.

The published form is `schema/host-1.json`; the classes here are the same thing in Python. None
means "not there", unless `unknown` has an entry for it: then nobody found out, and the entry says
why. Nothing in here names the host, its user, its network or its folders.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from kit.errors import content_error, usage_error
from kit.host.reading import decode

SCHEMA: Literal["kit.host/1"] = "kit.host/1"
PUBLISHED = Path(__file__).with_name("schema") / "host-1.json"
UNLIMITED = -1
"""How a limit says that there is none."""
_LARGEST = 4 << 20
"""Bytes; a host with 16 GPUs takes some 40 KB."""

EngineName = Literal["docker", "podman"]


@dataclass(frozen=True, slots=True)
class Kit:
    """The program that looked."""

    version: str


@dataclass(frozen=True, slots=True)
class System:
    """The operating system, and the container that the kit itself runs in, if there are signs."""

    name: str
    id: str | None
    version: str | None
    kernel: str
    architecture: str
    glibc: str | None
    container: str | None


@dataclass(frozen=True, slots=True)
class Processor:
    """The processor: all cores, those this process may use, and the cgroup's share in cores."""

    model: str | None
    cores: int
    usable_cores: int
    quota_cores: float | None


@dataclass(frozen=True, slots=True)
class Memory:
    """Main memory in bytes; `limit_bytes` is the smallest cgroup limit that holds here."""

    total_bytes: int
    available_bytes: int | None
    swap_bytes: int | None
    limit_bytes: int | None
    cgroup_version: int | None


@dataclass(frozen=True, slots=True)
class Disk:
    """A place that the kit writes to: `home`, `engine`, `tmp`, `shm`."""

    name: str
    path: str
    total_bytes: int
    free_bytes: int
    free_inodes: int | None


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of this process: bytes for memlock and stack, a count for nofile and nproc; -1: none.

    A container may be given up to the hard limit; more only by an engine with the right to.
    """

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Driver:
    """NVIDIA's driver.

    Attributes:
        version: what the driver says of itself.
        library: version of `libcuda.so.1`, which programs load.
        kernel_module: version of the module that runs; must be the library's.
        open_module: whether that is the open one.
        cuda: the newest CUDA that this driver speaks, `13.0`.
        uvm: whether `nvidia_uvm` is loaded or its device is there.
        nouveau: whether the other driver has the GPUs.
        problem: what went wrong when it was asked.
    """

    version: str | None
    library: str | None
    kernel_module: str | None
    open_module: bool | None
    cuda: str | None
    uvm: bool
    nouveau: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class Slice:
    """One MIG device of a GPU."""

    gpu_instance: int
    compute_instance: int
    memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU.

    Attributes:
        mig: whether MIG is on; None where the GPU has no MIG.
        virtualisation: `none`, `pass-through`, `vgpu`, as the driver says it in small letters.
        ecc: whether it is on; None where the GPU has none.
        fabric: state of its NVSwitch fabric, `completed` when it is ready; None without a fabric.
        processes: how many use it now.
    """

    index: int
    uuid: str | None
    name: str
    compute_capability: str | None
    memory_bytes: int | None
    mig: bool | None
    slices: tuple[Slice, ...]
    virtualisation: str | None
    ecc: bool | None
    persistence: bool | None
    fabric: str | None
    processes: int | None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two GPUs: may one read the other's memory (`OK`), and over what (`NV18`, `SYS`, …)."""

    first: int
    second: int
    peer: str | None
    link: str | None


@dataclass(frozen=True, slots=True)
class Fabric:
    """NVSwitch and the fabric manager that it needs; `running` is None where nobody can tell."""

    switches: int
    is_needed: bool
    running: bool | None
    version: str | None


@dataclass(frozen=True, slots=True)
class Engine:
    """Podman or Docker.

    Attributes:
        is_default: the one that the kit takes.
        version: of Podman, or of Docker's daemon; None where that does not answer.
        builder: what builds: Podman itself, or a `docker` command with BuildKit; None: nothing.
        rootless: whether it runs without root.
        storage: its storage driver, `overlay2`.
        cgroup_driver: `systemd` or `cgroupfs`.
        runtimes: the OCI runtimes that it knows, `nvidia` among them if it was set up.
        cdi: whether it reads CDI specifications; None where that is not known.
        snap: Docker from a snap, which sees neither /tmp nor most of the disk.
    """

    name: EngineName
    is_default: bool
    version: str | None
    builder: str | None
    rootless: bool | None
    storage: str | None
    cgroup_driver: str | None
    cgroup_version: int | None
    runtimes: tuple[str, ...]
    cdi: bool | None
    snap: bool


@dataclass(frozen=True, slots=True)
class CdiFile:
    """One CDI specification: what it offers, and what it names that is not on this host."""

    name: str
    kind: str | None
    devices: tuple[str, ...]
    missing: tuple[str, ...]
    problem: str | None


@dataclass(frozen=True, slots=True)
class Toolkit:
    """NVIDIA's container toolkit, the CDI files that are there, and what rootless Podman needs."""

    version: str | None
    runtime: bool
    cdi: tuple[CdiFile, ...]
    subordinate_ids: bool | None


@dataclass(frozen=True, slots=True)
class Mpi:
    """One `mpirun` on PATH, in its order."""

    name: str
    path: str
    version: str | None


@dataclass(frozen=True, slots=True)
class Slurm:
    """A Slurm client: MPI plugins, whether the controller answers, whether this is inside a job."""

    version: str | None
    plugins: tuple[str, ...]
    is_reachable: bool | None
    in_job: bool


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that changes how things behave; None where only its name may be told."""

    name: str
    value: str | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """A fact that was not found out: its place, `driver.cuda`, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class HostFacts:
    """Everything.

    `driver` is None where there is no trace of NVIDIA's driver, `slurm` where there is no client;
    `pci_gpus` counts NVIDIA's GPUs on the PCI bus, with a driver or without.
    """

    schema: Literal["kit.host/1"]
    created: str
    kit: Kit
    system: System
    processor: Processor
    memory: Memory
    disks: tuple[Disk, ...]
    limits: tuple[Limit, ...]
    pci_gpus: int | None
    driver: Driver | None
    gpus: tuple[Gpu, ...]
    pairs: tuple[Pair, ...]
    fabric: Fabric | None
    engines: tuple[Engine, ...]
    toolkit: Toolkit | None
    mpi: tuple[Mpi, ...]
    slurm: Slurm | None
    environment: tuple[Variable, ...]
    unknown: tuple[Unknown, ...]

    def reason(self, name: str) -> str | None:
        """Why a fact is not known; None where it is known, or known not to be there.

        Args:
            name: its place: `driver.cuda`, `gpus[0].compute_capability`; what is not known as a
                whole (`gpus`) covers its parts.
        """
        for gap in self.unknown:
            if name == gap.name or name.startswith((f"{gap.name}.", f"{gap.name}[")):
                return gap.reason
        return None

    def disk(self, name: str) -> Disk | None:
        """The place of that name."""
        return next((disk for disk in self.disks if disk.name == name), None)

    def limit(self, name: str) -> Limit | None:
        """The limit of that name."""
        return next((limit for limit in self.limits if limit.name == name), None)

    @property
    def engine(self) -> Engine | None:
        """The engine that the kit takes."""
        return next((engine for engine in self.engines if engine.is_default), None)

    @property
    def usable_memory_bytes(self) -> int:
        """Main memory or the cgroup's limit, whichever is smaller."""
        return min(self.memory.total_bytes, self.memory.limit_bytes or self.memory.total_bytes)

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def from_dict(content: Any, where: str) -> HostFacts:
    """Read the JSON form; `where` stands for the file in messages.

    Raises:
        KitError: another schema, a key too few, a value that cannot be; names the key (exit 4).
    """
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise content_error(
            f"{where}: schema: expected {SCHEMA}, found {schema!r:.100}",
            hint="kit doctor --export host.json",
        )
    try:
        return decode(HostFacts, content)
    except ValueError as error:
        raise content_error(f"{where}: {error}", hint="kit doctor --export host.json") from error


def read(path: Path) -> HostFacts:
    """Read what `kit doctor --export` wrote.

    Raises:
        KitError: there is no such file (exit 2); it is no such document (exit 4).
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except OSError as error:
        raise usage_error(
            f"{path}: cannot be read: {error.strerror}", hint="kit doctor --export host.json"
        ) from error
    if len(content) > _LARGEST:
        raise content_error(f"{path}: larger than {_LARGEST} bytes: no facts of a host")
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise content_error(f"{path}: cannot be read as JSON: {error}") from error
    return from_dict(document, str(path))
