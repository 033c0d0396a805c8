from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.errors import ExitCode, KitError
from kit.examples import model_facts, plan, recipe, shape_checks
from kit.examples.model_facts import Dimensions, Unknown
from kit.examples.recipe import Build, Checkpoint
from tests.unit.examples.test_memory import asked, table

if TYPE_CHECKING:
    from pathlib import Path

    from kit.examples.recipe import Recipe

RELEASE = "0.16.0"


def llama(**changes: Any) -> Dimensions:
    return replace(table("llama-2-7b-hf"), **changes)


def of_llama(tp: int = 1, pp: int = 1, **options: Any) -> Recipe:
    return replace(asked(tp=tp, pp=pp, **options), family="llama")


def refused(wanted: Recipe, model: Dimensions) -> str:
    with pytest.raises(KitError) as caught:
        shape_checks.refuse_impossible(wanted, RELEASE, model)
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.hint == f"kit plan x --release {RELEASE}"
    return str(caught.value)


@pytest.mark.parametrize(
    ("tp", "model", "said"),
    [
        (3, {}, "x: tp: 3 ranks cannot share the model's 32 attention heads evenly; possible: 1, 2, 4, 8"),
        (4, {"inner": 11006}, "x: tp: 4 ranks cannot share the 11006 columns of the model's MLP"),
        (4, {"heads": 36, "kv_heads": 6}, "x: tp: 4 ranks cannot share the model's 6 key-value heads"),
    ],
)  # fmt: skip
def test_ranks_that_do_not_share_evenly(tp: int, model: dict[str, Any], said: str) -> None:
    assert refused(of_llama(tp), llama(**model)).startswith(said)


@pytest.mark.parametrize(
    ("tp", "model"),
    # As many key-value heads as ranks, more of them, fewer of them, one.
    [(4, {"kv_heads": 4}), (4, {"kv_heads": 8}), (8, {"kv_heads": 2}), (32, {"kv_heads": 1})],
)
def test_ranks_that_share_or_copy_key_value_heads(tp: int, model: dict[str, Any]) -> None:
    shape_checks.refuse_impossible(of_llama(tp), RELEASE, llama(inner=11008, **model))


def test_layers_that_do_not_share_evenly() -> None:
    said = refused(of_llama(pp=5), llama())
    assert said == (
        "x: pp: 5 ranks cannot share the model's 32 layers evenly; possible: 1, 2, 4, 8, 16, 32"
    )
    shape_checks.refuse_impossible(of_llama(2, 4), RELEASE, llama())


def test_embeddings_that_do_not_share_evenly() -> None:
    odd = llama(vocabulary=32001)
    cut = of_llama(2, parallel_embedding="vocabulary")
    assert "32001 words evenly, and LLaMA's converter does not pad" in refused(cut, odd)
    shape_checks.refuse_impossible(cut, RELEASE, llama(vocabulary=None))
    shape_checks.refuse_impossible(cut, RELEASE, llama())
    # GPT's converters pad it: GPT-2's is odd.
    gpt = asked(tp=2, parallel_embedding="vocabulary")
    assert table("gpt2").vocabulary == 50257
    shape_checks.refuse_impossible(gpt, RELEASE, table("gpt2"))

    hidden = of_llama(4, parallel_embedding="hidden")
    narrow = llama(hidden=4098)
    assert "4098 columns evenly; leave it out, or say vocabulary" in refused(hidden, narrow)
    shape_checks.refuse_impossible(hidden, RELEASE, llama())


@pytest.mark.parametrize(
    ("family", "variant", "name", "said"),
    [
        ("gpt", "gpt2", "llama-2-7b-hf", "x: family: the recipe says gpt, the model is llama"),
        ("llama", "gpt2", "gpt2", "x: family: the recipe says llama, the model is gpt"),
        ("gpt", "santacoder", "gpt2", "x: variant: the recipe says santacoder, the model is gpt2"),
        ("gpt", "gpt2", "starcoder", "x: variant: the recipe says gpt2, the model is starcoder"),
        ("gpt", "gpt2", "gpt-2b-001", "x: variant: the recipe says gpt2, the model is gpt-next"),
    ],
)
def test_a_model_of_another_kind(family: Any, variant: Any, name: str, said: str) -> None:
    wanted = replace(asked(), family=family, variant=variant)
    assert refused(wanted, table(name)).startswith(said)


def test_lengths_that_fill_a_table_of_positions_alone() -> None:
    model = table("gpt2")
    long = replace(asked(), build=Build(1, 1025, 10), places={"build.max_input_len": "x.yaml:3:5"})
    assert refused(long, model).startswith(
        "x.yaml:3:5: max_input_len: 1025 is more than the 1024 positions that the model has"
    )
    answer = replace(asked(), build=Build(1, 10, 2000))
    assert not answer.run.prompts
    shape_checks.refuse_impossible(answer, RELEASE, model)
    questions = replace(answer, run=replace(answer.run, prompts=("a",), max_output_len=1500))
    assert refused(questions, model).startswith("x: max_output_len: 1500 is more than")
    # Rotations go on behind what the model was trained on.
    shape_checks.refuse_impossible(replace(of_llama(), build=Build(1, 5000, 1)), RELEASE, llama())


def test_sequences_that_may_outgrow_the_positions_are_warned_of() -> None:
    long = replace(asked(), build=Build(1, 1000, 200), places={"build": "x.yaml:9:3"})
    (said,) = shape_checks.warnings(long, table("gpt2"))
    assert said.startswith("x.yaml:9:3: sequences of up to 1200 tokens: the model has 1024")
    assert "garbage" in said
    longer = replace(of_llama(), build=Build(1, 4000, 200))
    (said,) = shape_checks.warnings(longer, llama())
    assert "it was not trained on longer ones" in said
    assert shape_checks.warnings(replace(asked(), build=Build(1, 924, 100)), table("gpt2")) == ()
    assert shape_checks.warnings(longer, llama(positions=None)) == ()


def test_an_embedding_that_is_not_shared_is_warned_of() -> None:
    (said,) = shape_checks.warnings(asked(share_embedding=True), llama())
    assert "share_embedding: does nothing" in said
    assert shape_checks.warnings(asked(share_embedding=True), table("gpt2")) == ()


@pytest.mark.parametrize(
    ("found", "dtype", "said"),
    [
        ("float16", "bfloat16", "changes them a little"),
        ("bfloat16", "float16", "changes them a little"),
        ("float16", "float32", "takes twice the memory"),
        ("float16", "float16", None),
        ("float32", "float16", None),  # what every document does
        (None, "float16", None),
    ],
)
def test_weights_of_another_type(found: str | None, dtype: str, said: str | None) -> None:
    warning = shape_checks.dtype_warning(asked(dtype), replace(table("gpt2"), dtype=found))
    assert (warning is None) == (said is None)
    assert said is None or said in str(warning)


def test_unknown_dimensions_refuse_nothing() -> None:
    unknown = Unknown("nobody knows")
    shape_checks.refuse_impossible(of_llama(3, 7), RELEASE, unknown)
    assert shape_checks.warnings(of_llama(), unknown) == ()
    assert shape_checks.dtype_warning(of_llama(), unknown) is None


def test_no_example_is_refused_by_the_model_that_it_names() -> None:
    for example in recipe.catalog():
        facts = model_facts.of_recipe(example)
        shape_checks.refuse_impossible(example, example.releases[-1], facts)


def test_a_plan_is_refused_at_the_line(tmp_path: Path) -> None:
    text = (recipe.CATALOG / "gpt2-tiny-tp2.yaml").read_text(encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(text.replace("gpt2-tiny-tp2", "mine").replace("tp: 2", "tp: 3"))
    with pytest.raises(KitError) as caught:
        plan.plan(recipe.load(path), RELEASE)
    line = next(i for i, row in enumerate(path.read_text().splitlines(), 1) if "tp: 3" in row)
    assert str(caught.value).startswith(f"{path}:{line}:")
    assert "tp: 3 ranks cannot share the model's 4 attention heads evenly" in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


def test_what_a_release_cannot_do_is_said_first() -> None:
    wanted = replace(recipe.find("gpt2-tiny"), checkpoint=Checkpoint("float16", 1, 2))
    with pytest.raises(KitError, match=r"release 0\.5\.0 has tensor parallel only"):
        plan.plan(wanted, "0.5.0")
    with pytest.raises(KitError, match="3 layers evenly"):
        plan.plan(wanted, RELEASE)
