"""What a repository is filled in with, against the engine and the tables of every version."""

from __future__ import annotations

import json

import pytest

from kit.artifacts import engine as engines
from kit.data import repository as table
from kit.data import triton as containers
from kit.errors import ExitCode, KitError
from kit.triton import repository, settings

PLAIN = settings.triton


@pytest.fixture
def engine(pipeline):
    return engines.look(pipeline("0.16.0"))


def test_the_engine_says_the_sizes(engine) -> None:
    values = settings.filled(engine, "0.16.0", [])
    assert values["tensorrt_llm"]["triton_max_batch_size"] == "4"
    assert values["tensorrt_llm"]["max_beam_width"] == "1"
    assert values["tensorrt_llm"]["engine_dir"] == "/kit/work/engine"
    assert values["preprocessing"]["tokenizer_dir"] == "/kit/model"
    assert values["ensemble"] == {"triton_max_batch_size": "4"}


@pytest.mark.parametrize("version", [v for v in table.versions() if containers.shipping(v)])
def test_only_what_the_version_has_and_all_that_it_needs(engine, version) -> None:
    for model, values in settings.filled(engine, version, []).items():
        rows = {row["name"]: row for row in table.placeholders(PLAIN.FAMILY, model, version)}
        assert set(values) <= set(rows)
        fatal = "no longer parses"
        assert {name for name, row in rows.items() if fatal in row["if_left"]} <= set(values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tensorrt_llm", "expected MODEL.PARAMETER=VALUE"),
        ("nobody.x=1", "backend 0.16.0 has no model 'nobody'"),
        ("tensorrt_llm.max_beam_widht=1", "has no 'max_beam_widht'.*max_beam_width"),
        ("tensorrt_llm.max_kv_cache_length=9", "is max_attention_window_size since 0.7.0"),
        ("tensorrt_llm.engine_dir=/x", "--engine gives it"),
        ("preprocessing.tokenizer_dir=/x", "--tokenizer gives it"),
        ("tensorrt_llm.max_beam_width=two", r"expected a number \(int\), found 'two'"),
        ("tensorrt_llm.exclude_input_in_output=yes", "expected true or false"),
        ("tensorrt_llm.batching_strategy=V2", "expected one of inflight_fused_batching"),
        ('tensorrt_llm.gpu_device_ids="0"', "without quotation marks"),
        ("tensorrt_llm.gpu_device_ids=${x}", "dollar signs"),
        ("tensorrt_llm.decoupled_mode=true", "the same in all: tensorrt_llm true, .* false"),
    ],
)
def test_what_cannot_be_set(engine, text, message) -> None:
    with pytest.raises(KitError, match=message) as caught:
        settings.filled(engine, "0.16.0", [text])
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    "text",
    ["tensorrt_llm.triton_max_batch_size=5", "ensemble.triton_max_batch_size=9",
     "tensorrt_llm.max_beam_width=2"],
)  # fmt: skip
def test_what_the_engine_contradicts(engine, text) -> None:
    with pytest.raises(KitError, match="the engine has max_b") as caught:
        settings.filled(engine, "0.16.0", [text])
    assert caught.value.exit_code == ExitCode.CONTENT


def test_an_engine_that_takes_no_requests_in_flight(pipeline) -> None:
    folder = pipeline("0.16.0")
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["build_config"]["plugin_config"]["remove_input_padding"] = False
    path.write_text(json.dumps(config))
    found = engines.look(folder)
    values = settings.filled(found, "0.16.0", [])
    assert values["tensorrt_llm"]["batching_strategy"] == "V1"
    with pytest.raises(KitError, match="which wants an engine with"):
        settings.filled(found, "0.16.0", ["tensorrt_llm.batching_strategy=inflight_batching"])


def test_commas_and_colons() -> None:
    assert settings.words({"a": "0,1:2"}, "0.16.0") == ["a:0\\,1\\:2"]
    with pytest.raises(KitError, match=r"it can be told since 0.16.0"):
        settings.words({"a": "0,1"}, "0.15.0")


def test_the_release_of_an_engine(pipeline) -> None:
    folder = pipeline("0.16.0")
    assert repository.open_engine(folder, None)[1] == "0.16.0"
    with pytest.raises(KitError, match=r"expected an engine of release 0.9.0") as caught:
        repository.open_engine(folder, "0.9.0")
    assert caught.value.exit_code == ExitCode.CONTENT
    with pytest.raises(KitError, match="no such folder"):
        repository.open_engine(folder / "nowhere", None)


def test_what_a_repository_is_for(tmp_path) -> None:
    with pytest.raises(KitError, match="no such model repository"):
        repository.described(tmp_path / "none")
    with pytest.raises(KitError, match="says what it serves"):
        repository.described(tmp_path)
    (tmp_path / "kit.json").write_text('{"schema": "kit.triton-repository/1"}')
    with pytest.raises(KitError, match="missing key release") as caught:
        repository.described(tmp_path)
    assert caught.value.exit_code == ExitCode.CONTENT
    content = {
        "schema": "kit.triton-repository/1",
        "release": "0.16.0",
        "stack": "rehearsal-triton",
        "engine": str(tmp_path / "gone"),
        "tokenizer": str(tmp_path),
        "world_size": 1,
    }
    (tmp_path / "kit.json").write_text(json.dumps(content))
    with pytest.raises(KitError, match="gone is not there"):
        repository.described(tmp_path)
    found = repository.described(tmp_path, engine=str(tmp_path))
    assert found == ("0.16.0", "rehearsal-triton", tmp_path, tmp_path)
