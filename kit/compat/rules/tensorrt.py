"""Which TensorRT built the plan, and which one loads it: exactly the same, or it is refused."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit.compat.claim import claims, reference
from kit.compat.claim import container as container_claim
from kit.compat.facts import built_by, place_of
from kit.compat.loader import loaders, loading, of_container, serving
from kit.compat.rule import Result, Rule, either
from kit.compat.rules.release import again
from kit.data import releases
from kit.data import tensorrt as table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.compat.facts import Facts
    from kit.compat.loader import Loader


def _plan(facts: Facts) -> Iterable[Result]:
    for built in built_by(facts.engine) if facts.engine else ():
        for loader in loaders(facts):
            yield _loads(facts, built, loader)


def _loads(facts: Facts, built: str, loader: Loader) -> Result:
    told = " or ".join(loader.versions) or None
    agree = {table.same(have, built) for have in loader.versions}
    if agree not in ({True}, {False}):
        message = f"whether {loader.label} loads TensorRT {built} is not known"
        message += f": {loader.hole}" if loader.hole else ""
        return Result(
            "unknown", loader.component, built, told, loader.where, message, None, loader.source
        )
    if agree == {True}:
        return Result("ok", loader.component, built, told, loader.where, "", None, loader.source)
    served = _choice(facts, built)
    ways = [f"use {either(served)}"] if served else []
    ways.append(f"rebuild in {loader.label.removeprefix('tritonserver:').removeprefix('image ')}")
    message = f"engine was built by TensorRT {built}, {loader.label} loads {told}; "
    return Result(
        "mismatch",
        loader.component,
        built,
        told,
        loader.where,
        message + " or ".join(ways),
        _next(facts, served),
        loader.source,
    )


def _choice(facts: Facts, built: str) -> list[str]:
    """Containers that load a plan and ship a release that the engine may be of."""
    if facts.engine is None or len(built_by(facts.engine)) > 1:
        return []
    served = loading(built)
    wanted = next((claim.versions for claim in claims(facts) if claim.subject == "engine"), None)
    if wanted is None:
        return served
    return [month for month in serving(wanted) if month in served]


def _next(facts: Facts, served: list[str]) -> str | None:
    if served and facts.engine is not None:
        words = ["kit", "verify-compat", "--engine", str(facts.engine.folder)]
        return shlex.join([*words, "--triton", served[-1]])
    return again(facts, None)


def _ranks(facts: Facts) -> Iterable[Result]:
    """Every rank was built by the same TensorRT, those of an encoder and its decoder too."""
    engine = facts.engine
    first = next(iter(built_by(engine)), None) if engine else None
    for part in (engine, *engine.parts) if engine else ():
        name = f"{part.folder.name}/" if engine and engine.parts else ""
        for rank in part.ranks:
            have = rank.header.tensorrt
            if have is None or have == first:
                continue
            where = str(place_of(part, rank))
            message = (
                f"{name}{rank.file} was built by TensorRT {have}, other ranks by {first}: "
                "files of two builds; build all ranks again"
            )
            yield Result(
                "mismatch",
                f"engine rank {name}{rank.rank}",
                first,
                have,
                where,
                message,
                again(facts, None),
            )


def _pinned(facts: Facts) -> Iterable[Result]:
    """What was built or seen, held against what the release pins: a table is an expectation."""
    release = reference(facts)
    if release is None or release not in releases.order():
        return
    pin = releases.fact(release, "tensorrt")
    engine = facts.engine
    seen = [loader for loader in loaders(facts) if loader.component == "image TensorRT"]
    # Where several built it, that is a finding of its own.
    built = next(iter(built_by(engine)), None) if engine else None
    if engine is not None and built is not None:
        where = str(engine.folder)
        if pin.value is None:
            yield Result(
                "unknown",
                "engine TensorRT",
                None,
                built,
                where,
                f"the TensorRT of release {release} is not known: {pin.hole}",
            )
        elif table.same(built, pin.value):
            yield Result("ok", "engine TensorRT", pin.value, built, where, "", None, pin.source)
        else:
            loads = any(table.same(have, built) for loader in seen for have in loader.versions)
            others = releases.with_tensorrt(built)
            message = f"engine was built by TensorRT {built}, release {release} pins {pin.value}"
            message += f"; {either(others)} pin{'s' * (len(others) == 1)} {built}" if others else ""
            yield Result(
                "warning" if loads else "mismatch",
                "engine TensorRT",
                pin.value,
                built,
                where,
                message,
                again(facts, None),
                pin.source,
            )
    for loader in seen:
        for have in loader.versions if pin.value else ():
            if table.same(have, pin.value) is False:
                message = (
                    f"{loader.label} has TensorRT {have}, release {release} pins {pin.value}; "
                    "what the image has counts"
                )
                yield Result(
                    "warning",
                    "image TensorRT",
                    pin.value,
                    have,
                    loader.where,
                    message,
                    None,
                    pin.source,
                )


def _shipped(facts: Facts) -> Iterable[Result]:
    """A container's TensorRT against that of the release, where no engine decides."""
    month = facts.triton.month if facts.triton and facts.triton.row else None
    others = [claim.version for claim in claims(facts) if claim.subject != "triton"]
    release = next((version for version in others if version in releases.order()), None)
    if month is None or facts.engine is not None or release is None:
        return
    pin = releases.fact(release, "tensorrt")
    loader = of_container(month)
    if pin.value is None or not loader.versions:
        return
    told = " or ".join(loader.versions)
    agree = {table.same(have, pin.value) for have in loader.versions}
    if agree == {True} or None in agree:
        yield Result(
            "ok" if agree == {True} else "unknown",
            "triton TensorRT",
            pin.value,
            told,
            loader.where,
            "",
            None,
            loader.source,
        )
    elif True in agree:
        message = (
            f"{loader.label}: its table says TensorRT {loader.versions[0]}, its TensorRT-LLM "
            f"{container_claim(facts).text} pins {loader.versions[1]}; look into the image itself"
        )
        yield Result(
            "warning",
            "triton TensorRT",
            pin.value,
            told,
            loader.where,
            message,
            None,
            loader.source,
        )
    else:
        served = serving([release])
        ways = [f"use {either(served)}"] if served else []
        ways.append(f"build engines in {month}")
        message = (
            f"release {release} builds with TensorRT {pin.value}, {loader.label} loads {told}; "
            + " or ".join(ways)
        )
        yield Result(
            "mismatch",
            "triton TensorRT",
            pin.value,
            told,
            loader.where,
            message,
            None,
            loader.source,
        )


_HEADER = "plan header: NVIDIA/TensorRT samples/common/sampleEngines.cpp, printPlanVersion"
_EXACT = (
    "triton-inference-server/tensorrtllm_backend#194",
    "triton-inference-server/tensorrtllm_backend#424",
    "triton-inference-server/server#8462",
)

RULES = (
    Rule(
        "tensorrt-ranks",
        "The plans of all ranks come from one build.",
        (_HEADER,),
        _ranks,
    ),
    Rule(
        "tensorrt-plan",
        "A plan loads only in exactly the TensorRT that built it, all four numbers; the same "
        "serialization tag is not enough, and TensorRT-LLM sets no version-compatible flag. Bytes "
        "24 to 27 of a plan say what built it.",
        (_HEADER, *_EXACT),
        _plan,
    ),
    Rule(
        "tensorrt-release",
        "Each release pins the TensorRT of its image. What was built or seen counts more than the "
        "table; a difference is reported.",
        ("NVIDIA/TensorRT-LLM docker/common/install_tensorrt.sh",),
        _pinned,
    ),
    Rule(
        "tensorrt-triton",
        "The container of the serving side loads plans of the TensorRT that the release builds "
        "with.",
        ("triton-inference-server/server docs/introduction/compatibility.md", *_EXACT),
        _shipped,
    ),
)
