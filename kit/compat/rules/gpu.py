"""Which GPUs a release builds for, which precisions they carry, and on which one an engine runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.compat.claim import reference
from kit.compat.facts import ranks
from kit.compat.rule import Result, Rule, either
from kit.data import covers, gpus, releases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.compat.facts import Facts, GpuFacts

_BASE = frozenset({"fp32", "fp16", "bf16"})


def _supported(facts: Facts) -> Iterable[Result]:
    release = reference(facts)
    if release is None or release not in releases.order():
        return
    fact = releases.fact(release, "compute_capabilities_supported")
    for gpu in facts.target_gpus():
        capability, component = gpu.compute_capability, f"GPU {gpu.label}"
        if capability is None or fact.value is None:
            message = fact.hole or gpu.hole or ""
            yield Result(
                "unknown",
                component,
                _listed(fact.value),
                capability,
                gpu.where,
                f"{component}: {message}",
            )
            continue
        if capability in fact.value:
            yield Result(
                "ok", component, _listed(fact.value), capability, gpu.where, "", None, fact.source
            )
            continue
        able = [
            version
            for version in releases.versions()
            if capability in (releases.value(version, "compute_capabilities_supported") or ())
        ]
        message = (
            f"{gpu.label} has compute capability {capability}, release {release} supports "
            f"{', '.join(fact.value)}"
        )
        near = releases.closest(release, able)
        message += f"; nearest release that does: {near}" if near else "; no release does"
        hint = f"kit verify-compat --release {near} --gpu {capability}" if near else None
        yield Result(
            "mismatch",
            component,
            _listed(fact.value),
            capability,
            gpu.where,
            message,
            hint,
            fact.source,
        )


def _precision(facts: Facts) -> Iterable[Result]:
    release = reference(facts)
    wanted: list[tuple[str, str]] = []
    if facts.engine is not None:
        wanted += [(name, str(facts.engine.folder)) for name in sorted(facts.engine.precisions)]
    if facts.checkpoint is not None:
        folder = str(facts.checkpoint.folder)
        wanted += [(name, folder) for name in sorted(facts.checkpoint.precisions)]
    for gpu in facts.target_gpus():
        for precision, where in dict(wanted).items():
            yield _carries(precision, gpu, release, where)


def _carries(precision: str, gpu: GpuFacts, release: str | None, where: str) -> Result:
    component, capability = f"{precision} on {gpu.label}", gpu.compute_capability
    rows = [row for row in gpus.precisions() if row["precision"] == precision]
    if release is not None and release in releases.versions():
        # The table of options knows the stable releases, in the same order.
        rows = [row for row in rows if covers(row["releases"], release)]
    elif release is not None:
        rows = []
    if not rows or capability is None:
        message = f"whether {gpu.label} carries {precision} is not in the table"
        message += f" for release {release}" if release else ""
        return Result("unknown", component, None, capability, where, message)
    row = rows[-1]
    minimum = row["minimum"]
    source = row["source"]
    if minimum is not None and gpus.rank(capability) < gpus.rank(minimum):
        # Without a release the oldest and the newest rule both have to say no.
        lowest = min((r["minimum"] for r in rows if r["minimum"]), key=gpus.rank)
        if gpus.rank(capability) < gpus.rank(lowest):
            message = (
                f"{precision} wants compute capability {lowest} or higher "
                f"({', '.join(gpus.named(lowest)[:3])} …), {gpu.label} has {capability}; "
                "build it in another precision or for another GPU"
            )
            return Result(
                "mismatch",
                component,
                f"{lowest} or higher",
                capability,
                where,
                message,
                None,
                source,
            )
    able = releases.value(release, "compute_capabilities_supported") if release else None
    if capability in row["listed"] or (precision in _BASE and capability in (able or ())):
        expected = f"{minimum} or higher" if minimum else _listed(row["listed"])
        return Result("ok", component, expected, capability, where, "", None, source)
    message = f"whether {gpu.label} ({capability}) carries {precision} is not stated"
    return Result(
        "unknown", component, _listed(row["listed"]), capability, where, message, None, source
    )


def _engine_gpu(facts: Facts) -> Iterable[Result]:
    """The GPU that built the engine, as far as it is recorded, and the one that is to load it."""
    if facts.engine is None and facts.manifest is None:
        return
    for built in facts.built_on():
        for gpu in facts.target_gpus():
            component, where = f"engine on {gpu.label}", gpu.where
            if built.compute_capability is None or gpu.compute_capability is None:
                yield Result(
                    "unknown",
                    component,
                    built.label,
                    gpu.label,
                    where,
                    f"the compute capability of {built.label} or {gpu.label} is not known",
                )
            elif built.compute_capability != gpu.compute_capability:
                message = (
                    f"engine was built on {built.label} (compute capability "
                    f"{built.compute_capability}, {built.where}), {gpu.label} has "
                    f"{gpu.compute_capability}; rebuild on {gpu.label}, or run it on "
                    f"{either(gpus.named(built.compute_capability)[:4])}"
                )
                yield Result(
                    "mismatch",
                    component,
                    built.compute_capability,
                    gpu.compute_capability,
                    where,
                    message,
                )
            elif built.name and gpu.name and _model(built.name) != _model(gpu.name):
                message = (
                    f"engine was built on {built.label}, {gpu.label} is another model of the same "
                    "compute capability: TensorRT warns, and speed may differ"
                )
                yield Result("warning", component, built.name, gpu.name, where, message)
            else:
                yield Result(
                    "ok", component, built.compute_capability, gpu.compute_capability, where
                )


def _count(facts: Facts) -> Iterable[Result]:
    engine, host = facts.engine, facts.host
    if engine is None or engine.world_size is None or host is None:
        return
    if not facts.needs_gpu():
        return
    if (reason := host.reason("gpus")) is not None:
        yield Result(
            "unknown",
            "GPUs",
            str(engine.world_size),
            None,
            facts.host_where,
            f"how many GPUs there are is not known: {reason}",
        )
        return
    have, need = len(host.gpus), engine.world_size
    where = str(engine.folder)
    if have >= need:
        yield Result("ok", "GPUs", str(need), str(have), where)
    else:
        message = (
            f"the engine has {need} ranks, the host {have} GPU{'s' * (have != 1)}: one GPU a rank; "
            f"use {need} GPUs (several nodes by MPI) or build with tp x pp of {have or 'fewer'}"
        )
        yield Result("mismatch", "GPUs", str(need), str(have), where, message)


def _memory(facts: Facts) -> Iterable[Result]:
    engine, host = facts.engine, facts.host
    if engine is None or host is None or not host.gpus or not ranks(engine):
        return
    sizes = [gpu.memory_bytes for gpu in host.gpus if gpu.memory_bytes]
    need = max(rank.header.size for rank in ranks(engine))
    if not sizes:
        return
    have = min(sizes)
    status = need < have
    message = (
        f"the largest rank is {need / 1e9:.1f} GB, a GPU of the host has {have / 1e9:.1f} GB: "
        "its weights do not fit; build with more ranks or quantized"
    )
    yield Result(
        "ok" if status else "mismatch",
        "GPU memory",
        f"over {need} bytes",
        f"{have} bytes",
        str(engine.folder),
        "" if status else message,
    )


def _listed(values: list[str] | None) -> str | None:
    return " ".join(values) if values else None


def _model(name: str) -> str:
    found = gpus.find(name)
    return str(found["name"]) if found else name


_MATRIX = "NVIDIA/TensorRT-LLM docs/source/reference/support-matrix.md"

RULES = (
    Rule(
        "gpu-release",
        "A release has kernels for the compute capabilities of its support matrix.",
        (_MATRIX,),
        _supported,
    ),
    Rule(
        "gpu-precision",
        "FP8 wants Ada, Hopper or newer, FP4 Blackwell, BF16 Ampere; SmoothQuant and AWQ have "
        "their own limits, which changed over the releases.",
        (_MATRIX, "NVIDIA/TensorRT-LLM#2229", "NVIDIA/TensorRT-LLM#4599"),
        _precision,
    ),
    Rule(
        "gpu-engine",
        "An engine runs on the compute capability that it was built on; on another model of the "
        "same capability TensorRT warns. The plan itself does not say in the open where it was "
        "built: a manifest and the cluster key in config.json do.",
        ("NVIDIA/TensorRT-LLM#222", "NVIDIA/TensorRT#2900"),
        _engine_gpu,
    ),
    Rule(
        "gpu-count",
        "One GPU a rank: tp x pp GPUs over all nodes.",
        ("NVIDIA/TensorRT-LLM cpp/tensorrt_llm/runtime/worldConfig.cpp",),
        _count,
    ),
    Rule(
        "gpu-memory",
        "The plan of a rank holds its weights, all of which go to one GPU.",
        ("NVIDIA/TensorRT-LLM docs/source/reference/memory.md",),
        _memory,
    ),
)
