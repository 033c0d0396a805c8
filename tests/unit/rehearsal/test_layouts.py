"""File sets, configuration keys and tensor names; the same bytes twice."""

from __future__ import annotations

import configparser
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from kit_rehearsal import engine as engines
from kit_rehearsal import tensors
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.errors import BackendError
from kit_rehearsal.huggingface import read_model
from kit_rehearsal.install import install
from kit_rehearsal.releases import RELEASES
from kit_rehearsal.split import Placement, rank_weights, split_vocabulary

from tests.conftest import peer

LAYER_FILES_WHOLE = [
    "input_layernorm.weight",
    "input_layernorm.bias",
    "attention.dense.bias",
    "post_attention_layernorm.weight",
    "post_attention_layernorm.bias",
    "mlp.dense_4h_to_h.bias",
]
LAYER_FILES_SPLIT = [
    "attention.query_key_value.weight",
    "attention.query_key_value.bias",
    "attention.dense.weight",
    "mlp.dense_h_to_4h.weight",
    "mlp.dense_h_to_4h.bias",
    "mlp.dense_4h_to_h.weight",
]
LAYER_TENSORS = [
    "input_layernorm.weight",
    "input_layernorm.bias",
    "attention.qkv.weight",
    "attention.qkv.bias",
    "attention.dense.weight",
    "attention.dense.bias",
    "post_layernorm.weight",
    "post_layernorm.bias",
    "mlp.fc.weight",
    "mlp.fc.bias",
    "mlp.proj.weight",
    "mlp.proj.bias",
]


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def digests(folder) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def tensor_names(layers: int) -> set[str]:
    fixed = {
        "transformer.vocab_embedding.weight",
        "transformer.position_embedding.weight",
        "transformer.ln_f.weight",
        "transformer.ln_f.bias",
        "lm_head.weight",
    }
    return fixed | {f"transformer.layers.{i}.{n}" for i in range(layers) for n in LAYER_TENSORS}


def test_files_of_0_5_0(pipeline, tmp_path, model) -> None:
    engine = pipeline("0.5.0", tp=2)
    folder = tmp_path / "x-ckpt" / "2-gpu"
    expected = {"config.ini", "model.wpe.bin", "model.wte.bin"}
    expected |= {"model.final_layernorm.weight.bin", "model.final_layernorm.bias.bin"}
    for layer in range(3):
        expected |= {f"model.layers.{layer}.{name}.bin" for name in LAYER_FILES_WHOLE}
        for rank in range(2):
            expected |= {f"model.layers.{layer}.{name}.{rank}.bin" for name in LAYER_FILES_SPLIT}
    assert names(folder) == expected
    ini = configparser.RawConfigParser()
    ini.read(folder / "config.ini")
    assert ini["gpt"]["in_file"] == str(model)
    assert ini["gpt"]["n_embd"] == "96"
    assert ini["gpt"]["storage_dtype"] == "float16"
    assert ini["rehearsal"]["backend"] == "kit-rehearsal"

    assert names(engine) == {
        "config.json",
        "model.cache",
        "gpt_float16_tp2_rank0.engine",
        "gpt_float16_tp2_rank1.engine",
    }
    config = json.loads((engine / "config.json").read_text())
    assert set(config) == {"backend", "builder_config", "plugin_config", "rehearsal"}
    assert config["rehearsal"] == {"not_computed": ["nccl_plugin"], "weights": "checkpoint"}
    assert config["backend"] == "kit-rehearsal 0.1.0+rehearsal"
    builder = config["builder_config"]
    assert (builder["precision"], builder["tensor_parallel"], builder["name"]) == (
        "float16",
        2,
        "gpt",
    )
    assert config["plugin_config"]["nccl_plugin"] == "float16"
    assert b"no timing cache" in (engine / "model.cache").read_bytes()


def test_ft_cuts(pipeline, tmp_path, model) -> None:
    pipeline("0.5.0", tp=2, dtype="float32")
    folder = tmp_path / "x-ckpt" / "2-gpu"
    whole = read_model(model).weights
    source = whole["transformer.layers.1.attention.qkv.weight"].T
    part = np.fromfile(
        folder / "model.layers.1.attention.query_key_value.weight.1.bin", dtype="<f4"
    )
    expected = source.reshape(96, 3, 96)[:, :, 48:]
    assert np.array_equal(part.reshape(96, 3, 48), expected)
    proj = np.fromfile(folder / "model.layers.0.mlp.dense_4h_to_h.weight.0.bin", dtype="<f4")
    expected = whole["transformer.layers.0.mlp.proj.weight"].T[:192]
    assert np.array_equal(proj.reshape(192, 96), expected)


@pytest.mark.parametrize("release", ["0.9.0", "0.16.0"])
def test_files_of_unified_releases(release, pipeline, tmp_path) -> None:
    engine = pipeline(release, tp=2)
    checkpoint = tmp_path / "x-ckpt"
    assert names(checkpoint) == {"config.json", "rank0.safetensors", "rank1.safetensors"}
    found = tensors.unpack((checkpoint / "rank1.safetensors").read_bytes(), "x")
    assert set(found) == tensor_names(3)
    assert found["transformer.layers.0.attention.qkv.weight"].shape == (144, 96)
    assert found["transformer.layers.0.attention.dense.weight"].shape == (96, 48)
    assert found["transformer.layers.0.mlp.fc.weight"].shape == (192, 96)
    assert found["transformer.layers.0.mlp.proj.weight"].shape == (96, 192)
    assert found["lm_head.weight"].shape == (192, 96)

    assert names(engine) == {"config.json", "rank0.engine", "rank1.engine"}
    config = json.loads((engine / "config.json").read_text())
    assert list(config) == ["version", "pretrained_config", "build_config", "rehearsal"]
    assert config["version"] == f"{release}+rehearsal"
    mapping = config["pretrained_config"]["mapping"]
    assert (mapping["world_size"], mapping["tp_size"], mapping["pp_size"]) == (2, 2, 1)
    build = config["build_config"]
    assert build["output_timing_cache"] == str(tmp_path / "x.cache")
    assert ("max_output_len" in build) is (release == "0.9.0")
    assert ("max_seq_len" in build) is (release == "0.16.0")
    assert ("kv_cache_type" in build) is (release == "0.16.0")
    assert ("builder_opt" in build) is (release == "0.9.0")
    assert ("use_mrope" in build) is (release == "0.16.0")
    assert {"input_timing_cache", "lora_config", "auto_parallel_config", "plugin_config"} <= set(
        build
    )
    assert (tmp_path / "x.cache").read_text().startswith("no timing cache")


def test_kernel_options_are_recorded(pipeline) -> None:
    more = [
        "--gemm_plugin",
        "bfloat16",
        "--context_fmha",
        "disable",
        "--remove_input_padding",
        "disable",
    ]
    engine = pipeline(
        "0.16.0", build=[*more, "--kv_cache_type", "continuous", "--cluster_key", "L40S"]
    )
    build = json.loads((engine / "config.json").read_text())["build_config"]
    plugins = build["plugin_config"]
    assert plugins["gemm_plugin"] == "bfloat16"
    assert plugins["context_fmha"] is False
    assert plugins["remove_input_padding"] is False
    assert plugins["gpt_attention_plugin"] == "auto"
    assert plugins["lora_plugin"] is None
    assert build["kv_cache_type"] == "CONTINUOUS"
    assert build["auto_parallel_config"]["cluster_key"] == "L40S"
    said = json.loads((engine / "config.json").read_text())["rehearsal"]["not_computed"]
    assert {"gemm_plugin", "gpt_attention_plugin"} <= set(said)
    assert not {"context_fmha", "remove_input_padding", "lora_plugin", "dtype"} & set(said)


def test_bare_plugin_flags_take_the_models_type(pipeline) -> None:
    engine = pipeline(
        "0.5.0", dtype="bfloat16", build=["--use_gpt_attention_plugin", "--use_inflight_batching"]
    )
    plugins = json.loads((engine / "config.json").read_text())["plugin_config"]
    assert plugins["gpt_attention_plugin"] == "bfloat16"
    assert plugins["gemm_plugin"] is False
    assert plugins["paged_kv_cache"] is True
    assert plugins["tokens_per_block"] == 64
    said = json.loads((engine / "config.json").read_text())["rehearsal"]["not_computed"]
    assert said == sorted(
        ["gpt_attention_plugin", "paged_kv_cache", "remove_input_padding", "use_inflight_batching"]
    )


def test_0_16_0_deduces_lengths(model, tmp_path) -> None:
    convert = ["--model_dir", str(model), "--output_dir", str(tmp_path / "c")]
    assert main("0.16.0", "examples/gpt/convert_checkpoint.py", convert) == 0
    argv = ["--checkpoint_dir", str(tmp_path / "c"), "--output_dir", str(tmp_path / "e")]
    cache = ["--output_timing_cache", str(tmp_path / "cache")]
    assert main("0.16.0", "trtllm-build", [*argv, *cache]) == 0
    config = json.loads((tmp_path / "e" / "config.json").read_text())
    build = config["build_config"]
    assert (build["max_seq_len"], build["max_input_len"], build["max_num_tokens"]) == (
        256,
        256,
        8192,
    )
    assert build["kv_cache_type"] == "PAGED"
    assert config["pretrained_config"]["dtype"] == "float16"


@pytest.mark.parametrize("release", ["0.5.0", "0.9.0", "0.16.0"])
def test_two_builds_give_the_same_bytes(release, pipeline, tmp_path, monkeypatch) -> None:
    found = []
    for name in ("a", "b"):
        monkeypatch.setattr("time.time", lambda: 0.0)
        engine = pipeline(release, tp=2, name=name)
        found.append((digests(tmp_path / f"{name}-ckpt"), digests(engine)))
    (checkpoint_a, engine_a), (checkpoint_b, engine_b) = found
    # The release records these two paths, which differ between the two builds of this test.
    for one in (checkpoint_a, checkpoint_b):
        one.pop("2-gpu/config.ini", None)
    if release != "0.5.0":
        engine_a.pop("config.json")
        engine_b.pop("config.json")
    assert checkpoint_a == checkpoint_b
    assert engine_a == engine_b


def test_engine_header(pipeline) -> None:
    engine = pipeline("0.9.0", tp=2, dtype="bfloat16")
    data = (engine / "rank1.engine").read_bytes()
    assert data[:16] == b"KIT-REHEARSAL\0\0\0"
    version, length = struct.unpack_from("<II", data, 16)
    assert version == 2
    text = data[24 : 24 + length].decode()
    header = json.loads(text)
    assert text == json.dumps(header, sort_keys=True, separators=(",", ":"))
    assert header == {
        "backend": "kit-rehearsal",
        "backend_version": "0.1.0+rehearsal",
        "dtype": "bfloat16",
        "model": {
            "activation": "gelu_new",
            "embedding": "whole",
            "head_size": 24,
            "hidden_size": 96,
            "inner_size": 384,
            "n_head": 4,
            "n_kv_head": 4,
            "n_layer": 3,
            "n_positions": 256,
            "norm": "layer",
            "norm_epsilon": 1e-05,
            "rotary_base": 10000.0,
            "rotary_dim": 0,
            "vocab_size": 384,
        },
        "pp_size": 1,
        "rank": 1,
        "release": "0.9.0",
        "tp_size": 2,
        "version": "0.9.0+rehearsal",
        "weights": "checkpoint",
        "world_size": 2,
    }
    assert set(tensors.unpack(data[24 + length :], "x")) == tensor_names(3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too few"),
        (b"ftrt" + bytes(40), "a TensorRT plan"),
        (b"KIT-REHEARSAL\0\0\0" + struct.pack("<II", 1, 0), "engine format 1"),
        (b"KIT-REHEARSAL\0\0\0" + struct.pack("<II", 2, 9) + b"{}", "damaged header"),
    ],
)
def test_other_files_are_not_engines(data, message, tmp_path) -> None:
    (tmp_path / "rank0.engine").write_bytes(data)
    with pytest.raises(BackendError, match=message):
        engines.read(tmp_path / "rank0.engine")


def test_all_releases_give_the_same_weights(pipeline) -> None:
    found = []
    for release, file in [
        ("0.5.0", "gpt_float16_tp2_rank1.engine"),
        ("0.9.0", "rank1.engine"),
        ("0.16.0", "rank1.engine"),
    ]:
        found.append(engines.read(pipeline(release, tp=2, name=release) / file).weights)
    for other in found[1:]:
        assert set(other) == set(found[0])
        for name, values in found[0].items():
            assert np.array_equal(values, other[name]), name


def test_vocabulary_is_padded_with_zeros() -> None:
    weight = np.ones((5, 2), dtype=np.float32)
    assert split_vocabulary(weight, 0, 2).shape == (3, 2)
    assert split_vocabulary(weight, 1, 2).sum(axis=1).tolist() == [2, 2, 0]


def test_shared_embedding_has_no_head(model) -> None:
    assert "lm_head.weight" not in rank_weights(
        read_model(model), Placement(0, 1), share_embedding=True
    )


def test_safetensors_agrees_with_the_library() -> None:
    library = pytest.importorskip("safetensors.numpy")
    rng = np.random.default_rng(1)
    for dtype in ("float32", "float16"):
        values = {n: rng.standard_normal((3, 5)).astype(dtype) for n in ("b", "a.c", "a")}
        ours = tensors.pack({n: v.astype(np.float32) for n, v in values.items()}, dtype)
        assert ours == library.save(values)
        back = tensors.unpack(library.save(values), "x")
        assert all(np.array_equal(back[n], v.astype(np.float32)) for n, v in values.items())


def test_bfloat16_rounds_to_even_as_torch_does() -> None:
    torch = peer("torch")
    values = np.random.default_rng(2).standard_normal(1000).astype(np.float32)
    values = np.concatenate(
        [values, np.array([1.00390625, 1.01171875, 0, -0.0, np.inf, 1e-40], np.float32)]
    )
    ours = tensors.decode(tensors.encode(values, "bfloat16"), "bfloat16", values.shape)
    theirs = torch.from_numpy(values).bfloat16().float().numpy()
    assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(
    "blob", [b"", b"\xff" * 40, b"\x02" + bytes(7) + b"[]", b"\x0e" + bytes(7) + b'{"a":{"x":1}} ']
)
def test_broken_safetensors(blob) -> None:
    with pytest.raises(BackendError, match="not a safetensors file"):
        tensors.unpack(blob, "x")


def test_installed_scripts(tmp_path) -> None:
    written = {str(path.relative_to(tmp_path)) for path in install(tmp_path)}
    assert {Path(path).parts[0] for path in written} == set(RELEASES)
    places = {
        "0.5.0": ["examples/gpt/hf_gpt_convert.py", "examples/gpt/build.py", "examples/gpt/run.py"],
        "0.8.0": ["examples/gpt/hf_gpt_convert.py", "examples/gpt/build.py", "examples/run.py"],
        "0.18.2": [
            "examples/gpt/convert_checkpoint.py",
            "examples/llama/convert_checkpoint.py",
            "bin/trtllm-build",
            "examples/run.py",
        ],
        "1.2.1": [
            "examples/models/core/gpt/convert_checkpoint.py",
            "examples/models/core/llama/convert_checkpoint.py",
            "bin/trtllm-build",
            "examples/run.py",
        ],
    }
    for release, expected in places.items():
        assert {f"{release}/{place}" for place in expected} <= written
    for release, scripts in SCRIPTS.items():
        found = {path.split("/", 1)[1] for path in written if path.startswith(f"{release}/")}
        assert {path.removeprefix("bin/") for path in found} == set(scripts)
    script = tmp_path / "0.9.0" / "bin" / "trtllm-build"
    assert script.stat().st_mode & 0o777 == 0o755
    assert script.read_text().splitlines() == [
        "#!/usr/bin/env python3",
        "from kit_rehearsal.commands import main",
        'raise SystemExit(main("0.9.0", "trtllm-build"))',
    ]
