from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import jsonschema
import pytest
import yaml

from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.examples import options, recipe

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
    assert properties["checkpoint"]["properties"]["dtype"]["enum"] == list(recipe.DTYPES)
    build = properties["build"]["properties"]
    assert set(build) == {*recipe.Build.__slots__, *options.KEYS}
    assert set(properties["run"]["properties"]) == set(recipe.Run.__slots__)
    assert build["quantization"]["enum"] == list(options.QUANTIZATIONS)
    assert build["kv_cache_dtype"]["enum"] == list(options.CACHE_TYPES)
    assert build["gemm_plugin"]["enum"] == list(options.PLUGINS)
    assert build["gpt_attention_plugin"]["enum"] == list(options.PLUGINS)
    assert build["gather_logits"]["enum"] == list(options.LOGITS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kit.recipe/1", "kit.recipe/2"),
        ("family: gpt", "family: gtp"),
        ("dtype: float32", "dtype: float33"),
        ("dtype: float32", "dtype: float32\n  tp: 0"),
        ("dtype: float32", "dtype: float32\n  ttp: 2"),
        ("max_batch_size: 4", "max_batch_size: 4\n  per_token: true"),
        ("max_batch_size: 4", "max_batch_size: 4\n  quantization: smoothquant\n  per_token: 1"),
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
    said = "max_batch_size: 4\n  quantization: smoothquant\n  per_token: true\n  workers: 2"
    text = GOOD.replace("max_batch_size: 4", said, 1)
    published().validate(yaml.safe_load(text))
    assert load(tmp_path, text).options.said() == {
        "quantization": "smoothquant",
        "smoothquant_alpha": 0.5,
        "per_token": True,
        "workers": 2,
    }
