"""What a model repository is filled in with: what the engine says, and what a person sets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit.data import repository as table
from kit.errors import KitError, content_error, nearest, usage_error
from kit.examples import layout
from kit.examples.dialects import triton

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kit.artifacts.engine import EngineDirectory

_GIVEN = {"engine_dir": "--engine", "tokenizer_dir": "--tokenizer"}
"""Placeholders that options of their own give."""
_ESCAPES = "0.16.0"
"""The first backend whose fill_template.py lets a value hold a comma or a colon."""
_BOOLEANS = ("true", "false")
_LIMITS = {"triton_max_batch_size": "max_batch_size", "max_beam_width": "max_beam_width"}
"""Placeholders that may not go beyond what the engine was built for."""
_ALIKE = ("decoupled_mode",)
"""Placeholders that have to be the same in all models that have them."""
_PLUGINS = ("gpt_attention_plugin", "remove_input_padding", "paged_kv_cache")
"""What an engine needs for requests in flight."""


def filled(
    engine: EngineDirectory, release: str, assignments: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Every value of every model: model → placeholder → value.

    Args:
        engine: that is served.
        release: of it, and so of the backend.
        assignments: `model.parameter=value` of the command line.

    Raises:
        KitError: a model or placeholder that the version does not have, a value of another kind,
            one that another program of the repository would contradict (exit 2); one that the
            engine contradicts (exit 4).
    """
    limits = engine.limits
    if limits.max_batch_size is None or engine.world_size is None:
        raise content_error(
            f"{engine.folder}: its config.json says no max_batch_size or no world size: no engine "
            "that the backend takes",
            hint=f"kit inspect {engine.folder}",
        )
    settings = {
        **triton.unset(),
        "family": "llama" if "llama" in (engine.architecture or "").lower() else "gpt",
        "model": layout.MODEL,
        "engine": layout.ENGINE,
        "max_batch_size": limits.max_batch_size,
        "max_beam_width": limits.max_beam_width,
        "ranks": engine.world_size,
    }
    if not _takes_requests_in_flight(engine):
        settings["batching"] = "static"
    values = {
        model: dict(pair.split(":", 1) for pair in pairs)
        for model, pairs in triton.filled(settings, release).items()
        if table.placeholders(triton.FAMILY, model, release)
    }
    for text in assignments:
        model, name, value = _assignment(text, values, release)
        values[model][name] = value
    _refuse_contradictions(values, engine)
    return values


def words(values: Mapping[str, str], release: str) -> list[str]:
    """`name:value` of each, as the fill_template.py of a release reads them.

    Raises:
        KitError: a value that it cannot read (exit 2).
    """
    found = []
    for name, value in values.items():
        if any(mark in value for mark in ",:"):
            order = table.versions()
            if order.index(release) < order.index(_ESCAPES):
                raise usage_error(
                    f"{name}: {value!r} holds a comma or a colon, which fill_template.py of "
                    f"{release} takes for its own; it can be told since {_ESCAPES}"
                )
            value = value.replace(",", "\\,").replace(":", "\\:")  # noqa: PLW2901
        found.append(f"{name}:{value}")
    return found


def _assignment(
    text: str, values: Mapping[str, Mapping[str, str]], release: str
) -> tuple[str, str, str]:
    place, equals, value = text.partition("=")
    model, _, name = place.partition(".")
    if not equals or not name:
        raise usage_error(
            f"--set {text}: expected MODEL.PARAMETER=VALUE",
            hint="kit triton repository … --set tensorrt_llm.max_queue_delay_microseconds=100",
        )
    if model not in values:
        raise usage_error(
            f"--set {text}: backend {release} has no model {model!r}; {nearest(model, values)}"
        )
    rows = {row["name"]: row for row in table.placeholders(triton.FAMILY, model, release)}
    if name not in rows:
        renamed = table.renamed(model, name)
        since = (
            f"; {renamed['old']} is {renamed['new']} since {renamed['since']}" if renamed else ""
        )
        raise usage_error(
            f"--set {text}: {model} of backend {release} has no {name!r}; "
            f"{nearest(name, rows)}{since}"
        )
    if name in _GIVEN and not (model, name) == ("tensorrt_llm", "tokenizer_dir"):
        raise usage_error(f"--set {text}: {_GIVEN[name]} gives it")
    if (problem := _problem(rows[name], value)) is not None:
        raise usage_error(f"--set {text}: expected {problem}, found {value!r}")
    return model, name, value


def _problem(row: Mapping[str, Any], value: str) -> str | None:
    """What is expected instead of a value; None where it will do."""
    kind = row["kind"]
    if not value or any(sign in value for sign in '"\n\r\\$'):
        return "a text without quotation marks, backslashes and dollar signs"
    try:
        if kind == "int":
            int(value)
        elif kind == "float":
            float(value)
    except ValueError:
        return f"a number ({kind})"
    if kind == "bool" and value not in _BOOLEANS:
        return " or ".join(_BOOLEANS)
    if kind in ("enum", "tensor type") and row.get("values") and value not in row["values"]:
        return f"one of {', '.join(row['values'])}"
    return None


def _refuse_contradictions(
    values: Mapping[str, Mapping[str, str]], engine: EngineDirectory
) -> None:
    for name in _ALIKE:
        held = {model: found[name] for model, found in values.items() if name in found}
        if len(set(held.values())) > 1:
            shown = ", ".join(f"{model} {value}" for model, value in held.items())
            other = " ".join(f"--set {model}.{name}=true" for model in held)
            raise usage_error(f"{name} has to be the same in all: {shown}", hint=other)
    for name, limit in _LIMITS.items():
        most = getattr(engine.limits, limit)
        for model, found in values.items():
            if most is not None and name in found and int(found[name]) > most:
                raise _contradiction(
                    engine, f"{model}.{name} is {found[name]}, the engine has {limit} {most}"
                )
    batching = values.get("tensorrt_llm", {}).get("batching_strategy", "V1")
    if batching != "V1" and not _takes_requests_in_flight(engine):
        raise _contradiction(
            engine,
            f"batching_strategy is {batching}, which wants an engine with {', '.join(_PLUGINS)}",
        )


def _contradiction(engine: EngineDirectory, what: str) -> KitError:
    return content_error(f"{what} ({engine.folder})", hint=f"kit inspect {engine.folder}")


def _takes_requests_in_flight(engine: EngineDirectory) -> bool:
    """Whether nothing that the engine says keeps requests from being put together in flight."""
    return all(bool(engine.plugins.get(name, True)) for name in _PLUGINS)
