"""The whole comparison: two runs, this host's inputs, nine rungs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.errors import KitError
from kit.reproduce import behaviour, checkpoint, inputs, platform, request, structure
from kit.reproduce.ladder import LEVELS, Ladder, Rung

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.artifacts.plan import Backend
    from kit.reproduce.inputs import Site
    from kit.reproduce.side import Side


def compare(recorded: Side, again: Side, site: Site, tolerance: float | None = None) -> Ladder:
    """Hold a run against its record, level by level; `tolerance` is that of logits.

    What cannot be read leaves its own level unchecked: the run is done, and its report is not lost.
    """
    here = _rung(4, lambda: platform.compare(recorded.manifest, again.manifest))
    claimable = platform.claimable(here, _backend(again))
    tokens = _rung(6, lambda: behaviour.same_tokens(recorded, again, is_promised=6 in claimable))
    rungs = (
        _rung(0, lambda: inputs.received(recorded, site)),
        _rung(1, lambda: inputs.same(recorded, again.manifest, site)),
        _rung(2, lambda: checkpoint.compare(recorded, again)),
        _rung(3, lambda: request.compare(recorded, again)),
        here,
        _rung(5, lambda: structure.structure(recorded, again)),
        tokens,
        _rung(7, lambda: behaviour.within_bounds(recorded, again, tokens, tolerance)),
        _rung(8, lambda: structure.same_bytes(recorded, again, is_promised=8 in claimable)),
    )
    return Ladder(rungs, claimable)


def _rung(number: int, found: Callable[[], Rung]) -> Rung:
    """What is found on a level; unchecked where the content or the disk does not allow to look."""
    try:
        return found()
    except (KitError, OSError, ValueError) as error:
        return Rung(LEVELS[number], "unchecked", f"cannot be compared: {error}")


def _backend(side: Side) -> Backend | None:
    """What built the engine; None where that cannot be read, which promises nothing."""
    try:
        return structure.backend(side)
    except (KitError, OSError, ValueError):
        return None


def stopped(recorded: Side, site: Site, reason: str) -> Ladder:
    """What can be said where the run did not come to its end."""
    rest = (Rung(level, "unchecked", reason) for level in LEVELS[2:])
    first = Rung(LEVELS[1], "unchecked", "the run stopped before its inputs were recorded")
    return Ladder((inputs.received(recorded, site), first, *rest), ())
