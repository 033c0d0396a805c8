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

import ast
import math
import os
import struct
import sys
from array import array
from dataclasses import dataclass
from operator import mul, sub
from typing import TYPE_CHECKING

from kit.artifacts import bounded
from kit.errors import KitError, content_error
from kit.reproduce.ladder import Difference, Measured
from kit.reproduce.side import digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import BinaryIO

    from kit.manifests.record import Output
    from kit.reproduce.side import Side

BOUNDS = {"float32": 1e-2, "float16": 1e-2, "bfloat16": 8e-2}
"""Type that an engine computes in → share of the largest logit that a logit may be off."""
CONTEXT, GENERATION = "output/logits_context.npy", "output/logits_generation.npy"
"""What `run.py --output_logits_npy output/logits.npy` writes, from 0.8.0 on."""
_MAGIC = b"\x93NUMPY"
_HEADER_LIMIT = 4096
_WIDTHS = {"<f2": 2, "<f4": 4, "<f8": 8}
_NUMBERS_LIMIT = 8_000_000
"""Of rows that differ; of larger files, rows at equal distances are compared."""


@dataclass(frozen=True, slots=True)
class Logits:
    """A file of rows of numbers: its shape without the last, the length of a row, where it begins.

    Attributes:
        file: where it is.
        shape: of the whole array.
        dtype: of a number, as NumPy spells it.
        start: offset of the first number.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str
    start: int

    @property
    def width(self) -> int:
        """Numbers of a row."""
        return self.shape[-1]

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * _WIDTHS[self.dtype]

    def row(self, stream: BinaryIO, number: int) -> bytes:
        """One row as it stands in the file."""
        stream.seek(self.start + number * self.row_bytes)
        return stream.read(self.row_bytes)

    def numbers(self, raw: bytes) -> Sequence[float]:
        """The numbers of a row."""
        if self.dtype == "<f2":
            return struct.unpack(f"<{self.width}e", raw)
        found: array[float] = array("f" if self.dtype == "<f4" else "d")
        found.frombytes(raw)
        if sys.byteorder == "big":
            found.byteswap()
        return found


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
class Distance:
    """How far the logits of one file are from the recorded ones.

    Attributes:
        path: of the file.
        rows: that were compared.
        of: rows that can be compared.
        worst: where the distance is largest; None where nothing differs.
        mean: of all distances.
        scale: the largest recorded logit, without its sign.
        divergence: the largest of the rows' Kullback-Leibler divergences of the softmax, in nats.
        agreeing: rows with the same likeliest token.
        bound: the share of `scale` that a logit may be off.
    """

    path: str
    rows: int
    of: int
    worst: Worst | None
    mean: float
    scale: float
    divergence: float
    agreeing: int
    bound: float

    @property
    def largest(self) -> float:
        """The largest distance."""
        return self.worst.distance if self.worst else 0.0

    @property
    def is_good(self) -> bool:
        """Whether all that was compared is within the bound."""
        return self.largest <= self.bound * self.scale

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.rows} of {self.of} rows compared: off by {self.largest:.3g} at "
            f"most, {self.mean:.3g} in the mean; bound {self.bound * self.scale:.3g}, "
            f"{self.bound:g} of the largest logit {self.scale:.4g}; KL divergence "
            f"{self.divergence:.3g} at most; the same likeliest token in {self.agreeing} of "
            f"{self.rows} rows"
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
    one, other = first.select("output"), second.select("output")
    evidence: list[str] = []
    gaps: list[str] = []
    differences: list[Difference] = []
    for path in (CONTEXT, GENERATION):
        if path not in one:
            continue
        if path not in other:
            differences.append(Difference(path, digest(one[path]), None))
        elif path in first.whole and path in second.whole:
            try:
                found = _measured(path, first, second, tolerance)
            except KitError as error:
                differences.append(Difference(path, None, None, str(error)))
                continue
            if found.worst is not None and not found.is_good:
                differences.append(found.difference(found.worst))
            elif found.rows:
                evidence.append(str(found))
            else:
                gaps.append(f"{path}: no row of it answers to the same tokens in both runs")
        elif one[path].sha256 == other[path].sha256:
            evidence.append(f"{path}: the same by its digest")
        else:
            gaps.append(f"{path} is not here to be looked into")
    return Measured(tuple(evidence), tuple(gaps), tuple(differences))


def _measured(path: str, first: Side, second: Side, tolerance: float | None) -> Distance:
    one, other = read(first.whole[path]), read(second.whole[path])
    if one.shape != other.shape:
        raise content_error(f"shape {one.shape} → {other.shape}")
    outputs = (first.manifest.outputs, second.manifest.outputs)
    chosen = rows(one, *(outputs if path == GENERATION else (None, None)))
    bound = BOUNDS[dtype_of(first, second)] if tolerance is None else tolerance
    return measured(path, one, other, chosen, bound)


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


def read(path: Path) -> Logits:
    """The header of a NumPy file of two axes or more.

    Raises:
        KitError: no such file: another type, another order, another length (exit 4).
    """
    with bounded.opened(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        head = stream.read(12)
        wide = head[6:7] != b"\x01"
        length = int.from_bytes(head[8:12] if wide else head[8:10], "little")
        start = (12 if wide else 10) + length
        if head[:6] != _MAGIC or length > _HEADER_LIMIT:
            raise content_error(f"{path}: expected a NumPy file")
        stream.seek(start - length)
        text = stream.read(length)
    try:
        header = ast.literal_eval(text.decode("latin-1").strip())
        dtype, shape = header["descr"], header["shape"]
        is_plain = header["fortran_order"] is False and set(header) == _KEYS and dtype in _WIDTHS
        is_plain = is_plain and len(shape) > 1 and all(type(n) is int and n > 0 for n in shape)
    except (ValueError, SyntaxError, KeyError, TypeError, RecursionError, MemoryError) as error:
        raise content_error(f"{path}: the header of a NumPy file is damaged: {error}") from error
    if not is_plain or start + math.prod(shape) * _WIDTHS[dtype] != size:
        raise content_error(f"{path}: expected rows of floating point numbers, found {header}")
    return Logits(path, tuple(shape), dtype, start)


_KEYS = {"descr", "fortran_order", "shape"}


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
    """Hold chosen rows of two files against each other, in flat memory."""
    worst: Worst | None = None
    total = scale = divergence = 0.0
    compared = agreeing = 0
    stride = max(1, -(-len(chosen) * first.width // _NUMBERS_LIMIT))
    wanted = chosen[::stride]
    with bounded.opened(first.file) as left, bounded.opened(second.file) as right:
        for number in wanted:
            raw, other_raw = first.row(left, number), second.row(right, number)
            one, other = first.numbers(raw), second.numbers(other_raw)
            top = max(map(abs, one))
            if top == 0 and raw == other_raw:
                continue  # after the end of an answer
            compared += 1
            scale = max(scale, top) if math.isfinite(top) else scale
            if raw == other_raw:
                agreeing += 1
                continue
            found, sum_, row_divergence, same_top = _row(number, one, other)
            total += sum_
            divergence = max(divergence, row_divergence)
            agreeing += same_top
            if worst is None or found.distance > worst.distance:
                worst = found
    mean = total / (compared * first.width) if compared else 0.0
    return Distance(path, compared, len(chosen), worst, mean, scale, divergence, agreeing, bound)


def _row(
    number: int, one: Sequence[float], other: Sequence[float]
) -> tuple[Worst, float, float, bool]:
    """The worst place, the sum of distances, the KL divergence, whether the first token is one."""
    gaps = [0.0 if a == b else abs(a - b) for a, b in zip(one, other, strict=True)]
    odd = next((at for at, gap in enumerate(gaps) if not math.isfinite(gap)), None)
    if odd is not None:
        return Worst(number, odd, one[odd], other[odd]), math.inf, math.inf, False
    at = max(range(len(gaps)), key=gaps.__getitem__)
    top, again = max(one), max(other)
    weights = [math.exp(value - top) for value in one]
    mass, other_mass = sum(weights), sum(math.exp(value - again) for value in other)
    shift = again + math.log(other_mass) - top - math.log(mass)
    apart = sum(map(mul, weights, map(sub, one, other))) / mass + shift
    same_top = one.index(top) == other.index(again)
    return Worst(number, at, one[at], other[at]), sum(gaps), max(0.0, apart), same_top
