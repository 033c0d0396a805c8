"""Triton model repositories: what each config.pbtxt says, and what it leaves open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from kit.artifacts import bounded, pbtxt, repository_match
from kit.artifacts.problem import Problem
from kit.artifacts.repository_match import Match, Names
from kit.data import repository as table
from kit.errors import KitError, content_error
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kit.artifacts.pbtxt import Field, Message

CONFIG = "config.pbtxt"
Role = Literal["engine", "tokenizer", "other"]

_ENGINES = frozenset({"gpt_model_path", "encoder_model_path", "engine_dir"})
_TOKENIZERS = frozenset({"tokenizer_dir"})
_BLANK = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_BARE_BLANK = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_DEEPEST = 64
_TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken", "spiece*", "merges.txt")


@dataclass(frozen=True, slots=True)
class Blank:
    """A placeholder that nobody filled in; `where` is `file:line:column`."""

    model: str
    name: str
    where: str


@dataclass(frozen=True, slots=True)
class Reference:
    """A path in a configuration.

    Attributes:
        model: whose configuration it is.
        parameter: the parameter's name.
        role: an engine, a tokenizer, or something else.
        value: as it stands there: nearly always a path inside the container.
        resolved: where it lies on this host; None if it is not reachable from here.
    """

    model: str
    parameter: str
    role: Role
    value: str
    resolved: Path | None


@dataclass(frozen=True, slots=True)
class Model:
    """One model of a repository.

    Attributes:
        name: its folder's.
        role: the model of the backend's own repository that it stands for, None for others.
        backend: `tensorrtllm`, `python`, `ensemble` …; None where it is not said or not filled in.
        max_batch_size: None where it is not said or not filled in.
        parameters: their texts by name, placeholders too.
        decoupled: of the transaction policy; None where it is not said or not filled in.
        instances: `count` of each instance group, None in it where it is not filled in.
        steps: the models that an ensemble runs.
        versions: its version folders.
        tensors: `input:NAME` and `output:NAME`.
    """

    name: str
    role: str | None
    backend: str | None
    max_batch_size: int | None
    parameters: Mapping[str, str]
    decoupled: bool | None
    instances: tuple[int | None, ...]
    steps: tuple[str, ...]
    versions: tuple[str, ...]
    tensors: frozenset[str]


@dataclass(frozen=True, slots=True)
class ModelRepository:
    """A Triton model repository.

    Attributes:
        folder: where it is.
        models: by name; those whose configuration cannot be read are left out.
        match: the versions of the backend that it fits.
        blanks: placeholders that are left.
        references: the paths in it.
        problems: what is wrong with it.
    """

    folder: Path
    models: tuple[Model, ...]
    match: Match
    blanks: tuple[Blank, ...]
    references: tuple[Reference, ...]
    problems: tuple[Problem, ...]

    @property
    def engines(self) -> tuple[Reference, ...]:
        """The engine directories that it names."""
        return tuple(item for item in self.references if item.role == "engine")

    @property
    def tokenizers(self) -> tuple[Reference, ...]:
        """The tokenizers that it names."""
        return tuple(item for item in self.references if item.role == "tokenizer")

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The version of the backend; None where the names in it fit several."""
        found = self.match.versions
        version = found[0] if len(found) == 1 else None
        how = "names in config.pbtxt"
        if len(found) > 1:
            how += f": {found[0]} to {found[-1]}"
        return (Observation("tensorrtllm_backend", version, str(self.folder), how),)


def look(folder: Path) -> ModelRepository:
    """Read a model repository.

    Raises:
        KitError: there is no such folder (exit 2), or no model in it (exit 4).
    """
    present = [name for name in bounded.names(folder) if (folder / name).is_dir()]
    read: list[tuple[Model, Message]] = []
    problems: list[Problem] = []
    for name in present:
        found = _read(folder / name)
        if isinstance(found, Problem):
            problems.append(found)
        elif found is not None:
            read.append(found)
    if not read and not problems:
        raise _no_repository(folder, present)
    models = tuple(model for model, _ in read)
    blanks = tuple(blank for model, config in read for blank in _blanks(folder, model, config))
    names = [
        Names(
            model.name,
            model.role,
            frozenset(model.parameters),
            model.tensors,
            frozenset(blank.name for blank in blanks if blank.model == model.name),
        )
        for model in models
        if model.role is not None
    ]
    match = repository_match.match(names)
    references = tuple(item for model in models for item in _references(folder, model))
    problems += _of_blanks(models, blanks, match)
    problems += _of_models(folder, models, match)
    problems += _of_parameters(folder, models, match)
    problems += _of_references(folder, references)
    return ModelRepository(folder, models, match, blanks, references, tuple(problems))


def _no_repository(folder: Path, present: list[str]) -> KitError:
    if (folder / CONFIG).is_file():
        return content_error(
            f"{folder}: one model, not a repository of models",
            hint=f"kit inspect {folder.absolute().parent}",
        )
    for name in present:
        inner = folder / name
        if any((inner / model / CONFIG).is_file() for model in bounded.names(inner)):
            return content_error(
                f"{folder}: no model repository, it holds one in {name}/",
                hint=f"kit inspect {inner}",
            )
    return content_error(f"{folder}: no model repository: no folder in it has a {CONFIG}")


def _read(folder: Path) -> tuple[Model, Message] | Problem | None:
    """A model with its configuration; None for a folder that is no model."""
    try:
        if (folder / CONFIG).is_file():
            return _model(folder)
        if _versions(folder):
            return Problem("config-missing", f"{folder}: no {CONFIG}")
    except KitError as error:
        return Problem("config-damaged", str(error), is_corrupt=True)
    return None


def _model(folder: Path) -> tuple[Model, Message]:
    path = folder / CONFIG
    content = bounded.content(path, pbtxt.SIZE_LIMIT).decode("utf-8", errors="surrogateescape")
    config = pbtxt.parse(content, str(path))
    backend = config.text("backend") or config.text("platform") or None
    backend = None if backend and _BLANK.search(backend) else backend
    policy = config.last("model_transaction_policy")
    return Model(
        name=folder.name,
        role=repository_match.role(folder.name, backend),
        backend=backend,
        max_batch_size=config.integer("max_batch_size"),
        parameters=MappingProxyType(dict(_parameters(config))),
        decoupled=policy.boolean("decoupled") if isinstance(policy, pbtxt.Message) else None,
        instances=tuple(group.integer("count") for group in config.messages("instance_group")),
        steps=tuple(
            step.text("model_name") or ""
            for scheduling in config.messages("ensemble_scheduling")
            for step in scheduling.messages("step")
        ),
        versions=_versions(folder),
        tensors=frozenset(
            f"{direction}:{tensor.text('name') or ''}"
            for direction in ("input", "output")
            for tensor in config.messages(direction)
        ),
    ), config


def _parameters(config: Message) -> Iterator[tuple[str, str]]:
    """The map `parameters`: entries of `key` and `value { string_value }`."""
    for entry in config.messages("parameters"):
        value = entry.last("value")
        text = value.text("string_value") if isinstance(value, pbtxt.Message) else None
        yield entry.text("key") or "", text or ""


def _versions(folder: Path) -> tuple[str, ...]:
    return tuple(
        name
        for name in bounded.names(folder)
        if name.isascii() and name.isdecimal() and (folder / name).is_dir()
    )


def _blanks(folder: Path, model: Model, config: Message) -> Iterator[Blank]:
    seen: set[str] = set()
    for field in config.walk():
        for name in _names(field):
            if name not in seen:
                seen.add(name)
                where = f"{folder / model.name / CONFIG}:{field.line}:{field.column}"
                yield Blank(model.name, name, where)


def _names(field: Field) -> list[str]:
    """The placeholders in a value: `${name}` anywhere, or `{name}` and nothing else."""
    if isinstance(field.value, pbtxt.Placeholder):
        return [field.value.name]
    if not isinstance(field.value, str):
        return []
    bare = _BARE_BLANK.fullmatch(field.value)
    return [bare.group(1)] if bare else _BLANK.findall(field.value)


def _references(folder: Path, model: Model) -> Iterator[Reference]:
    for name, value in model.parameters.items():
        if name not in table.paths() | _ENGINES or not value:
            continue
        if _BLANK.search(value) or _BARE_BLANK.fullmatch(value):
            continue
        kind: Role = "other"
        if name in _ENGINES:
            kind = "engine"
        elif name in _TOKENIZERS:
            kind = "tokenizer"
        yield Reference(model.name, name, kind, value, _resolved(folder, value))


def _resolved(folder: Path, value: str) -> Path | None:
    """Where the path lies here: as it stands, or with its end below the repository or beside it."""
    path = PurePosixPath(value)
    if "\0" in value or ".." in path.parts or len(path.parts) > _DEEPEST:
        return None
    here = folder.absolute()
    ends = [
        Path(*path.parts[place:])
        for place in range(1 if path.is_absolute() else 0, len(path.parts))
    ]
    candidates = [Path(value)] if path.is_absolute() else []
    candidates += [place / end for end in ends for place in (here, here.parent)]
    return next((candidate for candidate in candidates if _is_there(candidate)), None)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file can have, or a folder that may not be read
        return False


def _of_blanks(
    models: tuple[Model, ...], blanks: tuple[Blank, ...], match: Match
) -> Iterator[Problem]:
    roles = {model.name: model.role for model in models}
    for blank in blanks:
        rows = [
            row["if_left"]
            for version in match.versions[-1:]
            for row in table.placeholders(
                match.families.get(blank.model, ""), roles[blank.model] or "", version
            )
            if row["name"] == blank.name
        ]
        effect = f": {rows[0]}" if rows else ""
        yield Problem("placeholder-left", f"{blank.where}: ${{{blank.name}}} is left{effect}")


def _of_models(folder: Path, models: tuple[Model, ...], match: Match) -> Iterator[Problem]:
    by_name = {model.name: model for model in models}
    for model in models:
        where = folder / model.name
        if not model.versions:
            yield Problem("version-missing", f"{where}: no version folder: mkdir {where / '1'}")
        elif model.backend == "python":
            script = where / max(model.versions, key=int) / "model.py"
            if not script.is_file():
                yield Problem("file-missing", f"{script}: the Python backend loads that file")
        for step in model.steps:
            if step not in by_name:
                yield Problem("step-missing", f"{where}: runs a model {step!r} that is not there")
        called = model.parameters.get("tensorrt_llm_model_name", "")
        if called and not _BLANK.search(called) and called not in by_name:
            yield Problem("step-missing", f"{where}: calls a model {called!r} that is not there")
    if not match.versions:
        yield Problem("models-unknown", f"{folder}: no model of the TensorRT-LLM backend in it")
    decoupled = {
        model.name: model.decoupled
        for model in models
        if model.role in ("tensorrt_llm", "tensorrt_llm_bls") and model.decoupled is not None
    }
    if len(set(decoupled.values())) > 1:
        shown = ", ".join(f"{name} {str(value).lower()}" for name, value in decoupled.items())
        yield Problem("decoupled-differs", f"{folder}: decoupled is not the same in all: {shown}")


def _of_parameters(folder: Path, models: tuple[Model, ...], match: Match) -> Iterator[Problem]:
    for item in match.unknown:
        path = folder / item.model / CONFIG
        version = match.versions[-1]
        message = f"{path}: {version} has no parameter {item.parameter!r}: {item.why}"
        yield Problem("parameter-unknown", message)
    for model in models:
        family = match.families.get(model.name)
        if family is None or model.role is None:
            continue
        known = table.parameters(family, model.role, match.versions[-1])
        for name, row in known.items():
            if row.get("required") and name not in model.parameters:
                path = folder / model.name / CONFIG
                yield Problem("parameter-missing", f"{path}: no parameter {name!r}")


def _of_references(folder: Path, references: tuple[Reference, ...]) -> Iterator[Problem]:
    for item in references:
        where = f"{folder / item.model / CONFIG}: {item.parameter}"
        if item.resolved is None:
            shown = f"{where}: {item.value}: not reachable from here"
            yield Problem("path-unreachable", shown)
        elif item.role == "tokenizer" and not _has_tokenizer(item.resolved):
            yield Problem("tokenizer-missing", f"{where}: {item.resolved}: no tokenizer file in it")


def _has_tokenizer(folder: Path) -> bool:
    if not folder.is_dir():
        return folder.is_file()
    return any(
        PurePosixPath(name).match(pattern)
        for name in bounded.names(folder)
        for pattern in _TOKENIZER_FILES
    )
