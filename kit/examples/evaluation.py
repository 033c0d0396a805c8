"""Evaluations: the figures that summarize.py prints, against what the recipe asks for.

Its lines are the same in all releases: `TensorRT-LLM beam 0 result`, `HF beam 0 result`, and below
`rouge1 : 21.87`, `Per-token perplexity: 12.3`, each after the logger's own marks
(examples/summarize.py, examples/gpt/summarize.py of 0.5.0).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from kit.errors import KitError, content_error
from kit.manifests.record import Evaluation

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from kit.examples.tasks import Evaluate

STEP = "summarize"
ENGINE = "TensorRT-LLM"
"""How the script calls the engine; the model's own implementation is `HF` there."""

_MARKS = re.compile(r"(\[[^\]]*\] ?)*\s*")
_SUBJECT = re.compile(r"(TensorRT-LLM|HF|Hugging Face) beam (\d+) result")
_FIGURE = re.compile(r"(rouge[A-Za-z0-9]+) ?: ?([0-9.eE+-]+)")
_PERPLEXITY = re.compile(r"Per-token perplexity: ?([0-9.eE+-]+)")
_DECIMALS = 4


def is_by(step: str) -> bool:
    """Whether a step is one that measures, by its name."""
    return step.partition("-")[0] == STEP


def lines(log: Path) -> list[str]:
    """What a step has said."""
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def read(step: str, lines: Iterable[str], asked: Evaluate | None) -> tuple[Evaluation, ...]:
    """The figures in what a step has said, in the order of the lines; of a repeated one the last.

    Args:
        step: whose lines they are.
        lines: its log.
        asked: what the figures of the engine's first beam have to reach.
    """
    subject, is_first = "", False
    found: dict[tuple[str, str], Evaluation] = {}
    for line in lines:
        text = line[_end_of_marks(line) :]
        if match := _SUBJECT.match(text):
            subject = f"{match[1]} beam {match[2]}"
            is_first = match[1] == ENGINE and match[2] == "0"
            continue
        figure = _figure(text)
        if subject and figure is not None:
            metric, value = figure
            least = asked.summarize.rouge1 if asked and is_first and metric == "rouge1" else None
            most = asked.perplexity if asked and is_first and metric == "perplexity" else None
            found[subject, metric] = Evaluation(
                step, subject, metric, round(value, _DECIMALS), least, most
            )
    return tuple(found.values())


def problem(
    found: Sequence[Evaluation], asked: Evaluate | None, *, ended_well: bool
) -> KitError | None:
    """What is wrong with the figures of a step that measures; None if nothing.

    That there are none is a problem of its own only if the step `ended_well`.
    """
    bad = [str(item) for item in found if not item.is_good]
    if bad:
        return content_error("; ".join(bad))
    for metric, bound in _bounds(asked) if ended_well else ():
        held = [item for item in found if item.metric == metric]
        if bound is not None and all((item.least, item.most) == (None, None) for item in held):
            return content_error(
                f"has printed no {metric} of {ENGINE}, which the example wants to be {bound:g}"
            )
    return None


def _bounds(asked: Evaluate | None) -> list[tuple[str, float | None]]:
    if asked is None:
        return []
    return [("rouge1", asked.summarize.rouge1), ("perplexity", asked.perplexity)]


def _figure(text: str) -> tuple[str, float] | None:
    metric, number = "perplexity", ""
    if match := _PERPLEXITY.match(text):
        number = match[1]
    elif match := _FIGURE.match(text):
        metric, number = match[1], match[2]
    try:
        value = float(number)
    except ValueError:
        return None
    return (metric, value) if math.isfinite(value) else None


def _end_of_marks(line: str) -> int:
    match = _MARKS.match(line)
    return match.end() if match else 0
