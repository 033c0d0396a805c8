"""The rules of compatibility: each compares two things, or a thing with itself.

A rule that lacks one of its two sides says nothing; one that has both but cannot tell says
`unknown`.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kit.compat.facts import REAL, REHEARSAL
from kit.data import releases
from kit.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kit.compat.facts import EngineFacts, Facts, RankHeader

Status = Literal["ok", "mismatch", "unknown", "warning"]

LAST_BUILD_PY = "0.8.0"
"""The last release in which an example's build.py writes engines (GPT; LLaMA's ended in 0.7.1)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one rule says about one component."""

    rule: str
    status: Status
    component: str
    expected: str | None
    found: str | None
    where: str
    source: str
    hint: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """A name, where the rule comes from, and the comparison."""

    name: str
    source: str
    compare: Callable[[Facts], Iterable[_Result]]

    def check(self, facts: Facts) -> list[Finding]:
        """Apply the rule; empty where it has nothing to compare."""
        return [
            Finding(
                self.name,
                result.status,
                result.component,
                result.expected,
                result.found,
                result.where,
                self.source,
                result.hint if result.status != "ok" else None,
            )
            for result in self.compare(facts)
        ]


@dataclass(frozen=True, slots=True)
class _Result:
    status: Status
    component: str
    expected: str | None
    found: str | None
    where: str
    hint: str | None = None


def _image_release(facts: Facts) -> Iterable[_Result]:
    wanted = facts.release or (facts.engine.release if facts.engine else None)
    if facts.image is None or wanted is None:
        return
    held = facts.image.releases
    status: Status = "ok" if wanted in held else ("mismatch" if held else "unknown")
    yield _Result(
        status,
        "image releases",
        wanted,
        " ".join(held) or None,
        f"labels of stack {facts.image.stack}",
        _again(facts, held[-1] if held else None),
    )


def _engine_release(facts: Facts) -> Iterable[_Result]:
    engine = facts.engine
    if engine is None or facts.release is None:
        return
    hint = _again(facts, facts.release)
    if engine.release is not None:
        status: Status = "ok" if engine.release == facts.release else "mismatch"
        yield _Result(
            status,
            "engine release",
            facts.release,
            engine.version.version,
            engine.version.where,
            hint,
        )
    elif engine.layout == "builder_config":
        possible = releases.between(facts.release, None, LAST_BUILD_PY)
        possible = possible or facts.release == LAST_BUILD_PY
        yield _Result(
            "unknown" if possible else "mismatch",
            "engine release",
            facts.release,
            f"0.5.0 to {LAST_BUILD_PY}, which of them the engine does not say",
            engine.version.where,
            hint,
        )
    else:
        yield _Result("unknown", "engine release", facts.release, None, engine.version.where, hint)


def _engine_backend(facts: Facts) -> Iterable[_Result]:
    engine = facts.engine
    if engine is None:
        return
    where = str(engine.folder)
    if facts.image is not None:
        if engine.backend is None:
            status: Status = "unknown"
        else:
            status = "ok" if engine.backend == facts.image.backend else "mismatch"
        yield _Result(
            status,
            "engine backend",
            facts.image.backend,
            engine.backend,
            where,
            _again(facts, engine.release),
        )
    elif engine.backend == REHEARSAL:
        yield _Result(
            "warning",
            "engine backend",
            REAL,
            REHEARSAL,
            where,
            shlex.join(["kit", "verify-compat", "--stack", REHEARSAL, "--engine", where]),
        )


def _engine_ranks(facts: Facts) -> Iterable[_Result]:
    engine = facts.engine
    if engine is None:
        return
    ranks = [header.rank for header in engine.headers]
    hint = _again(facts, engine.release)
    expected = None if engine.world_size is None else f"{engine.world_size} rank files"
    found = f"{len(ranks)} rank files"
    if expected is None:
        yield _Result("unknown" if ranks else "mismatch", "engine ranks", expected, found,
                      str(engine.folder), hint)  # fmt: skip
        return
    complete = ranks == list(range(engine.world_size or 0))
    if len(ranks) == engine.world_size and not complete:
        found = f"ranks {', '.join(map(str, ranks))}"
    yield _Result(
        "ok" if complete else "mismatch",
        "engine ranks",
        expected,
        found,
        str(engine.folder),
        hint,
    )


def _engine_headers(facts: Facts) -> Iterable[_Result]:
    engine = facts.engine
    if engine is None:
        return
    hint = _again(facts, engine.release)
    for header in engine.headers:
        where = str(engine.folder / header.file)
        component = f"engine rank {header.rank}"
        if header.backend is None:
            yield _Result("mismatch", component, f"{REAL} plan or {REHEARSAL} engine",
                          "neither", where, hint)  # fmt: skip
        elif header.version is None:
            yield _Result("unknown", component, "a version in the header", None, where, hint)
        elif header.backend == REHEARSAL:
            yield _known(component, engine.release, header.version, where, hint)
            if header.says is not None:
                yield _place(header, header.says, engine.world_size, where, hint)
        else:
            yield from _tensorrt(facts, engine, header.version, component, where)


def _place(
    header: RankHeader, says: tuple[int, int], world_size: int | None, where: str, hint: str
) -> _Result:
    """Whether a rank file says that it is the rank of its name, in a world of this size."""
    component = f"engine rank {header.rank} place"
    found = f"rank {says[0]} of {says[1]}"
    if world_size is None and says[0] == header.rank:
        return _Result("unknown", component, None, found, where, hint)
    size = "" if world_size is None else f" of {world_size}"
    return _same(component, f"rank {header.rank}{size}", found, where, hint)


def _tensorrt(
    facts: Facts, engine: EngineFacts, version: str, component: str, where: str
) -> Iterable[_Result]:
    first = engine.headers[0].version
    if version != first:
        yield _Result("mismatch", component, f"TensorRT {first}", f"TensorRT {version}", where,
                      _again(facts, engine.release))  # fmt: skip
    elif facts.image is not None:
        have = facts.image.tensorrt
        # A header has four numbers, the library says three.
        fits = have is not None and version.split(".")[:3] == have.split(".")[:3]
        yield _Result(
            "unknown" if have is None else ("ok" if fits else "mismatch"),
            component,
            None if have is None else f"TensorRT {have}",
            f"TensorRT {version}",
            where,
            _again(facts, engine.release),
        )
    else:
        yield _Result("ok", component, f"TensorRT {first}", f"TensorRT {version}", where)


def _engine_manifest(facts: Facts) -> Iterable[_Result]:
    engine, manifest = facts.engine, facts.manifest
    if engine is None or manifest is None:
        return
    hint = shlex.join(["kit", "manifest", "verify", facts.manifest_path])
    wanted = {
        artifact.path.removeprefix("engine/"): artifact for artifact in manifest.select("engine")
    }
    present = {
        path.relative_to(engine.folder).as_posix(): path
        for path in sorted(engine.folder.rglob("*"))
        if path.is_file() and path.suffix != ".cache"
    }
    for name in sorted({*wanted, *present}):
        expected = wanted[name].sha256 if name in wanted else None
        found = Digest.of_file(present[name]).hex if name in present else None
        yield _same(f"engine file {name}", expected, found, str(engine.folder / name), hint)


def _manifest_release(facts: Facts) -> Iterable[_Result]:
    if facts.manifest is None:
        return
    hint = shlex.join(["kit", "manifest", "show", facts.manifest_path])
    if facts.release is not None:
        yield _same("manifest release", facts.release, facts.manifest.release,
                    facts.manifest_path, hint)  # fmt: skip
    if facts.engine is not None and facts.engine.release is not None:
        yield _same("engine release", facts.manifest.release, facts.engine.release,
                    facts.engine.version.where, hint)  # fmt: skip


def _manifest_image(facts: Facts) -> Iterable[_Result]:
    if facts.manifest is None or facts.image is None:
        return
    yield _same(
        "image",
        facts.manifest.image.manifest_digest,
        facts.image.manifest_digest,
        f"stack {facts.image.stack}",
        _again(facts, facts.manifest.release),
    )


def _lock_image(facts: Facts) -> Iterable[_Result]:
    if facts.lock is None or facts.image is None:
        return
    yield _same(
        "image lock",
        facts.lock.digest,
        facts.image.lock or None,
        f"label of stack {facts.image.stack}",
        f"kit build {facts.image.stack}",
    )


def _lock_manifest(facts: Facts) -> Iterable[_Result]:
    if facts.lock is None or facts.manifest is None:
        return
    yield _same(
        "lock", facts.manifest.lock, facts.lock.digest, facts.lock.path,
        shlex.join(["kit", "manifest", "verify", facts.manifest_path]),
    )  # fmt: skip


def _again(facts: Facts, release: str | None) -> str:
    """The command that makes the engine again, or one that lists the examples to choose from."""
    if facts.manifest is None:
        return "kit example list"
    stack = facts.image.stack if facts.image else facts.manifest.stack
    words = ["kit", "run", facts.manifest.example.name, "--stack", stack]
    words += ["--release", release or facts.manifest.release]
    words += [] if facts.manifest.gpus == "none" else ["--gpus", facts.manifest.gpus]
    return shlex.join(words)


def _known(component: str, expected: str | None, found: str, where: str, hint: str) -> _Result:
    """Like `_same`, but without an expectation there is nothing to tell."""
    if expected is None:
        return _Result("unknown", component, None, found, where, hint)
    return _same(component, expected, found, where, hint)


def _same(
    component: str, expected: str | None, found: str | None, where: str, hint: str
) -> _Result:
    return _Result(
        "ok" if expected == found else "mismatch", component, expected, found, where, hint
    )


_KIT = "kit: what a stack's image and a run's manifest record"
_CONFIG = "config.json of the engine: tensorrt_llm/builder.py, EngineConfig"
_PLAN = "plan header: NVIDIA/TensorRT samples/common/sampleEngines.cpp, printPlanVersion"

RULES = (
    Rule("image-release", _KIT, _image_release),
    Rule("engine-release", _CONFIG, _engine_release),
    Rule("engine-backend", _CONFIG, _engine_backend),
    Rule("engine-ranks", _CONFIG, _engine_ranks),
    Rule("engine-headers", _PLAN, _engine_headers),
    Rule("engine-manifest", _KIT, _engine_manifest),
    Rule("manifest-release", _KIT, _manifest_release),
    Rule("manifest-image", _KIT, _manifest_image),
    Rule("lock-image", _KIT, _lock_image),
    Rule("lock-manifest", _KIT, _lock_manifest),
)
"""All rules, the ones that name a wrong release or backend first."""
