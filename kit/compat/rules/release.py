"""Which TensorRT-LLM each thing is of, and which Triton container serves it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit.compat.claim import claims, container, reference
from kit.compat.rule import Result, Rule, either
from kit.data import releases, triton

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.compat.claim import Claim, Subject
    from kit.compat.facts import Facts


def _subject(subject: Subject) -> Rule:
    def compare(facts: Facts) -> Iterable[Result]:
        found = claims(facts)
        mine = [claim for claim in found if claim.subject == subject]
        if mine and found[0] is not mine[0]:
            yield _held(facts, found[0], mine[0])

    name = f"{subject}-release"
    if subject == "triton":
        about = (
            "An engine is served by the container that ships exactly its TensorRT-LLM. The month "
            "that release notes name is that of the base image, not of the serving image."
        )
        return Rule(name, about, (_TRITON,), compare)
    return Rule(name, _ABOUT, (_ENGINE_CONFIG,), compare)


def _held(facts: Facts, wanted: Claim, claim: Claim) -> Result:
    component = f"{claim.subject} release"
    source = claim.source or wanted.source
    if wanted.versions is None or claim.versions is None:
        hole = claim.hole if claim.versions is None else wanted.hole
        message = f"{component}: not known: {hole}" if hole else ""
        return Result(
            "unknown", component, wanted.text, claim.text, claim.where, message, None, source
        )
    shared = set(wanted.versions) & set(claim.versions)
    if not shared:
        return Result(
            "mismatch",
            component,
            wanted.text,
            claim.text,
            claim.where,
            _advice(wanted, claim),
            _next(facts, wanted, claim),
            source,
        )
    sure = (claim.is_choice or claim.version is not None) and (
        wanted.is_choice or wanted.version is not None
    )
    return Result(
        "ok" if sure else "unknown",
        component,
        wanted.text,
        claim.text,
        claim.where,
        "",
        None,
        source,
    )


def _advice(wanted: Claim, claim: Claim) -> str:
    verb = {"triton": "ships", "image": "has"}.get(claim.subject, "is of")
    text = f"{claim.label} {verb} TensorRT-LLM {claim.text}"
    asked = wanted.subject == "release"
    text += f", not {wanted.text}" if asked else f", {wanted.label} is of {wanted.text}"
    ways = []
    if claim.subject == "triton":
        ways.append(_containers(wanted))
    public = claim.version in releases.order()
    if wanted.subject in ("engine", "manifest", "checkpoint"):
        ways.append(f"rebuild with {claim.text}" if public or claim.is_choice else "")
    elif claim.subject == "triton":
        ways.append(f"take release {claim.text}" if public else "")
    elif claim.subject in ("engine", "checkpoint"):
        ways.append(f"build it again with {wanted.text}, or use it with {claim.text}")
    else:
        ways.append(f"use one of {wanted.text}")
    said = " or ".join(way for way in ways if way)
    return f"{text}; {said}" if said else text


def _containers(wanted: Claim) -> str:
    """`use 24.11`, or which containers ship the neighbours of a release that none ships."""
    served = [month for version in wanted.versions or () for month in triton.shipping(version)]
    if served:
        return f"use {either(served)}"
    near = [
        version
        for version in releases.order()
        if wanted.version is not None and triton.shipping(version)
    ]
    close = releases.closest(wanted.version, near) if wanted.version in releases.order() else None
    if close is None:
        return ""
    month = triton.shipping(close)[-1]
    return f"no container is known to ship {wanted.text}: use {close} with {month}"


def _next(facts: Facts, wanted: Claim, claim: Claim) -> str | None:
    served = [month for version in wanted.versions or () for month in triton.shipping(version)]
    if claim.subject == "triton" and served:
        words = ["kit", "verify-compat", "--triton", served[-1]]
        words += ["--release", facts.release] if facts.release else []
        words += ["--engine", str(facts.engine.folder)] if facts.engine else []
        return shlex.join(words)
    return again(facts, claim.version if claim.subject == "image" else wanted.version)


def again(facts: Facts, release: str | None) -> str | None:
    """The command that makes the engine of a manifest again; None without a manifest."""
    if facts.manifest is None:
        return None
    stack = facts.stack.stack if facts.stack else facts.manifest.stack
    words = ["kit", "run", facts.manifest.example.name, "--stack", stack]
    words += ["--release", release or facts.manifest.release]
    words += [] if facts.manifest.gpus == "none" else ["--gpus", facts.manifest.gpus]
    return shlex.join(words)


def _tag(facts: Facts) -> Iterable[Result]:
    if facts.triton is None:
        return
    month, flavour = facts.triton.month, facts.triton.flavour
    component, where = "triton tag", facts.triton.text
    if not triton.has_tensorrt_llm(flavour):
        message = f"tritonserver:{month}-{flavour} holds no TensorRT-LLM; use {triton.image(month)}"
        yield Result(
            "mismatch",
            component,
            "trtllm-python-py3",
            flavour,
            where,
            message,
            f"kit verify-compat --triton {month}",
        )


def _branch(facts: Facts) -> Iterable[Result]:
    """Where the container's table and the branch that builds it say different things."""
    row = facts.triton.row if facts.triton else None
    branch = (row or {}).get("backend_branch") or {}
    if row is None or not branch:
        return
    wheel = branch.get("tensorrt_llm_wheel")
    pinned = branch.get("tensorrt")
    where = f"branch {branch['name']} of triton-inference-server/tensorrtllm_backend"
    if wheel and row["tensorrt_llm"] and wheel != row["tensorrt_llm"]:
        yield Result(
            "warning",
            "triton TensorRT-LLM",
            row["tensorrt_llm"],
            wheel,
            where,
            _disagree(
                container(facts).label, "TensorRT-LLM", row["tensorrt_llm"], wheel, branch["name"]
            ),
            None,
            row["source"],
        )
    if pinned and row["tensorrt"] and not pinned.startswith(row["tensorrt"]):
        yield Result(
            "warning",
            "triton TensorRT",
            row["tensorrt"],
            pinned,
            where,
            _disagree(container(facts).label, "TensorRT", row["tensorrt"], pinned, branch["name"]),
            None,
            row["source"],
        )


def _disagree(label: str, what: str, table: str, branch: str, name: str) -> str:
    return (
        f"{label}: its table says {what} {table}, branch {name} pins {branch}; "
        "look into the image itself: kit verify-compat --image"
    )


def _state(facts: Facts) -> Iterable[Result]:
    """What is to be known of a release itself: withdrawn, a preview, no engines any more."""
    version = reference(facts)
    if version is None or version not in releases.order():
        return
    where = f"release {version}"
    if releases.value(version, "yanked"):
        yield Result(
            "warning",
            "release",
            "not withdrawn",
            "yanked",
            where,
            f"release {version} was withdrawn from the package index",
            None,
            releases.fact(version, "yanked").source,
        )
    if facts.engine is not None and releases.value(version, "engine_backend") is False:
        fact = releases.fact(version, "engine_backend")
        yield Result(
            "mismatch",
            "engine backend",
            "a release that loads engines",
            version,
            where,
            f"release {version} has no engines any more; 1.2.1 is the last one that has",
            None,
            fact.source,
        )


_ABOUT = (
    "TensorRT-LLM writes its version into an engine's config.json and into the plugins of the "
    "plan; another version refuses it or misreads it. So everything that is used together is of "
    "one release. Local labels such as +rehearsal do not count here."
)
_ENGINE_CONFIG = "NVIDIA/TensorRT-LLM tensorrt_llm/builder.py, EngineConfig"
_TRITON = "triton-inference-server/server docs/introduction/compatibility.md"

RULES = (
    Rule(
        "triton-tag",
        "Only the images tritonserver:YY.MM-trtllm-python-py3 hold TensorRT-LLM.",
        (_TRITON,),
        _tag,
    ),
    _subject("engine"),
    _subject("manifest"),
    _subject("image"),
    _subject("wheel"),
    _subject("source"),
    _subject("checkpoint"),
    _subject("triton"),
    Rule(
        "triton-branch",
        "What the table of containers says, held against what the branch of the backend "
        "repository with the container's month pins.",
        (_TRITON, "triton-inference-server/tensorrtllm_backend, branch rYY.MM"),
        _branch,
    ),
    Rule(
        "release-state",
        "Releases that were withdrawn, and those without the TensorRT engine backend, which ended "
        "with 1.2.1.",
        ("PyPI: tensorrt-llm", "NVIDIA/TensorRT-LLM#15918"),
        _state,
    ),
)
