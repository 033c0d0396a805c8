"""L4, the platform: what the run computed on, and what can be claimed where that is another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.artifacts.plan import TENSORRT
from kit.reproduce.ladder import LEVELS, Difference, Rung

if TYPE_CHECKING:
    from kit.artifacts.plan import Backend
    from kit.manifests.record import Gpu, Manifest

LEVEL = LEVELS[4]
_ANYWHERE = (0, 1, 2, 3)
_BEHAVIOUR = (7,)
_SAME_GPU = (4, 5, 6, 7)
_BYTES = (8,)


def compare(first: Manifest, second: Manifest) -> Rung:
    """Hold the platforms of two runs against each other."""
    recorded, found = _facts(first), _facts(second)
    differences = [
        Difference(what, recorded.get(what), found.get(what))
        for what in {**recorded, **found}
        if recorded.get(what) != found.get(what)
    ]
    differences += [
        Difference(what, one, other, "told, counts for nothing", counts=False)
        for what, one, other in (
            ("driver", first.host.driver, second.host.driver),
            ("gpus asked for", first.gpus, second.gpus),
            ("kernel", first.host.kernel, second.host.kernel),
        )
        if one != other
    ]
    evidence = tuple(f"{what}: {value or 'none'}" for what, value in found.items())
    if any(item.counts for item in differences):
        return Rung(
            LEVEL, "differs", "another platform than the record's", evidence, tuple(differences)
        )
    return Rung(LEVEL, "passed", "the same platform", evidence, tuple(differences))


def claimable(rung: Rung, backend: Backend | None) -> tuple[int, ...]:
    """The levels that can be claimed there.

    On another GPU kernels are others: behaviour can be held against bounds only, and a checkpoint
    may be packed for the GPU. Bytes of TensorRT's engines nobody promises on any.
    """
    if rung.state != "passed":
        return (*_ANYWHERE, *_BEHAVIOUR)
    return (*_ANYWHERE, *_SAME_GPU, *(() if backend == TENSORRT else _BYTES))


def _facts(manifest: Manifest) -> dict[str, str | None]:
    facts = {"architecture": manifest.host.architecture}
    if manifest.gpus == "none":
        return {**facts, "processor": manifest.host.cpu}
    gpus = _used(manifest)
    names = ", ".join(sorted({gpu.name for gpu in gpus})) or None
    capabilities = ", ".join(sorted({gpu.compute_capability for gpu in gpus})) or None
    memory = ", ".join(sorted({str(gpu.memory_bytes) for gpu in gpus})) or None
    driver = manifest.host.driver
    return {
        **facts,
        "GPUs": names,
        "compute capability": capabilities,
        "GPU memory": memory,
        "driver branch": driver.partition(".")[0] if driver else None,
        "CUDA": manifest.versions.cuda,
    }


def _used(manifest: Manifest) -> tuple[Gpu, ...]:
    """The GPUs that the containers saw; by UUID nobody can tell afterwards, so all of the host."""
    present = manifest.host.gpus
    places = manifest.gpus.split(",")
    if all(place.isdecimal() and int(place) < len(present) for place in places):
        return tuple(present[int(place)] for place in places)
    return present
