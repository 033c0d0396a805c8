"""L6 and L7: whose scores carry anything, and what a gap is worth."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kit.reproduce import behaviour, logits
from kit.reproduce.ladder import LEVELS, Rung
from tests.unit.reproduce.sides import CONFIG, side

if TYPE_CHECKING:
    from pathlib import Path

    from kit.reproduce.side import Side

ENGINE, REFERENCE = "TensorRT-LLM beam 0", "HF beam 0"
TOKENS = Rung(LEVELS[6], "passed", "")
DIFFERENT = Rung(LEVELS[6], "differs", "")


def score(subject: str, metric: str, value: float, most: float | None = None) -> dict[str, Any]:
    row = {"step": "summarize", "subject": subject, "metric": metric, "value": value}
    return {**row, "least": None, "most": most}


def scored(folder: Path, *rows: dict[str, Any]) -> Side:
    return side(folder, {}, evaluations=list(rows))


def test_scores_of_the_reference_carry_nothing(tmp_path: Path) -> None:
    one = scored(tmp_path, score(REFERENCE, "perplexity", 11.0))
    rung = behaviour.within_bounds(one, one, DIFFERENT)
    assert rung.state == "unchecked"
    assert "not the engine's" in rung.evidence[0]
    rung = behaviour.within_bounds(one, one, TOKENS)
    assert rung.state == "passed"
    assert rung.reason.startswith("rests on the tokens")


def test_a_gap_leaves_the_level_unchecked_and_the_rest_is_told(tmp_path: Path) -> None:
    reference = score(REFERENCE, "perplexity", 11.0)
    rouge = score(ENGINE, "rouge1", 20.0)
    one = scored(tmp_path, score(ENGINE, "perplexity", 12.0), rouge, reference)
    other = scored(tmp_path, score(ENGINE, "perplexity", 1200.0), rouge, reference)
    rung = behaviour.within_bounds(one, other, TOKENS)
    assert rung.state == "unchecked"
    assert "12 → 1200, without a bound in the record" in rung.reason
    assert "what else there is of scores is within its bounds" in rung.reason
    assert any("rouge1" in line for line in rung.evidence)


def test_the_bound_of_the_first_beam_speaks_for_all(tmp_path: Path) -> None:
    first = score(ENGINE, "perplexity", 12.0, most=13.0)
    second = "TensorRT-LLM beam 1"
    one = scored(tmp_path, first, score(second, "perplexity", 12.4))
    other = scored(tmp_path, first, score(second, "perplexity", 12.5))
    rung = behaviour.within_bounds(one, other, DIFFERENT)
    assert rung.state == "passed"
    assert any("12.4 → 12.5, without a bound" in line for line in rung.evidence)
    alone = scored(tmp_path, score(second, "perplexity", 12.4))
    assert behaviour.within_bounds(alone, other, DIFFERENT).state == "unchecked"


def test_a_reference_that_is_out_of_its_bounds_is_still_no_agreement(tmp_path: Path) -> None:
    one = scored(tmp_path, score(REFERENCE, "rouge1", 20.0))
    other = scored(tmp_path, score(REFERENCE, "rouge1", 40.0))
    assert behaviour.within_bounds(one, other, TOKENS).state == "failed"
    assert behaviour.within_bounds(one, scored(tmp_path), TOKENS).state == "failed"


def array(*rows: tuple[float, ...]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([rows], dtype="<f4"))
    return stream.getvalue()


def test_logits_of_other_tokens_are_a_gap_beside_logits_that_agree(tmp_path: Path) -> None:
    def said(folder: str, token: int, second: float) -> Side:
        files = {
            "engine/config.json": CONFIG,
            logits.CONTEXT: array((1.0, 2.0)),
            logits.GENERATION: array((second, 2.0)),
        }
        row = {"prompt": "p", "prompt_token_ids": None, "token_ids": [1, token], "text": None}
        return side(tmp_path / folder, files, outputs=[row])

    rung = behaviour.within_bounds(said("1", 2, 1.0), said("2", 3, 9000.0), DIFFERENT)
    assert rung.state == "unchecked"
    assert "no row of it answers to the same tokens" in rung.reason
    assert "what else there is of logits is within its bounds" in rung.reason


@pytest.mark.parametrize(
    ("first", "second", "state"),
    [
        ((np.nan, np.nan), (np.nan, np.nan), "unchecked"),
        ((np.nan, 2.0), (np.nan, 2.0), "unchecked"),
        ((np.inf, 2.0), (np.inf, 2.001), "unchecked"),
        ((-np.inf, 2.0), (-np.inf, 3.0), "failed"),
        ((np.nan, 2.0), (np.nan, 3.0), "failed"),
        ((np.nan, 2.0), (1.0, 2.0), "failed"),
        ((np.inf, 2.0), (-np.inf, 2.0), "failed"),
        ((1.0, 2.0), (1.0, 2.0), "passed"),
    ],
)
def test_what_is_no_number_is_never_agreement(
    tmp_path: Path, first: tuple[float, ...], second: tuple[float, ...], state: str
) -> None:
    one, other = (
        side(tmp_path / name, {logits.CONTEXT: array(row)})
        for name, row in (("1", first), ("2", second))
    )
    assert behaviour.within_bounds(one, other, TOKENS).state == state


def test_finite_rows_do_not_hide_a_row_that_says_nothing(tmp_path: Path) -> None:
    one = side(tmp_path, {logits.CONTEXT: array((1.0, 2.0), (np.nan, 2.0))})
    rung = behaviour.within_bounds(one, one, TOKENS)
    assert rung.state == "unchecked"
    assert "1 rows hold values that are not finite" in rung.reason
    assert "1 of 2 rows compared" in rung.evidence[0]


def test_another_shape_is_told_with_both(tmp_path: Path) -> None:
    one = side(tmp_path / "1", {logits.CONTEXT: array((1.0, 2.0), (3.0, 4.0))})
    other = side(tmp_path / "2", {logits.CONTEXT: array((1.0, 2.0))})
    (item,) = behaviour.within_bounds(one, other, TOKENS).differences
    assert str(item) == f"{logits.CONTEXT}: shape: (1, 2, 2) → (1, 1, 2)"


def test_another_answer_of_a_server_without_other_answers(tmp_path: Path) -> None:
    def served(text: str) -> Side:
        image = {"manifest_digest": "sha256:" + "1" * 64, "image_id": "sha256:" + "2" * 64}
        answers = [{"prompt": "a", "text": text}]
        server = {"stack": "s", "image": image, "answers": answers}
        return side(tmp_path, {}, outputs=[], server=server)

    assert behaviour.same_tokens(served("b"), served("c"), is_promised=True).state == "failed"
    assert behaviour.same_tokens(served("b"), served("b"), is_promised=True).state == "passed"
