"""Layers of a plan in a rehearsal engine, as TensorRT's inspector told them where it was built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit.artifacts import bounded
from kit.errors import content_error
from kit.reproduce import request
from kit.reproduce.ladder import Difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from kit.artifacts.plan import Built

_MOST_LAYERS, _LONGEST_TEXT = 20, 300
"""Layers that are told one by one, and characters of what is told of each."""


def read(path: Path, built: Built) -> list[Any]:
    """What is said of each layer: an object, or its name where the builder kept names alone.

    Raises:
        KitError: nothing is said of any, or no list of layers is there (exit 4).
    """
    start, size = built.layers
    if size > bounded.DOCUMENT_LIMIT:
        raise content_error(f"{size} bytes of layers: more than anybody reads")
    with bounded.opened(path) as stream:
        stream.seek(start)
        found = bounded.loads(stream.read(size), "layers").get("layers")
    if found is None or found == []:
        raise content_error("it tells of no layers")
    if not isinstance(found, list) or not all(isinstance(layer, (dict, str)) for layer in found):
        raise content_error("layers: expected a list of objects or names")
    return found


def have_tactics(layers: list[Any]) -> bool:
    """Whether more than the name is said of every layer."""
    return all(isinstance(layer, dict) for layer in layers)


def compare(path: str, first: list[Any], second: list[Any]) -> Iterator[Difference]:
    """Layers that are not the same, in their order; of many the first, and how many there are."""
    if len(first) != len(second):
        yield Difference(f"{path}: layers", str(len(first)), str(len(second)))
    told = 0
    for number, pair in enumerate(zip(first, second, strict=False), 1):
        one, other = map(_flat, pair)
        if one == other:
            continue
        told += 1
        if told <= _MOST_LAYERS:
            changed = [key for key in {**one, **other} if one.get(key) != other.get(key)]
            left, right = (_shown(layer, changed) for layer in (one, other))
            name = one.get("Name", "")
            yield Difference(f"{path}: layer {number} {name}"[:_LONGEST_TEXT], left, right)
    if told > _MOST_LAYERS:
        yield Difference(f"{path}: layers that differ", None, f"{told} of {len(first)}")


def _flat(layer: dict[str, Any] | str) -> dict[str, str]:
    return request.flat(layer if isinstance(layer, dict) else {"Name": layer})


def _shown(layer: Mapping[str, str], keys: list[str]) -> str:
    text = "; ".join(f"{key} {layer.get(key, 'absent')}" for key in keys)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}…"
