"""The whole comparison: two runs, this host's inputs, nine rungs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.artifacts.plan import TENSORRT
from kit.reproduce import behaviour, checkpoint, inputs, platform, request, structure
from kit.reproduce.ladder import LEVELS, Ladder, Rung

if TYPE_CHECKING:
    from kit.reproduce.inputs import Site
    from kit.reproduce.side import Side


def compare(recorded: Side, again: Side, site: Site, tolerance: float | None = None) -> Ladder:
    """Hold a run against its record, level by level; `tolerance` is that of logits."""
    here = platform.compare(recorded.manifest, again.manifest)
    backend = structure.backend(again)
    claimable = platform.claimable(here, backend)
    tokens = behaviour.same_tokens(recorded, again, is_promised=6 in claimable)
    rungs = (
        inputs.received(recorded, site),
        inputs.same(recorded, again.manifest, site),
        checkpoint.compare(recorded, again),
        request.compare(recorded, again),
        here,
        structure.structure(recorded, again),
        tokens,
        behaviour.within_bounds(recorded, again, tokens, tolerance),
        structure.same_bytes(
            recorded,
            again,
            is_promised=here.state == "passed" and backend not in (None, TENSORRT),
        ),
    )
    return Ladder(rungs, claimable)


def stopped(recorded: Side, site: Site, reason: str) -> Ladder:
    """What can be said where the run did not come to its end."""
    rest = (Rung(level, "unchecked", reason) for level in LEVELS[2:])
    first = Rung(LEVELS[1], "unchecked", "the run stopped before its inputs were recorded")
    return Ladder((inputs.received(recorded, site), first, *rest), ())
