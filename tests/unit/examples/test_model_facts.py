from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.data import models
from kit.errors import ExitCode, KitError
from kit.examples import model_facts, recipe
from kit.examples.model_facts import Dimensions, Unknown
from kit.examples.source import Dummy, Source
from tests.unit.artifacts.test_nemo import CONFIG, archive, pieces
from tests.unit.examples.local import MODEL

if TYPE_CHECKING:
    from pathlib import Path

GPT2 = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": 2,
    "n_embd": 64,
    "n_head": 4,
    "n_positions": 128,
    "vocab_size": 300,
    "activation_function": "gelu_new",
    "torch_dtype": "float16",
}
LLAMA = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "vocab_size": 500,
    "hidden_act": "silu",
}


def of(config: dict[str, Any], **changes: Any) -> Dimensions:
    return model_facts.of_config({**config, **changes}, "config.json")


def test_gpt2() -> None:
    found = of(GPT2)
    assert (found.architecture, found.layers, found.hidden) == ("gpt2", 2, 64)
    assert (found.heads, found.kv_heads, found.head_size, found.inner) == (4, 4, 16, 256)
    assert (found.vocabulary, found.positions, found.learned_positions) == (300, 128, True)
    assert (found.is_gated, found.attention_bias, found.mlp_bias) == (False, True, True)
    assert (found.is_tied, found.dtype, found.norm_vectors) == (True, "float16", 2)
    assert of(GPT2, n_inner=100).inner == 100
    assert of(GPT2, n_inner=None).inner == 256
    assert not of(GPT2, tie_word_embeddings=False).is_tied


def test_santacoder_is_told_by_its_class_or_its_heads() -> None:
    for found in (
        of(GPT2, architectures=["GPT2LMHeadCustomModel"]),
        of(GPT2, attention_head_type="multiquery"),
    ):
        assert found.architecture == "santacoder"
        assert found.kv_heads == 1


def test_starcoder_has_one_key_value_head_unless_it_says_otherwise() -> None:
    starcoder = {**GPT2, "model_type": "gpt_bigcode", "architectures": ["GPTBigCodeForCausalLM"]}
    assert of(starcoder).architecture == "starcoder"
    assert of(starcoder).kv_heads == 1
    assert of(starcoder, multi_query=False).kv_heads == 4


def test_llama() -> None:
    found = of(LLAMA)
    assert (found.architecture, found.heads, found.kv_heads) == ("llama", 4, 2)
    assert (found.head_size, found.inner, found.vocabulary) == (16, 96, 500)
    assert (found.is_gated, found.is_tied, found.learned_positions) == (True, False, False)
    assert (found.attention_bias, found.norm_vectors, found.dtype) == (False, 1, None)
    assert of(LLAMA, head_dim=32).head_size == 32
    assert of(LLAMA, num_key_value_heads=None).kv_heads == 4
    assert of(LLAMA, dtype="bfloat16").dtype == "bfloat16"
    assert of(LLAMA, torch_dtype="torch.float16").dtype == "float16"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "expected one of GPT2LMHeadModel"),
        ({"architectures": ["GPT2LMHeadModel", "LlamaForCausalLM"]}, "architectures"),
        ({"architectures": [], "model_type": "t5"}, "model_type 't5'"),
        ({"n_layer": None}, "n_layer is missing"),
        ({"n_layer": "12"}, "n_layer: expected a whole number from 1"),
        ({"n_layer": True}, "n_layer: expected a whole number from 1"),
        ({"n_embd": 0}, "n_embd: expected a whole number from 1"),
        ({"vocab_size": 1 << 40}, "vocab_size: expected a whole number from 1"),
        ({"n_head": 5}, "5 heads do not divide the hidden size 64"),
    ],
)
def test_a_configuration_that_is_none(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(KitError) as caught:
        of(GPT2, **changes)
    assert said in str(caught.value)
    assert str(caught.value).startswith("config.json: ")
    assert caught.value.exit_code == ExitCode.CONTENT


def test_llama_with_heads_that_do_not_share_keys() -> None:
    with pytest.raises(KitError, match="num_key_value_heads 3 do not divide"):
        of(LLAMA, num_key_value_heads=3)


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    found = model_facts.of_folder(tmp_path)
    assert found == replace(of(LLAMA), source=str(tmp_path / "config.json"))
    (tmp_path / "config.json").unlink()
    with pytest.raises(KitError) as caught:
        model_facts.of_folder(tmp_path)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_nemo_archive_pads_its_vocabulary_as_training_did(tmp_path: Path) -> None:
    config = CONFIG + b"ffn_hidden_size: 100\nactivation: fast-swiglu\nbias: false\n"
    config += b"position_embedding_type: rope\nshare_embeddings_and_output_weights: false\n"
    config += b"tensor_model_parallel_size: 2\nmake_vocab_size_divisible_by: 64\n"
    members = {"model_config.yaml": config, "tokenizer.model": pieces(300)}
    found = model_facts.of_nemo(archive(tmp_path / "m.nemo", members))

    assert found.architecture == "gpt-next"
    assert (found.layers, found.hidden, found.heads, found.kv_heads) == (2, 64, 4, 4)
    assert (found.inner, found.is_gated, found.attention_bias, found.mlp_bias) == (
        100,
        True,
        False,
        False,
    )
    assert found.vocabulary == 384  # 300 up to a multiple of 64 * 2
    assert (found.positions, found.learned_positions, found.is_tied) == (128, False, False)
    assert found.source == f"{tmp_path / 'm.nemo'}: model_config.yaml"


def test_a_nemo_archive_whose_vocabulary_only_a_pickle_has(tmp_path: Path) -> None:
    found = model_facts.of_nemo(archive(tmp_path / "m.nemo", {"model_config.yaml": CONFIG}))
    assert found.vocabulary is None
    assert (found.inner, found.is_tied, found.learned_positions) == (256, True, True)
    said = {"model_config.yaml": CONFIG + b"override_vocab_size: 777\n"}
    assert model_facts.of_nemo(archive(tmp_path / "n.nemo", said)).vocabulary == 777


def test_dummy_dimensions() -> None:
    dummy = Dummy(vocab_size=51200, hidden_size=12288, num_hidden_layers=96, num_attention_heads=96)
    found = model_facts.of_dummy(dummy, "gpt2", "x.yaml:3:1: ")
    assert (found.inner, found.positions, found.kv_heads) == (4 * 12288, 1024, 96)
    assert (found.learned_positions, found.attention_bias, found.is_gated) == (True, True, False)
    next_ = replace(dummy, hidden_act="swiglu", rotary_pct=0.5, bias=False)
    found = model_facts.of_dummy(next_, "gpt-next", "")
    assert (found.learned_positions, found.attention_bias, found.is_gated) == (False, False, True)
    assert model_facts.of_dummy(dummy, "starcoder", "").kv_heads == 1
    llama = model_facts.of_dummy(dummy, "llama", "")
    assert (llama.is_gated, llama.attention_bias, llama.learned_positions) == (True, False, False)


def test_every_row_of_the_table_is_a_model_or_says_why_not() -> None:
    for row in models.table()["models"]:
        found = model_facts.known(row["names"][0], row["repository"])
        if row["config"] is None:
            assert isinstance(found, Unknown)
            assert row["hole"] in found.reason
        else:
            assert isinstance(found, Dimensions)
            assert found.vocabulary is not None
            assert row["source"] in found.source


@pytest.mark.parametrize(
    ("name", "millions"),
    # What their makers call them: 124M, 355M, 6.74B, 1.1B, 15.5B, 2B.
    [
        ("gpt2", 124),
        ("gpt2-medium", 355),
        ("llama-2-7b-chat-hf", 6738),
        ("santacoder", 1125),
        ("starcoder", 15517),
        ("gpt-2b-001", 2254),
    ],
)
def test_the_table_has_as_many_parameters_as_the_models(name: str, millions: int) -> None:
    found = model_facts.known(name, None)
    assert isinstance(found, Dimensions)
    assert round(parameters(found) / 1e6) == millions


def parameters(model: Dimensions) -> int:
    """Counted here once more, in another way than `kit.examples.rank_sizes` does."""
    assert model.vocabulary is not None
    assert model.positions is not None
    query, key = model.heads * model.head_size, model.kv_heads * model.head_size
    attention = model.hidden * (query + 2 * key) + query * model.hidden
    mlp = (3 if model.is_gated else 2) * model.hidden * model.inner
    biases = 0
    if model.attention_bias:
        biases += query + 2 * key + model.hidden
    if model.mlp_bias:
        biases += model.inner + model.hidden
    norms = 2 * model.norm_vectors * model.hidden
    tables = model.vocabulary * model.hidden * (1 if model.is_tied else 2)
    tables += model.positions * model.hidden if model.learned_positions else 0
    return (
        model.layers * (attention + mlp + biases + norms)
        + tables
        + model.norm_vectors * model.hidden
    )


def test_the_dimensions_of_a_recipe(tmp_path: Path) -> None:
    tiny = recipe.find("gpt2-tiny")
    found = model_facts.of_recipe(tiny)
    assert isinstance(found, Dimensions)
    assert found == replace(model_facts.of_folder(MODEL), source=found.source)
    assert "comes with the kit" in found.source

    own = replace(tiny, source=Source(directory=tmp_path))
    assert isinstance(unknown := model_facts.of_recipe(own), Unknown)
    assert "config.json" in unknown.reason
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    assert isinstance(found := model_facts.of_recipe(own), Dimensions)
    assert found.vocabulary == 300

    there = archive(tmp_path / "m.nemo", {"model_config.yaml": CONFIG})
    found = model_facts.of_recipe(replace(tiny, source=Source(nemo=there)))
    assert isinstance(found, Dimensions)
    assert found.architecture == "gpt-next"
    there.write_bytes(b"x")
    assert isinstance(model_facts.of_recipe(replace(tiny, source=Source(nemo=there))), Unknown)

    absent = replace(tiny, model="gpt-next-2b", source=Source(nemo=tmp_path / "absent.nemo"))
    assert isinstance(found := model_facts.of_recipe(absent), Dimensions)
    assert found.vocabulary == 256000

    nobodys = replace(tiny, model="nobodys", source=Source(repository="nobody/nobodys"))
    assert isinstance(unknown := model_facts.of_recipe(nobodys), Unknown)
    assert "nobody/nobodys" in unknown.reason
    assert "--model" in unknown.reason


def test_the_dimensions_of_dummy_weights_name_the_line() -> None:
    dummy = Dummy(vocab_size=100, hidden_size=64, num_hidden_layers=2, num_attention_heads=4)
    given = replace(
        recipe.find("gpt2-tiny"),
        source=Source(dummy=dummy),
        places={"model.dummy": "x.yaml:7:3"},
    )
    found = model_facts.of_recipe(given)
    assert isinstance(found, Dimensions)
    assert found.source.startswith("x.yaml:7:3: dummy weights")
    assert found.vocabulary == 100


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 1 << 30),
    st.floats(allow_nan=True),
    st.text(max_size=8),
    st.lists(st.sampled_from(["GPT2LMHeadModel", "LlamaForCausalLM", "x", 1]), max_size=2),
)


@given(
    base=st.sampled_from([GPT2, LLAMA]),
    changes=st.dictionaries(st.sampled_from([*GPT2, *LLAMA, "n_inner", "head_dim"]), _VALUES),
)
def test_any_configuration_is_a_model_or_refused(
    base: dict[str, Any], changes: dict[str, Any]
) -> None:
    found = refusal = None
    try:
        found = of(base, **changes)
    except KitError as error:
        refusal = error
    if found is None:
        assert refusal is not None
        assert refusal.exit_code == ExitCode.CONTENT
        assert str(refusal).startswith("config.json: ")
        return
    sizes = (found.layers, found.hidden, found.heads, found.kv_heads, found.head_size)
    assert all(type(size) is int and size >= 1 for size in sizes)
    assert found.heads % found.kv_heads == 0
