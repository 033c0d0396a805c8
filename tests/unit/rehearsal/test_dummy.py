"""Engines of dimensions alone: random weights, the same every time and on any number of ranks."""

from __future__ import annotations

import json

import numpy as np
import pytest
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.decoder import activate
from kit_rehearsal.engine import read
from kit_rehearsal.releases import RELEASES, Span

from kit.artifacts import plan
from tests.unit.rehearsal.test_gpt_family import run

UNIFIED = [release for release in RELEASES if Span("0.9.0").holds(release)]
OLD = [release for release in RELEASES if release not in UNIFIED]
PROMPT = list(range(5, 45, 3))
NAME = "gpt_float32_tp1_rank0.engine"
LENGTHS = ["--max_batch_size", "4", "--max_input_len", "64"]
# GPT-Next: heads that are turned in half, a gated MLP.
OLD_GPT = ["--dtype", "float32", "--vocab_size", "384", "--n_layer", "2", "--n_embd", "64"]
OLD_GPT += ["--n_head", "8", "--n_positions", "128", "--hidden_act", "swiglu"]
OLD_GPT += ["--rotary_pct", "0.5", "--inter_size", "96"]
NEW_GPT = ["--dtype", "float32", "--vocab_size", "384", "--num_hidden_layers", "2"]
NEW_GPT += ["--hidden_size", "64", "--num_attention_heads", "8", "--intermediate_size", "96"]
NEW_GPT += ["--max_position_embeddings", "128", "--hidden_act", "swiglu", "--rotary_pct", "0.5"]
NEW_GPT += ["--position_embedding_type", "rope_gpt_neox"]
LLAMA = ["--dtype", "float32", "--vocab_size", "384", "--n_layer", "2", "--n_embd", "64"]
LLAMA += ["--n_head", "8", "--n_kv_head", "2", "--n_positions", "128", "--inter_size", "96"]


def old_gpt(release, work, tp=1, options=()):
    engine = work / "engine"
    argv = [*OLD_GPT, *LENGTHS, "--world_size", str(tp), "--output_dir", str(engine), *options]
    assert main(release, "examples/gpt/build.py", argv) == 0
    return engine


def new_gpt(release, work, tp=1, pp=1, options=NEW_GPT, build=()):
    config, engine = work / "config.json", work / "engine"
    argv = [*options, "--tp_size", str(tp), "--pp_size", str(pp), "--output_path", str(config)]
    assert main(release, "examples/generate_checkpoint_config.py", argv) == 0
    return from_config(release, config, engine, work, build)


def from_config(release, config, engine, work, build=()):
    flag = "--timing_cache" if release == "0.8.0" else "--output_timing_cache"
    argv = ["--model_config", str(config), flag, str(work / "cache"), *LENGTHS, *build]
    assert main(release, "trtllm-build", [*argv, "--output_dir", str(engine)]) == 0
    return engine


def tokens_of(release, engine, work, size):
    work.mkdir(exist_ok=True)
    found = run(release, engine, work, size)
    assert found[: len(PROMPT)] == PROMPT
    assert len(set(found[len(PROMPT) :])) > 5
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one rank says of the GPT."""
    work = tmp_path_factory.mktemp("alone")
    return tokens_of("0.9.0", new_gpt("0.9.0", work), work, 1)


@pytest.mark.parametrize("release", OLD)
def test_build_py_without_a_model(release, alone, tmp_path) -> None:
    engine = old_gpt(release, tmp_path, tp=4)
    one = read(engine / "gpt_float32_tp4_rank3.engine")
    assert one.origin == "dummy, seed 0"
    assert one.model.rotary_dim == 4
    layer = "transformer.layers.0."
    assert layer + "mlp.gate.weight" in one.weights
    assert "transformer.position_embedding.weight" not in one.weights
    assert layer + "attention.qkv.bias" not in one.weights
    config = json.loads((engine / "config.json").read_text())
    assert config["rehearsal"]["weights"] == "dummy, seed 0"
    assert config["builder_config"]["hidden_act"] == "swiglu"
    assert tokens_of(release, engine, tmp_path, 4) == alone


@pytest.mark.parametrize("release", UNIFIED)
def test_a_generated_config(release, alone, tmp_path) -> None:
    engine = new_gpt(release, tmp_path, tp=2, pp=2)
    checkpoint = json.loads((tmp_path / "config.json").read_text())
    assert checkpoint["mapping"] == {"world_size": 4, "tp_size": 2, "pp_size": 2}
    assert ("share_embedding_table" in checkpoint) is Span(before="0.16.0").holds(release)
    config = json.loads((engine / "config.json").read_text())
    assert config["rehearsal"]["weights"] == "dummy, seed 0"
    assert config["pretrained_config"]["rotary_pct"] == 0.5
    assert config["pretrained_config"]["mapping"]["world_size"] == 4
    assert tokens_of(release, engine, tmp_path, 4) == alone


def test_a_seed_and_biases(tmp_path) -> None:
    """--no_bias turns biases on: the releases have it as a store_false and negate it."""
    found = []
    for name, options in [("0", []), ("7", ["--random_seed", "7"]), ("b", ["--no_bias"])]:
        (tmp_path / name).mkdir()
        found.append(read(old_gpt("0.7.1", tmp_path / name, options=options) / NAME))
    assert [one.origin for one in found] == ["dummy, seed 0", "dummy, seed 7", "dummy, seed 0"]
    key = "transformer.layers.1.attention.dense.weight"
    assert not np.array_equal(found[0].weights[key], found[1].weights[key])
    assert np.array_equal(found[0].weights[key], found[2].weights[key])
    biases = [sum(name.endswith(".bias") for name in one.weights) for one in found]
    assert biases == [5, 5, 5 + 8]  # of the norms, and of four matrices in two layers


def test_the_same_bytes_twice(tmp_path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        old_gpt("0.5.0", tmp_path / name)
    files = [(tmp_path / name / "engine" / NAME).read_bytes() for name in "ab"]
    assert files[0] == files[1]


@pytest.mark.parametrize("release", ["0.5.0", "0.6.1", "0.7.1"])
def test_a_llama_of_dimensions(release, tmp_path) -> None:
    found = []
    for tp, pp in [(1, 1), (2, 2)]:
        engine = tmp_path / str(tp)
        argv = [*LLAMA, *LENGTHS, "--output_dir", str(engine), "--world_size", str(tp * pp)]
        argv += ["--tp_size", str(tp), "--pp_size", str(pp)]
        assert main(release, "examples/llama/build.py", argv) == 0
        found.append(read(next(engine.glob("*rank0.engine"))))
    whole, part = found
    assert whole.origin == part.origin == "dummy, seed 0"
    name = "transformer.layers.0.mlp.fc.weight"
    assert np.array_equal(whole.weights[name][:48], part.weights[name])


def test_inner_size_of_a_llama(tmp_path) -> None:
    argv = ["--vocab_size", "32", "--n_layer", "1", "--n_embd", "96", "--n_head", "4"]
    argv += ["--multiple_of", "16", "--ffn_dim_multiplier", "1.3", "--output_dir", str(tmp_path)]
    assert main("0.6.1", "examples/llama/build.py", argv) == 0
    made = read(tmp_path / "llama_float16_tp1_rank0.engine")
    assert made.model.inner_size == 336  # 1.3 * 256, rounded up to 16


@pytest.mark.parametrize("release", ["0.8.0", "0.9.0", "0.12.0", "1.2.1"])
def test_a_llama_that_is_only_a_config(release, tmp_path) -> None:
    place = next(one for one in SCRIPTS[release] if one.endswith("llama/convert_checkpoint.py"))
    found = []
    for tp, pp in [(1, 1), (2, 2)]:
        work = tmp_path / str(tp)
        argv = [*LLAMA, "--tp_size", str(tp), "--pp_size", str(pp), "--output_dir", str(work)]
        assert main(release, place, argv) == 0
        assert {path.name for path in work.iterdir()} == {"config.json"}
        engine = from_config(release, work / "config.json", work / "engine", work)
        header = read(engine / "rank0.engine")
        assert (header.model.norm, header.model.n_kv_head) == ("rms", 2)
        found.append(tokens_of(release, engine, work, tp * pp))
    assert found[0] == found[1]


def test_sharing_and_cutting_of_a_dummy(alone, tmp_path) -> None:
    cut = [*NEW_GPT, "--use_parallel_embedding", "--share_embedding_table"]
    engine = new_gpt("0.11.0", tmp_path, tp=2, options=cut)
    weights = read(engine / "rank1.engine").weights
    assert weights["transformer.vocab_embedding.weight"].shape == (192, 64)
    assert "lm_head.weight" not in weights
    assert tokens_of("0.11.0", engine, tmp_path, 2) != alone  # another head


def test_what_a_config_must_have(tmp_path, capsys) -> None:
    argv = ["--output_path", str(tmp_path / "config.yaml")]
    assert main("0.9.0", "examples/generate_checkpoint_config.py", argv) == 1
    assert "must end with .json" in capsys.readouterr().err
    assert main("0.9.0", "trtllm-build", []) == 1
    assert "--model_config for dummy weights" in capsys.readouterr().err
    path = tmp_path / "config.json"
    argv = [*NEW_GPT, "--output_path", str(path)]
    assert main("0.9.0", "examples/generate_checkpoint_config.py", argv) == 0
    whole = json.loads(path.read_text())
    for key in ("hidden_size", "quantization", "mapping"):
        path.write_text(json.dumps({name: whole[name] for name in whole if name != key}))
        assert main("0.9.0", "trtllm-build", ["--model_config", str(path)]) == 1
        assert f"no {key}" in capsys.readouterr().err
    path.write_text(json.dumps({**whole, "architecture": "BloomForCausalLM"}))
    assert main("0.9.0", "trtllm-build", ["--model_config", str(path)]) == 1
    assert "found BloomForCausalLM" in capsys.readouterr().err
    for change, message in [
        ({"hidden_act": "geglu"}, "does not compute activation geglu"),
        ({"position_embedding_type": "alibi"}, "does not compute positions of type alibi"),
        ({"rotary_scaling": ["linear", "2.0"]}, "does not compute scaled rotary embeddings"),
        ({"hidden_size": 60}, "hidden size 60 is no multiple of 8 attention heads"),
        ({"hidden_size": 1 << 20}, "the rehearsal is for smaller dimensions"),
        ({"quantization": {"quant_algo": "W4A16_AWQ"}}, "dummy weights of W4A16_AWQ"),
        ({"num_hidden_layers": 3, "mapping": {"world_size": 2, "tp_size": 1, "pp_size": 2}},
         "3 layers cannot be shared evenly by 2 pipeline stages"),
    ]:  # fmt: skip
        path.write_text(json.dumps({**whole, **change}))
        assert main("0.9.0", "trtllm-build", ["--model_config", str(path)]) == 1
        assert message in capsys.readouterr().err


def test_rounded_weights_of_a_dummy(alone, tmp_path) -> None:
    options = [*NEW_GPT, "--quant_algo", "W8A16"]
    engine = new_gpt("0.16.0", tmp_path, tp=2, options=options)
    weights = read(engine / "rank0.engine").weights
    assert weights["transformer.layers.0.attention.qkv.weight"].dtype == np.int8
    seen = plan.look(engine / "rank1.engine")  # the kit's own reader of heads
    assert (seen.problem, seen.rehearsal) == (None, plan.Rehearsal("0.16.0", 1, 2, "float32"))
    rounded = tokens_of("0.16.0", engine, tmp_path, 2)
    assert rounded[: len(PROMPT) + 1] == alone[: len(PROMPT) + 1]


def test_activations() -> None:
    x = np.linspace(-4, 4, 33, dtype=np.float32)
    assert np.array_equal(activate("relu", x), np.maximum(x, 0))
    assert np.allclose(activate("swiglu", x), x / (1 + np.exp(-x)))
    assert np.array_equal(activate("gelu", x), activate("gelu_pytorch_tanh", x))
