"""GPU memory that a recipe needs, rank by rank: weights, keys and values, and what is not known.

Weights and the cache follow from the model's dimensions and are exact up to alignment; a plan of
TensorRT adds some MB of its own. What a step works in is decided by TensorRT and the plugins when
the engine is built: there is a least, and no most.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kit import console, data
from kit.console import memory_size
from kit.data import gpus, releases
from kit.errors import nearest, usage_error
from kit.examples import model_facts
from kit.examples.model_facts import Unknown
from kit.examples.rank_sizes import RankSizes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.examples.model_facts import Dimensions
    from kit.examples.rank_sizes import Figure
    from kit.examples.recipe import Recipe

_GIB = 1 << 30
_NAMED_SIZE = re.compile(r"\b([1-9][0-9]{0,3}) ?GI?B\b", re.IGNORECASE)

_UNDECIDED = (
    "TensorRT and the plugins decide when they build; the log of the build says it "
    "as the memory of activations"
)


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU by name; `size` in bytes, None where `reason` says why nobody knows."""

    name: str
    size: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Pool:
    """Blocks for keys and values that a server takes at once.

    Attributes:
        fraction: of what is free when weights and workspace are there.
        size: bytes at most, for the workspace is only known from below; None without a GPU.
        reason: why there is no size.
    """

    fraction: float | None
    size: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Stage:
    """Ranks of one pipeline stage, which all need the same.

    Attributes:
        number: of the stage.
        ranks: that compute it, one GPU each.
        layers: of the decoder that it has.
        weights: what the engine holds.
        cache: keys and values with every sequence at its longest.
        cache_per_token: bytes for each token of each sequence.
        workspace: the least that a step works in.
        pool: what a server takes for the cache instead; None where the cache is in one piece.
    """

    number: int
    ranks: tuple[int, ...]
    layers: int
    weights: tuple[Figure, ...]
    cache: Figure
    cache_per_token: int
    workspace: tuple[Figure, ...]
    pool: Pool | None

    @property
    def weights_size(self) -> int:
        """Bytes of all weights: that of the rank's engine file, but for what TensorRT adds."""
        return sum(figure.size for figure in self.weights)

    @property
    def workspace_size(self) -> int:
        """Bytes that a step works in, at least."""
        return sum(figure.size for figure in self.workspace)

    @property
    def total(self) -> int:
        """Bytes of one rank at least, with the cache full."""
        return self.weights_size + self.cache.size + self.workspace_size

    @property
    def served(self) -> int | None:
        """Bytes of one rank at least, with the pool taken; None where its size is not known.

        More workspace leaves less to the pool, of which it is a part: the sum grows with it.
        """
        if self.pool is None or self.pool.size is None:
            return None
        return self.weights_size + self.pool.size + self.workspace_size


@dataclass(frozen=True, slots=True)
class Memory:
    """What a recipe needs on a release, by pipeline stage."""

    source: str
    stages: tuple[Stage, ...]
    gpu: Gpu | None

    def to_dict(self) -> dict[str, Any]:
        """As plain data, everything in bytes."""
        return {
            "source": self.source,
            "gpu": None
            if self.gpu is None
            else {"name": self.gpu.name, "bytes": self.gpu.size, "reason": self.gpu.reason},
            "stages": [_stage_dict(stage) for stage in self.stages],
            "reason": None,
        }

    def text(self) -> str:
        """For people: a table of the stages, and every figure's formula."""
        rows = [
            [
                str(stage.number),
                _span(stage.ranks),
                str(stage.layers),
                memory_size(stage.weights_size),
                memory_size(stage.cache.size),
                f"{memory_size(stage.workspace_size)} or more",
                f"{memory_size(stage.total)} or more",
            ]
            for stage in self.stages
        ]
        header = ["STAGE", "RANKS", "LAYERS", "WEIGHTS", "KV CACHE", "WORKSPACE", "A RANK'S TOTAL"]
        return "\n".join([console.table(rows, header), "", *self._explained()])

    def _explained(self) -> Iterator[str]:
        yield f"dimensions: {self.source}"
        yield "a GB is 1024 * 1024 * 1024 bytes; every figure is that of one rank"
        yield f"workspace: there is a least and no most: {_UNDECIDED}"
        alike: dict[tuple[Figure, ...], list[Stage]] = {}
        for stage in self.stages:
            figures = (*stage.weights, stage.cache, *stage.workspace)
            alike.setdefault(figures, []).append(stage)
        for figures, stages in alike.items():
            yield ""
            yield f"stage {', '.join(str(stage.number) for stage in stages)}"
            width = max(len(figure.name) for figure in figures)
            for figure in figures:
                size = memory_size(figure.size).rjust(9)
                yield f"  {figure.name.ljust(width)} {size} = {figure.formula}"
            if (pool := stages[0].pool) is not None:
                yield f"  {_pool_line(pool, stages[0].served)}"
        if self.gpu is not None:
            yield ""
            yield self._fit(self.gpu)

    def _fit(self, gpu: Gpu) -> str:
        if gpu.size is None:
            return str(gpu.reason)
        largest = max(self.stages, key=lambda stage: stage.total)
        needed = largest.weights_size + largest.workspace_size
        if largest.pool is None:
            needed += largest.cache.size
        has = f"{gpu.name}, {memory_size(gpu.size)}"
        if needed > gpu.size:
            return f"{has}: too small: stage {largest.number} needs {memory_size(needed)} or more"
        return f"{has}: {memory_size(gpu.size - needed)} are left at most"


def estimate(
    recipe: Recipe,
    release: str,
    model: Dimensions,
    gpu: Gpu | None = None,
    fraction: float | None = None,
) -> Memory:
    """What a recipe needs on a release.

    Args:
        recipe: what is built.
        release: whose defaults hold.
        model: dimensions, with a vocabulary.
        gpu: each rank's, for what a server takes.
        fraction: of the free memory that a server takes for the cache, instead of the recipe's.
    """
    assert model.vocabulary is not None
    sizes = RankSizes(recipe, model, model.vocabulary)
    tp, pp = recipe.checkpoint.tp, recipe.checkpoint.pp
    stages = []
    for number in range(pp):
        count = len(range(number, model.layers, pp))
        per_token = sizes.cache_per_token(count)
        stage = Stage(
            number=number,
            ranks=tuple(range(number * tp, (number + 1) * tp)),
            layers=count,
            weights=tuple(sizes.weights(number, count)),
            cache=sizes.cache(count, per_token),
            cache_per_token=per_token,
            workspace=tuple(sizes.workspace(number, release)),
            pool=None,
        )
        if is_paged(recipe, release):
            stage = _with_pool(stage, recipe, release, gpu, fraction)
        stages.append(stage)
    return Memory(model.source, tuple(stages), gpu)


def of_recipe(
    recipe: Recipe, release: str, gpu: str | None, fraction: float | None
) -> Memory | Unknown:
    """What a recipe needs, as far as its model is known, on a GPU of that name.

    Raises:
        KitError: no such release or GPU, no such fraction (exit 2).
    """
    if fraction is not None and not 0 < fraction <= 1:
        raise usage_error(f"--kv-fraction: expected more than 0 and at most 1, found {fraction:g}")
    named = find_gpu(gpu) if gpu is not None else None
    facts = model_facts.of_recipe(recipe)
    if isinstance(facts, Unknown):
        return facts
    if facts.vocabulary is None:
        return Unknown(f"{facts.source}: only a pickle has the vocabulary, which is not read")
    return estimate(recipe, releases.known(release), facts, named, fraction)


def is_paged(recipe: Recipe, release: str) -> bool:
    """Whether a release keeps keys and values in blocks for a recipe.

    trtllm-build does by default (0.8.0 for LLaMA, 0.9.0 for GPT), build.py only when it is told.
    """
    if recipe.options.paged_kv_cache is not None:
        return recipe.options.paged_kv_cache
    first = "0.8.0" if recipe.family == "llama" else "0.9.0"
    return bool(recipe.options.in_flight_batching) or releases.between(release, first, None)


def find_gpu(name: str) -> Gpu:
    """A GPU by name; a name that says its memory, such as `A100 80GB`, decides.

    Raises:
        KitError: no such GPU (exit 2).
    """
    row = gpus.find(name)
    if row is None:
        names = [known["name"] for known in gpus.table()["gpus"]]
        raise usage_error(f"unknown GPU {name!r}; {nearest(name, names)}")
    if (match := _NAMED_SIZE.search(name)) is not None:
        return Gpu(name, int(match.group(1)) * _GIB, None)
    sizes = row.get("memory_gb", [])
    if len(sizes) == 1:
        return Gpu(name, sizes[0] * _GIB, None)
    if sizes:
        shown = " and ".join(map(str, sizes))
        reason = f"{name} is sold with {shown} GB: say which, as in '{name} {sizes[-1]}GB'"
    else:
        reason = f"no table has the memory of {name}: say it, as in '{name} 80GB'"
    return Gpu(name, None, reason)


def _with_pool(
    stage: Stage, recipe: Recipe, release: str, gpu: Gpu | None, fraction: float | None
) -> Stage:
    triton = recipe.serve.triton if recipe.serve else None
    chosen = fraction
    if chosen is None and triton is not None:
        chosen = triton.kv_cache_fraction
    if chosen is None:
        chosen = _default_fraction(release)
    size = reason = None
    if chosen is None:
        reason = f"no table has the default fraction of release {release}: say it by --kv-fraction"
    elif gpu is None:
        reason = "it depends on the GPU: name one by --gpu"
    elif gpu.size is None:
        reason = gpu.reason
    else:
        free = max(0, gpu.size - stage.weights_size - stage.workspace_size)
        size = math.floor(chosen * free)
        if triton is not None and triton.max_tokens_in_cache is not None:
            size = min(size, triton.max_tokens_in_cache * stage.cache_per_token)
    return replace(stage, pool=Pool(chosen, size, reason))


def _default_fraction(release: str) -> float | None:
    row = data.option("examples/run.py", "--kv_cache_free_gpu_memory_fraction", release)
    return float(row["default"]) if row else None


def _span(ranks: tuple[int, ...]) -> str:
    """Ranks that follow each other: all of few, the first and the last of many."""
    return ", ".join(map(str, ranks)) if len(ranks) < 3 else f"{ranks[0]}-{ranks[-1]}"


def _pool_line(pool: Pool, served: int | None) -> str:
    share = "a share" if pool.fraction is None else f"{pool.fraction:g}"
    what = f"a server, and the C++ runtime, take {share} of what is free for the cache at once"
    if pool.size is None or served is None:
        return f"{what}: {pool.reason}"
    return f"{what}: {memory_size(pool.size)} at most, in all {memory_size(served)} or more"


def _stage_dict(stage: Stage) -> dict[str, Any]:
    def figures(rows: tuple[Figure, ...]) -> list[dict[str, Any]]:
        return [{"name": row.name, "bytes": row.size, "formula": row.formula} for row in rows]

    return {
        "stage": stage.number,
        "ranks": list(stage.ranks),
        "layers": stage.layers,
        "weights": {"bytes": stage.weights_size, "parts": figures(stage.weights)},
        "kv_cache": {
            "bytes": stage.cache.size,
            "bytes_per_token": stage.cache_per_token,
            "formula": stage.cache.formula,
            "pool": None
            if stage.pool is None
            else {
                "fraction": stage.pool.fraction,
                "bytes_at_most": stage.pool.size,
                "reason": stage.pool.reason,
            },
        },
        "workspace": {
            "bytes_at_least": stage.workspace_size,
            "bytes_at_most": None,
            "reason": _UNDECIDED,
            "parts": figures(stage.workspace),
        },
        "total": {"bytes_at_least": stage.total, "bytes_at_most": None},
        "served": {"bytes_at_least": stage.served, "bytes_at_most": None},
    }
