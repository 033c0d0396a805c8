from __future__ import annotations

import pytest

from kit.errors import ExitCode
from kit.examples import evaluation
from kit.examples.tasks import Evaluate, Summarize
from kit.manifests.record import Evaluation

# As the releases print them: bare, with the logger's marks, with a time before.
LOG = """
[TensorRT-LLM] TensorRT-LLM version: 0.16.0
[11/28/2026-18:00:00] [TRT-LLM] [I] TensorRT-LLM Generated :
[11/28/2026-18:00:00] [TRT-LLM] [I]  Output : [['rouge1 : 99.0']]
[11/28/2026-18:00:01] [TRT-LLM] [I] TensorRT-LLM (total latency: 3.04 sec)
[11/28/2026-18:00:01] [TRT-LLM] [I] TensorRT-LLM beam 0 result
[11/28/2026-18:00:01] [TRT-LLM] [I]   rouge1 : 21.869322054781037
[TRT-LLM] [I]   rouge2 : 6.258925475911645
  rougeL : 1.6e1
rougeLsum : nan
[TRT-LLM] [I]   Per-token perplexity: 12.5
TensorRT-LLM beam 1 result
  rouge1 : 3.0
[TRT-LLM] [I] HF beam 0 result
[TRT-LLM] [I]   rouge1 : 22.08914935260929
""".splitlines()


def asked(rouge1: float | None = None, perplexity: float | None = None) -> Evaluate:
    return Evaluate(Summarize(rouge1=rouge1), perplexity)


def test_every_figure_is_read_with_whose_it_is() -> None:
    found = evaluation.read("summarize", LOG, asked(14, 15))
    assert [(item.subject, item.metric, item.value) for item in found] == [
        ("TensorRT-LLM beam 0", "rouge1", 21.8693),
        ("TensorRT-LLM beam 0", "rouge2", 6.2589),
        ("TensorRT-LLM beam 0", "rougeL", 16.0),
        ("TensorRT-LLM beam 0", "perplexity", 12.5),
        ("TensorRT-LLM beam 1", "rouge1", 3.0),
        ("HF beam 0", "rouge1", 22.0891),
    ]
    bounds = {(item.subject, item.metric): (item.least, item.most) for item in found}
    assert bounds.pop(("TensorRT-LLM beam 0", "rouge1")) == (14, None)
    assert bounds.pop(("TensorRT-LLM beam 0", "perplexity")) == (None, 15)
    assert set(bounds.values()) == {(None, None)}


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (asked(), None),
        (asked(21.8), None),
        (asked(21.8693), None),
        (asked(22), "ROUGE-1 of TensorRT-LLM beam 0 is 21.8693, expected 22 or more"),
        (asked(1, 12), "perplexity of TensorRT-LLM beam 0 is 12.5, expected 12 or less"),
        (asked(30, 1), "is 21.8693, expected 30 or more; perplexity of TensorRT-LLM beam 0"),
    ],
)
def test_a_bound_that_is_not_reached_is_said_with_both_numbers(
    wanted: Evaluate, message: str | None
) -> None:
    found = evaluation.read("summarize", LOG, wanted)
    for ended_well in (True, False):
        problem = evaluation.problem(found, wanted, ended_well=ended_well)
        if message is None:
            assert problem is None
        else:
            assert problem is not None
            assert message in str(problem)
            assert problem.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize("wanted", [asked(14), asked(None, 15)])
def test_what_was_asked_for_has_to_be_measured(wanted: Evaluate) -> None:
    said = ["HF beam 0 result", "  rouge1 : 30", "  Per-token perplexity: 1"]
    for lines in ([], said, ["rouge1 : 30.0"], ["TensorRT-LLM beam 0 result"]):
        found = evaluation.read("summarize", lines, wanted)
        problem = evaluation.problem(found, wanted, ended_well=True)
        assert problem is not None
        assert "has printed no" in str(problem)
        # A step that failed says better itself what was wrong.
        assert evaluation.problem(found, wanted, ended_well=False) is None


def test_of_a_repeated_figure_the_last_counts() -> None:
    lines = ["TensorRT-LLM beam 0 result", "rouge1 : 1", "rouge1 : 2"]
    (found,) = evaluation.read("summarize", lines, None)
    assert found.value == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_figures_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Evaluation("summarize", "x", "rouge1", value, None, None)


@pytest.mark.parametrize(("step", "is_by"), [("summarize", True), ("summarize-2", True),
                                             ("run", False), ("summary", False)])  # fmt: skip
def test_the_step_is_known_by_its_name(step: str, is_by: bool) -> None:
    assert evaluation.is_by(step) == is_by
