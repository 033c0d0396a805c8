"""A Triton model repository against itself, the engine, and the container that serves it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.compat.claim import reference
from kit.compat.facts import ENCODER
from kit.compat.loader import serving
from kit.compat.rule import Result, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kit.artifacts.problem import Problem
    from kit.compat.facts import Facts
    from kit.compat.rule import Status

_UNDECIDED = frozenset({"path-unreachable", "models-unknown"})
_VISIBLE = frozenset({"parameter-unknown", "parameter-missing"})
"""Problems that the backend passes over or has a default for."""
_FATAL = re.compile(r"does not load|\bfails?\b|not found")
"""What the table of placeholders says of one that keeps a model from loading or answering."""


def _whole(facts: Facts) -> Iterable[Result]:
    repository = facts.repository
    if repository is None:
        return
    where = str(repository.folder)
    for problem in repository.problems:
        status: Status = "mismatch"
        if problem.name in _UNDECIDED:
            status = "unknown"
        elif problem.name in _VISIBLE or _is_bearable(problem):
            status = "warning"
        component = f"repository {problem.name.replace('-', ' ')}"
        yield Result(
            status, component, None, problem.message, where, problem.message, f"kit inspect {where}"
        )
    if all(item.name in _VISIBLE or _is_bearable(item) for item in repository.problems):
        names = ", ".join(model.name for model in repository.models)
        yield Result("ok", "repository", "no placeholder, path or model missing", names, where)


def _is_bearable(problem: Problem) -> bool:
    """Whether it is a placeholder that the backend reads as not set, as the table says of it.

    The backend's own fill_template.py leaves most of them where only what is needed is filled in.
    """
    if problem.name != "placeholder-left":
        return False
    effect = problem.message.partition(" is left: ")[2]
    return bool(effect) and _FATAL.search(effect) is None


def _version(facts: Facts) -> Iterable[Result]:
    """The names in config.pbtxt fit some versions of the backend; the release's is among them."""
    repository, release = facts.repository, reference(facts)
    if repository is None or release is None or not repository.match.versions:
        return
    versions, where = list(repository.match.versions), str(repository.folder)
    base = release.partition(".post")[0]
    text = versions[0] if len(versions) == 1 else f"{versions[0]} to {versions[-1]}"
    if base in versions:
        yield Result("ok", "repository backend", base, text, where)
        return
    exact = repository.match.is_exact
    served = serving(versions)
    message = (
        f"the names in {where} are those of backend {text}, not of {release}: take the model "
        f"repository of {release}"
    )
    message += f", or serve with tritonserver:{served[-1]}" if served else ""
    # Only a repository whose every name fits can be told to be another version's.
    yield Result(
        "mismatch" if exact else "unknown", "repository backend", base, text, where, message
    )


def _engine(facts: Facts) -> Iterable[Result]:
    """The engine that the repository names is the one that is held against it."""
    repository, engine = facts.repository, facts.engine
    if repository is None or engine is None:
        return
    parts = {part.folder.name: str(part.folder) for part in engine.parts}
    for named in repository.engines:
        if named.parameter == ENCODER and "encoder" not in parts:
            continue  # beside the engine that was named, and another one
        part = "encoder" if named.parameter == ENCODER else "decoder"
        folder = parts.get(part, str(engine.folder))
        component, where = f"repository {named.model} {named.parameter}", str(repository.folder)
        if named.resolved is None:
            yield Result(
                "unknown",
                component,
                folder,
                named.value,
                where,
                f"{named.value} is a path inside the container: mount {folder} there",
            )
        elif not named.resolved.samefile(folder):
            yield Result(
                "warning",
                component,
                folder,
                str(named.resolved),
                where,
                f"{where} serves {named.resolved}, not {folder}",
            )
        else:
            yield Result("ok", component, folder, str(named.resolved), where)


def _limits(facts: Facts) -> Iterable[Result]:
    """Triton's batch size does not go beyond the engine's."""
    repository, engine = facts.repository, facts.engine
    if repository is None or engine is None:
        return
    most = engine.config.limits.max_batch_size
    for model in repository.models:
        have = model.max_batch_size
        if model.role != "tensorrt_llm" or have is None or most is None:
            continue
        fits = have <= most
        message = (
            f"{model.name} takes batches of {have}, the engine was built for {most}: "
            f"set max_batch_size to {most} or build with --max_batch_size {have}"
        )
        yield Result(
            "ok" if fits else "mismatch",
            f"repository {model.name} batch",
            f"at most {most}",
            str(have),
            str(repository.folder),
            "" if fits else message,
        )


_BACKEND = "triton-inference-server/tensorrtllm_backend all_models/inflight_batcher_llm"

RULES = (
    Rule(
        "repository",
        "Every placeholder is filled in, every model that is called is there with a version "
        "folder, and every path leads to an engine or a tokenizer.",
        (_BACKEND,),
        _whole,
    ),
    Rule(
        "repository-version",
        "Names of parameters and tensors change between versions of the backend; a repository "
        "belongs to the container of its version.",
        (_BACKEND,),
        _version,
    ),
    Rule(
        "repository-engine",
        "The repository serves the engine that it is held against.",
        (_BACKEND,),
        _engine,
    ),
    Rule(
        "repository-limits",
        "Requests are batched up to max_batch_size of config.pbtxt; the engine takes no more than "
        "it was built for.",
        (_BACKEND,),
        _limits,
    ),
)
