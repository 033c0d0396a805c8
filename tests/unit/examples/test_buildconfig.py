"""Build configurations as users have them, with three sections and nothing of the kit's."""

from __future__ import annotations

import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.commandlines.check import check
from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.examples import catalogue, plan
from kit.manifests import record
from tests.unit.examples.local import MODEL

if TYPE_CHECKING:
    from pathlib import Path

    from kit.examples.recipe import Recipe
    from tests.unit.examples.local import Site

GOOD = """\
model:
  model_dir: ./model
  output_dir: /engines/llama
  dtype: float16
checkpoint:
  checkpoint_dir: checkpoint
  tp_size: 2
  pp_size: 1
build:
  max_input_len: 1024
  max_output_len: 256
  max_batch_size: 4
  max_beam_width: 2
"""
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=3,
)
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}


def load(folder: Path, text: str = GOOD, config: Any = LLAMA) -> Recipe:
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text(
        config if isinstance(config, str) else json.dumps(config)
    )
    file = folder / "buildconfig.yaml"
    file.write_text(text)
    return catalogue.load(file)


@pytest.mark.parametrize("release", releases.versions())
def test_valid_as_it_is_for_every_release(tmp_path: Path, release: str) -> None:
    planned = plan.plan(load(tmp_path), release)
    assert planned.steps[-1].name == "build"
    for step in planned.steps:
        assert check(step.line(), release, explain=False).verdict == "accepted"
    build = planned.steps[-1].line()
    assert "--max_beam_width 2" in build
    limit = releases.between(release, "0.11.0", None)
    assert ("--max_seq_len 1280" if limit else "--max_output_len 256") in build


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"model_type": "gpt2"}, "gpt"),
        ({"architectures": ["GPT2LMHeadModel"]}, "gpt"),
        (LLAMA, "llama"),
        ({"model_type": "llama"}, "llama"),
        ({"model_type": "gpt_bigcode"}, "starcoder"),
        ({"architectures": ["GPTBigCodeForCausalLM"]}, "starcoder"),
        ({"model_type": "gpt2", "architectures": ["GPT2LMHeadCustomModel"]}, "santacoder"),
    ],
)
def test_the_model_says_its_family(tmp_path: Path, config: Any, family: str) -> None:
    found = load(tmp_path, config=config)
    assert family in (found.family, found.variant)
    assert (found.family == "llama") == (family == "llama")


def test_a_key_of_the_plan_is_found_where_the_file_has_it(tmp_path: Path) -> None:
    text = GOOD + "  quantization: smoothquant\n"
    with pytest.raises(KitError, match="writes float16 and float32 only") as caught:
        plan.plan(load(tmp_path, text.replace("float16", "bfloat16")), "0.5.0")
    assert str(caught.value).startswith(f"{tmp_path}/buildconfig.yaml:14:17: ")
    text = GOOD.replace("pp_size: 1", "pp_size: 2")
    with pytest.raises(KitError, match="tensor parallel only") as caught:
        plan.plan(load(tmp_path, text, {"model_type": "gpt2"}), "0.5.0")
    assert str(caught.value).startswith(f"{tmp_path}/buildconfig.yaml:8:12: ")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "t5"}, "no family for model_type 't5'"),
        ({"model_type": "llama", "architectures": ["Other"]}, r"architectures \['Other'\]"),
        ({}, "no family for model_type None"),
        ([], "known: GPT2LMHeadModel"),
        ("{", "not valid JSON"),
    ],
)
def test_a_model_of_no_known_family(tmp_path: Path, config: Any, message: str) -> None:
    with pytest.raises(KitError, match=message) as caught:
        load(tmp_path, config=config)
    assert str(caught.value).startswith(f"{tmp_path}/buildconfig.yaml:2:14: model_dir: ")
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("max_output_len", "max_ouput_len", "11:3", "'max_ouput_len'; did you mean max_output_len"),
        ("model_dir", "modeldir", "2:3", "unknown key 'modeldir'; did you mean model_dir"),
        ("tp_size: 2", "tp: 2", "7:3", "unknown key 'tp'"),
        ("checkpoint:\n", "checkpoints:\n", "5:1", "'checkpoints'; did you mean checkpoint"),
        ("float16", "fp16", "4:10", "dtype: unknown 'fp16'; did you mean float16"),
        ("tp_size: 2", "tp_size: 0", "7:12", "tp_size: expected 1 or more"),
        ("tp_size: 2", "tp_size: two", "7:12", "tp_size: expected a whole number"),
        ("  max_batch_size: 4\n", "", "10:3", "missing key 'max_batch_size'"),
        ("./model", "elsewhere", "2:14", "expected a folder with a Hugging Face model"),
        ("./model", "~nobody-is-called-so/x", "2:14", "model_dir: ~nobody-is-called-so/x: "),
        ("./model", '""', "2:14", "expected a path"),
        ("max_beam_width: 2", "quantization: int9", "13:17", "did you mean int8"),
    ],
)
def test_a_bad_key_is_one_error_with_its_place(
    tmp_path: Path, old: str, new: str, place: str, message: str
) -> None:
    assert old in GOOD
    with pytest.raises(KitError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert str(caught.value).startswith(f"{tmp_path}/buildconfig.yaml:{place}: ")
    assert message in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(key=st.sampled_from(re.findall(r"(\w+): \S", GOOD)), value=ANYTHING)
def test_any_value_is_taken_or_refused_with_its_place(
    tmp_path: Path, key: str, value: object
) -> None:
    text = re.sub(rf"\b{key}: .*", lambda _: f"{key}: {json.dumps(value)}", GOOD)
    found: KitError | None = None
    try:
        plan.plan(load(tmp_path, text), "1.2.1")
    except KitError as error:
        found = error
    if found is not None:
        assert found.exit_code == ExitCode.USAGE
        assert str(found).startswith(f"{tmp_path}/buildconfig.yaml:")


def test_the_plan_says_which_folder_is_which(tmp_path: Path) -> None:
    odd = GOOD.replace("/engines/llama", '"/engines/a\\nrm -r b"')
    planned = plan.plan(load(tmp_path, odd), "0.16.0")
    assert planned.to_dict()["folders"] == [
        {"path": str(tmp_path / "model"), "mount": "/kit/model"},
        {"path": str(tmp_path / "checkpoint"), "mount": "/kit/work/checkpoint"},
        {"path": "/engines/a\nrm -r b", "mount": "/kit/work/engine"},
    ]
    lines = planned.script().splitlines()
    assert f'# /kit/model is "{tmp_path}/model".' in lines
    assert not any(line.startswith("rm") for line in lines)


def test_the_name_of_the_file_is_that_of_the_runs(tmp_path: Path) -> None:
    good = load(tmp_path)
    assert (good.name, good.argument) == ("buildconfig", f"--config {tmp_path}/buildconfig.yaml")
    for name in ("two\nlines.yaml", ".yaml", "-x.yaml"):
        (tmp_path / name).write_text(GOOD)
        with pytest.raises(KitError, match="expected letters, digits"):
            catalogue.load(tmp_path / name)


@pytest.mark.parametrize("release", ["0.5.0", "0.16.0"])
def test_a_run_makes_the_engine_of_the_users_own_model(site: Site, release: str) -> None:
    folder = site.project.root
    shutil.copytree(MODEL, folder / "model")
    text = GOOD.replace("tp_size: 2", "tp_size: 1").replace("float16", "float32")
    text = (
        text.replace("1024", "64").replace("256", "32").replace("max_beam_width: 2", "workers: 1")
    )
    file = folder / "buildconfig.yaml"
    file.write_text(text)
    path = site.run(catalogue.load(file), release)
    manifest = record.read(path)
    assert [command.name for command in manifest.commands] == ["convert", "build"]
    assert {file.path for file in manifest.model.files} == {item.name for item in MODEL.iterdir()}
    assert manifest.outputs == ()
    assert any((path.parent / "engine").iterdir())


def test_a_model_that_is_links_to_elsewhere_is_refused(site: Site) -> None:
    """As in the cache of huggingface_hub: a container would see links to nothing."""
    folder = site.project.root
    shutil.copytree(MODEL, folder / "model")
    (folder / "model" / "tokenizer.json").rename(folder / "blob")
    (folder / "model" / "tokenizer.json").symlink_to("../blob")
    text = GOOD.replace("1024", "64").replace("256", "32")
    example = load(folder, text, (MODEL / "config.json").read_text())
    with pytest.raises(KitError, match=r"tokenizer\.json: a link out of the folder") as caught:
        site.run(example, "0.16.0")
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_run_of_another_release_names_the_file(site: Site) -> None:
    example = load(site.project.root)
    with pytest.raises(KitError) as caught:
        site.run(example, "0.7.0")
    assert str(caught.value.hint).startswith(f"kit run {example.argument} --stack rehearsal")
