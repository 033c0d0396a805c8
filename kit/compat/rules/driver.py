"""Which driver runs the CUDA of an image, a container or a release."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.compat import contents
from kit.compat.claim import reference
from kit.compat.rule import Result, Rule
from kit.data import drivers, gpus, releases, triton

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.compat.facts import Facts
    from kit.host.facts import HostFacts


@dataclass(frozen=True, slots=True)
class _Cuda:
    label: str
    version: str | None
    source: str
    hole: str | None = None


def _cudas(facts: Facts) -> list[_Cuda]:
    """What is to run: the image where there is one, else what is expected."""
    if facts.image is not None and (seen := contents.versions(facts.image, "cuda")):
        return [_Cuda(f"image {facts.image.reference}", seen[0], "seen in the image")]
    if facts.stack is not None:
        have = facts.stack.cuda
        return [_Cuda(f"the image of stack {facts.stack.stack}", have, "probe")] if have else []
    found = []
    if facts.triton is not None and (row := facts.triton.row) is not None:
        hole = triton.hole(facts.triton.month, "cuda")
        found.append(_Cuda(facts.triton.label, row["cuda"], row["source"], hole))
    release = reference(facts)
    if not found and release is not None and release in releases.order():
        fact = releases.fact(release, "cuda")
        found.append(_Cuda(f"release {release}", fact.value, fact.source or "", fact.hole))
    return found


def _driver(facts: Facts) -> Iterable[Result]:
    host = facts.host
    if host is None or not facts.needs_gpu():
        return
    where = facts.host_where
    driver = host.driver.version if host.driver else None
    for cuda in _cudas(facts):
        component = f"driver for {cuda.label}"
        if driver is None:
            reason = host.reason("driver.version")
            wanted = f"CUDA {cuda.version}" if cuda.version else "a driver"
            yield Result(
                "unknown" if reason else "mismatch",
                component,
                f"a driver for CUDA {cuda.version}" if cuda.version else "a driver",
                None,
                where,
                f"{cuda.label} wants {wanted}, the host has no NVIDIA "
                f"driver{': ' + reason if reason else ''}",
            )
        elif cuda.version is None:
            yield Result(
                "unknown",
                component,
                None,
                driver,
                where,
                f"the CUDA of {cuda.label} is not known: {cuda.hole}",
            )
        else:
            yield _runs(where, host, driver, cuda, component)


def _runs(where: str, host: HostFacts, have: str, cuda: _Cuda, component: str) -> Result:
    version = cuda.version or ""
    own, low = drivers.of_toolkit(version), drivers.minor_version(version)
    if own is not None and drivers.numbers(have) >= drivers.numbers(own[0]):
        return Result("ok", component, f"{own[0]} or newer", have, where, "", None, own[1])
    newest = drivers.numbers(drivers.table()["toolkit"][-1]["driver"])
    if own is None and drivers.numbers(have) >= newest:
        message = f"CUDA {version} is in no table; the driver is newer than all that are"
        return Result("unknown", component, None, have, where, message)
    comes = f"CUDA {version} of {cuda.label} comes with driver {own[0] if own else 'unknown'}"
    if low is not None and drivers.numbers(have) >= drivers.numbers(low[0]):
        message = (
            f"{comes}, the host has {have}: enough by minor-version compatibility "
            f"({low[0]} or newer), without what is new in the driver and without PTX of newer CUDA"
        )
        return Result(
            "warning", component, own[0] if own else low[0], have, where, message, None, low[1]
        )
    if low is None:
        return Result("unknown", component, None, have, where, f"{comes}: nothing more is known")
    kinds = {(gpus.find(gpu.name) or {}).get("kind") for gpu in host.gpus or () if gpu.name}
    row = drivers.forward(version)
    needed = f"{low[0]} or newer"
    update = f"{comes}, the host has {have}; update the driver to {low[0]} or newer"
    if kinds and "datacenter" not in kinds and None not in kinds:
        message = f"{update}: forward compatibility is for data-center GPUs alone"
        return Result("mismatch", component, needed, have, where, message, None, low[1])
    if row is None or row["branches"] is None or not kinds or None in kinds:
        reason = (row or {}).get("hole") or "the GPUs or the branches are not known"
        message = f"{update}, or try the package cuda-compat: whether it runs on {have} is not "
        return Result(
            "unknown", component, needed, have, where, f"{message}known ({reason})", None, low[1]
        )
    if any(_within(have, first) for first in row["branches"]):
        message = (
            f"{comes}, the host has {have}: enough for data-center GPUs with the package "
            "cuda-compat, which NVIDIA's images hold"
        )
        return Result("warning", component, needed, have, where, message, None, row["source"])
    message = f"{update}; cuda-compat runs on {', '.join(row['branches'])} and newer of each branch"
    return Result("mismatch", component, needed, have, where, message, None, row["source"])


def _within(have: str, first: str) -> bool:
    """Whether a driver belongs to the branch of `first` and is not older than it."""
    mine, start = drivers.numbers(have), drivers.numbers(first)
    return mine[:1] == start[:1] and mine >= start


RULES = (
    Rule(
        "driver-cuda",
        "A driver runs the CUDA that it came with and older ones; within one major version also "
        "newer ones from a lowest driver on; on data-center GPUs the package cuda-compat carries "
        "newer CUDA over some older branches.",
        (
            "NVIDIA CUDA Toolkit release notes, tables 2 and 3",
            "NVIDIA CUDA Compatibility guide",
            "NVIDIA Triton Inference Server release notes, Driver Requirements",
        ),
        _driver,
    ),
)
