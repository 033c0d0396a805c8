"""Which TensorRT built the plan, and which one loads it: exactly the same, or it is refused."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.compat.claim import claims, reference
from kit.compat.claim import container as container_claim
from kit.compat.facts import place_of, tensorrt_of
from kit.compat.rule import Result, Rule, either
from kit.compat.rules.release import again
from kit.data import releases, triton
from kit.data import tensorrt as table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.compat.facts import Facts


@dataclass(frozen=True, slots=True)
class Loader:
    """Something that loads plans.

    Attributes:
        component: what a finding calls it.
        label: what a sentence calls it.
        versions: what it may have; several when sources disagree; empty where nothing is known.
        where: its place.
        source: where that was read, or None.
        hole: why nothing is known.
    """

    component: str
    label: str
    versions: tuple[str, ...]
    where: str
    source: str | None = None
    hole: str | None = None


def of_container(month: str) -> Loader:
    """The TensorRT of a Triton container: what the table says, made exact by its release.

    The table often has three numbers or none; TensorRT-LLM of the container's release pins four.
    Where both contradict each other, both stand.
    """
    row = triton.row(month)
    label = f"tritonserver:{month}"
    if row is None:
        return Loader("triton TensorRT", label, (), label, None, "the table has no such container")
    stated, shipped = row["tensorrt"], row["tensorrt_llm"]
    pinned = None
    if shipped in releases.order():
        pinned = releases.fact(shipped, "tensorrt")
    if pinned is None or pinned.value is None:
        hole = None if stated else triton.hole(month, "tensorrt")
        found = (stated,) if stated else ()
        return Loader("triton TensorRT", label, found, label, row["source"], hole)
    if stated is None or table.same(stated, pinned.value) is not False:
        source = f"{row['source']}; release {shipped}: {pinned.source}"
        return Loader("triton TensorRT", label, (pinned.value,), label, source)
    return Loader("triton TensorRT", label, (stated, pinned.value), label, row["source"])


def loading(version: str) -> list[str]:
    """The containers that load plans of exactly this TensorRT, oldest first."""
    return [
        month
        for month in triton.containers()
        if [table.same(have, version) for have in of_container(month).versions] == [True]
    ]


def _loaders(facts: Facts) -> list[Loader]:
    found = []
    if facts.triton is not None and facts.triton.row is not None:
        found.append(of_container(facts.triton.month))
    if facts.stack is not None:
        have = facts.stack.tensorrt
        label = f"the image of stack {facts.stack.stack}"
        found.append(
            Loader(
                "image TensorRT",
                label,
                (have,) if have else (),
                label,
                "probe",
                "the image was not probed yet",
            )
        )
    if facts.image is not None:
        label = f"image {facts.image.reference}"
        found.append(
            Loader(
                "image TensorRT",
                label,
                facts.image.versions("tensorrt"),
                facts.image.reference,
                "seen in the image",
                "no TensorRT was seen in it",
            )
        )
    return found


def _plan(facts: Facts) -> Iterable[Result]:
    built = tensorrt_of(facts.engine) if facts.engine else None
    for loader in _loaders(facts) if built else ():
        yield _loads(facts, built or "", loader)


def _loads(facts: Facts, built: str, loader: Loader) -> Result:
    told = " or ".join(loader.versions) or None
    agree = {table.same(have, built) for have in loader.versions}
    if agree not in ({True}, {False}):
        message = f"whether {loader.label} loads TensorRT {built} is not known"
        message += f": {loader.hole}" if loader.hole and not agree else ""
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
    """Containers that load a plan; those of the engine's release alone where that is known."""
    served = loading(built)
    mine = [month for month in served if month in triton.shipping(reference(facts) or "")]
    return mine or served


def _next(facts: Facts, served: list[str]) -> str | None:
    if served and facts.engine is not None:
        words = ["kit", "verify-compat", "--engine", str(facts.engine.folder)]
        return shlex.join([*words, "--triton", served[-1]])
    return again(facts, None)


def _ranks(facts: Facts) -> Iterable[Result]:
    """Every rank was built by the same TensorRT."""
    engine = facts.engine
    for part in (engine, *engine.parts) if engine else ():
        first = tensorrt_of(part)
        for rank in part.ranks:
            have = rank.header.tensorrt
            if have is None or have == first:
                continue
            where = str(place_of(part, rank))
            message = (
                f"{rank.file} was built by TensorRT {have}, the other ranks by {first}: "
                "files of two builds; build all ranks again"
            )
            yield Result(
                "mismatch",
                f"engine rank {rank.rank}",
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
    seen = [loader for loader in _loaders(facts) if loader.component == "image TensorRT"]
    built = tensorrt_of(engine) if engine else None
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
            message += f"; {either(others)} has {built}" if others else ""
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
    release = reference(facts)
    others = any(claim.subject != "triton" and claim.versions for claim in claims(facts))
    if month is None or facts.engine is not None or not others or release not in releases.order():
        return
    pin = releases.fact(release, "tensorrt")
    loader = of_container(month)
    if pin.value is None or not loader.versions:
        return
    told = " or ".join(loader.versions)
    agree = {table.same(have, pin.value) for have in loader.versions}
    if agree == {True} or None in agree:
        status: str = "ok" if agree == {True} else "unknown"
        yield Result(
            "ok" if status == "ok" else "unknown",
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
        served = triton.shipping(release) or loading(pin.value)
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
        "tensorrt-plan",
        "A plan loads only in exactly the TensorRT that built it, all four numbers; the same "
        "serialization tag is not enough, and TensorRT-LLM sets no version-compatible flag. Bytes "
        "24 to 27 of a plan say what built it.",
        (_HEADER, *_EXACT),
        _plan,
    ),
    Rule(
        "tensorrt-ranks",
        "The plans of all ranks come from one build.",
        (_HEADER,),
        _ranks,
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
