"""An engine directory or a checkpoint held against itself: backend, files, sizes that divide."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit.compat.claim import AFTER_BUILD_PY, FIRST_TRTLLM_BUILD, bare, reference
from kit.compat.facts import REAL, REHEARSAL, place_of
from kit.compat.rule import Result, Rule
from kit.compat.rules.release import again
from kit.data import releases

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kit.artifacts.engine import EngineDirectory
    from kit.artifacts.problem import Problem
    from kit.compat.facts import Facts
    from kit.compat.rule import Status

_UNDECIDED = frozenset({"config-unknown", "quantization-unknown"})
"""Problems that leave something open rather than being wrong."""
_ELSEWHERE = frozenset({"rank-missing", "ranks-differ"})
"""Problems that a finding of their own says better."""
_OF_ALL_PARTS = "parts-differ"
_SHOWN = 4


def _backend(facts: Facts) -> Iterable[Result]:
    engine = facts.engine
    if engine is None:
        return
    where, component = str(engine.folder), "engine backend"
    if facts.stack is not None:
        if engine.backend is None:
            yield Result("unknown", component, facts.stack.backend, None, where)
            return
        status: Status = "ok" if engine.backend == facts.stack.backend else "mismatch"
        yield Result(
            status,
            component,
            facts.stack.backend,
            engine.backend,
            where,
            "",
            again(facts, bare(engine.release or "") or None),
        )
    elif engine.backend == REHEARSAL:
        real = facts.triton is not None or facts.image is not None
        message = (
            "this is a rehearsal engine: only the rehearsal stack loads it, nothing of NVIDIA's"
        )
        hint = shlex.join(["kit", "verify-compat", "--stack", REHEARSAL, "--engine", where])
        yield Result(
            "mismatch" if real else "warning", component, REAL, REHEARSAL, where, message, hint
        )


def _files(facts: Facts) -> Iterable[Result]:
    if facts.engine is not None:
        yield from _of(facts, facts.engine)


def _of(facts: Facts, engine: EngineDirectory) -> Iterator[Result]:
    where, release = str(engine.folder), bare(engine.release or "") or None
    hint = again(facts, release)
    for part in engine.parts:
        yield from _of(facts, part)
    if not engine.parts:
        yield from _counted(engine, where, hint)
    # A folder of parts repeats the problems of each.
    told = [item for item in engine.problems if not engine.parts or item.name == _OF_ALL_PARTS]
    told = [problem for problem in told if problem.name not in _ELSEWHERE]
    yield from _problems("engine", told, where, hint)
    for rank in engine.ranks:
        said = rank.header.rehearsal
        place = str(place_of(engine, rank))
        component = f"engine rank {rank.rank}"
        if rank.header.problem is not None:
            continue  # one of the directory's own problems
        if said is not None and said.release != release:
            status: Status = "unknown" if release is None else "mismatch"
            yield Result(status, component, release, said.release, place, "", hint)
        elif rank.header.backend == REAL and rank.header.tensorrt is None:
            yield Result("unknown", component, "a TensorRT version in the header", None, place)


def _counted(engine: EngineDirectory, where: str, hint: str | None) -> Iterator[Result]:
    have = len(engine.ranks)
    found = f"{have} rank file{'s' * (have != 1)}"
    if engine.world_size is None:
        message = f"{where}: how many ranks there have to be is not recorded"
        yield Result("unknown" if have else "mismatch", "engine ranks", None, found, where, message)
        return
    expected = f"{engine.world_size} rank file{'s' * (engine.world_size != 1)}"
    sizes = engine.parallelism
    if engine.missing:
        gone = ", ".join(engine.missing[:_SHOWN]) + " …" * (len(engine.missing) > _SHOWN)
        message = (
            f"{where}: tp {sizes.tp} x pp {sizes.pp} makes {expected}, {gone} is missing; "
            "copy all ranks, or build again"
        )
        yield Result(
            "mismatch", "engine ranks", expected, f"{found}, {gone} missing", where, message, hint
        )
    elif have == engine.world_size:
        yield Result("ok", "engine ranks", expected, found, where)


def _problems(
    subject: str, problems: Iterable[Problem], where: str, hint: str | None
) -> Iterator[Result]:
    for problem in problems:
        status: Status = "unknown" if problem.name in _UNDECIDED else "mismatch"
        component = f"{subject} {problem.name.replace('-', ' ')}"
        yield Result(status, component, None, problem.message, where, problem.message, hint)


def _heads(facts: Facts) -> Iterable[Result]:
    if facts.engine is not None:
        engine = facts.engine
        yield from _divide(
            "engine", engine.heads, engine.kv_heads, engine.parallelism.tp, str(engine.folder)
        )
    if facts.checkpoint is not None:
        found = facts.checkpoint
        yield from _divide(
            "checkpoint", found.heads, found.kv_heads, found.parallelism.tp, str(found.folder)
        )


def _divide(
    subject: str, heads: int | None, kv_heads: int | None, tp: int | None, where: str
) -> Iterator[Result]:
    if tp is None or tp == 1 or heads is None:
        return
    component = f"{subject} heads"
    if heads % tp:
        message = f"{heads} attention heads do not divide by tp {tp}; choose a tp that divides them"
        yield Result("mismatch", component, f"a multiple of {tp}", str(heads), where, message)
    elif kv_heads is not None and kv_heads % tp and tp % kv_heads:
        message = (
            f"{kv_heads} key-value heads neither divide by tp {tp} nor go into it; "
            "choose a tp that divides them or a multiple of them"
        )
        yield Result(
            "mismatch", component, f"a multiple or a divisor of {tp}", str(kv_heads), where, message
        )
    else:
        yield Result("ok", component, f"divisible by tp {tp}", f"{heads}, {kv_heads} kv", where)


def _checkpoint(facts: Facts) -> Iterable[Result]:
    checkpoint, engine = facts.checkpoint, facts.engine
    if checkpoint is None:
        return
    where = str(checkpoint.folder)
    yield from _problems("checkpoint", checkpoint.problems, where, None)
    if not checkpoint.problems:
        size = checkpoint.parallelism.world_size
        yield Result(
            "unknown" if size is None else "ok",
            "checkpoint ranks",
            None if size is None else str(size),
            # The old layout has a file for each tensor and rank, and all are there.
            str(len(checkpoint.ranks) if checkpoint.layout == "unified" else size),
            where,
        )
    if engine is None:
        return
    pairs = (
        ("tp", checkpoint.parallelism.tp, engine.parallelism.tp),
        ("pp", checkpoint.parallelism.pp, engine.parallelism.pp),
        ("architecture", checkpoint.architecture, engine.architecture),
        ("dtype", checkpoint.dtype, engine.dtype),
        ("heads", checkpoint.heads, engine.heads),
    )
    for name, wanted, have in pairs:
        if wanted is None or have is None:
            continue
        message = f"the checkpoint has {name} {wanted}, the engine {have}: not built from it"
        same = wanted == have
        yield Result(
            "ok" if same else "mismatch",
            f"checkpoint {name}",
            str(wanted),
            str(have),
            str(engine.folder),
            "" if same else message,
        )


def _layout(facts: Facts) -> Iterable[Result]:
    """Whether the release builds from checkpoints of that era; most do not say their release."""
    checkpoint, release = facts.checkpoint, reference(facts)
    if checkpoint is None or checkpoint.release is not None:
        return
    component, where = "checkpoint layout", str(checkpoint.folder)
    if release not in releases.order():
        if release is not None or any((facts.triton, facts.image, facts.engine)):
            told = f"release {release} is in no table" if release else "the release is not known"
            message = f"whether it builds from a checkpoint of layout {checkpoint.layout}: {told}"
            yield Result("unknown", component, None, checkpoint.layout, where, message)
        return
    if checkpoint.layout == "ft":
        fits = releases.between(release, None, AFTER_BUILD_PY)
        wanted, other = "config.json and rank*.safetensors", f"a release before {AFTER_BUILD_PY}"
    else:
        fits = releases.between(release, FIRST_TRTLLM_BUILD, None)
        wanted, other = "config.ini and model.*.bin", f"release {FIRST_TRTLLM_BUILD} or later"
    if releases.value(release, "engine_backend") is False:
        message = f"release {release} builds no engines, and so reads no checkpoint"
        yield Result("mismatch", component, None, checkpoint.layout, where, message)
    elif fits:
        yield Result("ok", component, checkpoint.layout, checkpoint.layout, where)
    else:
        message = (
            f"release {release} does not build from a checkpoint of this layout: convert the model "
            f"again with its own script ({wanted}), or use it with {other}"
        )
        yield Result("mismatch", component, wanted, checkpoint.layout, where, message)


_CONFIG = "NVIDIA/TensorRT-LLM tensorrt_llm/builder.py, EngineConfig"
_WORLD = "NVIDIA/TensorRT-LLM cpp/tensorrt_llm/runtime/worldConfig.cpp"
_MAPPING = "NVIDIA/TensorRT-LLM tensorrt_llm/mapping.py"

RULES = (
    Rule(
        "engine-backend",
        "A rehearsal engine is never taken for the real thing, nor the other way round.",
        ("kit: the rehearsal's label and header",),
        _backend,
    ),
    Rule(
        "engine-files",
        "An engine has one file a rank, tp x pp of them, named as its release names them "
        "(rank0.engine; gpt_float16_tp2_rank0.engine before trtllm-build), each a whole plan.",
        (_CONFIG, _WORLD),
        _files,
    ),
    Rule(
        "heads",
        "Attention heads divide by tp; key-value heads divide by it or are copied to tp ranks.",
        (_MAPPING,),
        _heads,
    ),
    Rule(
        "checkpoint-layout",
        "trtllm-build, from 0.7.0 on, reads config.json and rank*.safetensors; the build.py of the "
        "GPT and LLaMA examples, up to 0.8.0, config.ini and a file for each tensor.",
        ("NVIDIA/TensorRT-LLM examples/gpt/build.py, setup.py of the releases",),
        _layout,
    ),
    Rule(
        "checkpoint",
        "A checkpoint has one file a rank, tp x pp of them, and the engine built from it has the "
        "same sizes.",
        (_CONFIG, _MAPPING),
        _checkpoint,
    ),
)
