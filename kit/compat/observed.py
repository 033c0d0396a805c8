"""What was seen of everything that was named: component, version, where, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.compat.loader import of_container
from kit.data import releases, triton
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.compat.facts import Facts

_OF_RELEASE = ("tensorrt", "cuda", "cudnn", "nccl", "cuda_driver_min", "torch_requirement")
_OF_CONTAINER = ("tensorrt_llm", "tensorrt", "cuda", "driver", "python", "torch")


def observations(facts: Facts) -> tuple[Observation, ...]:
    """All of them, what tables expect first."""
    found = [*_release(facts), *_container(facts), *_stack(facts)]
    for part in (facts.image, facts.engine, facts.checkpoint, facts.repository, facts.source):
        found += part.observations if part is not None else ()
    found += facts.wheel.observations if facts.wheel is not None else ()
    return (*found, *_lock(facts), *_host(facts))


def _release(facts: Facts) -> Iterator[Observation]:
    if facts.release is None:
        return
    where = f"release {facts.release}"
    for field in _OF_RELEASE:
        yield Observation(field, releases.value(facts.release, field), where, "table")
    served = " ".join(triton.shipping(facts.release)) or None
    yield Observation("tritonserver", served, where, "table")


def _container(facts: Facts) -> Iterator[Observation]:
    if facts.triton is None or (row := facts.triton.row) is None:
        return
    for field in _OF_CONTAINER:
        version = row[field]
        if field == "tensorrt":
            version = " or ".join(of_container(facts.triton.month).versions) or None
        yield Observation(field, version, facts.triton.label, "table")


def _stack(facts: Facts) -> Iterator[Observation]:
    if facts.stack is None:
        return
    where = f"image of stack {facts.stack.stack}"
    yield Observation("tensorrt_llm", " ".join(facts.stack.releases) or None, where, "label")
    yield Observation("backend", facts.stack.backend, where, "label")
    yield Observation("lock", facts.stack.lock or None, where, "label")
    yield Observation("tensorrt", facts.stack.tensorrt, where, "probe")
    yield Observation("cuda", facts.stack.cuda, where, "probe")


def _lock(facts: Facts) -> Iterator[Observation]:
    if facts.lock is not None:
        yield Observation("lock", facts.lock.digest, facts.lock.path, "lock")
        for name, version in facts.lock.pins.items():
            yield Observation(name, version, facts.lock.path, "lock")


def _host(facts: Facts) -> Iterator[Observation]:
    if facts.host is not None:
        version = facts.host.driver.version if facts.host.driver else None
        yield Observation("driver", version, facts.host_where, "nvidia-smi")
    for gpu in facts.target_gpus():
        yield Observation("gpu", f"{gpu.label} ({gpu.compute_capability})", gpu.where, "host")
