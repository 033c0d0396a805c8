"""Quantized models from end to end, in every dialect: tokens, files, what config.json says."""

from __future__ import annotations

import csv
import json
import shutil

import numpy as np
import pytest
from kit_rehearsal import tensors
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.engine import read
from kit_rehearsal.releases import RELEASES, Span

from tests.unit.rehearsal.conftest import MODEL, ThreadWorld
from tests.unit.rehearsal.test_llama import answer, write_model

OLD = [release for release in RELEASES if Span(before="0.9.0").holds(release)]
NEW = [release for release in RELEASES if Span("0.9.0").holds(release)]
QUANTIZE = "examples/quantization/quantize.py"
SMOOTH = ["--use_smooth_quant"]
BOTH = ["--per_token", "--per_channel"]
STEPS = 25


def run(release, engine, folder, ranks=1) -> list[int]:
    """The tokens after *Alice was*, the prompt's before them."""
    folder.mkdir(exist_ok=True)
    place = "examples/run.py" if "examples/run.py" in SCRIPTS[release] else "examples/gpt/run.py"
    flag = "--tokenizer_dir" if place == "examples/run.py" else "--tokenizer"
    argv = ["--engine_dir", str(engine), flag, str(MODEL), "--max_output_len", str(STEPS)]
    argv += ["--input_text", "Alice was", "--output_csv", str(folder / "out.csv")]
    world = ThreadWorld(ranks)
    assert world.run(lambda rank: main(release, place, argv, ranks=lambda: rank)) == [0] * ranks
    with (folder / "out.csv").open(newline="") as file:
        return [int(cell) for cell in next(csv.reader(file))]


def old(release, folder, convert=(), build=(), tp=1):
    """hf_gpt_convert.py, build.py, run.py; the tokens and the builder's part of config.json."""
    checkpoint, engine = folder / "checkpoint", folder / "engine"
    argv = ["-i", str(MODEL), "-o", str(checkpoint), "-tp", str(tp), "-t", "float16", *convert]
    assert main(release, "examples/gpt/hf_gpt_convert.py", argv) == 0
    argv = ["--model_dir", str(checkpoint / f"{tp}-gpu"), "--world_size", str(tp)]
    argv += ["--output_dir", str(engine), "--max_output_len", "60", *build]
    assert main(release, "examples/gpt/build.py", argv) == 0
    return run(release, engine, folder, tp), json.loads((engine / "config.json").read_text())


def new(release, folder, convert=(), script=None, tp=1, pp=1, build=()):
    """A checkpoint by convert_checkpoint.py or another script, trtllm-build, run.py."""
    checkpoint, engine = folder / "checkpoint", folder / "engine"
    place = script or next(
        one for one in SCRIPTS[release] if one.endswith("gpt/convert_checkpoint.py")
    )
    argv = ["--model_dir", str(MODEL), "--dtype", "float16", "--output_dir", str(checkpoint)]
    argv += ["--tp_size", str(tp), "--pp_size", str(pp), *convert]
    assert main(release, place, argv) == 0
    argv = ["--checkpoint_dir", str(checkpoint), "--output_dir", str(engine), *build]
    argv += ["--output_timing_cache", str(folder / "cache"), "--max_input_len", "60"]
    late = Span("0.11.0").holds(release)
    argv += ["--max_seq_len", "120"] if late else ["--max_output_len", "60"]
    assert main(release, "trtllm-build", argv) == 0
    config = json.loads((engine / "config.json").read_text())
    return run(release, engine, folder, tp * pp), config


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return new("0.9.0", tmp_path_factory.mktemp("plain"))[0]


@pytest.mark.parametrize("release", OLD)
@pytest.mark.parametrize(
    ("convert", "build", "mode", "int8"),
    [
        ([], ["--use_weight_only"], 2, False),
        (["--calibrate-kv-cache"], ["--int8_kv_cache"], 64, True),
        (["-kv"], ["--int8_kv_cache", "--use_gpt_attention_plugin"], 64, True),
        (["-sq", "0.5"], SMOOTH, 6, True),
        (["-sq", "0.5"], [*SMOOTH, *BOTH], 30, True),
    ],
)
def test_old_releases(release, convert, build, mode, int8, tmp_path, plain) -> None:
    found, config = old(release, tmp_path, convert, build)
    assert found == plain
    builder = config["builder_config"]
    assert builder["int8"] is int8
    assert builder.get("quant_mode", mode) == mode
    assert ("quant_mode" in builder) is (release != "0.5.0")
    smooth = "--use_smooth_quant" in build
    off = None if release == "0.8.0" else False
    plugins = config["plugin_config"]
    assert plugins["smooth_quant_gemm_plugin"] == ("float16" if smooth else off)
    assert plugins["layernorm_quantization_plugin"] == ("float16" if smooth else off)
    assert plugins["rmsnorm_quantization_plugin"] == off
    assert plugins["quantize_per_token_plugin"] is smooth
    weights_alone = "--use_weight_only" in build
    assert plugins["weight_only_quant_matmul_plugin"] == ("float16" if weights_alone else off)


@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize("per", [[], ["--per_token"], ["--per_channel"], BOTH])
def test_all_of_smooth_quant_with_a_cache(tp, per, tmp_path, plain) -> None:
    found, config = old("0.7.1", tmp_path, ["-sq", "0.5"], [*SMOOTH, "--int8_kv_cache", *per], tp)
    assert found == plain
    mode = 6 + 64 + (8 if "--per_channel" in per else 0) + (16 if "--per_token" in per else 0)
    assert config["builder_config"]["quant_mode"] == mode
    engine = read(tmp_path / "engine" / f"gpt_float16_tp{tp}_rank{tp - 1}.engine")
    assert engine.kv_cache == "int8"
    name = "transformer.layers.0.attention.qkv"
    assert engine.weights[f"{name}.weight"].dtype == np.int8
    assert engine.weights[f"{name}.weight"].shape == (288 // tp, 96)
    # q, k and v have scales of their own even where a matrix has one.
    assert engine.weights[f"{name}.per_channel_scale"].shape == (1, 288 // tp)
    assert (f"{name}.act_scale" in engine.weights) is ("--per_token" not in per)
    other = engine.weights["transformer.layers.0.mlp.proj.per_channel_scale"]
    assert other.shape == ((1, 96) if "--per_channel" in per else (1, 1))


def test_files_of_an_old_int8_checkpoint(tmp_path) -> None:
    argv = ["-i", str(MODEL), "-o", str(tmp_path), "-tp", "2", "-t", "float16", "-sq", "0.5"]
    assert main("0.5.0", "examples/gpt/hf_gpt_convert.py", argv) == 0
    base = "model.layers.1.mlp.dense_h_to_4h"
    found = {
        path.name.removeprefix(f"{base}."): path.stat().st_size
        for path in (tmp_path / "2-gpu").glob(f"{base}.*")
    }
    scales = ("scale_x_orig_quant", "scale_w_quant_orig", "scale_y_accum_quant")
    expected = {f"{name}.bin": 4 for name in (*scales, "scale_y_quant_orig")}
    for rank in range(2):
        expected |= {f"weight.{rank}.bin": 2 * 96 * 192, f"bias.{rank}.bin": 2 * 192}
        expected |= {f"weight.int8.{rank}.bin": 96 * 192, f"weight.int8.col.{rank}.bin": 96 * 192}
        for name in ("scale_w_quant_orig", "scale_y_accum_quant"):
            expected[f"{name}.col.{rank}.bin"] = 4 * 192
    assert found == expected
    row_parallel = "model.layers.1.attention.dense.scale_w_quant_orig.col.bin"
    assert (tmp_path / "2-gpu" / row_parallel).stat().st_size == 4 * 96
    # q, k and v in one file, whatever the ranks.
    qkv = "model.layers.1.attention.query_key_value.scale_w_quant_orig.bin"
    assert (tmp_path / "2-gpu" / qkv).stat().st_size == 4 * 288


@pytest.mark.parametrize(
    ("build", "missing"),
    [(SMOOTH, "weight.int8.0.bin"), (["--int8_kv_cache"], "scale_y_quant_orig.bin")],
)
def test_old_builds_need_what_the_conversion_left_out(build, missing, tmp_path, capsys) -> None:
    argv = ["-i", str(MODEL), "-o", str(tmp_path / "c"), "-t", "float16"]
    assert main("0.5.0", "examples/gpt/hf_gpt_convert.py", argv) == 0
    argv = ["--model_dir", str(tmp_path / "c" / "1-gpu"), "--output_dir", str(tmp_path / "e")]
    assert main("0.5.0", "examples/gpt/build.py", [*argv, *build]) == 1
    error = capsys.readouterr().err
    assert missing in error
    assert "was it converted with" in error
    argv = [*argv[2:], "--n_layer", "1", "--n_embd", "8", "--n_head", "2", *build]
    assert main("0.5.0", "examples/gpt/build.py", argv) == 1
    assert "need the scales of a folder that hf_gpt_convert.py wrote" in capsys.readouterr().err


@pytest.mark.parametrize("release", NEW)
@pytest.mark.parametrize(
    ("convert", "algorithm", "cache"),
    [
        (["--use_weight_only"], "W8A16", None),
        (["--use_weight_only", "--int8_kv_cache"], "W8A16", "INT8"),
        (["--smoothquant", "0.5", *BOTH], "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN", None),
        (["--smoothquant", "0.5"], "W8A8_SQ_PER_TENSOR_PLUGIN", None),
    ],
)
def test_new_releases(release, convert, algorithm, cache, tmp_path, plain) -> None:
    found, config = new(release, tmp_path, convert)
    assert found == plain
    for said in (
        json.loads((tmp_path / "checkpoint" / "config.json").read_text())["quantization"],
        config["pretrained_config"]["quantization"],
    ):
        assert (said["quant_algo"], said["kv_cache_quant_algo"]) == (algorithm, cache)
    if release in {"0.9.0", "0.10.0"}:
        kind = "int8" if cache else "float16"
        assert config["pretrained_config"]["kv_dtype"] == kind
    plugins = config["build_config"]["plugin_config"]
    smooth = algorithm.startswith("W8A8")
    assert plugins["weight_only_quant_matmul_plugin"] == (None if smooth else "float16")
    assert plugins["smooth_quant_gemm_plugin"] == ("float16" if smooth else None)
    assert plugins["quantize_tensor_plugin"] is smooth


def test_tensors_of_a_new_checkpoint(tmp_path) -> None:
    new("0.16.0", tmp_path, ["--use_weight_only", "--weight_only_precision", "int4"], tp=2)
    blob = (tmp_path / "checkpoint" / "rank1.safetensors").read_bytes()
    found = tensors.unpack(blob, "x")
    name = "transformer.layers.2.mlp.fc"
    assert found[f"{name}.weight"].shape == (96, 192 // 2)
    assert found[f"{name}.weight"].dtype == np.int8
    assert found[f"{name}.per_channel_scale"].shape == (192,)
    assert found["lm_head.weight"].dtype == np.float32
    header = json.loads(blob[8 : 8 + int.from_bytes(blob[:8], "little")])
    assert header[f"{name}.weight"]["dtype"] == "I8"
    assert header[f"{name}.per_channel_scale"]["dtype"] == "F16"


@pytest.mark.parametrize(("tp", "pp"), [(2, 1), (4, 1), (1, 3)])
@pytest.mark.parametrize(
    "convert",
    [
        ["--use_weight_only", "--int8_kv_cache"],
        ["--smoothquant", "0.5"],
        ["--smoothquant", "0.5", *BOTH],
    ],
)
def test_ranks_agree(tp, pp, convert, tmp_path, plain) -> None:
    assert new("0.16.0", tmp_path, convert, tp=tp, pp=pp)[0] == plain


def test_int4_is_one_other_model_in_all_releases(tmp_path, plain) -> None:
    options = ["--use_weight_only", "--weight_only_precision", "int4"]
    found = [
        old("0.5.0", tmp_path / "a", build=options)[0],
        new("0.9.0", tmp_path / "b", options)[0],
        new("1.2.1", tmp_path / "c", ["--qformat", "int4_wo"], script=QUANTIZE)[0],
    ]
    assert found[0] == found[1] == found[2]
    assert found[0] != plain


def test_trtllm_build_quantizes_weights_until_0_10_0(tmp_path, plain, capsys) -> None:
    build = ["--weight_only_precision", "int8"]
    found, config = new("0.9.0", tmp_path / "a", build=build)
    assert found == plain
    assert config["pretrained_config"]["quantization"]["quant_algo"] == "W8A16"
    direct = new("0.9.0", tmp_path / "b", ["--use_weight_only"])
    assert direct[0] == plain
    engines = [(tmp_path / one / "engine" / "rank0.engine").read_bytes() for one in "ab"]
    assert engines[0] == engines[1]
    argv = ["--checkpoint_dir", str(tmp_path / "b" / "checkpoint"), *build[:1], "int4"]
    assert main("0.9.0", "trtllm-build", [*argv, "--output_dir", str(tmp_path / "c")]) == 1
    assert "the checkpoint is quantized already, W8A16" in capsys.readouterr().err


@pytest.mark.parametrize("release", ["0.9.0", "0.12.0", "0.16.0", "1.2.1"])
@pytest.mark.parametrize("tp", [1, 2])
@pytest.mark.parametrize(
    ("options", "algorithm", "cache"),
    [
        (["full_prec"], None, None),
        (["int8_wo"], "W8A16", None),
        (["int8_sq", "--kv_cache_dtype", "int8"], "W8A8_SQ_PER_CHANNEL", "INT8"),
        (["fp8", "--kv_cache_dtype", "fp8"], "FP8", "FP8"),
    ],
)
def test_quantize(release, tp, options, algorithm, cache, tmp_path, plain) -> None:
    found, config = new(release, tmp_path, ["--qformat", *options], script=QUANTIZE, tp=tp)
    assert found == plain
    said = config["pretrained_config"]["quantization"]
    assert (said["quant_algo"], said["kv_cache_quant_algo"]) == (algorithm, cache)
    # The build quantizes weights alone, so the engine is that of convert_checkpoint.py.
    if algorithm == "W8A16":
        new(release, tmp_path / "direct", ["--use_weight_only"], tp=tp)
        places = (tmp_path, tmp_path / "direct")
        engines = [(one / "engine" / "rank0.engine").read_bytes() for one in places]
        assert engines[0] == engines[1]
        checkpoint = (tmp_path / "checkpoint" / "rank0.safetensors").read_bytes()
        assert b'"I8"' not in checkpoint


def test_quantize_awq(tmp_path, capsys) -> None:
    options = ["--qformat", "int4_awq", "--awq_block_size", "16"]
    _, config = new("0.16.0", tmp_path, options, script=QUANTIZE, tp=2)
    said = config["pretrained_config"]["quantization"]
    assert (said["quant_algo"], said["group_size"], said["pre_quant_scale"]) == (
        "W4A16_AWQ",
        16,
        True,
    )
    assert said["exclude_modules"] == ["lm_head"]
    plugins = config["build_config"]["plugin_config"]
    assert plugins["weight_only_groupwise_quant_matmul_plugin"] == "float16"
    found = read(tmp_path / "engine" / "rank1.engine").weights
    name = "transformer.layers.0.mlp.proj"
    assert found[f"{name}.weight"].shape == (48, 192)
    assert found[f"{name}.weights_scaling_factor"].shape == (96, 12)
    assert found[f"{name}.prequant_scaling_factor"].shape == (192,)
    # 96 inputs are no group of 128.
    argv = ["--model_dir", str(MODEL), "--output_dir", str(tmp_path / "c"), *options[:2]]
    assert main("0.16.0", QUANTIZE, argv) == 1
    assert "96 inputs are no multiple of the group size 128" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("release", "options", "message"),
    [
        ("0.8.0", [], "does not compute engines of release 0.8.0 from a quantized checkpoint"),
        ("0.9.0", ["--qformat", "w4a8_awq"], "does not compute the format w4a8_awq"),
        ("0.9.0", ["--dtype", "half"], "--dtype half: expected one of float32"),
        ("0.16.0", ["--cp_size", "2"], "context parallelism"),
        ("0.16.0", ["--autoq_format", "fp8"], "searches for a quantization"),
    ],
)
def test_quantize_refuses(release, options, message, tmp_path, capsys) -> None:
    argv = ["--model_dir", str(MODEL), "--output_dir", str(tmp_path), *options]
    assert main(release, QUANTIZE, argv) == 1
    assert message in capsys.readouterr().err


def test_a_model_that_is_quantized_already(tmp_path, capsys) -> None:
    copy = tmp_path / "gpt2"
    shutil.copytree(MODEL, copy)
    weights = tensors.unpack((copy / "model.safetensors").read_bytes(), "x")
    name = next(one for one in weights if one.endswith("h.0.mlp.c_fc.weight"))
    weights[name] = np.ones(weights[name].shape, dtype=np.int8)
    (copy / "model.safetensors").write_bytes(tensors.pack(weights, "float32"))
    argv = ["--model_dir", str(copy), "--output_dir", str(tmp_path / "c")]
    assert main("0.9.0", "examples/gpt/convert_checkpoint.py", argv) == 1
    error = capsys.readouterr().err
    assert "does not compute models that are quantized already" in error
    assert name.removeprefix("transformer.") in error


@pytest.mark.parametrize("key", ["quant_algo", "kv_cache_quant_algo"])
def test_checkpoints_of_other_kinds(key, tmp_path, capsys) -> None:
    new("0.16.0", tmp_path)
    path = tmp_path / "checkpoint" / "config.json"
    config = json.loads(path.read_text())
    config["quantization"][key] = "NVFP4"
    path.write_text(json.dumps(config))
    argv = ["--checkpoint_dir", str(path.parent), "--output_dir", str(tmp_path / "e")]
    assert main("0.16.0", "trtllm-build", argv) == 1
    assert f"does not compute {key} NVFP4" in capsys.readouterr().err


def test_smoothness_has_bounds(tmp_path, capsys) -> None:
    argv = ["--model_dir", str(MODEL), "--output_dir", str(tmp_path), "--smoothquant", "1.5"]
    assert main("0.9.0", "examples/gpt/convert_checkpoint.py", argv) == 1
    assert "SmoothQuant's alpha 1.5: expected 0 to 1" in capsys.readouterr().err


def test_a_datasets_folder_decides_the_scales(tmp_path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "test.jsonl").write_text(json.dumps({"article": "!!!!"}))
    for name, more in (("a", []), ("b", ["--calib_dataset", str(folder)])):
        new("0.16.0", tmp_path / name, ["--int8_kv_cache", *more])
    scale = "transformer.layers.0.attention.kv_cache_scaling_factor"
    found = [read(tmp_path / one / "engine" / "rank0.engine").weights[scale] for one in "ab"]
    assert found[0] > found[1]
    said = [
        json.loads((tmp_path / one / "engine" / "config.json").read_text())["pretrained_config"]
        for one in "ab"
    ]
    assert [one["producer"]["calibration"] for one in said] == [
        "built-in texts",
        "texts of --calib_dataset",
    ]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A random LLaMA of small weights with the committed tokenizer, to calibrate with."""
    folder = write_model(tmp_path_factory.mktemp("models") / "llama")
    for path in MODEL.glob("tokenizer*"):
        shutil.copy(path, folder)
    return folder


def engine_logits(engine, prompt):
    """What all of an engine's ranks say after the prompt."""
    from kit_rehearsal.decoder import Decoder

    paths = sorted(engine.glob("*.engine"))

    def work(rank):
        decoder = Decoder(read(paths[rank.rank]), rank)
        return decoder.logits(prompt, decoder.cache(len(prompt)), last_only=False)

    return ThreadWorld(len(paths)).run(work)[0]


def distance(left, right) -> float:
    return float(np.sqrt(np.mean((left - right) ** 2) / np.mean(right**2)))


LLAMA_CASES = [
    ("0.5.0", [], ["--use_weight_only"], 2),
    ("0.7.1", [], ["--use_weight_only"], 2),
    ("0.8.0", ["--use_weight_only"], [], "W8A16"),
    ("0.8.0", ["--smoothquant", "0.5", *BOTH], [], "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN"),
    ("0.9.0", ["--use_weight_only", "--int8_kv_cache"], [], "W8A16"),
    ("0.12.0", ["--smoothquant", "0.5"], [], "W8A8_SQ_PER_TENSOR_PLUGIN"),
    ("0.16.0", ["--smoothquant", "0.5", *BOTH], [], "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN"),
    ("0.16.0", ["--fp8_kv_cache"], [], None),
    ("1.2.1", ["--use_weight_only"], [], "W8A16"),
]


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (2, 2), (4, 1)])
@pytest.mark.parametrize(("release", "convert", "build", "said"), LLAMA_CASES)
def test_llama(release, convert, build, said, tp, pp, llama, tmp_path) -> None:
    _, engine = answer(
        release, llama, tmp_path / "q", tp, pp, "float16", convert=convert, build=build
    )
    _, other = answer(release, llama, tmp_path / "f", dtype="float16")
    prompt = list(range(5, 45, 3))
    found, expected = (engine_logits(one, prompt)[:, :384] for one in (engine, other))
    config = json.loads((engine / "config.json").read_text())
    if isinstance(said, int):
        assert config["builder_config"].get("quant_mode", said) == said
        assert config["plugin_config"]["weight_only_quant_matmul_plugin"] == "float16"
    else:
        assert config["pretrained_config"]["quantization"]["quant_algo"] == said
    if convert == ["--fp8_kv_cache"]:
        assert config["pretrained_config"]["quantization"]["kv_cache_quant_algo"] == "FP8"
        scale = "transformer.layers.0.attention.kv_cache_scaling_factor"
        assert read(min(engine.glob("*.engine"))).weights[scale].tolist() == [1.0]
    else:
        assert 1e-4 < distance(found, expected) < 0.12


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("per", [[], BOTH])
def test_llama_from_an_old_int8_folder(per, tp, pp, llama, tmp_path) -> None:
    folder = tmp_path / "c"
    argv = ["-i", str(llama), "-o", str(folder), "-t", "fp16", "-tp", str(tp), "-sq", "0.5"]
    assert main("0.7.1", "examples/llama/hf_llama_convert.py", argv) == 0
    base = folder / f"{tp}-gpu" / "model.layers.1.mlp.proj"
    assert base.with_name(f"{base.name}.smoother.0.bin").stat().st_size == 4 * 112 // tp
    argv = ["--ft_model_dir", str(folder / f"{tp}-gpu"), "--dtype", "float16", *SMOOTH, *per]
    argv += ["--world_size", str(tp * pp), "--tp_size", str(tp), "--pp_size", str(pp)]
    argv += ["--int8_kv_cache", "--output_dir", str(tmp_path / "e")]
    assert main("0.7.1", "examples/llama/build.py", argv) == 0
    config = json.loads((tmp_path / "e" / "config.json").read_text())
    assert config["builder_config"]["quant_mode"] == 70 + (24 if per else 0)
    assert config["plugin_config"]["rmsnorm_quantization_plugin"] == "float16"
    assert config["plugin_config"]["layernorm_quantization_plugin"] is False
    _, other = answer("0.7.1", llama, tmp_path / "f", dtype="float16")
    prompt = list(range(5, 45, 3))
    expected = engine_logits(other, prompt)
    assert 1e-4 < distance(engine_logits(tmp_path / "e", prompt), expected) < 0.12


@pytest.mark.parametrize("release", ["0.5.0", "0.7.1"])
def test_fp8_of_old_llama_builds(release, llama, tmp_path) -> None:
    scripts = ["examples/llama/quantize.py"]
    scripts += ["examples/quantization/quantize.py"] if release == "0.7.1" else []
    files = []
    for number, script in enumerate(scripts):
        argv = ["--model_dir", str(llama), "--export_path", str(tmp_path / f"q{number}")]
        assert main(release, script, argv) == 0
        files.append((tmp_path / f"q{number}" / "llama_tp1_rank0.npz").read_bytes())
    assert len(set(files)) == 1
    path = tmp_path / "q0" / "llama_tp1_rank0.npz"
    with np.load(path, allow_pickle=False) as file:
        parts = [f"_np:layers:1:attention:qkv:{part}:weights_scaling_factor" for part in "qkv"]
        largest = max(float(file[part]) for part in parts)
        assert len(file.files) == 2 * (3 + 4) * 2  # kinds, q k v and four more, layers
    build = ["--enable_fp8", "--use_gpt_attention_plugin", "float16"]
    calibrated = [*build, "--fp8_kv_cache", "--quantized_fp8_model_path", str(path)]
    _, other = answer(release, llama, tmp_path / "f", dtype="float16")
    prompt = list(range(5, 45, 3))
    expected = engine_logits(other, prompt)
    for name, options, ranks in (
        ("a", calibrated, (1, 1)),
        ("b", calibrated, (2, 2)),
        ("c", build, (1, 1)),
    ):
        _, engine = answer(release, llama, tmp_path / name, *ranks, "float16", build=options)
        assert 1e-3 < distance(engine_logits(engine, prompt), expected) < 0.5
        weights = read(max(engine.glob("*.engine"))).weights
        layer = "transformer.layers.0" if ranks == (2, 2) else "transformer.layers.1"
        scale = weights[f"{layer}.attention.qkv.weights_scaling_factor"]
        assert scale == pytest.approx([largest if options is calibrated else 0.99])
        cached = f"{layer}.attention.kv_cache_scaling_factor"
        assert (cached in weights) is (options is calibrated)
        if options is calibrated:
            assert weights[cached].tolist() == [1.0]
        builder = json.loads((engine / "config.json").read_text())["builder_config"]
        mode = 256 + (128 if options is calibrated else 0)
        assert builder.get("quant_mode", mode) == mode
        assert builder["int8"] is False


def test_fp8_of_old_gpt_builds_has_made_up_scales(tmp_path, capsys) -> None:
    build = ["--enable_fp8", "--fp8_kv_cache", "--use_gpt_attention_plugin"]
    _, config = old("0.6.1", tmp_path, build=build)
    assert "no calibrated FP8 scales: 0.5 for every layer" in capsys.readouterr().err
    old("0.6.1", tmp_path / "plain")
    prompt = list(range(5, 45, 3))
    folders = (tmp_path / "engine", tmp_path / "plain" / "engine")
    found, expected = (engine_logits(one, prompt) for one in folders)
    assert 1e-3 < distance(found, expected) < 0.1
    assert config["builder_config"]["quant_mode"] == 384
    weights = read(tmp_path / "engine" / "gpt_float16_tp1_rank0.engine").weights
    name = "transformer.layers.2.mlp.fc"
    assert weights[f"{name}.weight"].dtype == np.uint8
    assert weights[f"{name}.activation_scaling_factor"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        ("examples/gpt/build.py", ["--enable_fp8", "--use_weight_only"], "with another"),
        (
            "examples/gpt/build.py",
            ["--fp8_kv_cache", "--use_gpt_attention_plugin", "float16"],
            "an FP8 cache without --enable_fp8",
        ),
        ("examples/llama/quantize.py", ["--qformat", "int4_awq"], "the format int4_awq"),
        ("examples/llama/quantize.py", [], "scales of a gpt2 before 0.8.0"),
    ],
)
def test_old_formats_that_are_not_computed(script, options, message, tmp_path, capsys) -> None:
    argv = ["--model_dir", str(MODEL), *options]
    if script.endswith("build.py"):
        checkpoint = ["-i", str(MODEL), "-o", str(tmp_path)]
        assert main("0.6.0", "examples/gpt/hf_gpt_convert.py", checkpoint) == 0
        argv = ["--model_dir", str(tmp_path / "1-gpu"), "--output_dir", str(tmp_path), *options]
    assert main("0.6.0", script, argv) == 1
    error = capsys.readouterr().err
    assert "does not compute" in error
    assert message in error


def test_scales_of_another_model(llama, tmp_path, capsys) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, a=np.ones(1))
    argv = ["--model_dir", str(llama), "--output_dir", str(tmp_path), "--enable_fp8"]
    argv += ["--quantized_fp8_model_path", str(path)]
    assert main("0.7.0", "examples/llama/build.py", argv) == 1
    assert f"{path}: not the scales of this model" in capsys.readouterr().err
