"""Checkpoints of both eras."""

import pytest

from kit.artifacts import checkpoint, tensors
from kit.errors import ExitCode, KitError
from tests.unit.artifacts import folders

INI = "[gpt]\nn_head = 16\nn_layer = 24\nstorage_dtype = float16\ntensor_parallelism = 2\n"


def unified(folder, tp=2, **more):
    config = {
        "architecture": "LlamaForCausalLM",
        "dtype": "bfloat16",
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "mapping": {"world_size": tp, "tp_size": tp, "pp_size": 1},
        "quantization": {"quant_algo": "W4A16_AWQ", "kv_cache_quant_algo": "INT8"},
        "producer": {"name": "modelopt", "version": "0.21.0"},
        **more,
    }
    ranks = {f"rank{n}.safetensors": folders.tensors() for n in range(tp)}
    return folders.write(folder, {"config.json": config, **ranks})


def names(found):
    return [problem.name for problem in found.problems]


def test_a_checkpoint(tmp_path):
    found = checkpoint.look(unified(tmp_path))
    assert (found.layout, found.world_size, found.files) == ("unified", 2, 2)
    assert found.precisions == {"bf16", "int4_awq", "int8_kv_cache"}
    assert (found.heads, found.kv_heads, found.release) == (32, 8, None)
    assert found.ranks[1].tensors.tensors == 2
    assert found.ranks[1].tensors.dtypes == {"F16"}
    assert ("modelopt", "0.21.0") in {(i.component, i.version) for i in found.observations}
    assert found.problems == ()


def test_a_rank_too_few_too_many_and_a_broken_one(tmp_path):
    unified(tmp_path, tp=3)
    (tmp_path / "rank1.safetensors").unlink()
    folders.write(
        tmp_path,
        {"rank3.safetensors": folders.tensors(), "rank0.safetensors": folders.tensors()[:-1]},
    )
    found = checkpoint.look(tmp_path)
    assert found.missing == ("rank1.safetensors",)
    assert names(found) == ["rank-damaged", "rank-stray", "rank-missing"]
    assert [problem.is_corrupt for problem in found.problems] == [True, False, False]


def test_an_old_checkpoint(tmp_path):
    files = {f"model.layers.0.dense.weight.{n}.bin": b"xx" for n in range(2)}
    folders.write(tmp_path / "2-gpu", {"config.ini": INI, "model.wte.bin": b"xxxx", **files})
    for folder in (tmp_path, tmp_path / "2-gpu"):
        found = checkpoint.look(folder)
        assert (found.layout, found.world_size, found.files, found.size) == ("ft", 2, 3, 8)
        assert (found.architecture, found.dtype, found.heads) == ("gpt", "float16", 16)
        assert found.problems == ()
    (tmp_path / "2-gpu" / "model.layers.0.dense.weight.1.bin").unlink()
    found = checkpoint.look(tmp_path)
    assert found.missing == ("model.layers.0.dense.weight.1.bin",)
    assert names(found) == ["rank-missing"]


def test_old_tensor_files_that_were_not_fetched(tmp_path):
    files = {"config.ini": INI, "model.wte.bin": folders.pointer(), "model.wpe.bin": b""}
    found = checkpoint.look(folders.write(tmp_path / "1-gpu", files))
    assert names(found) == ["rank-damaged", "rank-damaged"]


def test_a_folder_name_that_promises_too_much(tmp_path):
    folders.write(tmp_path / "65536-gpu", {"config.ini": INI, "model.a.0.bin": b"x"})
    assert checkpoint.look(tmp_path).missing == ("model.a.1.bin",)
    folders.write(tmp_path / "99999-gpu", {"config.ini": INI})
    assert names(checkpoint.look(tmp_path / "99999-gpu"))[0] == "mapping-damaged"


def test_several_old_ones_need_a_name(tmp_path):
    folders.write(tmp_path, {"1-gpu/config.ini": INI, "2-gpu/config.ini": INI})
    with pytest.raises(KitError) as error:
        checkpoint.look(tmp_path)
    assert error.value.exit_code == ExitCode.USAGE
    assert error.value.hint.endswith("1-gpu")


@pytest.mark.parametrize(
    "files",
    [
        {"config.ini": "no section"},
        {"config.ini": ""},
        {"config.ini": b"\xff\xfe"},
        {"config.ini": "[a]\nb=1\n[a]\nb=2\n"},
        {"config.json": "{"},
        {"config.json": {"model_type": "llama"}},
        {"rank0.safetensors": folders.tensors()},
        {"other.txt": "x"},
    ],
)
def test_no_checkpoint(tmp_path, files):
    with pytest.raises(KitError) as error:
        checkpoint.look(folders.write(tmp_path, files))
    assert error.value.exit_code == ExitCode.CONTENT


def test_every_cut_of_a_tensor_file_is_seen(tmp_path):
    whole = folders.tensors()
    path = tmp_path / "rank0.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert tensors.look(path).problem, length
    path.write_bytes(whole + b"x")
    assert "1 bytes more" in tensors.look(path).problem


def test_tensor_headers_that_lie(tmp_path):
    path = tmp_path / "x.safetensors"

    def problem(header, payload=b""):
        path.write_bytes(len(header).to_bytes(8, "little") + header + payload)
        return tensors.look(path).problem

    assert "not its shape" in problem(
        b'{"a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 2]}}', b"xx"
    )
    assert "no shape or place" in problem(b'{"a": {"shape": "x"}}')
    assert "no shape or place" in problem(b'{"a": 5}')
    many = b",".join([b"9"] * 1000)
    assert "no shape or place" in problem(
        b'{"a": {"shape": [' + many + b'], "data_offsets": [0, 0]}}'
    )
    assert "no shape or place" in problem(b'{"a": {"shape": [1], "data_offsets": [4, 0]}}')
    path.write_bytes(b"\xff" * 8 + b"{}")
    assert "truncated" in tensors.look(path).problem
