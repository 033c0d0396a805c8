from __future__ import annotations

import copy
import dataclasses
import json
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.examples import options, recipe, source, tasks

if TYPE_CHECKING:
    from pathlib import Path

GOOD = (recipe.CATALOG / "gpt2-tiny.yaml").read_text()


def load(folder: Path, text: str, name: str = "gpt2-tiny") -> recipe.Recipe:
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return recipe.load(path)


def test_catalog_holds_every_file_and_all_are_good() -> None:
    found = recipe.catalog()
    assert [item.name for item in found] == recipe.names()
    assert {"gpt2-tiny", "gpt2-tiny-tp2"} <= {item.name for item in found}
    assert recipe.find("gpt2-tiny-tp2").world_size == 2
    assert recipe.find("gpt2-tiny").releases == tuple(releases.versions())


def test_unknown_example_names_the_nearest() -> None:
    with pytest.raises(KitError, match="did you mean gpt2-tiny") as caught:
        recipe.find("gpt2-tny")
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_name_is_no_path() -> None:
    with pytest.raises(KitError):
        recipe.find("../catalog/gpt2-tiny")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema: kit.recipe/1", "schema: kit.recipe/2", "2:9: expected schema"),
        ("name: gpt2-tiny", "name: other", "expected 'gpt2-tiny'"),
        ("family: gpt", "family: gtp", "did you mean gpt"),
        ("dtype: float32", "dtype: float33", "did you mean float32"),
        ("dtype: float32", "dtype: float32\n  tp: 0", "tp: expected 1 or more"),
        ("dtype: float32", "dtype: float32\n  ttp: 2", "unknown key 'ttp'"),
        ("max_batch_size: 4", "max_batch_size: 2", "3 are more than max_batch_size 2"),
        ("max_batch_size: 4", 'max_batch_size: "4"', "expected a whole number"),
        ("  max_output_len: 24", "  max_output_len: 65", "more than the engine is built for"),
        ("- Alice was", "- -5 degrees", "begins with '-'"),
        ("- Alice was", '- ""', "is empty"),
        ("- Alice was", "- The Queen said", "15:5: prompts: 'The Queen said' stands twice"),
        ("- Alice was", "- 5", "expected a text"),
        ("- Alice was", '- ":"', "another program of mpirun"),
        ('">=0.5.0,<=1.2.1"', '"latest"', "not a range of releases"),
        ('">=0.5.0,<=1.2.1"', '">2"', "holds no release"),
        ('">=0.5.0,<=1.2.1"', "[0.9.0, 0.9.1]", "unknown release '0.9.1'"),
        ('">=0.5.0,<=1.2.1"', "7", "expected a range"),
        ("model: gpt2-tiny", "model: [a]", "expected a text"),
        ("model: gpt2-tiny\n", "", "missing key 'model'"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(KitError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1) if old != "  max_output_len: 24" else
             GOOD.replace("max_output_len: 24", "max_output_len: 65"))  # fmt: skip
    assert caught.value.exit_code == ExitCode.USAGE
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/gpt2-tiny.yaml:")


def test_releases_may_be_a_list(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD.replace('">=0.5.0,<=1.2.1"', "[0.16.0, 0.9.0]"))
    assert found.releases == ("0.9.0", "0.16.0")


def test_digest_is_of_the_content_not_of_the_words_about_it() -> None:
    found = recipe.find("gpt2-tiny")
    assert dataclasses.replace(found, description="other").digest == found.digest
    assert dataclasses.replace(found, model="other").digest != found.digest
    run = dataclasses.replace(found.run, max_output_len=3)
    assert dataclasses.replace(found, run=run).digest != found.digest


@cache
def published() -> jsonschema.Draft202012Validator:
    schema = json.loads(recipe.PUBLISHED.read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", recipe.names())
def test_catalog_keeps_the_published_schema(name: str) -> None:
    published().validate(yaml.safe_load((recipe.CATALOG / f"{name}.yaml").read_text()))


def test_published_schema_has_every_option_and_value() -> None:
    properties = json.loads(recipe.PUBLISHED.read_bytes())["properties"]
    assert properties["family"]["enum"] == list(recipe.FAMILIES)
    assert properties["variant"]["enum"] == list(recipe.VARIANTS)
    assert properties["workflow"]["enum"] == list(recipe.WORKFLOWS)
    weights, build = (properties[name]["properties"] for name in ("checkpoint", "build"))
    assert weights["dtype"]["enum"] == list(recipe.DTYPES)
    assert set(weights) == {*recipe.Checkpoint.__slots__, *options.CHECKPOINT_KEYS}
    assert set(build) == {*recipe.Build.__slots__, "max_seq_len", *options.BUILD_KEYS}
    for name, values in options.CHOICES.items():
        assert (weights if name in weights else build)[name]["enum"] == list(values)
    assert set(properties["run"]["properties"]) == set(tasks.Run.__slots__)
    evaluate = properties["evaluate"]["properties"]
    assert set(evaluate) == set(tasks.Evaluate.__slots__)
    assert set(evaluate["summarize"]["properties"]) == set(tasks.Summarize.__slots__)
    served = properties["serve"]["properties"]["triton"]["properties"]
    assert set(served) == set(tasks.Triton.__slots__)
    assert served["batching"]["enum"] == list(tasks.BATCHINGS)
    given = properties["model"]["anyOf"][1]["properties"]
    assert set(given) == {"name", *source.Source.__slots__}
    assert set(given["dummy"]["properties"]) == set(source.Dummy.__slots__)
    assert given["dummy"]["properties"]["hidden_act"]["enum"] == list(source.ACTIVATIONS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kit.recipe/1", "kit.recipe/2"),
        ("family: gpt", "family: gtp"),
        ("dtype: float32", "dtype: float33"),
        ("dtype: float32", "dtype: float32\n  tp: 0"),
        ("dtype: float32", "dtype: float32\n  ttp: 2"),
        ("dtype: float32", "dtype: float32\n  per_token: true"),
        ("dtype: float32", "dtype: float32\n  quantization: smoothquant\n  per_token: 1"),
        ("max_batch_size: 4", "max_batch_size: 4\n  quantization: int8"),
        ("max_batch_size: 4", "max_batch_size: 4\n  gather_logits: some"),
        ("- Alice was", "- -5 degrees"),
        ("- Alice was", "- The Queen said"),
        ("- Alice was", '- "  "'),
        ("- Alice was", '- ":"'),
        ("model: gpt2-tiny\n", ""),
        ('">=0.5.0,<=1.2.1"', "7"),
    ],
)
def test_published_schema_refuses_what_the_kit_refuses(tmp_path: Path, old: str, new: str) -> None:
    assert old in GOOD
    text = GOOD.replace(old, new, 1)
    assert not published().is_valid(yaml.safe_load(text))
    with pytest.raises(KitError):
        load(tmp_path, text)


def test_published_schema_takes_what_the_kit_takes(tmp_path: Path) -> None:
    said = "dtype: float32\n  quantization: smoothquant\n  per_token: true"
    text = GOOD.replace("dtype: float32", said, 1)
    text = text.replace("max_batch_size: 4", "max_batch_size: 4\n  workers: 2", 1)
    published().validate(yaml.safe_load(text))
    assert load(tmp_path, text).options.said() == {
        "quantization": "smoothquant",
        "smoothquant_alpha": 0.5,
        "per_token": True,
        "workers": 2,
    }


FULL: dict[str, Any] = {
    "schema": "kit.recipe/1",
    "name": "full",
    "description": "everything at once",
    "family": "gpt",
    "variant": "gpt2",
    "workflow": "commands",
    "model": {"name": "gpt2", "repository": "openai-community/gpt2", "commit": "0" * 40},
    "checkpoint": {
        "dtype": "float16",
        "tp": 2,
        "pp": 1,
        "quantization": "smoothquant",
        "smoothquant_alpha": 0.25,
        "per_token": True,
        "per_channel": False,
        "kv_cache_dtype": "int8",
        "parallel_embedding": "vocabulary",
        "share_embedding": True,
        "processes": 2,
    },
    "build": {
        "max_batch_size": 8,
        "max_input_len": 64,
        "max_output_len": 32,
        "max_seq_len": 96,
        "max_beam_width": 2,
        "max_num_tokens": 512,
        "gpt_attention_plugin": "float16",
        "gemm_plugin": "auto",
        "lookup_plugin": "float16",
        "paged_kv_cache": True,
        "tokens_per_block": 64,
        "packed_input": True,
        "in_flight_batching": True,
        "context_fmha": True,
        "prompt_table_size": 10,
        "lora": {"dir": "adapter", "modules": ["attn_qkv"], "rank": 8},
        "timing_cache": "x/model.cache",
        "workers": 2,
        "strongly_typed": True,
        "gather_logits": "context",
        "log_level": "info",
    },
    "run": {
        "prompts": ["a", "b"],
        "max_output_len": 8,
        "end_id": 7,
        "num_beams": 2,
        "temperature": 1,
        "top_k": 1,
        "top_p": 0,
        "random_seed": 0,
        "prompt_table": "table.nemo",
        "prompt_tasks": [0, 1],
        "nodes": 1,
        "gpus_per_node": 8,
    },
    "evaluate": {
        "summarize": {
            "dataset": "articles",
            "rouge1": 14,
            "batch_size": 2,
            "max_articles": 3,
            "output_len": 16,
            "max_input_len": 32,
            "num_beams": 2,
            "top_k": 1,
            "hugging_face": True,
            "rouge_dir": "rouge",
        },
        "perplexity": 15.5,
    },
    "serve": {
        "triton": {
            "batching": "inflight",
            "decoupled": True,
            "max_queue_delay": 100,
            "kv_cache_fraction": 0.2,
            "kv_cache_reuse": True,
            "max_tokens_in_cache": 4096,
            "instances": 2,
            "http_port": 8000,
            "grpc_port": 8001,
            "metrics_port": 8002,
        }
    },
    "releases": ">=0.5.0",
}
DUMMY: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "hidden_act": "swiglu",
    "max_position_embeddings": 128,
    "rotary_pct": 0.5,
    "bias": False,
}
SOURCES: list[Any] = [
    "gpt2-tiny",
    FULL["model"],
    {"name": "mine", "directory": "here"},
    {"name": "mine", "nemo": "mine.nemo"},
    {"name": "mine", "dummy": DUMMY, "tokenizer": "gpt2-tiny"},
]

# What the kit says of documents that the schema takes: one value against another, or the world.
BEYOND = re.compile(
    r"expected 'full'|unknown release|not a range of releases|holds no release"
    r"|more than |do not divide|leaves no new token|together|of sampling|is of family|needs |of NeMo"
    r"|have no tokenizer|do not hold tp|share one table|want a Hugging Face|in flight|different ones"
    r"|for each of|stands twice"
)
ODD: list[Any] = [
    *(None, True, False, 0, 1, 2, 3, 64, -1, 0.5, 2.5, 101.5, 1 << 40, "", " ", "x", "x/y", "a b"),
    *([], [0], ["a"], ["a", "a"], {}, {"x": 1}, "float16", "auto", "disable", "int8", "swiglu"),
    *("y.nemo", "y.npy", "y.csv", "y.cache", "0" * 40, ">=0.9.0", "llama", "gpt-next", "static"),
]


def spots(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document."""
    found = [above] if above else []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += spots(inner, (*above, key))
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """A good recipe with some values taken away, put in, or made something else."""
    document = copy.deepcopy(FULL)
    document["model"] = copy.deepcopy(draw(st.sampled_from(SOURCES)))
    for name in draw(st.lists(st.sampled_from(["run", "evaluate", "serve", "variant"]))):
        document.pop(name, None)
    for _ in range(draw(st.integers(0, 4))):
        spot = draw(st.sampled_from(spots(document)))
        inner = document
        for key in spot[:-1]:
            inner = inner[key]
        kind = draw(st.sampled_from(["take", "put", "add"]))
        if kind == "take":
            inner.pop(spot[-1])
        else:
            inner[spot[-1] if kind == "put" else f"{spot[-1]}_"] = draw(st.sampled_from(ODD))
    return document


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(document=mutated())
def test_schema_and_code_agree(tmp_path: Path, document: dict[str, Any]) -> None:
    errors = [error.message for error in published().iter_errors(document)]
    try:
        load(tmp_path, yaml.safe_dump(document, sort_keys=False), "full")
        refused = None
    except KitError as error:
        refused = str(error)
    if refused is None:
        assert not errors
        return
    assert refused.startswith(f"{tmp_path}/full.yaml:")
    assert errors or BEYOND.search(refused), refused


def test_everything_at_once_is_read(tmp_path: Path) -> None:
    document = {**FULL, "checkpoint": dict(FULL["checkpoint"])}
    published().validate(document)
    with pytest.raises(KitError, match=r"top_k: is of sampling") as caught:
        load(tmp_path, yaml.safe_dump({**document, "run": {**FULL["run"], "top_k": 4}}), "full")
    assert caught.value.exit_code == ExitCode.USAGE
    found = load(tmp_path, yaml.safe_dump(document), "full")
    assert found.source.commit == "0" * 40
    assert found.build.max_seq_len == 96
    assert found.options.lora == options.Lora(tmp_path / "adapter", ("attn_qkv",), 8)
    assert found.inputs == (
        (tmp_path / "table.nemo", "/kit/input/table.nemo"),
        (tmp_path / "x/model.cache", "/kit/input/model.cache"),
        (tmp_path / "adapter", "/kit/lora"),
        (tmp_path / "rouge", "/kit/rouge"),
    )
    assert found.where("checkpoint.tp").startswith(f"{tmp_path}/full.yaml:")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variant": "gpt-next"}, "variant: gpt-next has weights of NeMo only"),
        (
            {"family": "llama", "variant": "starcoder"},
            "variant: is of family gpt, found family llama",
        ),
        ({"model": SOURCES[3]}, "nemo: needs family: gpt and variant: gpt-next"),
        ({"model": {"name": "m", "dummy": DUMMY}}, "dummy: dummy weights have no tokenizer"),
        (
            {"run": {**FULL["run"], "nodes": 3}},
            "nodes: 3 nodes of 8 GPUs do not hold tp 2 x pp 1 = 2",
        ),
        ({"run": {**FULL["run"], "num_beams": 3}}, "num_beams: 3 is more than the engine"),
        (
            {"build": {**FULL["build"], "max_seq_len": 97}},
            "max_seq_len: 97 is not max_input_len 64",
        ),
        ({"build": {**FULL["build"], "max_seq_len": 64}}, "max_seq_len: 64 leaves no new token"),
        (
            {"checkpoint": {**FULL["checkpoint"], "parallel_embedding": "hidden"}},
            "share_embedding: ranks share one table only where",
        ),
        (
            {"evaluate": {"summarize": {"output_len": 33}}},
            r"output_len: 33 is more than the engine is built for \(32\)",
        ),
        (
            {"build": {**FULL["build"], "gather_logits": "generation"}},
            "perplexity: needs the logits of the prompt",
        ),
        (
            {"build": {**FULL["build"], "gpt_attention_plugin": "disable", "packed_input": False}},
            "packed_input: in_flight_batching needs it|gpt_attention_plugin: in_flight_batching",
        ),
        (
            {"serve": {"triton": {"http_port": 8000, "grpc_port": 8000}}},
            r"expected different ones, found \[8000, 8000\]",
        ),
        (
            {"model": {"name": "m", "nemo": "a.nemo", "directory": "d"}},
            "nemo: the model has directory",
        ),
        ({"model": {"name": "m", "commit": "0" * 40}}, "commit: is of a repository"),
        (
            {"model": {"name": "m", "dummy": {**DUMMY, "num_attention_heads": 5}}},
            "num_attention_heads: 5 do not divide hidden_size 64",
        ),
    ],
)
def test_what_contradicts_itself_is_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    document = copy.deepcopy({**FULL, **change})
    with pytest.raises(KitError, match=message) as caught:
        load(tmp_path, yaml.safe_dump(document), "full")
    assert str(caught.value).startswith(f"{tmp_path}/full.yaml:")
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_folder_stands_for_every_file(tmp_path: Path) -> None:
    found = recipe.find("gpt-next-8b-prompt-tuning")
    given = recipe.with_model(found, tmp_path)
    assert [path.parent for path, _ in given.inputs] == [tmp_path] * 3
    assert given.digest == found.digest
    archive = tmp_path / "other.nemo"
    archive.write_bytes(b"")
    assert recipe.with_model(found, archive).source.nemo == archive
    with pytest.raises(KitError, match="wants a folder with a model, found a file"):
        recipe.with_model(recipe.find("gpt2-tiny"), archive)
    with pytest.raises(KitError, match="not there"):
        recipe.with_model(found, tmp_path / "nothing")
    own = recipe.with_model(recipe.find("gpt2-medium"), tmp_path)
    assert (own.own_model, own.locked_model, own.repository) == (tmp_path, None, None)


def test_a_dataset_is_for_an_evaluation(tmp_path: Path) -> None:
    found = recipe.with_dataset(recipe.find("gpt2-summarize"), tmp_path)
    assert found.evaluate is not None
    assert found.evaluate.summarize.dataset == tmp_path
    with pytest.raises(KitError, match="has no evaluation"):
        recipe.with_dataset(recipe.find("gpt2-tiny"), tmp_path)
    with pytest.raises(KitError, match="expected a folder with a dataset"):
        recipe.with_dataset(recipe.find("gpt2-summarize"), tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        (
            "gpt-next-2b",
            r"wants GPT-2B-001_bf16_tp1\.nemo, which no stack has",
            "--model FILE.nemo",
        ),
        (
            "gpt-next-8b-prompt-tuning",
            r"\.nemo, email_composition\.nemo, input\.csv",
            "--model DIR",
        ),
        ("gpt2-summarize", "with a folder of articles, which no stack has", "--dataset DIR"),
    ],
)
def test_what_nobody_has_given_is_asked_for(name: str, message: str, hint: str) -> None:
    with pytest.raises(KitError, match=message) as caught:
        recipe.refuse_incomplete(recipe.find(name))
    assert caught.value.hint == f"kit run {name} {hint} --stack STACK"
    recipe.refuse_incomplete(recipe.find("gpt2-tiny"))


def test_a_folder_that_is_given_is_complete(tmp_path: Path) -> None:
    recipe.refuse_incomplete(recipe.with_model(recipe.find("gpt-next-8b-prompt-tuning"), tmp_path))


def test_what_a_stack_has_to_lock() -> None:
    locked = {item.name: item.locked_model for item in recipe.catalog()}
    assert locked["gpt2-medium"] == "gpt2-medium"
    assert locked["gpt-175b-dummy"] == "gpt2-tiny"  # for its tokenizer
    assert locked["gpt-next-2b-dummy"] is None
    assert locked["gpt-next-2b"] is None
