"""The config.pbtxt of every model of a version, with the placeholders of that version.

Written from the tables; only what those say of a version stands in its files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import table

if TYPE_CHECKING:
    from collections.abc import Iterator

_UNKNOWN_DIMS = [-1]
"""Of a tensor whose dimensions nobody has read."""
_PARAMETER = ("parameters[", "].string_value")
_ONLY_IN_COMMENTS = ("enable_trt_overlap", "0.10.0")
"""A placeholder that the engine's template names in a comment, from that version on."""


def config(model: str, version: str) -> str:
    """The text of a model's config.pbtxt."""
    return "\n".join(_lines(model, version)) + "\n"


def files(model: str, version: str) -> list[str]:
    """What stands beside it: `1/model.py` and the like."""
    (row,) = table.rows("models", version, model)
    return list(row["files"])


def _lines(model: str, version: str) -> Iterator[str]:
    fields = _fields(model, version)
    (row,) = table.rows("models", version, model)
    yield f"# {model} of backend {version}, rehearsed; tools/fill_template.py puts in the values."
    yield f'name: "{model}"'
    key = "platform" if row["backend"] == "ensemble" else "backend"
    yield f'{key}: "{row["backend"]}"'
    fixed = table.rows("batch", version, model)
    size = fixed[0]["max_batch_size"] if fixed else fields["max_batch_size"]
    yield f"max_batch_size: {size}"
    if (decoupled := fields.get("model_transaction_policy.decoupled")) is not None:
        yield f"model_transaction_policy {{ decoupled: {decoupled} }}"
    yield from _batching(fields)
    for direction in ("input", "output"):
        yield from _tensors(model, version, direction)
    yield from _scheduling(model, version)
    for instances in table.rows("instances", version, model):
        yield f"instance_group [ {{ count: {instances['count']} kind: KIND_CPU }} ]"
    for name, value in _parameters(model, version).items():
        yield f'parameters {{ key: "{name}" value: {{ string_value: "{value}" }} }}'
    name, since = _ONLY_IN_COMMENTS
    if model == "tensorrt_llm" and table.since(version, since):
        yield f'# parameters {{ key: "{name}" value: {{ string_value: "${{{name}}}" }} }}'


def _fields(model: str, version: str) -> dict[str, str]:
    """The fields that placeholders stand in, each with its placeholder."""
    return {
        field: f"${{{row['name']}}}"
        for row in table.rows("placeholders", version, model)
        for field in row["fields"]
    }


def _batching(fields: dict[str, str]) -> Iterator[str]:
    found = {
        field.removeprefix("dynamic_batching."): value
        for field, value in fields.items()
        if field.startswith("dynamic_batching.")
    }
    if not found:
        return
    yield "dynamic_batching {"
    if (value := found.get("preferred_batch_size")) is not None:
        yield f"  preferred_batch_size: [ {value} ]"
    if (value := found.get("max_queue_delay_microseconds")) is not None:
        yield f"  max_queue_delay_microseconds: {value}"
    if (value := found.get("default_queue_policy.max_queue_size")) is not None:
        yield f"  default_queue_policy {{ max_queue_size: {value} }}"
    yield "}"


def _tensors(model: str, version: str, direction: str) -> Iterator[str]:
    seen: set[str] = set()
    for row in table.rows("tensors", version, model):
        # The table has one of them twice, as the file of that version has.
        if row["direction"] != direction or row["name"] in seen:
            continue
        seen.add(row["name"])
        dims = ", ".join(map(str, row["dims"] or _UNKNOWN_DIMS))
        kind = row["type"] if row["type"].startswith("$") else f"TYPE_{row['type']}"
        more = " optional: true" if row.get("optional") else ""
        more += " allow_ragged_batch: true" if row.get("ragged") else ""
        name = row["name"]
        yield f'{direction} [ {{ name: "{name}" data_type: {kind} dims: [ {dims} ]{more} }} ]'


def _scheduling(model: str, version: str) -> Iterator[str]:
    (row,) = table.rows("models", version, model)
    if "steps" not in row:
        return
    yield "ensemble_scheduling {"
    for step in row["steps"]:
        yield f'  step [ {{ model_name: "{step}" model_version: -1'
        for wire in table.rows("maps", version, step):
            yield (
                f'    {wire["direction"]}_map {{ key: "{wire["tensor"]}" '
                f'value: "{wire["ensemble"]}" }}'
            )
        yield "  } ]"
    yield "}"


def _parameters(model: str, version: str) -> dict[str, Any]:
    start, end = _PARAMETER
    found = {
        field.removeprefix(start).removesuffix(end): value
        for field, value in _fields(model, version).items()
        if field.startswith(start) and field.endswith(end)
    }
    fixed = {row["name"]: row["value"] for row in table.rows("parameters", version, model)}
    return {**fixed, **found}
