"""Which GPUs a release builds for, which precisions they carry, and on which one an engine runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.compat.claim import claims, reference
from kit.compat.facts import ranks
from kit.compat.rule import Result, Rule, either
from kit.data import covers, gpus, releases

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.compat.facts import Facts, GpuFacts
    from kit.compat.rule import Status

_SUPPORTED = "compute_capabilities_supported"
_RUNNING = frozenset({"engine", "image", "triton", "manifest"})
_BASE = frozenset({"fp32", "fp16", "bf16"})


def _supported(facts: Facts) -> Iterable[Result]:
    release = reference(facts)
    if release is None or release not in releases.order():
        yield from _untold(facts, release)
        return
    fact = releases.fact(release, _SUPPORTED)
    for gpu in facts.target_gpus():
        capability, component = gpu.compute_capability, f"GPU {gpu.label}"
        if capability is None or fact.value is None:
            message = (gpu.hole if capability is None else fact.hole) or "not known"
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
            for version in releases.order()
            if releases.kind(version) != "preview"
            and not releases.value(version, "yanked")
            and capability in (releases.value(version, _SUPPORTED) or ())
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


def _untold(facts: Facts, release: str | None) -> Iterable[Result]:
    """A release that nobody named, or that no table has: nobody knows its GPUs."""
    if release is None and not any(claim.subject in _RUNNING for claim in claims(facts)):
        return
    told = f"release {release} is in no table" if release else "the release is not known"
    for gpu in facts.target_gpus():
        component = f"GPU {gpu.label}"
        message = f"{component}: {told}, nor are its GPUs"
        yield Result("unknown", component, None, gpu.compute_capability, gpu.where, message)


def _precision(facts: Facts) -> Iterable[Result]:
    # A post release carries what its release does, and no table lists it apart.
    release = (reference(facts) or "").partition(".post")[0] or None
    wanted: list[tuple[str, str]] = []
    if facts.engine is not None:
        wanted += [(name, str(facts.engine.folder)) for name in sorted(facts.engine.precisions)]
    if facts.checkpoint is not None:
        folder = str(facts.checkpoint.folder)
        wanted += [(name, folder) for name in sorted(facts.checkpoint.precisions)]
    able = releases.value(release, _SUPPORTED) if release in releases.order() else None
    for gpu in facts.target_gpus():
        if able is not None and gpu.compute_capability not in (None, *able):
            continue  # the release does not run there at all, which a rule of its own says
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
    able = releases.value(release, _SUPPORTED) if release else None
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
                    _unknown_pair(built, gpu),
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


def _named(facts: Facts) -> Iterable[Result]:
    """The GPU that was named is one of the host's."""
    named, host = facts.gpu, facts.host
    if named is None or host is None:
        return
    component, where = "GPU of the host", facts.host_where
    if (reason := host.reason("gpus")) is not None:
        message = f"whether {where} has {named.label} is not known: {reason}"
        yield Result("unknown", component, named.label, None, where, message)
        return
    kinds = [gpu for gpu in host.gpus if gpu.compute_capability == named.compute_capability]
    models = {_model(gpu.name) for gpu in kinds}
    have = ", ".join(dict.fromkeys(gpu.name for gpu in host.gpus)) or "no GPU"
    message = f"{named.label} was named, {where} has {have}"
    status: Status = "ok" if kinds else "mismatch"
    if kinds and named.name is not None and _model(named.name) not in models:
        status = "warning"
    yield Result(status, component, named.label, have, where, "" if status == "ok" else message)


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
    # A GPU in MIG mode without a slice runs nothing.
    have = sum(not gpu.mig or bool(gpu.slices) for gpu in host.gpus)
    need = engine.world_size
    where = str(engine.folder)
    if have >= need:
        yield Result("ok", "GPUs", str(need), str(have), where)
    else:
        message = (
            f"the engine has {_count_of(need, 'rank')}, the host {_count_of(have, 'GPU')}: "
            f"one GPU a rank; use {_count_of(need, 'GPU')}"
        )
        message += " (several nodes by MPI)" if need > 1 else ""
        message += f" or build with tp x pp of {have}" if have else ""
        yield Result("mismatch", "GPUs", str(need), str(have), where, message)


def _memory(facts: Facts) -> Iterable[Result]:
    engine, host = facts.engine, facts.host
    if engine is None or host is None or not host.gpus or not ranks(engine):
        return
    # With MIG on, a rank has one of the slices, never the GPU.
    rooms = [item for gpu in host.gpus for item in ((gpu,) if not gpu.mig else gpu.slices)]
    sizes = [room.memory_bytes for room in rooms if room.memory_bytes]
    need = max(rank.header.size for rank in ranks(engine))
    if not sizes:
        return
    have = min(sizes)
    status = need < have
    message = (
        f"the largest rank is {need / 1e9:.1f} GB, {_place(facts)} has {have / 1e9:.1f} GB: "
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


def _place(facts: Facts) -> str:
    sliced = facts.host is not None and any(gpu.mig for gpu in facts.host.gpus)
    return "the smallest MIG slice of the host" if sliced else "a GPU of the host"


def _unknown_pair(built: GpuFacts, gpu: GpuFacts) -> str:
    one = built if built.compute_capability is None else gpu
    if one is built:
        reason = f": {built.hole}" if built.hole else ""
        return f"which GPU the engine was built on is not known{reason} ({built.where})"
    return f"the compute capability of {gpu.label} is not known" + (
        f": {gpu.hole}" if gpu.hole else ""
    )


def _count_of(number: int, name: str) -> str:
    return f"{number} {name}{'s' * (number != 1)}"


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
        "gpu-host",
        "A GPU that is named beside a host is one that the host has.",
        ("kit: what the command line says, held against the host",),
        _named,
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
