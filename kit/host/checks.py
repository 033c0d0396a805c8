"""What the facts of a host mean for the kit: can it build, can it run, what would go wrong.

Thresholds and where they come from stand with their names below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.console import memory_size, size
from kit.host import gpu_checks
from kit.host.check import Check
from kit.host.facts import UNLIMITED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.host.check import Status
    from kit.host.facts import Engine, HostFacts

_GB, _GIB = 10**9, 1 << 30
REHEARSAL_DISK = 3 * _GB
"""Bytes for the rehearsal: inputs, image in the kit's home, layers in the engine (measured)."""
IMAGE_DISK = 63 * _GB
"""Bytes that building a TensorRT-LLM image takes.

Source: its guide to building from source, "approximate disk space … 63 GB", releases 0.8.0 on.
"""
SHARED_MEMORY = _GIB
"""Bytes of /dev/shm for NCCL's segments and Triton's Python backend.

Source: the 64 MiB that engines give by default end in "Error while creating shared memory segment"
(TensorRT-LLM#1826) and "Unable to initialize shared memory key"; 1 GiB is what the kit gives.
"""
STACK = 64 << 20
"""Bytes of stack. Source: TensorRT-LLM's docker/Makefile runs with `--ulimit stack=67108864`."""
BUILD_MEMORY = 64 * _GIB
"""Bytes of memory that building a 7B engine took in releases up to 0.7 (TensorRT-LLM#102, #743)."""
INODES = 200_000
"""Files of an unpacked image and its base, with room for a second one."""


def checks(facts: HostFacts, *, gpu: bool = False) -> list[Check]:
    """Every check in the order of its importance.

    Args:
        facts: what is known of the host.
        gpu: real engines are to be built and run here, so that what they lack is a problem; else it
            is a warning, for the rehearsal needs none of it.
    """
    found = [_architecture(facts), *_engine(facts), *_disks(facts)]
    found += gpu_checks.checks(facts, "problem" if gpu else "warning")
    found += [*_memory(facts), *_limits(facts), *_cluster(facts), *_environment(facts)]
    return found


def is_able(found: list[Check]) -> bool:
    """Whether nothing stands in the way of the kit's work."""
    return all(check.status != "problem" for check in found)


def _architecture(facts: HostFacts) -> Check:
    known = ("x86_64", "aarch64")
    found = facts.system.architecture
    return Check(
        "architecture",
        "ok" if found in known else "problem",
        f"{found}, {facts.system.name}"
        + (f", inside a container ({facts.system.container})" if facts.system.container else ""),
        " or ".join(known),
        None if found in known else "use a host with one of these",
    )


def _engine(facts: HostFacts) -> Iterator[Check]:
    engine = facts.engine
    expected = "Docker with a running daemon, or Podman"
    if engine is None:
        silent = [item.name for item in facts.engines]
        reasons = [why for name in silent if (why := facts.reason(f"engines.{name}"))]
        undecided = facts.reason("engines.default")
        yield Check(
            "engine",
            "problem",
            undecided or "; ".join(reasons) or "none",
            expected,
            f"{silent[0]} info" if silent else "make setup",
        )
        return
    rights = {True: "rootless", False: "with root", None: "rights unknown"}[engine.rootless]
    works = engine.version is not None
    yield Check(
        "engine",
        "ok" if works else "problem",
        f"{engine.name} {engine.version or ''}, {rights}, storage {engine.storage or 'unknown'}"
        if works
        else facts.reason(f"engines.{engine.name}") or f"{engine.name} does not say",
        expected,
        None if works else f"{engine.name} info",
    )
    yield from _engine_traps(facts, engine)


def _engine_traps(facts: HostFacts, engine: Engine) -> Iterator[Check]:
    if engine.version is not None and engine.builder is None:
        yield Check(
            "builder",
            "problem",
            "no docker command builds with BuildKit",
            "docker before 23, or with the buildx plugin",
            "install docker-buildx, or KIT_ENGINE=podman",
        )
    if engine.snap:
        yield Check(
            "snap",
            "warning",
            "Docker from a snap: it sees no folder outside the home, and no NVIDIA runtime",
            "Docker from the distribution or from Docker",
            "snap remove docker, then install the package docker.io or docker-ce",
        )
    if engine.storage == "vfs":
        yield Check(
            "storage",
            "warning",
            "vfs: every layer is a full copy",
            "overlay",
            "set driver = overlay in storage.conf, then podman system reset (removes all images)"
            if engine.name == "podman"
            else 'set "storage-driver": "overlay2" in /etc/docker/daemon.json',
        )
    ids = facts.toolkit.subordinate_ids if facts.toolkit else None
    if engine.name == "podman" and engine.rootless and ids is False:
        yield Check(
            "subordinate ids",
            "warning",
            "no range in /etc/subuid for this user",
            "65536 ids for rootless Podman",
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER",
        )


def _disks(facts: HostFacts) -> Iterator[Check]:
    labels = {"home": "disk of the kit", "engine": "disk of the engine"}
    moves = {
        "home": "export KIT_HOME=<a folder on a larger disk>",
        "engine": f"{facts.engine.name if facts.engine else 'docker'} image prune, or move its "
        "storage to a larger disk",
    }
    for name, label in labels.items():
        disk = facts.disk(name)
        if disk is None:
            # Without an engine there is no storage of one to be found.
            why = facts.reason(f"disks.{name}")
            if why and (name != "engine" or facts.engine is not None):
                yield Check(label, "unknown", why, f"{size(REHEARSAL_DISK)} free", "df -h")
            continue
        inodes = disk.free_inodes is not None and disk.free_inodes < INODES
        status: Status = "ok"
        if disk.free_bytes < IMAGE_DISK or inodes:
            status = "warning"
        if disk.free_bytes < REHEARSAL_DISK:
            status = "problem"
        expected = f"{size(REHEARSAL_DISK)} for the rehearsal, {size(IMAGE_DISK)} to build images"
        found = f"{size(disk.free_bytes)} free at {disk.path}"
        if inodes:
            found += f", {disk.free_inodes} inodes free"
        yield Check(label, status, found, expected, None if status == "ok" else moves[name])


def _memory(facts: HostFacts) -> Iterator[Check]:
    usable = facts.usable_memory_bytes
    small = bool(facts.gpus) and usable < BUILD_MEMORY
    limited = facts.memory.limit_bytes is not None and usable < facts.memory.total_bytes
    yield Check(
        "memory",
        "warning" if small else "ok",
        f"{memory_size(usable)}" + (" (limit of the cgroup)" if limited else ""),
        f"{memory_size(BUILD_MEMORY)} for a 7B engine of releases up to 0.7"
        if facts.gpus
        else None,
        "a newer release, fewer --workers, or swap" if small else None,
    )
    shm = facts.disk("shm")
    if shm is None:
        why = facts.reason("disks.shm") or "none"
        yield Check("shared memory", "unknown", why, memory_size(SHARED_MEMORY), "df -h /dev/shm")
        return
    # Containers of the kit get a /dev/shm of their own, of this size: the host's is for --ipc=host.
    enough = shm.free_bytes >= SHARED_MEMORY
    yield Check(
        "shared memory",
        "ok" if enough else "warning",
        f"{memory_size(shm.free_bytes)} of {memory_size(shm.total_bytes)} free at {shm.path}",
        f"{memory_size(SHARED_MEMORY)} free",
        None
        if enough
        else "--shm-size=1g where this is a container; sudo mount -o remount,size=8G /dev/shm; "
        "rm /dev/shm/nccl-* /dev/shm/triton_python_backend* of processes that are gone",
    )


def _limits(facts: HostFacts) -> Iterator[Check]:
    memlock, stack = facts.limit("memlock"), facts.limit("stack")
    if memlock is not None:
        needed = len(facts.gpus) > 1 or facts.slurm is not None
        low = memlock.hard != UNLIMITED and needed
        yield Check(
            "memlock",
            "warning" if low else "ok",
            _amount(memlock.hard),
            "unlimited, for RDMA between nodes (pyxis#60)" if needed else None,
            "ulimit -l unlimited; LimitMEMLOCK=infinity for slurmd; --ulimit memlock=-1"
            if low
            else None,
        )
    if stack is not None:
        low = stack.hard != UNLIMITED and stack.hard < STACK
        yield Check(
            "stack",
            "warning" if low else "ok",
            _amount(stack.hard),
            f"{memory_size(STACK)} or more may be asked for",
            f"--ulimit stack={STACK}; ulimit -H -s unlimited" if low else None,
        )


def _cluster(facts: HostFacts) -> Iterator[Check]:
    several = len(facts.mpi) > 1
    listed = "; ".join(f"{item.name} {item.version or '?'} at {item.path}" for item in facts.mpi)
    why = facts.reason("mpi")
    yield Check(
        "mpi",
        "unknown" if why else "warning" if several else "ok",
        why or listed or "none (images bring their own)",
        "one on PATH" if several else None,
        "mpirun --version"
        if why
        else "take the others off PATH, unset OPAL_PREFIX (TensorRT-LLM#1294)"
        if several
        else None,
    )
    slurm = facts.slurm
    if slurm is None:
        why = facts.reason("slurm")
        found = why or "none (needed for several nodes only)"
        yield Check("slurm", "unknown" if why else "ok", found, None, "sinfo" if why else None)
        return
    gap = next((item for item in facts.unknown if item.name.startswith("slurm")), None)
    advice = None
    status: Status = "ok"
    if not slurm.plugins:
        status, advice = "unknown", "srun --mpi=list; export SLURM_CONF=<slurm.conf>"
    elif not slurm.is_reachable:
        status, advice = "warning", "sinfo; is slurmctld running, munge too?"
    found = f"{slurm.version or 'version unknown'}, plugins {', '.join(slurm.plugins) or 'unknown'}"
    found += ", inside a job" if slurm.in_job else ""
    yield Check(
        "slurm",
        status,
        found + (f"; {gap.reason}" if gap and status != "ok" else ""),
        # No plugin: `kit run` starts Open MPI's own daemons.
        "a controller that answers",
        advice,
    )


def _environment(facts: HostFacts) -> Iterator[Check]:
    """Variables that have led astray: hidden GPUs, another Open MPI's prefix, NCCL switched off."""
    traps = {"CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "OPAL_PREFIX", "CUDA_LAUNCH_BLOCKING"}
    found = [
        item.name + (f"={item.value}" if item.value is not None else " is set")
        for item in facts.environment
        if item.name in traps or item.name.startswith("NCCL_")
    ]
    if found:
        names = " ".join(text.partition("=")[0].partition(" ")[0] for text in found)
        yield Check(
            "environment",
            "warning",
            ", ".join(found),
            "none of these, unless on purpose; the kit's containers get none of them",
            f"unset {names}",
        )


def _amount(value: int) -> str:
    return "unlimited" if value == UNLIMITED else memory_size(value)
