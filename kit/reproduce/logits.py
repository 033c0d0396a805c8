"""L7 by numbers: the logits of two runs, row by row, as far as both had read the same tokens.

`run.py` writes those of the prompts and those of the answers into NumPy files where the engine
gathers them. Rows of prompts can always be compared; rows of answers up to the first token that is
another one, as what comes after it answers something else.

How far two engines of one checkpoint may be from each other nobody promises. The bounds here are
shares of the largest logit. What is measured: an fp16 engine of TensorRT on an H200 was off a
float32 reference by 3.8e-3 of it, with the same first token everywhere; two such engines may be
twice that apart. bfloat16 has 3 bits less. Of float32, TensorRT multiplies in TF32 by default,
which has the bits of float16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import mul, sub
from typing import TYPE_CHECKING

from kit.artifacts import bounded
from kit.errors import KitError, content_error
from kit.reproduce.arrays import read
from kit.reproduce.ladder import Difference, Measured
from kit.reproduce.side import digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from kit.manifests.record import Output
    from kit.reproduce.arrays import Logits
    from kit.reproduce.side import Side

BOUNDS = {"float32": 1e-2, "float16": 1e-2, "bfloat16": 8e-2}
"""Type that an engine computes in → share of the largest logit that a logit may be off."""
CONTEXT, GENERATION = "output/logits_context.npy", "output/logits_generation.npy"
"""What `run.py --output_logits_npy output/logits.npy` writes, from 0.8.0 on."""
_NUMBERS_LIMIT = 8_000_000
"""That are measured: of more in rows that differ, rows at equal distances are."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The number that is off the most: its place and both values."""

    row: int
    token: int
    recorded: float
    found: float

    @property
    def distance(self) -> float:
        """How far; endless where one of them is no number."""
        gap = abs(self.recorded - self.found)
        return gap if math.isfinite(gap) else math.inf


@dataclass(frozen=True, slots=True)
class Rows:
    """What comparing all rows by their bytes gives.

    Attributes:
        equal: how many are the same and finite, those of zeros left out.
        differing: numbers of those that differ and are finite.
        odd: numbers of those that differ and hold something that is not finite.
        odd_equal: how many are the same and hold something that is not finite.
        scale: the largest recorded logit that is finite, without its sign.
    """

    equal: int
    differing: tuple[int, ...]
    odd: tuple[int, ...]
    odd_equal: int
    scale: float


@dataclass(frozen=True, slots=True)
class Distance:
    """How far the logits of one file are from the recorded ones.

    Attributes:
        path: of the file.
        seen: what the bytes of its rows say.
        of: rows that can be compared.
        measured: of the finite rows that differ, how many were measured.
        worst: where the distance is largest; None where nothing differs.
        mean: of all distances.
        divergence: the largest of the rows' Kullback-Leibler divergences of the softmax, in nats.
        agreeing: finite rows, equal or measured, with the same likeliest token.
        bound: the share of the largest logit that a logit may be off.
    """

    path: str
    seen: Rows
    of: int
    measured: int
    worst: Worst | None
    mean: float
    divergence: float
    agreeing: int
    bound: float

    @property
    def rows(self) -> int:
        """How many can say something: those whose numbers are finite in both."""
        return self.seen.equal + len(self.seen.differing)

    @property
    def unusable(self) -> int:
        """Rows that say nothing, as they hold what is not finite."""
        return self.seen.odd_equal + len(self.seen.odd)

    @property
    def scale(self) -> float:
        """The largest recorded logit, without its sign."""
        return self.seen.scale

    @property
    def largest(self) -> float:
        """The largest distance."""
        return self.worst.distance if self.worst else 0.0

    @property
    def is_good(self) -> bool:
        """Whether all that was measured is within the bound."""
        return self.largest <= self.bound * self.scale

    def __str__(self) -> str:
        differing = len(self.seen.differing)
        return (
            f"{self.path}: {self.rows} of {self.of} rows compared, {self.seen.equal} have the same "
            f"bytes, {self.measured} of {differing} others were measured: off by "
            f"{self.largest:.3g} at most, {self.mean:.3g} in the mean; bound "
            f"{self.bound * self.scale:.3g}, {self.bound:g} of the largest logit {self.scale:.4g}; "
            f"KL divergence {self.divergence:.3g} at most; the same likeliest token in "
            f"{self.agreeing} of {self.seen.equal + self.measured} rows"
        )

    def difference(self, worst: Worst) -> Difference:
        """Both values of the worst place."""
        where = f"{self.path}: row {worst.row}, token {worst.token}"
        return Difference(where, f"{worst.recorded:.9g}", f"{worst.found:.9g}", str(self))


def compare(first: Side, second: Side, tolerance: float | None) -> Measured:
    """Hold all files of logits that the record has against those of the new run.

    Args:
        first: the record.
        second: the new run.
        tolerance: share of the largest logit, instead of that of the engine's type.
    """
    recorded, again = first.select("output"), second.select("output")
    evidence: list[str] = []
    gaps: list[str] = []
    differences: list[Difference] = []
    for path in (CONTEXT, GENERATION):
        if path not in recorded:
            continue
        one, other = digest(recorded[path]), digest(again.get(path))
        try:
            found = _file(path, first, second, tolerance, is_same=one == other)
        except KitError as error:
            differences.append(Difference(path, one, other, str(error)))
            continue
        evidence += found.evidence
        gaps += found.gaps
        differences += found.differences
    return Measured(tuple(evidence), tuple(gaps), tuple(differences))


def _file(
    path: str, first: Side, second: Side, tolerance: float | None, *, is_same: bool
) -> Measured:
    """What one file says; of two with `is_same` digest, one that is here tells of both."""
    files = [side.whole.get(path) for side in (first, second)]
    if path not in second.select("output"):
        raise content_error("the new run did not write it")
    told = f"{path}: the same by its digest" if is_same and None in files else None
    if is_same:
        files = [files[0] or files[1]] * 2
    if files[0] is None or files[1] is None:
        return Measured((), (f"{path} is not here to be looked into",), ())
    one, other = read(files[0]), read(files[1])
    if one.shape != other.shape:
        return Measured((), (), (Difference(f"{path}: shape", str(one.shape), str(other.shape)),))
    outputs = (first.manifest.outputs, second.manifest.outputs)
    chosen = rows(one, *(outputs if path == GENERATION else (None, None)))
    bound = BOUNDS[dtype_of(first, second)] if tolerance is None else tolerance
    return _said(measured(path, one, other, chosen, bound), told)


def _said(found: Distance, told: str | None) -> Measured:
    """What was measured: evidence, for which `told` may stand, gaps, and what is out of bounds."""
    gaps: list[str] = []
    if found.unusable:
        what = "rows hold values that are not finite, which say nothing"
        gaps.append(f"{found.path}: {found.unusable} {what}")
    if found.worst is not None and not found.is_good:
        return Measured((), tuple(gaps), (found.difference(found.worst),))
    if not found.rows and not gaps:
        gaps.append(f"{found.path}: no row of it answers to the same tokens in both runs")
    return Measured((told or str(found),) if found.rows else (), tuple(gaps), ())


def dtype_of(*sides: Side) -> str:
    """The type that an engine computes in; float16, as the strictest, where nothing says it."""
    for side in sides:
        for path, file in side.whole.items():
            if path.startswith("engine/") and path.endswith("config.json"):
                content = bounded.json_object(file)
                told = bounded.text(content, "pretrained_config", "dtype")
                told = told or bounded.text(content, "builder_config", "precision")
                if told in BOUNDS:
                    return told
    return "float16"


def rows(
    logits: Logits, first: tuple[Output, ...] | None, second: tuple[Output, ...] | None
) -> list[int]:
    """Numbers of the rows that answer to the same tokens in both runs.

    Of answers (`first`, `second`) that are those up to the first other token, of one sequence
    each; of prompts all.
    """
    if first is None or second is None:
        return list(range(math.prod(logits.shape[:-1])))
    count, steps = logits.shape[0], logits.shape[-2]
    if len(logits.shape) != 3 or not len(first) == len(second) == count:
        return []
    found: list[int] = []
    for number, (one, other) in enumerate(zip(first, second, strict=True)):
        pairs = list(zip(one.token_ids, other.token_ids, strict=False))
        same = next((at for at, (a, b) in enumerate(pairs) if a != b), len(pairs))
        if one.prompt_token_ids is None and one.token_ids != other.token_ids:
            continue  # the answer was not told apart from the prompt: nobody knows where it begins
        # The row that the first other token was chosen from still answers to the same ones.
        found += range(number * steps, number * steps + min(steps, same + 1))
    return found


def measured(
    path: str, first: Logits, second: Logits, chosen: Sequence[int], bound: float
) -> Distance:
    """Hold chosen rows of two files against each other, in flat memory.

    All are compared by their bytes; of those that differ as many are measured as
    `_NUMBERS_LIMIT` allows, the ones that hold what is not finite before others.
    """
    with bounded.opened(first.file) as left, bounded.opened(second.file) as right:
        seen = _by_bytes(first, second, chosen, (left, right))
        room = max(1, _NUMBERS_LIMIT // first.width)
        stride = max(1, -(-len(seen.differing) // room))
        wanted, odd = seen.differing[::stride], frozenset(seen.odd)
        worst: Worst | None = None
        total = divergence = 0.0
        agreeing = seen.equal
        for number in (*seen.odd[:room], *wanted):
            one = first.numbers(first.row(left, number))
            other = second.numbers(second.row(right, number))
            found, sum_ = _worst(number, one, other)
            if worst is None or found.distance > worst.distance:
                worst = found
            if number in odd:
                continue
            total += sum_
            apart, same_top = _softmax(one, other)
            divergence = max(divergence, apart)
            agreeing += same_top
    # Rows that were not measured are taken to be off as the others are.
    share = len(seen.differing) / len(wanted) if wanted else 1.0
    count = seen.equal + len(seen.differing)
    mean = total * share / (count * first.width) if count else 0.0
    return Distance(path, seen, len(chosen), len(wanted), worst, mean, divergence, agreeing, bound)


def _by_bytes(
    first: Logits, second: Logits, chosen: Sequence[int], streams: tuple[BinaryIO, BinaryIO]
) -> Rows:
    """Tell rows that are the same from others, all of them."""
    equal = odd_equal = 0
    scale = 0.0
    differing: list[int] = []
    odd: list[int] = []
    for number in chosen:
        raw, other = first.row(streams[0], number), second.row(streams[1], number)
        is_same = raw == other and first.dtype == second.dtype
        if is_same and not any(raw):
            continue  # after the end of an answer
        is_finite = first.is_finite(raw)
        values = first.numbers(raw)
        if not is_finite:
            values = [value for value in values if math.isfinite(value)] or [0.0]
        scale = max((scale, max(values), -min(values)))
        is_finite = is_finite and (is_same or second.is_finite(other))
        if is_same:
            equal += is_finite
            odd_equal += not is_finite
        else:
            (differing if is_finite else odd).append(number)
    return Rows(equal, tuple(differing), tuple(odd), odd_equal, scale)


def _worst(number: int, one: Sequence[float], other: Sequence[float]) -> tuple[Worst, float]:
    """The worst place of a row, and the sum of distances.

    What is in both the same, or in both no number, is at no distance; it has made the row odd.
    """
    gaps = [
        0.0 if a == b or (a != a and b != b) else abs(a - b)  # noqa: PLR0124 - of NaN alone
        for a, b in zip(one, other, strict=True)
    ]
    at = next((at for at, gap in enumerate(gaps) if not math.isfinite(gap)), None)
    if at is None:
        at = max(range(len(gaps)), key=gaps.__getitem__)
    return Worst(number, at, one[at], other[at]), sum(gaps)


def _softmax(one: Sequence[float], other: Sequence[float]) -> tuple[float, bool]:
    """The KL divergence of two rows of finite numbers, and whether the first token is one."""
    top, again = max(one), max(other)
    weights = [math.exp(value - top) for value in one]
    mass, other_mass = sum(weights), sum(math.exp(value - again) for value in other)
    shift = again + math.log(other_mass) - top - math.log(mass)
    apart = sum(map(mul, weights, map(sub, one, other))) / mass + shift
    return max(0.0, apart), one.index(top) == other.index(again)
