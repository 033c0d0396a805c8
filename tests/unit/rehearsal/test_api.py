"""The Python API: the same files as the command lines give, and no more than a release has."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import kit_rehearsal
import pytest
from kit_rehearsal import api, signatures
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.errors import BackendError, CheckFailedError
from kit_rehearsal.releases import Span

from kit.examples import layout, recipe
from kit.examples.dialects import python as dialect
from tests.unit.rehearsal.conftest import MODEL
from tests.unit.rehearsal.test_llama import write_model

# Where something begins or ends, and the last.
KNOWN = ["0.9.0", "0.10.0", "0.11.0", "0.12.0", "0.13.0", "0.16.0", "0.17.0", "1.2.1"]
SOURCE = Path(kit_rehearsal.__file__).parents[1]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(params=KNOWN)
def release(request, monkeypatch) -> str:
    monkeypatch.setenv(api.VARIABLE, request.param)
    return request.param


def at(monkeypatch, release: str) -> None:
    monkeypatch.setenv(api.VARIABLE, release)


def lengths(release: str) -> dict[str, int]:
    name, value = (
        ("max_output_len", 24) if Span(before="0.11.0").holds(release) else ("max_seq_len", 64)
    )
    return {"max_batch_size": 3, "max_input_len": 40, "max_beam_width": 2, name: value}


def by_command(
    release: str, model, tmp_path, tp: int, pp: int, *convert: str, plugins=(), family="llama"
):
    """Checkpoint and engine of the same wishes, by the command lines."""
    ending = f"{family}/convert_checkpoint.py"
    script = next(place for place in SCRIPTS[release] if place.endswith(ending))
    checkpoint, engine = tmp_path / "c", tmp_path / "e"
    argv = ["--model_dir", str(model), "--dtype", "float16", "--tp_size", str(tp)]
    argv += ["--pp_size", str(pp), "--output_dir", str(checkpoint), *convert]
    assert main(release, script, argv) == 0
    argv = ["--checkpoint_dir", str(checkpoint), "--output_dir", str(engine), *plugins]
    for name, value in lengths(release).items():
        argv += [f"--{name}", str(value)]
    argv += ["--output_timing_cache", ""]
    assert main(release, "trtllm-build", argv) == 0
    return checkpoint, engine


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def recorded(files: dict[str, bytes]) -> dict:
    """config.json, less the name of a timing cache, which the option cannot leave out."""
    config = json.loads(files.pop("config.json"))
    config["build_config"].pop("output_timing_cache")
    return config


def folder(path: Path) -> str:
    path.mkdir()
    return str(path)


def quantized(release: str) -> str:
    """The name that from_hugging_face has for a quantization."""
    return "quantization" if Span(before="0.11.0").holds(release) else "quant_config"


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 2)])
def test_the_files_are_those_of_the_command_lines(release, tp, pp, llama, tmp_path) -> None:
    expected_checkpoint, expected_engine = by_command(release, llama, tmp_path, tp, pp)
    checkpoint, engine = tmp_path / "api-c", tmp_path / "api-e"
    checkpoint.mkdir()
    for rank in range(tp * pp):
        mapping = api.Mapping(world_size=tp * pp, rank=rank, tp_size=tp, pp_size=pp)
        model = api.LLaMAForCausalLM.from_hugging_face(str(llama), "float16", mapping=mapping)
        model.save_checkpoint(str(checkpoint), save_config=rank == 0)
        api.build(model, api.BuildConfig(**lengths(release))).save(str(engine))
    assert contents(checkpoint) == contents(expected_checkpoint)
    found, expected = contents(engine), contents(expected_engine)
    assert recorded(found) == recorded(expected)
    assert found == expected


@pytest.mark.parametrize("release", ["0.12.0", "0.16.0", "1.2.1"])
def test_gpt_has_the_same_calls(release, monkeypatch, tmp_path) -> None:
    at(monkeypatch, release)
    flags = ["--gpt_variant", "gpt2", "--use_weight_only", "--use_parallel_embedding"]
    expected_checkpoint, expected_engine = by_command(
        release, MODEL, tmp_path, 2, 1, *flags, family="gpt"
    )
    checkpoint, engine = tmp_path / "api-c", tmp_path / "api-e"
    checkpoint.mkdir()
    for rank in range(2):
        model = api.GPTForCausalLM.from_hugging_face(
            str(MODEL), "float16", api.Mapping(world_size=2, rank=rank, tp_size=2),
            quant_config=api.QuantConfig(quant_algo=api.QuantAlgo.W8A16),
            gpt_variant="gpt2", use_parallel_embedding=True,
        )  # fmt: skip
        model.save_checkpoint(str(checkpoint), save_config=rank == 0)
        api.build(model, api.BuildConfig(**lengths(release))).save(str(engine))
    assert contents(checkpoint) == contents(expected_checkpoint)
    found, expected = contents(engine), contents(expected_engine)
    assert recorded(found) == recorded(expected)
    assert found == expected


def test_plugins_are_recorded(release, llama, tmp_path) -> None:
    plugins = ["--gemm_plugin", "float16", "--remove_input_padding", "disable"]
    plugins += ["--context_fmha", "disable", "--gpt_attention_plugin", "disable"]
    _, expected = by_command(release, llama, tmp_path, 1, 1, plugins=plugins)
    config = api.BuildConfig(**lengths(release))
    config.plugin_config.gemm_plugin = "float16"
    config.plugin_config.remove_input_padding = False
    config.plugin_config.context_fmha = False
    config.plugin_config.gpt_attention_plugin = None
    model = api.LLaMAForCausalLM.from_hugging_face(str(llama), "float16")
    api.build(model, config).save(str(tmp_path / "api"))
    assert recorded(contents(tmp_path / "api")) == recorded(contents(expected))


def test_weights_alone_are_quantized(release, llama, tmp_path) -> None:
    flags = ["--use_weight_only", "--weight_only_precision", "int8"]
    expected, _ = by_command(release, llama, tmp_path, 1, 1, *flags)
    config = api.QuantConfig(quant_algo=api.QuantAlgo.W8A16)
    asked = {quantized(release): config}
    model = api.LLaMAForCausalLM.from_hugging_face(str(llama), "float16", **asked)
    model.save_checkpoint(folder(tmp_path / "api"))
    assert contents(tmp_path / "api") == contents(expected)
    kind, says = CheckFailedError, "Call from_hugging_face when there is no quantization"
    if Span("0.13.0").holds(release):
        kind, says = ValueError, "does not require calibration, try LLaMAForCausalLM"
    with pytest.raises(kind, match=says):
        api.LLaMAForCausalLM.quantize(str(llama), str(tmp_path / "q"), quant_config=config)


@pytest.mark.parametrize("release", ["0.9.0", "0.11.0", "0.13.0", "1.2.1"])
@pytest.mark.parametrize(
    ("config", "flags"),
    [
        (
            {
                "quant_algo": api.QuantAlgo.W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN,
                "smoothquant_val": 0.5,
            },
            ["--smoothquant", "0.5", "--per_token", "--per_channel"],
        ),
        ({"kv_cache_quant_algo": api.QuantAlgo.INT8}, ["--int8_kv_cache"]),
    ],
)
def test_what_needs_calibration(release, config, flags, tmp_path, monkeypatch) -> None:
    at(monkeypatch, release)
    # Calibration reads texts through the tokenizer, so the model gets one.
    model = tmp_path / "llama"
    write_model(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).write_bytes((MODEL / name).read_bytes())
    expected, _ = by_command(release, model, tmp_path, 2, 1, *flags)
    quant = api.QuantConfig(**config)

    def quantize(rank: int, output: Path) -> None:
        api.LLaMAForCausalLM.quantize(
            str(model), str(output), quant_config=quant, dtype="float16",
            mapping=api.Mapping(world_size=2, rank=rank, tp_size=2),
        )  # fmt: skip

    old = Span(before="0.12.0").holds(release)
    right, wrong = (-1, 0) if old else (0, -1)
    if old:
        with pytest.raises(FileNotFoundError, match="no such folder"):
            quantize(right, tmp_path / "q")
        (tmp_path / "q").mkdir()
    quantize(right, tmp_path / "q")
    assert contents(tmp_path / "q") == contents(expected)
    with pytest.raises(CheckFailedError, match=f"a mapping of rank {right}, .*found rank {wrong}"):
        quantize(wrong, tmp_path / "q")
    with pytest.raises(CheckFailedError, match="call quantize"):
        api.LLaMAForCausalLM.from_hugging_face(str(model), "float16", **{quantized(release): quant})


@pytest.mark.parametrize(
    ("release", "able"), [("0.13.0", False), ("0.14.0", False), ("0.15.0", True), ("1.2.1", True)]
)
def test_the_tool_is_not_told_the_variant(release, able, tmp_path, monkeypatch) -> None:
    at(monkeypatch, release)
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)

    def quantize(source: Path) -> None:
        api.GPTForCausalLM.quantize(
            str(source), str(tmp_path / "q"), "float16", gpt_variant="gpt2",
            quant_config=api.QuantConfig(quant_algo=api.QuantAlgo.FP8),
        )  # fmt: skip

    quantize(MODEL)  # its path has the name in it
    if able:
        quantize(model)
    else:
        with pytest.raises(CheckFailedError, match="expected gpt2, found None"):
            quantize(model)


def test_a_checkpoint_is_read_again(monkeypatch, llama, tmp_path) -> None:
    at(monkeypatch, "0.16.0")
    checkpoint, engine = by_command("0.16.0", llama, tmp_path, 2, 1)
    model = api.LLaMAForCausalLM.from_checkpoint(str(checkpoint), rank=1)
    api.build(model, api.BuildConfig(**lengths("0.16.0"))).save(str(tmp_path / "api"))
    assert contents(tmp_path / "api") == {"rank1.engine": (engine / "rank1.engine").read_bytes()}
    with pytest.raises(BackendError, match="not a checkpoint of rank 2"):
        api.LLaMAForCausalLM.from_checkpoint(str(checkpoint), rank=2)
    with pytest.raises(FileNotFoundError, match=r"release 0\.16\.0 makes none"):
        model.save_checkpoint(str(tmp_path / "new"))


def test_gpt_got_these_calls_later(monkeypatch, tmp_path) -> None:
    at(monkeypatch, "0.11.0")
    with pytest.raises(BackendError, match=r"0\.11\.0: GPTForCausalLM has no from_hugging_face"):
        api.GPTForCausalLM.from_hugging_face(str(MODEL))
    at(monkeypatch, "0.12.0")
    model = api.GPTForCausalLM.from_hugging_face(str(MODEL), "float32")
    assert model.config["architecture"] == "GPT2LMHeadModel"


@pytest.mark.parametrize(
    ("release", "wrong"),
    [
        ("0.9.0", lambda: api.BuildConfig(max_seq_len=9)),
        ("0.11.0", lambda: api.BuildConfig(max_length=9)),
        ("0.16.0", lambda: api.BuildConfig(max_output_len=9)),
        ("0.16.0", lambda: api.LLaMAForCausalLM.from_hugging_face("x", quantization=1)),
        ("0.9.0", lambda: api.LLaMAForCausalLM.from_hugging_face("x", quant_config=1)),
        (
            "0.9.0",
            lambda: api.LLaMAForCausalLM.quantize("x", "y", api.QuantConfig(), calib_dataset="z"),
        ),
        ("1.2.1", lambda: api.GPTForCausalLM.from_hugging_face("x", variant="gpt2")),
        ("1.2.1", lambda: api.QuantConfig(quant_algorithm=None)),
        ("0.11.0", lambda: api.QuantConfig(clamp_val=None)),
        ("0.16.0", lambda: api.Mapping(tensor_parallel=2)),
        ("1.2.1", lambda: api.BuildConfig(auto_parallel_config=None)),
    ],
)
def test_arguments_that_a_release_has_not(release, wrong, monkeypatch) -> None:
    at(monkeypatch, release)
    with pytest.raises(TypeError, match=f"release {release}: .* has no argument"):
        wrong()


def test_the_third_place_of_quantize_became_the_type(monkeypatch) -> None:
    at(monkeypatch, "0.11.0")
    with pytest.raises(TypeError, match="multiple values for argument dtype"):
        api.LLaMAForCausalLM.quantize("x", "y", api.QuantConfig(), dtype="float16")
    with pytest.raises(TypeError, match="takes 4 arguments by their place, found 5"):
        api.LLaMAForCausalLM.from_hugging_face("x", "float16", None, None, None)


def test_a_module_that_a_release_has_not(monkeypatch) -> None:
    at(monkeypatch, "0.11.0")
    with pytest.raises(ImportError, match=r"0\.11\.0 has no tensorrt_llm\.models\.gpt\.convert"):
        signatures.check_import("tensorrt_llm.models.gpt.convert")
    at(monkeypatch, "0.12.0")
    signatures.check_import("tensorrt_llm.models.gpt.convert")


def test_plugins_that_a_release_has_not(monkeypatch) -> None:
    at(monkeypatch, "0.16.0")
    with pytest.raises(AttributeError, match="plugin_config has no use_custom_all_reduce"):
        api.BuildConfig().plugin_config.use_custom_all_reduce = False
    at(monkeypatch, "0.11.0")
    api.BuildConfig().plugin_config.use_custom_all_reduce = False


@pytest.mark.parametrize(
    ("name", "value"),
    [("gemm_plugin", "disable"), ("gpt_attention_plugin", "fp8"), ("context_fmha", "enable")],
)
def test_plugins_take_certain_values(name, value, monkeypatch) -> None:
    for release in ("0.11.0", "1.2.1"):
        at(monkeypatch, release)
        with pytest.raises(ValueError, match=f"plugin {name} expects values in"):
            setattr(api.BuildConfig().plugin_config, name, value)


def test_mappings_that_do_not_add_up(monkeypatch) -> None:
    at(monkeypatch, "1.2.1")
    with pytest.raises(ValueError, match="tp_size"):
        api.Mapping(world_size=4, tp_size=2)
    with pytest.raises(ValueError, match="rank 2 of 2"):
        api.Mapping(world_size=2, tp_size=2, rank=2)


def test_what_is_not_computed_is_refused(monkeypatch, llama) -> None:
    at(monkeypatch, "0.16.0")
    model = api.LLaMAForCausalLM.from_hugging_face(str(llama), "float16")
    config = api.BuildConfig(**lengths("0.16.0"))
    config.plugin_config.gemm_swiglu_plugin = "fp8"
    with pytest.raises(BackendError, match="does not compute FP8"):
        api.build(model, config)


def test_which_release(monkeypatch, tmp_path) -> None:
    monkeypatch.delenv(api.VARIABLE, raising=False)
    place = tmp_path / "0.12.0" / "examples"
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    assert api.release() == "0.12.0"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackendError, match=f"set {api.VARIABLE}"):
        api.release()
    at(monkeypatch, "0.8.0")
    with pytest.raises(BackendError, match=r"release 0\.8\.0 is not known"):
        api.release()


@pytest.mark.parametrize("release", ["0.9.0", "1.2.1"])
def test_the_kits_own_script_runs(release, llama, tmp_path, monkeypatch) -> None:
    at(monkeypatch, release)
    example = recipe.find("llama-2-7b-chat-python")
    example = dataclasses.replace(example, build=recipe.Build(3, 40, 24))
    places = {layout.MODEL: llama, layout.CHECKPOINT: tmp_path / "c", layout.ENGINE: tmp_path / "e"}
    text = dialect.script(example, release)
    for inside, outside in places.items():
        text = text.replace(repr(inside), repr(str(outside)))
    (tmp_path / "script.py").write_text(text)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    config = json.loads((tmp_path / "e" / "config.json").read_text())
    assert config["version"] == f"{release}+rehearsal"
    assert config["plugin_config" if "plugin_config" in config else "build_config"]
    assert (tmp_path / "e" / "rank0.engine").is_file()
    assert (tmp_path / "c" / "rank0.safetensors").is_file()


@pytest.mark.parametrize("release", ["0.9.0", "1.2.1"])
def test_the_package_says_what_it_is(release, monkeypatch) -> None:
    at(monkeypatch, release)
    done = subprocess.run(
        [sys.executable, "-c", "import tensorrt_llm; print(tensorrt_llm.__version__)"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"{release}+rehearsal"
