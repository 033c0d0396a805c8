"""L3, the build request: what the engine's configuration says, without what varies by itself.

Two builds with the same flags write different paths of timing caches, and a record of the GPU that
the build found: those are told and do not count.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from kit.artifacts import bounded, plan
from kit.errors import KitError, content_error
from kit.reproduce.ladder import LEVELS, Difference, Rung
from kit.reproduce.side import digest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kit.reproduce.side import Side

LEVEL = LEVELS[3]
_BELOW = r"(.*(?<!\\)\.)?"
"""Whatever a key stands below; a dot of the key's own has a backslash before it."""
_VARIES = (
    (re.compile(rf"{_BELOW}(input|output)_timing_cache"), "a path of the site"),
    (re.compile(rf"{_BELOW}auto_parallel_config\.cluster_key"), "the GPU that the build found"),
    (
        re.compile(rf"{_BELOW}auto_parallel_config\.cluster_info(\..*)?"),
        "measured at every build",
    ),
    (re.compile(rf"{_BELOW}lora_config\.lora_dir(\..*)?"), "a path of the site"),
    (re.compile(rf"{_BELOW}mapping\.gpus_per_node"), "of the host, not of the engine"),
)
"""Keys of config.json → why they differ between two builds of the same engine."""


def compare(first: Side, second: Side) -> Rung:
    """Hold configurations, versions and ranks of two engines against each other."""
    one, other = first.select("engine"), second.select("engine")
    if not one and not other:
        return Rung(LEVEL, "absent", "nothing was built")
    differences: list[Difference] = []
    gaps: list[str] = []
    evidence: list[str] = []
    for path in sorted(path for path in {*one, *other} if path.endswith(".json")):
        if path not in one or path not in other:
            recorded, found = digest(one.get(path)), digest(other.get(path))
            differences.append(Difference(path, recorded, found))
        elif one[path].sha256 == other[path].sha256:
            evidence.append(f"{path}: the same bytes")
        elif path in first.whole and path in second.whole:
            inner = list(documents(path, first.whole[path], second.whole[path]))
            differences += inner
            if not any(item.counts for item in inner):
                evidence.append(f"{path}: equal but for what varies by itself")
        else:
            gaps.append(
                f"{path} has another digest ({one[path].sha256} → {other[path].sha256}), and the "
                "recorded one is not here to be looked into"
            )
    ranks = [sorted(path for path in side if path.endswith(".engine")) for side in (one, other)]
    if ranks[0] != ranks[1]:
        differences.append(Difference("engine files", _listed(ranks[0]), _listed(ranks[1])))
    else:
        evidence.append(f"{len(ranks[0])} rank files by the same names")
        differences += _versions(first, second, ranks[0], evidence)
    if any(item.counts for item in differences):
        return Rung(
            LEVEL, "failed", "another engine was asked for", tuple(evidence), tuple(differences)
        )
    if gaps:
        return Rung(LEVEL, "unchecked", "; ".join(gaps), tuple(evidence), tuple(differences))
    return Rung(
        LEVEL, "passed", "the same engine was asked for", tuple(evidence), tuple(differences)
    )


def documents(path: str, first: Path, second: Path) -> Iterator[Difference]:
    """The differences of two JSON files, key by key; those that vary by themselves do not count."""
    try:
        one, other = flat(bounded.json_object(first)), flat(bounded.json_object(second))
    except KitError as error:
        yield Difference(path, "JSON", "something else", str(error))
        return
    for key in sorted({*one, *other}):
        if one.get(key) != other.get(key):
            why = next((why for pattern, why in _VARIES if pattern.fullmatch(key)), "")
            yield Difference(f"{path}: {key}", one.get(key), other.get(key), why, counts=not why)


def flat(document: dict[str, Any]) -> dict[str, str]:
    """Every value by its dotted key, as JSON; a dot within a key has a backslash before it.

    Raises:
        KitError: nested too deep (exit 4).
    """
    try:
        return dict(_flat(document, ()))
    except RecursionError as error:
        raise content_error("JSON nested too deep") from error


def _flat(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and (value or not path):
        for name, inner in value.items():
            yield from _flat(inner, (*path, name.replace("\\", r"\\").replace(".", r"\.")))
    else:
        yield ".".join(path), json.dumps(value, ensure_ascii=False, sort_keys=True)


def _versions(
    first: Side, second: Side, paths: list[str], evidence: list[str]
) -> Iterator[Difference]:
    """TensorRT's version in the header of every plan, the release in that of a rehearsal engine.

    Headers only confirm what L1 says of the image: one that is not here is told, and no gap.
    """
    recorded, found = first.select("engine"), second.select("engine")
    for path in paths:
        is_same = recorded[path].sha256 == found[path].sha256
        places = [side.whole.get(path) for side in (first, second)]
        if is_same:  # either of them tells of both
            places = [places[0] or places[1]] * 2
        if places[0] is None or places[1] is None:
            if not is_same:
                evidence.append(f"{path}: another file, whose header is not here to be looked into")
            continue
        one, other = plan.look(places[0]), plan.look(places[1])
        said, again = ([str(item.version) for item in head.observations] for head in (one, other))
        if one.backend != other.backend or said != again:
            yield Difference(
                f"{path}: header",
                f"{one.backend} {' '.join(said)}",
                f"{other.backend} {' '.join(again)}",
            )
        else:
            evidence.append(f"{path}: header of {one.backend}, {' '.join(said)}")


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
