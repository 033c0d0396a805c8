from __future__ import annotations

import io
import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kit.errors import ExitCode, KitError
from kit.examples import recipe
from kit.examples.model_checks import check_inputs, check_locked, check_model
from kit.examples.options import Lora
from kit.examples.source import Dummy, Source
from tests.unit.artifacts.test_nemo import CONFIG, Trap, archive, pieces
from tests.unit.examples.local import MODEL

if TYPE_CHECKING:
    from kit.examples.recipe import Recipe
    from tests.unit.examples.local import Site

RELEASE = "0.16.0"
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 548105171\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the model that came with the kit."""
    return Path(shutil.copytree(MODEL, tmp_path / "model"))


def wanted(**changes: Any) -> Recipe:
    found = replace(recipe.find("gpt2-tiny"), places={})
    return replace(found, checkpoint=replace(found.checkpoint, dtype="float16"), **changes)


def refused(
    folder: Path, example: Recipe | None = None, code: ExitCode = ExitCode.USAGE, **more: Any
) -> KitError:
    with pytest.raises(KitError) as caught:
        check_model(folder, example or wanted(), RELEASE, **more)
    assert caught.value.exit_code == code
    assert str(folder) in str(caught.value)
    assert caught.value.hint
    return caught.value


def write(path: Path, **changes: Any) -> None:
    """Change a JSON file; None takes a key out."""
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    content.update(changes)
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


def test_a_whole_model(folder: Path) -> None:
    assert check_model(folder, wanted(), RELEASE) == ()


def test_weights_of_another_type_are_said(folder: Path) -> None:
    found = wanted()
    other = replace(found, checkpoint=replace(found.checkpoint, dtype="bfloat16"))
    (said,) = check_model(folder, other, RELEASE)
    assert said == "gpt2-tiny: dtype: the weights are float16, and bfloat16 changes them a little"


def test_no_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()
    assert "no config.json in it" in str(refused(folder))
    assert "there is one in model" in str(refused_above(folder))


def refused_above(folder: Path) -> KitError:
    shutil.copy(MODEL / "config.json", folder)
    with pytest.raises(KitError) as caught:
        check_model(folder.parent, wanted(), RELEASE)
    return caught.value


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "model.safetensors: not there: the weights are not complete" in str(refused(folder))


def shards(
    folder: Path, suffix: str = "safetensors", index: str = "model.safetensors"
) -> list[Path]:
    """Weights in two files of which the index names both."""
    (folder / "model.safetensors").rename(folder / f"a.{suffix}")
    shutil.copy(folder / f"a.{suffix}", folder / f"b.{suffix}")
    names = {"wte.weight": f"a.{suffix}", "wpe.weight": f"b.{suffix}"}
    write(folder / f"{index}.index.json", weight_map=names)
    return [folder / f"a.{suffix}", folder / f"b.{suffix}"]


def test_shards_that_the_index_names(folder: Path) -> None:
    _, second = shards(folder)
    assert check_model(folder, wanted(), RELEASE) == ()
    second.unlink()
    said = str(refused(folder))
    assert "b.safetensors: not there" in said
    assert "a.safetensors" not in said


def test_shards_without_their_index(folder: Path) -> None:
    shards(folder)
    (folder / "model.safetensors.index.json").unlink()
    assert "model.safetensors.index.json: not there" in str(refused(folder))


def test_an_index_that_names_nothing(folder: Path) -> None:
    write(folder / "model.safetensors.index.json", weight_map={})
    with pytest.raises(KitError, match="names no file with weights") as caught:
        check_model(folder, wanted(), RELEASE)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_an_index_of_pickles_that_nobody_fetched_does_not_matter(folder: Path) -> None:
    names = {"wte.weight": "pytorch_model-00001-of-00002.bin"}
    write(folder / "pytorch_model.bin.index.json", weight_map=names)
    assert check_model(folder, wanted(), RELEASE) == ()


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", "model.safetensors.index.json"]
)
def test_git_lfs_pointers(folder: Path, name: str) -> None:
    (folder / name).write_text(POINTER)
    error = refused(folder, code=ExitCode.CONTENT)
    assert f"{name}: Git LFS pointers, not the files" in str(error)
    assert error.hint == f"git -C {folder} lfs pull"


def test_a_pointer_that_nobody_reads_does_not_matter(folder: Path) -> None:
    (folder / "flax_model.msgpack").write_text(POINTER)
    (folder / "pytorch_model.bin").write_text(POINTER)
    assert check_model(folder, wanted(), RELEASE) == ()


def test_a_download_that_stopped(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "truncated" in str(refused(folder, code=ExitCode.CONTENT))


# --- pickles --------------------------------------------------------------------------------------


def pickled(folder: Path, name: str = "pytorch_model.bin") -> Path:
    """Weights that write a file once they are loaded, in place of the safetensors."""
    (folder / "model.safetensors").unlink()
    trap = folder / "sprung"
    (folder / name).write_bytes(pickle.dumps(Trap(str(trap))))
    return trap


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickles_are_refused_unless_they_are_allowed(folder: Path, name: str) -> None:
    trap = pickled(folder, name)
    error = refused(folder)
    assert f"{name}: weights as Python pickles" in str(error)
    assert str(error.hint).endswith("--allow-pickle")
    (said,) = check_model(folder, wanted(), RELEASE, allow_pickle=True)
    assert "because you allow it" in said
    assert not trap.exists()


def test_shards_of_pickles(folder: Path) -> None:
    shards(folder, "bin", "pytorch_model.bin")
    assert "a.bin, b.bin: weights as Python pickles" in str(refused(folder))
    (folder / "b.bin").unlink()
    said = str(refused(folder, allow_pickle=True))
    assert "b.bin: not there" in said


def test_pickles_beside_safetensors_are_not_loaded(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert check_model(folder, wanted(), RELEASE) == ()


def test_what_training_left_is_no_weight(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for name in ("optimizer.pt", "training_args.bin", "scheduler.pt", "rng_state_0.pth"):
        (folder / name).write_bytes(b"\x80\x04.")
    assert "model.safetensors: not there" in str(refused(folder, allow_pickle=True))


# --- tokenizers and code --------------------------------------------------------------------------


def test_a_tokenizer_is_needed_where_something_is_asked(folder: Path) -> None:
    for name in ("tokenizer.json", "merges.txt"):
        (folder / name).unlink()
    said = str(refused(folder))
    assert "no tokenizer: expected tokenizer.json, or vocab.json and merges.txt, or" in said
    silent = wanted()
    silent = replace(silent, run=replace(silent.run, prompts=()))
    assert check_model(folder, silent, RELEASE) == ()


def test_the_old_files_of_a_tokenizer_are_enough(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert check_model(folder, wanted(), RELEASE) == ()


@pytest.mark.parametrize("named", [["code--tok.Fast", "code--tok.Slow"], [None, "tok.X"], "tok.X"])
def test_a_tokenizer_that_is_code(folder: Path, named: Any) -> None:
    write(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": named})
    said = str(refused(folder))
    assert "the tokenizer is code of its own: auto_map: " in said
    assert "save_pretrained" in said


def test_a_model_that_brings_code(folder: Path) -> None:
    write(folder / "config.json", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"})
    (folder / "modeling_mine.py").write_text("raise SystemExit\n")
    said = str(refused(folder))
    assert "the converter would run code of the model: auto_map: modeling_mine.Mine" in said


def test_santacoder_has_no_other_way_than_its_code(folder: Path) -> None:
    write(
        folder / "config.json",
        architectures=["GPT2LMHeadCustomModel"],
        auto_map={"AutoModelForCausalLM": "modeling_gpt2_mq.GPT2LMHeadCustomModel"},
    )
    (folder / "modeling_gpt2_mq.py").write_text("raise SystemExit\n")
    (said,) = check_model(folder, wanted(variant="santacoder"), RELEASE)
    assert "modeling_gpt2_mq.py: code of the model" in said


def test_python_files_that_nothing_names_are_not_run(folder: Path) -> None:
    (folder / "train.py").write_text("raise SystemExit\n")
    assert check_model(folder, wanted(), RELEASE) == ()


def test_everything_is_said_at_once(folder: Path) -> None:
    pickled(folder)
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").unlink()
    write(folder / "config.json", auto_map={"AutoModel": "x.Y"})
    said = str(refused(folder))
    assert len(said.splitlines()) == 3
    assert "no tokenizer" in said
    assert "auto_map: x.Y" in said
    assert "pickles" in said


# --- the recipe -----------------------------------------------------------------------------------


def test_a_model_that_the_recipe_does_not_fit(folder: Path) -> None:
    found = wanted()
    three = replace(found, checkpoint=replace(found.checkpoint, tp=3))
    with pytest.raises(KitError, match="tp: 3 ranks cannot share the model's 4 attention heads"):
        check_model(folder, three, RELEASE)
    with pytest.raises(KitError, match="variant: the recipe says starcoder, the model is gpt2"):
        check_model(folder, wanted(variant="starcoder"), RELEASE)


def test_a_hub_cache_names_the_folder_inside(folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--me--tiny" / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    error = refused(tmp_path / "models--me--tiny")
    assert str(snapshot) in str(error)
    assert error.hint == f"cp -rL {snapshot} COPY"


def test_dummy_weights_need_a_tokenizer_only(folder: Path) -> None:
    dummy = wanted(source=Source(directory=folder, dummy=Dummy(384, 96, 3, 4)))
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    assert check_model(folder, dummy, RELEASE) == ()
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").unlink()
    assert "no tokenizer" in str(refused(folder, dummy))


# --- NeMo -----------------------------------------------------------------------------------------


def nemo_recipe(**changes: Any) -> Recipe:
    return wanted(variant="gpt-next", **changes)


def nemo(path: Path, **more: bytes) -> Path:
    members = {"model_config.yaml": CONFIG, "tokenizer.model": pieces(300)}
    return archive(path, {**members, "model_weights.ckpt": b"\x80\x04.", **more})


def test_a_nemo_archive_is_a_pickle(tmp_path: Path) -> None:
    path = nemo(tmp_path / "m.nemo")
    error = refused(path, nemo_recipe())
    assert "model_weights.ckpt: weights as Python pickles" in str(error)
    (said,) = check_model(path, nemo_recipe(), RELEASE, allow_pickle=True)
    assert "because you allow it" in said


def test_a_nemo_archive_is_held_against_the_recipe(tmp_path: Path) -> None:
    path = nemo(tmp_path / "m.nemo")
    found = nemo_recipe()
    three = replace(found, checkpoint=replace(found.checkpoint, tp=3))
    with pytest.raises(KitError, match="4 attention heads"):
        check_model(path, three, RELEASE, allow_pickle=True)
    with pytest.raises(KitError, match="variant: the recipe says gpt2, the model is gpt-next"):
        check_model(path, wanted(), RELEASE, allow_pickle=True)


def test_a_nemo_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "m.nemo"
    with pytest.raises(KitError, match="no such file") as caught:
        check_model(path, nemo_recipe(), RELEASE)
    assert caught.value.exit_code == ExitCode.USAGE
    path.write_bytes(b"PK\x03\x04" * 400)
    with pytest.raises(KitError, match="expected a tar archive") as caught:
        check_model(path, nemo_recipe(), RELEASE)
    assert caught.value.exit_code == ExitCode.CONTENT
    archive(path, {"model_config.yaml": CONFIG})
    with pytest.raises(KitError, match="no weights in it"):
        check_model(path, nemo_recipe(), RELEASE, allow_pickle=True)


# --- learned prompts and adapters -----------------------------------------------------------------


def prompts(table: Path, rows: int | None = 10) -> Recipe:
    found = wanted()
    return replace(
        found,
        run=replace(found.run, prompt_table=table),
        options=replace(found.options, prompt_table_size=rows),
        places={"run.prompt_table": "x.yaml:8:3", "build.prompt_table_size": "x.yaml:5:3"},
    )


def saved(path: Path, array: Any, *, allow_pickle: bool = False) -> Path:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=allow_pickle)
    path.write_bytes(stream.getvalue())
    return path


@pytest.mark.parametrize("shape", [(10, 96), (2, 5, 96), (1, 96)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_table_of_learned_prompts(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    table = saved(tmp_path / "t.npy", np.zeros(shape, dtype))
    assert check_inputs(prompts(table), RELEASE) == ()


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((10, 64), "x.yaml:8:3: prompt_table: {} has rows of 64, the model is 96 wide"),
        ((11, 96), "x.yaml:5:3: prompt_table_size: {} has 11 rows, the engine takes 10"),
        ((3, 4, 96), "x.yaml:5:3: prompt_table_size: {} has 12 rows, the engine takes 10"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path: Path, shape: tuple[int, ...], said: str) -> None:
    table = saved(tmp_path / "t.npy", np.zeros(shape, "float16"))
    with pytest.raises(KitError) as caught:
        check_inputs(prompts(table), RELEASE)
    assert str(caught.value) == said.format(table)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_table_that_is_none(tmp_path: Path) -> None:
    table = tmp_path / "t.npy"
    objects = saved(table, np.array([Trap(str(tmp_path / "sprung"))]), allow_pickle=True)
    for content in (objects.read_bytes(), b"", b"text", b"\x93NUMPY\x01\x00", POINTER.encode()):
        table.write_bytes(content)
        with pytest.raises(KitError) as caught:
            check_inputs(prompts(table), RELEASE)
        assert caught.value.exit_code == ExitCode.CONTENT
    assert not (tmp_path / "sprung").exists()
    table.unlink()
    with pytest.raises(KitError, match="no such file"):
        check_inputs(prompts(table), RELEASE)


def test_prompts_in_a_nemo_archive_are_a_pickle(tmp_path: Path) -> None:
    table = nemo(tmp_path / "email.nemo")
    with pytest.raises(KitError, match=r"email\.nemo: model_weights\.ckpt: weights as") as it:
        check_inputs(prompts(table), RELEASE)
    assert str(it.value.hint).endswith(f"--release {RELEASE} --allow-pickle")
    (said,) = check_inputs(prompts(table), RELEASE, allow_pickle=True)
    assert "because you allow it" in said


def test_adapters(tmp_path: Path) -> None:
    found = wanted()
    example = replace(found, options=replace(found.options, lora=Lora(tmp_path)))
    with pytest.raises(KitError, match=r"no adapter_config\.json in it"):
        check_inputs(example, RELEASE)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(KitError, match=r"no adapter_model\.safetensors in it"):
        check_inputs(example, RELEASE)
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(KitError, match=r"adapter_model\.bin: weights as Python pickles"):
        check_inputs(example, RELEASE)
    assert len(check_inputs(example, RELEASE, allow_pickle=True)) == 1
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    assert check_inputs(example, RELEASE) == ()


def test_a_recipe_without_any_of_them() -> None:
    assert check_inputs(wanted(), RELEASE) == ()


def test_nothing_is_started_for_a_model_that_is_refused(folder: Path, site: Site) -> None:
    pickled(folder)
    example = wanted(source=Source(directory=folder))
    with pytest.raises(KitError, match="weights as Python pickles"):
        site.run(example)
    with pytest.raises(KitError, match=r"no adapter_config\.json"):
        site.run(replace(wanted(), options=replace(wanted().options, lora=Lora(folder))), "0.9.0")
    assert site.engine.requests == []
    assert not site.project.runs.exists()


def test_the_model_of_a_lock_is_held_against_the_recipe(folder: Path, site: Site) -> None:
    assert check_locked(folder, wanted(), RELEASE) == ()
    found = wanted()
    long = replace(found, build=replace(found.build, max_input_len=250))
    assert "the model has 256 positions" in check_locked(folder, long, RELEASE)[0]
    (folder / "config.json").unlink()
    dummy = wanted(source=Source(dummy=Dummy(384, 96, 3, 4), tokenizer="gpt2-tiny"))
    assert check_locked(folder, dummy, RELEASE) == ()

    # Under a name that no table has, the lock's own files tell.
    unknown = replace(found, variant="starcoder", source=Source(repository="me/mine"))
    with pytest.raises(KitError, match="variant: the recipe says starcoder, the model is gpt2"):
        site.run(unknown, "0.9.0")
    assert site.engine.requests == []
