"""Which TensorRT-LLM each thing is of, and which Triton container serves it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit.compat.claim import claims, reference
from kit.compat.loader import serving
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
    unsure = wanted.is_unsure or claim.is_unsure
    return Result(
        "unknown" if unsure else "ok",
        component,
        wanted.text,
        claim.text,
        claim.where,
        f"{component}: {_sides(wanted, claim)}" if unsure else "",
        None,
        source,
    )


def _sides(wanted: Claim, claim: Claim) -> str:
    text = f"{claim.label} {_VERBS.get(claim.subject, 'is of')} TensorRT-LLM {claim.telling}"
    if wanted.subject == "release":
        return text
    return f"{text}, {wanted.label} {_VERBS.get(wanted.subject, 'is of')} {wanted.telling}"


def _advice(wanted: Claim, claim: Claim) -> str:
    text = _sides(wanted, claim)
    text += f", not {wanted.telling}" if wanted.subject == "release" else ""
    ways = []
    if claim.subject == "triton":
        ways.append(_containers(wanted))
    public = claim.version in releases.order()
    if wanted.subject in ("engine", "manifest", "checkpoint"):
        ways.append(f"rebuild with {claim.telling}" if public or claim.is_choice else "")
    elif claim.subject == "triton":
        # The nearest release that any container ships may be the very one that is here.
        named = f": use {claim.text} with " in ways[0]
        ways.append(f"take release {claim.text}" if public and not named else "")
    elif claim.subject in ("engine", "checkpoint"):
        ways.append(f"build it again with {wanted.telling}" if _builds(wanted) else "")
        ways.append(f"use it with {'its own release' if claim.is_unsure else claim.telling}")
    else:
        ways.append(f"take {_NOUNS.get(claim.subject, 'one')} of {wanted.telling}")
    said = " or ".join(way for way in ways if way)
    return f"{text}; {said}" if said else text


def _builds(claim: Claim) -> bool:
    """Whether any of its releases still builds engines, as far as that is known."""
    known = [version for version in claim.versions or () if version in releases.order()]
    return not known or any(
        releases.value(version, "engine_backend") is not False for version in known
    )


def _containers(wanted: Claim) -> str:
    """`use 24.11`, or which containers ship the neighbours of a release that none ships."""
    if served := serving(wanted.versions or ()):
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
    served = serving(wanted.versions or ())
    if claim.subject == "triton" and served:
        named = {
            "--release": facts.release,
            "--engine": facts.engine and facts.engine.folder,
            "--checkpoint": facts.checkpoint and facts.checkpoint.folder,
            "--image": facts.image and facts.image.reference,
            "--source": facts.source and facts.source.folder,
            "--wheel": facts.wheel and facts.wheel.path,
        }
        words = ["kit", "verify-compat", "--triton", served[-1]]
        for option, value in named.items():
            words += [option, str(value)] if value else []
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
    elif triton.row(month) is None:
        known = triton.containers()
        message = f"tritonserver:{month} is in no table: it holds {known[0]} to {known[-1]}"
        yield Result("unknown", component, None, month, where, message)


def _branch(facts: Facts) -> Iterable[Result]:
    """Where the container's table and the branch that builds it say different things."""
    row = facts.triton.row if facts.triton else None
    branch = (row or {}).get("backend_branch") or {}
    if facts.triton is None or row is None or not branch:
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
                facts.triton.month, "TensorRT-LLM", row["tensorrt_llm"], wheel, branch["name"]
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
            _disagree(facts.triton.month, "TensorRT", row["tensorrt"], pinned, branch["name"]),
            None,
            row["source"],
        )


def _disagree(month: str, what: str, table: str, branch: str, name: str) -> str:
    return (
        f"tritonserver:{month}: its table says {what} {table}, branch {name} pins {branch}; "
        f"look into the image itself: kit verify-compat --image {triton.image(month)}"
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


_VERBS: dict[Subject, str] = {"triton": "ships", "image": "has"}
_NOUNS: dict[Subject, str] = {
    "image": "an image",
    "wheel": "the wheel",
    "source": "the checkout",
    "lock": "a lock",
}

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
    _subject("lock"),
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
