"""What `kit doctor` finds on a host, as far as it matters to what is to run there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.compat.facts import ranks
from kit.compat.rule import Result, Rule
from kit.console import memory_size as size
from kit.host.checks import checks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.compat.facts import Facts
    from kit.compat.rule import Status
    from kit.host.check import Check
    from kit.host.check import Status as Health

_MEANS: dict[Health, Status] = {
    "ok": "ok",
    "warning": "warning",
    "problem": "mismatch",
    "unknown": "unknown",
}


_ADVISORY = frozenset(
    {"memlock", "stack", "mpi", "slurm", "environment", "peer access", "shared memory", "memory"}
)
"""Checks that warn at worst: not to know them is no more than that."""


def _status(facts: Facts, check: Check) -> Status:
    if check.status == "unknown" and check.name in _ADVISORY:
        return "warning"
    if check.name == "gpus" and facts.host is not None and facts.host.reason("gpus"):
        return "unknown"  # `kit doctor --gpu` insists on GPUs; here nobody could look
    return _MEANS[check.status]


def _able(facts: Facts) -> Iterable[Result]:
    if facts.host is None:
        return
    for check in checks(facts.host, gpu=facts.needs_gpu()):
        message = f"{check.name}: {check.found}"
        message += f", expected: {check.expected}" if check.expected else ""
        message += f"; try: {check.advice}" if check.advice else ""
        status = _status(facts, check)
        yield Result(
            status,
            check.name,
            check.expected,
            check.found,
            facts.host_where,
            "" if status == "ok" else message,
            "kit doctor",
        )


def _memory(facts: Facts) -> Iterable[Result]:
    """Every rank reads its whole plan into main memory before it goes to the GPU."""
    host, engine = facts.host, facts.engine
    files = ranks(engine) if engine is not None else []
    if host is None or not files:
        return
    here = files[: len(host.gpus)] if facts.needs_gpu() and host.gpus else files
    need, have = sum(rank.header.size for rank in here), host.usable_memory_bytes
    fits = need < have
    message = (
        f"the plans of {len(here)} ranks are {size(need)}, the host has {size(have)} of memory; "
        "raise the container's or the cgroup's limit, or use fewer ranks a host"
    )
    yield Result(
        "ok" if fits else "mismatch",
        "host memory",
        f"over {need} bytes",
        f"{have} bytes",
        facts.host_where,
        "" if fits else message,
        "kit doctor",
    )


def _architecture(facts: Facts) -> Iterable[Result]:
    """An image of another processor does not start."""
    if facts.host is None or facts.image is None or facts.image.architecture is None:
        return
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    machine = facts.host.system.architecture
    have = names.get(machine, machine)
    if facts.image.architecture not in (*names.values(), *names):
        message = f"which processor the image is for is not known: {facts.image.architecture}"
        yield Result("unknown", "image architecture", have, None, facts.image.reference, message)
        return
    same = facts.image.architecture == have
    message = f"the image is for {facts.image.architecture}, {facts.host_where} is {have}"
    yield Result(
        "ok" if same else "mismatch",
        "image architecture",
        have,
        facts.image.architecture,
        facts.image.reference,
        "" if same else message,
    )


RULES = (
    Rule(
        "host-able",
        "Container engine, toolkit or CDI, driver module, fabric manager, disk, memory, /dev/shm, "
        "memlock, stack, MPI and Slurm's pmix plugin: what `kit doctor` looks at, with the "
        "thresholds that it prints.",
        ("kit doctor", "NVIDIA/TensorRT-LLM docker/Makefile", "NVIDIA/TensorRT-LLM#1826"),
        _able,
    ),
    Rule(
        "host-memory",
        "The plans of all ranks of a host are read into its memory while they load.",
        ("NVIDIA/TensorRT-LLM docs/source/reference/memory.md",),
        _memory,
    ),
    Rule(
        "host-architecture",
        "An image runs on the architecture that it was built for.",
        ("OCI image specification, image configuration",),
        _architecture,
    ),
)
