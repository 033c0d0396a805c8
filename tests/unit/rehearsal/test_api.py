"""The Python API: the same files as the command lines give, and no more than a release has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import kit_rehearsal
import pytest
from kit_rehearsal import api
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.errors import BackendError, CheckFailedError
from kit_rehearsal.releases import RELEASES, Span

from kit.examples import layout
from kit.examples.dialects import python as dialect
from tests.unit.rehearsal.conftest import MODEL
from tests.unit.rehearsal.test_llama import write_model

KNOWN = [release for release in RELEASES if Span("0.9.0", "0.17.0").holds(release)]
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


def by_command(release: str, model, tmp_path, tp: int, pp: int, *convert: str, plugins=()):
    """Checkpoint and engine of the same wishes, by the command lines."""
    script = next(
        place for place in SCRIPTS[release] if place.endswith("llama/convert_checkpoint.py")
    )
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


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 2)])
def test_the_files_are_those_of_the_command_lines(release, tp, pp, llama, tmp_path) -> None:
    expected_checkpoint, expected_engine = by_command(release, llama, tmp_path, tp, pp)
    checkpoint, engine = tmp_path / "api-c", tmp_path / "api-e"
    for rank in range(tp * pp):
        mapping = api.Mapping(world_size=tp * pp, rank=rank, tp_size=tp, pp_size=pp)
        model = api.LLaMAForCausalLM.from_hugging_face(str(llama), "float16", mapping=mapping)
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
    keyword = "quantization" if Span(before="0.11.0").holds(release) else "quant_config"
    model = api.LLaMAForCausalLM.from_hugging_face(str(llama), "float16", **{keyword: config})
    model.save_checkpoint(str(tmp_path / "api"))
    assert contents(tmp_path / "api") == contents(expected)
    output = str(tmp_path / "q")
    if Span("0.12.0").holds(release):
        with pytest.raises(ValueError, match="does not require calibration, try LLaMAForCausalLM"):
            api.LLaMAForCausalLM.quantize(str(llama), output, config, dtype="float16")
    else:
        api.LLaMAForCausalLM.quantize(str(llama), output, config, dtype="float16")
        assert contents(tmp_path / "q") == contents(expected)


@pytest.mark.parametrize("release", ["0.9.0", "0.16.0"])
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
def test_what_needs_calibration(release, config, flags, llama, tmp_path, monkeypatch) -> None:
    at(monkeypatch, release)
    # Calibration reads texts through the tokenizer, so the model gets one.
    model = tmp_path / "llama"
    write_model(model)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).write_bytes((MODEL / name).read_bytes())
    expected, _ = by_command(release, model, tmp_path, 2, 1, *flags)
    quant = api.QuantConfig(**config)
    mapping = api.Mapping(world_size=2, tp_size=2)
    output = str(tmp_path / "q")
    api.LLaMAForCausalLM.quantize(str(model), output, quant, dtype="float16", mapping=mapping)
    assert contents(tmp_path / "q") == contents(expected)
    asked = {"quantization" if release == "0.9.0" else "quant_config": quant}
    with pytest.raises(CheckFailedError, match="call quantize"):
        api.LLaMAForCausalLM.from_hugging_face(str(model), "float16", **asked)
    second = api.Mapping(world_size=2, rank=1, tp_size=2)
    with pytest.raises(CheckFailedError, match="rank 0 only"):
        api.LLaMAForCausalLM.quantize(str(model), output, quant, mapping=second)


def test_a_checkpoint_is_read_again(monkeypatch, llama, tmp_path) -> None:
    at(monkeypatch, "0.16.0")
    checkpoint, engine = by_command("0.16.0", llama, tmp_path, 2, 1)
    model = api.LLaMAForCausalLM.from_checkpoint(str(checkpoint), rank=1)
    api.build(model, api.BuildConfig(**lengths("0.16.0"))).save(str(tmp_path / "api"))
    assert contents(tmp_path / "api") == {"rank1.engine": (engine / "rank1.engine").read_bytes()}
    with pytest.raises(BackendError, match="not a checkpoint of rank 2"):
        api.LLaMAForCausalLM.from_checkpoint(str(checkpoint), rank=2)


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
    ],
)
def test_arguments_that_a_release_has_not(release, wrong, monkeypatch) -> None:
    at(monkeypatch, release)
    with pytest.raises(TypeError, match=f"release {release}: .* has no argument"):
        wrong()


def test_plugins_that_a_release_has_not(monkeypatch) -> None:
    at(monkeypatch, "0.16.0")
    with pytest.raises(AttributeError, match="plugin_config has no use_custom_all_reduce"):
        api.BuildConfig().plugin_config.use_custom_all_reduce = False
    at(monkeypatch, "0.11.0")
    api.BuildConfig().plugin_config.use_custom_all_reduce = False


def test_mappings_that_do_not_add_up() -> None:
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


class Asked:
    """A recipe as the kit's dialect reads it, without quantization."""

    def __init__(self, release: str) -> None:
        self.world_size = 1
        self.checkpoint = type("Checkpoint", (), {"dtype": "float16", "tp": 1, "pp": 1})()
        self.build = type(
            "Build",
            (),
            {"max_batch_size": 3, "max_input_len": 40, "max_output_len": 24, "max_seq_len": 64},
        )()
        names = ("quantization", "kv_cache_dtype", "max_beam_width", "max_num_tokens")
        names += ("prompt_table_size", "gather_logits", "gpt_attention_plugin", "gemm_plugin")
        names += ("packed_input", "in_flight_batching", "context_fmha")
        self.options = type("Options", (), dict.fromkeys(names))()


def test_the_kits_own_script_runs(release, llama, tmp_path) -> None:
    places = {layout.MODEL: llama, layout.CHECKPOINT: tmp_path / "c", layout.ENGINE: tmp_path / "e"}
    text = dialect.script(Asked(release), release)
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


def test_the_package_says_what_it_is(release) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import tensorrt_llm; print(tensorrt_llm.__version__)"],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == f"{release}+rehearsal"
