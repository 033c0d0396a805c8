"""Hugging Face model folders and hub caches."""

import pytest

from kit.artifacts import snapshot
from kit.errors import ExitCode, KitError
from tests.unit.artifacts import folders

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "torch_dtype": "bfloat16",
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "transformers_version": "4.45.1",
}


def model(folder, **more):
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    return folders.write(
        folder,
        {
            "config.json": {**CONFIG, **more},
            "model.safetensors.index.json": index,
            "model-1.safetensors": folders.tensors(),
            "model-2.safetensors": folders.tensors(),
            "tokenizer.json": {},
            "tokenizer_config.json": {},
        },
    )


def names(found):
    return [problem.name for problem in found.problems]


def test_a_model_folder(tmp_path):
    found = snapshot.look(model(tmp_path))
    assert (found.architectures, found.model_type) == (("LlamaForCausalLM",), "llama")
    assert (found.dtype, found.precisions) == ("bfloat16", {"bf16"})
    assert (found.heads, found.kv_heads) == (32, 8)
    assert found.tokenizer == ("tokenizer.json", "tokenizer_config.json")
    assert (found.commit, found.repository, found.problems) == (None, None, ())
    assert found.observations[-1].version == "4.45.1"


def test_what_is_missing_cut_or_a_pointer(tmp_path):
    model(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(folders.pointer())
    (tmp_path / "model-1.safetensors").write_bytes(folders.tensors()[:-1])
    found = snapshot.look(tmp_path)
    assert names(found) == ["pointer-left", "weights-damaged"]
    assert (found.pointers, found.missing) == (("model-2.safetensors",), ())
    (tmp_path / "model-2.safetensors").unlink()
    found = snapshot.look(tmp_path)
    assert names(found) == ["weights-missing", "weights-damaged"]
    assert found.missing == ("model-2.safetensors",)


def test_code_and_pickles(tmp_path):
    model(tmp_path, auto_map={"AutoModel": "modeling_x.Model", "odd": ["x"]})
    folders.write(tmp_path, {"modeling_x.py": "raise SystemExit", "pytorch_model.bin": b"\x80\x02"})
    found = snapshot.look(tmp_path)
    assert found.remote_code == ("auto_map: modeling_x.Model", "modeling_x.py")
    assert found.pickles == ("pytorch_model.bin",)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"quant_method": "awq", "bits": 4}, {"int4_awq"}),
        ({"quant_method": "gptq", "bits": 8}, {"int8_gptq"}),
        ({"quant_method": "fp8"}, {"fp8"}),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, {"fp8_block"}),
        ({"quant_method": "mxfp4"}, {"mxfp4"}),
    ],
)
def test_quantization(tmp_path, section, expected):
    assert snapshot.look(model(tmp_path, quantization_config=section)).precisions == {
        "bf16",
        *expected,
    }


def test_modelopts_own_file_and_an_unknown_method(tmp_path):
    model(tmp_path, quantization_config={"quant_method": "aqlm"})
    section = {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8"}
    folders.write(tmp_path, {"hf_quant_config.json": {"quantization": section}})
    found = snapshot.look(tmp_path)
    assert found.precisions == {"bf16", "nvfp4", "fp8_kv_cache"}
    assert names(found) == ["quantization-unknown"]


def test_a_hub_cache(tmp_path):
    cache = tmp_path / "models--meta-llama--Llama-3"
    place = model(cache / "snapshots" / COMMIT)
    folders.write(cache, {"refs/main": COMMIT, f"snapshots/{COMMIT[::-1]}/x": b""})
    (place / "tokenizer.model").symlink_to("../../blobs/gone")
    for folder in (cache, place):
        found = snapshot.look(folder)
        assert (found.repository, found.commit) == ("meta-llama/Llama-3", COMMIT)
        assert found.observations[0].component == "meta-llama/Llama-3"
        assert names(found) == ["blob-missing"]
    (cache / "refs" / "main").write_text("f" * 40)
    with pytest.raises(KitError) as error:
        snapshot.look(cache)
    assert error.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("config", [None, "{", {"a": 1}, {"architecture": "X"}])
def test_no_model(tmp_path, config):
    folders.write(tmp_path, {"x": b""} if config is None else {"config.json": config})
    with pytest.raises(KitError) as error:
        snapshot.look(tmp_path)
    assert error.value.exit_code == ExitCode.CONTENT


def test_an_index_may_not_lead_outside(tmp_path):
    model(tmp_path)
    index = {"weight_map": {"a": "/etc/passwd", "b": "../x", "c": 5, "d": "model-1.safetensors"}}
    folders.write(tmp_path, {"model.safetensors.index.json": index})
    assert snapshot.look(tmp_path).missing == ()


@pytest.mark.parametrize("named", [["a"], {}, None, 5, "x/../../y", "/etc/passwd", "a\0b"])
def test_an_index_of_odd_names(tmp_path, named):
    folder = model(tmp_path)
    index = {"weight_map": {"a": named, "b": "model-3.safetensors"}}
    folders.write(folder, {"model.safetensors.index.json": index})
    assert "model-3.safetensors" in snapshot.look(folder).missing


def test_an_index_with_a_name_that_no_file_can_have(tmp_path):
    folder = model(tmp_path)
    folders.write(folder, {"model.safetensors.index.json": {"weight_map": {"a": "n" * 300}}})
    assert snapshot.look(folder).missing == ("n" * 300,)
