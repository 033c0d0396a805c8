"""Engine directories of all eras, whole and not."""

import copy
import json
import random

import pytest

from kit.artifacts import engine
from kit.errors import ExitCode, KitError
from tests.unit.artifacts import folders


def names(problems):
    return sorted(problem.name for problem in problems)


def test_an_engine_of_trtllm_build(tmp_path):
    found = engine.look(folders.new_engine(tmp_path, tp=2, pp=2))
    assert (found.layout, found.release, found.tensorrt) == ("version", "0.16.0", "10.7.0.23")
    sizes = found.parallelism
    assert (sizes.tp, sizes.pp, sizes.cp, found.world_size) == (2, 2, None, 4)
    assert [item.file for item in found.ranks] == [f"rank{n}.engine" for n in range(4)]
    assert found.expected == tuple(item.file for item in found.ranks)
    assert (found.architecture, found.dtype) == ("LlamaForCausalLM", "float16")
    assert (found.heads, found.kv_heads) == (32, 8)
    assert (found.limits.max_batch_size, found.limits.max_seq_len) == (8, 2560)
    assert (found.gpu_hint, found.backend) == ("H100-SXM", "TensorRT")
    assert found.plugins["gemm_plugin"] == "float16"
    assert (found.problems, found.missing, found.strays) == ((), (), ())
    said = {(item.component, item.version) for item in found.observations}
    assert said == {("tensorrt_llm", "0.16.0"), ("tensorrt", "10.7.0.23")}


@pytest.mark.parametrize(("pp", "stem"), [(1, "llama_float16_tp2_"), (2, "llama_float16_tp2_pp2_")])
def test_an_engine_of_an_old_build_py(tmp_path, pp, stem):
    found = engine.look(folders.old_engine(tmp_path, tp=2, pp=pp, quant_mode=2 | 64))
    assert (found.layout, found.release, found.tensorrt) == ("builder_config", None, "9.2.0.5")
    assert found.expected == tuple(f"{stem}rank{n}.engine" for n in range(2 * pp))
    assert {(item.tp, item.pp) for item in found.ranks} == {(2, pp if pp > 1 else None)}
    assert found.precisions == {"fp16", "int8_weight_only", "int8_kv_cache"}
    assert (found.limits.max_output_len, found.limits.max_seq_len) == (512, None)
    assert found.problems == ()


def test_0_5_0_writes_no_pipeline_parallel(tmp_path):
    folders.old_engine(tmp_path)
    config = folders.builder_config()
    del config["builder_config"]["pipeline_parallel"]
    folders.write(tmp_path, {"config.json": config})
    assert engine.look(tmp_path).world_size == 2


def test_rank_files_alone(tmp_path):
    folders.write(tmp_path, {"rank0.engine": folders.plan(), "rank1.engine": folders.plan()})
    found = engine.look(tmp_path)
    assert (found.layout, found.release, found.world_size) == ("none", None, None)
    assert (len(found.ranks), found.expected, found.tensorrt) == (2, (), "10.7.0.23")


def test_rehearsal_engines_say_so(tmp_path):
    config = folders.builder_config(tp=1)
    folders.write(
        tmp_path,
        {"config.json": config, "llama_float16_tp1_rank0.engine": folders.rehearsal("0.5.0")},
    )
    found = engine.look(tmp_path)
    assert (found.release, found.backend) == ("0.5.0+rehearsal", "rehearsal")
    assert (found.version.how, found.problems) == ("header", ())


def test_a_rank_that_is_not_there(tmp_path):
    folders.new_engine(tmp_path, tp=4)
    (tmp_path / "rank2.engine").unlink()
    found = engine.look(tmp_path)
    assert (found.missing, names(found.problems)) == (("rank2.engine",), ["rank-missing"])


def test_ranks_of_another_engine_between_them(tmp_path):
    folders.old_engine(tmp_path, tp=2)
    folders.write(tmp_path, {"llama_float16_tp4_rank0.engine": folders.plan()})
    found = engine.look(tmp_path)
    assert [item.tp for item in found.ranks] == [2, 2]
    assert [item.path.rpartition("/")[2] for item in found.strays] == [
        "llama_float16_tp4_rank0.engine"
    ]
    assert names(found.problems) == ["rank-stray"]
    (tmp_path / "llama_float16_tp4_rank0.engine").rename(tmp_path / "rank0.engine")
    assert names(engine.look(tmp_path).problems) == ["rank-twice", "ranks-differ"]


def test_more_ranks_than_config_json_says(tmp_path):
    folders.new_engine(tmp_path, tp=1)
    folders.write(tmp_path, {"rank1.engine": folders.plan(), "extra.plan": folders.plan()})
    found = engine.look(tmp_path)
    assert (len(found.ranks), len(found.strays)) == (1, 2)
    assert names(found.problems) == ["rank-stray"]


def test_ranks_of_two_tensorrts(tmp_path):
    folders.new_engine(tmp_path)
    folders.write(tmp_path, {"rank1.engine": folders.plan("10.8.0.43")})
    found = engine.look(tmp_path)
    assert (found.tensorrt, names(found.problems)) == (None, ["ranks-differ"])


def test_a_rank_under_the_name_of_another(tmp_path):
    folders.new_engine(tmp_path, release="0.16.0+rehearsal")
    content = folders.rehearsal(rank=0, world_size=2)
    folders.write(tmp_path, {"rank0.engine": content, "rank1.engine": content})
    assert names(engine.look(tmp_path).problems) == ["rank-place"]


def test_a_damaged_rank_is_corrupt(tmp_path):
    folders.new_engine(tmp_path)
    folders.write(tmp_path, {"rank1.engine": folders.pointer()})
    (problem,) = engine.look(tmp_path).problems
    assert problem.is_corrupt
    assert "Git LFS pointer" in problem.message


def test_quantization(tmp_path):
    found = engine.look(
        folders.new_engine(
            tmp_path, quantization={"quant_algo": "FP8", "kv_cache_quant_algo": "FP8"}
        )
    )
    assert found.precisions == {"fp16", "fp8", "fp8_kv_cache"}


def test_mixed_precision_stands_in_a_file_of_its_own(tmp_path):
    folders.new_engine(tmp_path, quantization={"quant_algo": "MIXED_PRECISION"})
    layers = {"a": {"quant_algo": "W4A8_AWQ"}, "b": {"quant_algo": "FP8"}, "c": {"quant_algo": "X"}}
    folders.write(tmp_path, {"quant_cfg.json": {"quantized_layers": layers}})
    found = engine.look(tmp_path)
    assert found.precisions == {"fp16", "w4a8_awq", "fp8"}
    assert names(found.problems) == ["quantization-unknown"]
    folders.write(tmp_path, {"quant_cfg.json": "{"})
    with pytest.raises(KitError):
        engine.look(tmp_path)


def test_context_and_automatic_parallelism(tmp_path):
    mapping = {"world_size": 4, "tp_size": 2, "pp_size": 1, "cp_size": 2}
    folders.new_engine(tmp_path, tp=4, mapping=mapping)
    found = engine.look(tmp_path)
    assert (found.parallelism.cp, found.world_size, found.problems) == (2, 4, ())
    config = folders.version_config(tp=1)
    config["build_config"]["auto_parallel_config"]["world_size"] = 4
    found = engine.look(folders.write(tmp_path, {"config.json": config}))
    assert (found.world_size, found.missing) == (4, ())


@pytest.mark.parametrize(
    ("mapping", "name", "world"),
    [
        ({"world_size": 3, "tp_size": 2, "pp_size": 1}, "world-size", 2),
        ({"tp_size": 0}, "mapping-damaged", None),
        ({"tp_size": -1, "pp_size": -2}, "mapping-damaged", None),
        ({"tp_size": "2"}, "mapping-damaged", None),
        ({"tp_size": True}, "mapping-damaged", None),
        ({"tp_size": 2**60, "pp_size": 1}, "mapping-damaged", None),
        ({"tp_size": 65536, "pp_size": 65536}, "mapping-damaged", None),
    ],
)
def test_sizes_that_cannot_be(tmp_path, mapping, name, world):
    found = engine.look(folders.new_engine(tmp_path, mapping=mapping))
    assert (found.world_size, name in names(found.problems)) == (world, True)


def test_encoder_and_decoder(tmp_path):
    folders.new_engine(tmp_path / "encoder", tp=1)
    folders.new_engine(tmp_path / "decoder", tp=1)
    found = engine.look(tmp_path)
    assert [part.folder.name for part in found.parts] == ["encoder", "decoder"]
    assert (found.release, found.tensorrt, found.ranks) == ("0.16.0", "10.7.0.23", ())
    assert found.precisions == {"fp16"}
    folders.new_engine(tmp_path / "encoder", tp=1, release="0.15.0", tensorrt="10.6.0.26")
    found = engine.look(tmp_path)
    assert (found.tensorrt, names(found.problems)) == (None, ["parts-differ"])


@pytest.mark.parametrize(
    "files",
    [
        {"readme.txt": "x"},
        {"config.json": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}},
        {"config.json": {"version": 16, "pretrained_config": {}}},
        {"config.json": {"builder_config": []}},
    ],
)
def test_no_engine(tmp_path, files):
    with pytest.raises(KitError) as error:
        engine.look(folders.write(tmp_path, files))
    assert error.value.exit_code == ExitCode.CONTENT
    assert "no engine directory" in str(error.value)


def test_no_folder(tmp_path):
    with pytest.raises(KitError) as error:
        engine.look(tmp_path / "no")
    assert error.value.exit_code == ExitCode.USAGE


def test_every_cut_of_config_json_is_one_error(tmp_path):
    folders.new_engine(tmp_path)
    whole = (tmp_path / "config.json").read_bytes()
    for length in range(len(whole)):
        (tmp_path / "config.json").write_bytes(whole[:length])
        with pytest.raises(KitError) as error:
            engine.look(tmp_path)
        assert error.value.exit_code == ExitCode.CONTENT


ODD = [None, True, -1, 10**30, 1.5, "", "x" * 9999, [], [[]], {}, {"a": 1}, "\x1b[31m", "2"]


def test_values_of_any_type_are_no_traceback(tmp_path):
    chance = random.Random(3)
    for config in (folders.version_config(), folders.builder_config()):
        for _ in range(400):
            changed = json.loads(json.dumps(config))
            for _ in range(chance.randint(1, 3)):
                _change(changed, chance)
            folders.write(tmp_path, {"config.json": changed, "rank0.engine": folders.plan()})
            found = engine.look(tmp_path)
            assert found.world_size is None or found.world_size <= 65536
            assert all(isinstance(item.version, (str, type(None))) for item in found.observations)


def _change(document, chance):
    """Put something odd in place of one value, anywhere."""
    key = chance.choice(list(document))
    if isinstance(document[key], dict) and document[key] and chance.random() < 0.7:
        _change(document[key], chance)
    else:
        document[key] = copy.deepcopy(chance.choice(ODD))


def test_parts_that_are_links_in_circles_end(tmp_path):
    """Three links up at each of the forty steps that the system follows would never end."""
    folders.write(tmp_path, {"config.json": {}})
    folders.new_engine(tmp_path / "decoder")
    for name in ("encoder", "llm", "vision"):
        (tmp_path / name).symlink_to(".")
    with pytest.raises(KitError, match="no engine directory") as caught:
        engine.look(tmp_path)
    assert caught.value.exit_code == ExitCode.CONTENT
