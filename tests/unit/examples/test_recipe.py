from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.examples import recipe

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
