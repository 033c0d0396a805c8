"""ROUGE as the releases' metric has it: F-measures of the package rouge-score, bootstrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Sequence

TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")


def score(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """The middle of the bootstrap's F-measures in percent, always the same for the same texts."""
    try:
        from rouge_score import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            rouge_scorer,
            scoring,
        )
    except ImportError as error:
        raise BackendError(f"ROUGE needs the package rouge-score: {error}") from error
    # The bootstrap draws from NumPy's global generator, which the releases seed with 0 as well.
    np.random.seed(0)  # noqa: NPY002
    scorer = rouge_scorer.RougeScorer(list(TYPES), use_stemmer=False)
    aggregator: Any = scoring.BootstrapAggregator()
    for prediction, reference in zip(predictions, references):
        aggregator.add_scores(scorer.score(reference, prediction))
    found = aggregator.aggregate()
    return {name: float(found[name].mid.fmeasure) * 100 for name in TYPES}
