"""L4, the platform: what the run computed on, and what can be claimed where that is another."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from kit.artifacts.plan import REHEARSAL
from kit.reproduce.ladder import LEVELS, Difference, Rung

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kit.artifacts.plan import Backend
    from kit.manifests.record import Gpu, Host, Manifest

LEVEL = LEVELS[4]
_ANYWHERE = (0, 1, 2, 3)
_BEHAVIOUR = (7,)
_SAME_GPU = (4, 5, 6, 7)
_BYTES = (8,)
_TOLD = "told, counts for nothing"


def compare(first: Manifest, second: Manifest) -> Rung:
    """Hold the platforms of two runs against each other, node by node.

    A fact that a record does not know is never the same as another one.
    """
    nodes, others = _nodes(first), _nodes(second)
    differences: list[Difference] = []
    gaps: list[str] = []
    if len(nodes) != len(others):
        differences.append(Difference("nodes", str(len(nodes)), str(len(others))))
    evidence: list[str] = []
    for number, (one, other) in enumerate(zip(nodes, others, strict=False), 1):
        place = f"node {number}: " if len(nodes) > 1 or len(others) > 1 else ""
        recorded, found = _facts(first, one), _facts(second, other)
        evidence += [f"{place}{what}: {value or 'unknown'}" for what, value in found.items()]
        gaps += [f"{place}{what}" for what in _unknown(recorded, found)]
        differences += _differences(place, recorded, found)
        differences += _told(place, one, other)
    if first.gpus != second.gpus:
        what = "gpus asked for"
        differences.append(Difference(what, first.gpus, second.gpus, _TOLD, counts=False))
    return _rung(evidence, gaps, differences)


def claimable(rung: Rung, backend: Backend | None) -> tuple[int, ...]:
    """The levels that can be claimed there.

    On another GPU kernels are others: behaviour can be held against bounds only, and a checkpoint
    may be packed for the GPU. Bytes are promised of the rehearsal's own engines, of TensorRT's by
    nobody.
    """
    if rung.state != "passed":
        return (*_ANYWHERE, *_BEHAVIOUR)
    return (*_ANYWHERE, *_SAME_GPU, *(_BYTES if backend == REHEARSAL else ()))


def _rung(evidence: list[str], gaps: list[str], differences: list[Difference]) -> Rung:
    reason = f"not known of both: {', '.join(gaps)}" if gaps else ""
    if any(item.counts for item in differences):
        told = (*evidence, reason) if reason else tuple(evidence)
        return Rung(
            LEVEL, "differs", "another platform than the record's", told, tuple(differences)
        )
    if gaps:
        return Rung(LEVEL, "unchecked", reason, tuple(evidence), tuple(differences))
    return Rung(LEVEL, "passed", "the same platform", tuple(evidence), tuple(differences))


def _unknown(one: Mapping[str, str | None], other: Mapping[str, str | None]) -> list[str]:
    """Facts that both have to have, and that one of them does not know."""
    return [what for what in one if what in other and None in (one[what], other[what])]


def _differences(
    place: str, one: Mapping[str, str | None], other: Mapping[str, str | None]
) -> list[Difference]:
    unknown = _unknown(one, other)
    return [
        Difference(f"{place}{what}", one.get(what), other.get(what))
        for what in {**one, **other}
        if what not in unknown and one.get(what) != other.get(what)
    ]


def _told(place: str, one: Host, other: Host) -> list[Difference]:
    """What may be another on the same platform."""
    return [
        Difference(f"{place}{what}", left, right, _TOLD, counts=False)
        for what, left, right in (
            ("driver", one.driver, other.driver),
            ("kernel", one.kernel, other.kernel),
        )
        if left != right
    ]


def _nodes(manifest: Manifest) -> tuple[Host, ...]:
    nodes = manifest.cluster.nodes if manifest.cluster else ()
    return nodes or (manifest.host,)


def _facts(manifest: Manifest, host: Host) -> dict[str, str | None]:
    """What a node computed on; None for what the record does not know."""
    facts: dict[str, str | None] = {"architecture": host.architecture}
    if manifest.gpus == "none":
        return {**facts, "processor": host.cpu}
    gpus = _used(manifest, host)
    return {
        **facts,
        "GPUs": _listed(gpu.name for gpu in gpus),
        "compute capability": _listed(gpu.compute_capability for gpu in gpus),
        "GPU memory": _listed(gpu.memory_bytes for gpu in gpus),
        "driver branch": host.driver.partition(".")[0] if host.driver else None,
        # None says that the image has none (`Versions`), which is known.
        "CUDA": manifest.versions.cuda or "none in the image",
    }


def _listed(found: Iterable[str | int | None]) -> str | None:
    """Each in its order, `2 x H200, L40S`; None if there is none or one is not known."""
    values = list(found)
    if not values or None in values:
        return None
    runs = ((value, len(list(group))) for value, group in groupby(values))
    return ", ".join(f"{count} x {value}" if count > 1 else str(value) for value, count in runs)


def _used(manifest: Manifest, host: Host) -> tuple[Gpu, ...]:
    """The GPUs that ranks ran on, in their order; none where the record does not tell which."""
    ranks = max(
        (
            command.spread.ranks_per_node if command.spread else command.mpi_ranks
            for command in manifest.commands
        ),
        default=1,
    )
    return _seen(manifest.gpus, host.gpus)[:ranks]


def _seen(asked: str, present: tuple[Gpu, ...]) -> tuple[Gpu, ...]:
    """The GPUs that the containers saw."""
    places = asked.split(",")
    if asked == "all":
        return present
    if all(place.isdecimal() for place in places):
        known = [int(place) for place in places if int(place) < len(present)]
        return tuple(present[place] for place in known) if len(known) == len(places) else ()
    # Afterwards nobody can tell which GPU had a UUID, nor how large a MIG slice was.
    is_one_kind = len(set(present)) == 1 and not any(place.startswith("MIG") for place in places)
    return present[:1] * len(places) if is_one_kind else ()
