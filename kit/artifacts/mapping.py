"""How a model is spread over GPUs, as a configuration records it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kit.artifacts import bounded
from kit.artifacts.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

LARGEST_WORLD = 65536
"""Ranks that no machine has: a larger number is a damaged configuration."""


@dataclass(frozen=True, slots=True)
class Parallelism:
    """Tensor, pipeline and context parallel sizes; None where nothing is recorded.

    `world_size` is their product.
    """

    tp: int | None = None
    pp: int | None = None
    cp: int | None = None
    world_size: int | None = None
    problems: tuple[Problem, ...] = ()


def of(section: Mapping[str, Any], where: str) -> Parallelism:
    """What a `mapping` section says: `tp_size`, `pp_size`, `cp_size` (0.13+), `world_size`."""
    said = bounded.count(section, "world_size")
    return of_sizes(
        tuple(section.get(name) for name in ("tp_size", "pp_size", "cp_size")), where, said
    )


def of_sizes(sizes: tuple[Any, ...], where: str, said: int | None = None) -> Parallelism:
    """Tensor, pipeline and context parallel sizes as they stand; an absent second or third is 1.

    Args:
        sizes: the three, or the first ones of them.
        where: the configuration, for messages.
        said: the world size that stands beside them.
    """
    tp, pp, cp = (*sizes, None, None, None)[:3]
    found = (tp, 1 if pp is None else pp, 1 if cp is None else cp)
    if tp is None and pp is None and said is None:
        return Parallelism()
    if not all(type(size) is int and 0 < size <= LARGEST_WORLD for size in found):
        shown = ", ".join(repr(size)[:20] for size in found)
        problem = Problem(
            "mapping-damaged", f"{where}: no parallel sizes: {shown}", is_corrupt=True
        )
        return Parallelism(problems=(problem,))
    world = found[0] * found[1] * found[2]
    if world > LARGEST_WORLD:
        problem = Problem(
            "mapping-damaged", f"{where}: {world} ranks are too many", is_corrupt=True
        )
        return Parallelism(problems=(problem,))
    problems: tuple[Problem, ...] = ()
    if said is not None and said != world:
        shown = f"tp {found[0]} x pp {found[1]} x cp {found[2]} is {world}"
        problems = (Problem("world-size", f"{where}: world_size says {said}, {shown}"),)
    return Parallelism(found[0], found[1], cp, world, problems)


def _damaged(message: str) -> Parallelism:
    return Parallelism(problems=(Problem("mapping-damaged", message, is_corrupt=True),))
