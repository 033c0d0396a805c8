"""LLaMA: the same numbers as transformers, and every release that shares GPT's checkpoints."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from kit_rehearsal import llama_huggingface, tensors
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.engine import read
from kit_rehearsal.releases import RELEASES, Span

from tests.conftest import peer
from tests.unit.rehearsal.conftest import MODEL, ThreadWorld

UNIFIED = [release for release in RELEASES if Span("0.9.0").holds(release)]
END_ID = 383  # of the tokenizer
PROMPT = list(range(5, 45, 3))
SIZES = {
    "vocab_size": 384,
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 2,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-05,
    "rope_theta": 5000.0,
    "tie_word_embeddings": False,
}


def write_model(folder, **changes):
    """A random LLaMA with large weights, so that a wrong one shows in the tokens."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        **SIZES,
        **changes,
    }
    rng = np.random.default_rng(7)
    hidden, inner, size = config["hidden_size"], config["intermediate_size"], 8
    kv = size * (config["num_key_value_heads"] or config["num_attention_heads"])
    shapes = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
        "lm_head.weight": (config["vocab_size"], hidden),
    }
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        shapes |= {
            f"{name}input_layernorm.weight": (hidden,),
            f"{name}post_attention_layernorm.weight": (hidden,),
            f"{name}self_attn.q_proj.weight": (hidden, hidden),
            f"{name}self_attn.k_proj.weight": (kv, hidden),
            f"{name}self_attn.v_proj.weight": (kv, hidden),
            f"{name}self_attn.o_proj.weight": (hidden, hidden),
            f"{name}mlp.gate_proj.weight": (inner, hidden),
            f"{name}mlp.up_proj.weight": (inner, hidden),
            f"{name}mlp.down_proj.weight": (hidden, inner),
        }
    if config["tie_word_embeddings"]:
        shapes.pop("lm_head.weight")
    weights = {
        name: rng.standard_normal(shape).astype(np.float32) * 0.2 + (len(shape) == 1)
        for name, shape in shapes.items()
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(tensors.pack(weights, "float32"))
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "llama")


def answer(
    release: str,
    model,
    work,
    tp: int = 1,
    pp: int = 1,
    dtype: str = "float32",
    convert=(),
    build=(),
):
    """Convert, build and run; token ids of the prompt's row and the folder of the engine.

    `convert` are options of the step that cuts the embedding, build.py's until 0.7.1.
    """
    work.mkdir(parents=True)
    checkpoint, engine = work / "checkpoint", work / "engine"
    sizes = ["--dtype", dtype, "--tp_size", str(tp), "--pp_size", str(pp)]
    lengths = ["--max_input_len", "64", "--output_dir", str(engine), *build]
    source = ["--model_dir", str(model), *convert]
    if "examples/llama/build.py" in SCRIPTS[release]:
        world_size = ["--world_size", str(tp * pp)]
        bfloat16 = ["--use_gemm_plugin", dtype]  # without it 0.5.0 refuses the type
        argv = [*source, *sizes, *world_size, *lengths, *bfloat16]
        assert main(release, "examples/llama/build.py", argv) == 0
    else:
        place = next(one for one in SCRIPTS[release] if one.endswith("llama/convert_checkpoint.py"))
        assert main(release, place, [*source, *sizes, "--output_dir", str(checkpoint)]) == 0
        flag = "--timing_cache" if release == "0.8.0" else "--output_timing_cache"
        argv = ["--checkpoint_dir", str(checkpoint), flag, str(work / "cache"), *lengths]
        assert main(release, "trtllm-build", argv) == 0
    tokens = "--input_file" if "examples/run.py" in SCRIPTS[release] else "--input_tokens"
    run = "examples/run.py" if tokens == "--input_file" else "examples/llama/run.py"
    with (work / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerow(PROMPT)
    argv = ["--engine_dir", str(engine), "--tokenizer_dir", str(MODEL), "--max_output_len", "30"]
    argv += [tokens, str(work / "in.csv"), "--output_csv", str(work / "out.csv")]
    world = ThreadWorld(tp * pp)
    assert world.run(lambda rank: main(release, run, argv, ranks=lambda: rank)) == [0] * world.size
    with (work / "out.csv").open(newline="") as file:
        return [int(cell) for cell in next(csv.reader(file))], engine


@pytest.fixture(scope="module")
def alone(llama, tmp_path_factory) -> list[int]:
    """What one rank says."""
    made, _ = answer("0.16.0", llama, tmp_path_factory.mktemp("alone") / "run")
    assert made[: len(PROMPT)] == PROMPT
    assert len(set(made[len(PROMPT) :])) > 5  # not one token for ever
    return made


def rope_of(release: str) -> list[str]:
    """Until 0.6.1, and in 0.8.0, heads turn by an option, whatever the model says."""
    by_option = Span(before="0.7.0").holds(release) or release == "0.8.0"
    return ["--rotary_base", "5000"] if by_option else []


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_says_the_same_on_one_rank_and_four(release, llama, alone, tmp_path) -> None:
    options = {"convert": rope_of(release)}
    one, engine = answer(release, llama, tmp_path / "1", **options)
    assert one == alone
    four, cut = answer(release, llama, tmp_path / "4", tp=2, pp=2, **options)
    assert four == alone
    names = {path.name for path in cut.iterdir()}
    if release in UNIFIED or release == "0.8.0":
        assert {f"rank{rank}.engine" for rank in range(4)} <= names
        header = read(engine / "rank0.engine")
    else:
        assert names == {
            "config.json",
            "model.cache",
            *(f"llama_float32_tp2_pp2_rank{rank}.engine" for rank in range(4)),
        }
        header = read(engine / "llama_float32_tp1_rank0.engine")
        builder = json.loads((cut / "config.json").read_text())["builder_config"]
        assert (builder["name"], builder["num_kv_heads"]) == ("llama", 2)
        assert (builder["tensor_parallel"], builder["pipeline_parallel"]) == (2, 2)
    assert (header.model.n_kv_head, header.model.rotary_base) == (2, 5000.0)
    assert header.model.norm == "rms"


@pytest.mark.parametrize("release", ["0.8.0", *UNIFIED])
def test_keys_of_every_release(release, llama, tmp_path) -> None:
    _, engine = answer(release, llama, tmp_path / "1", convert=rope_of(release))
    config = json.loads((engine / "config.json").read_text())["pretrained_config"]
    assert config["architecture"] == "LlamaForCausalLM"
    assert config["position_embedding_type"] == "rope_gpt_neox"
    assert config["num_key_value_heads"] == 2
    for key, span in [
        ("enable_pos_shift", Span("0.8.0", "0.9.0")),
        ("attn_bias", Span("0.9.0")),
        ("kv_dtype", Span("0.9.0", "0.11.0")),
        ("moe_tp_mode", Span("0.8.0", "0.11.0")),
        ("residual_mlp", Span("0.10.0")),
        ("mlp_bias", Span("0.11.0")),
        ("remove_duplicated_kv_heads", Span("0.12.0")),
        ("layer_idx_offset", Span("0.15.0")),
        ("tie_word_embeddings", Span("0.15.0")),
    ]:
        assert (key in config) is span.holds(release), key
    checkpoint = json.loads((tmp_path / "1" / "checkpoint" / "config.json").read_text())
    assert list(checkpoint) == list(config)


@pytest.mark.parametrize("release", ["0.5.0", "0.8.0"])
def test_a_rope_theta_that_the_release_does_not_read(
    release, llama, alone, tmp_path, capsys
) -> None:
    made, _ = answer(release, llama, tmp_path / "run")
    assert made != alone
    assert "the model's rope_theta is 5000.0, but release" in capsys.readouterr().err


@pytest.mark.parametrize("release", ["0.5.0", "0.7.1", "0.8.0", "0.12.0", "1.2.1"])
@pytest.mark.parametrize("dimension", ["0", "1"])
def test_a_cut_embedding_changes_nothing(release, dimension, llama, alone, tmp_path) -> None:
    cut = ["--use_parallel_embedding", "--embedding_sharding_dim", dimension, *rope_of(release)]
    made, engine = answer(release, llama, tmp_path / "run", tp=4, pp=2, convert=cut)
    assert made == alone
    first = read(next(engine.glob("*rank1.engine")))
    expected = (96, 64) if dimension == "0" else (384, 16)
    assert first.weights["transformer.vocab_embedding.weight"].shape == expected
    assert first.model.embedding == ("vocabulary" if dimension == "0" else "hidden")
    last = read(next(engine.glob("*rank7.engine")))
    assert "transformer.vocab_embedding.weight" not in last.weights


def test_one_embedding_for_both_ends(tmp_path) -> None:
    model = write_model(tmp_path / "m", tie_word_embeddings=True)
    expected, _ = answer("0.9.0", model, tmp_path / "1")
    share = ["--use_embedding_sharing", "--use_parallel_embedding"]
    made, engine = answer("0.9.0", model, tmp_path / "2", tp=2, convert=share)
    assert made == expected
    assert "lm_head.weight" not in read(engine / "rank0.engine").weights


def test_a_folder_of_hf_llama_convert(llama, alone, tmp_path) -> None:
    """The old intermediate folder, whose epsilon build.py sets to 1e-06."""
    argv = ["-i", str(llama), "-o", str(tmp_path / "c"), "-tp", "2"]
    assert main("0.6.1", "examples/llama/hf_llama_convert.py", argv) == 0
    folder = tmp_path / "c" / "2-gpu"
    assert (folder / "vocab_embedding.weight.bin").stat().st_size == 4 * 384 * 64
    assert (folder / "model.layers.1.mlp.gate.weight.1.bin").stat().st_size == 4 * 56 * 64
    argv = ["--ft_model_dir", str(folder), "--dtype", "float32", "--rotary_base", "5000"]
    argv += ["--output_dir", str(tmp_path / "e"), "--world_size", "2", "--tp_size", "2"]
    assert main("0.6.1", "examples/llama/build.py", argv) == 0
    _, direct = answer("0.6.1", llama, tmp_path / "x", tp=2, convert=["--rotary_base", "5000"])
    for rank in range(2):
        name = f"llama_float32_tp2_rank{rank}.engine"
        ours, theirs = read(tmp_path / "e" / name), read(direct / name)
        assert ours.model.norm_epsilon == 1e-06
        assert set(ours.weights) == set(theirs.weights)
        for key, value in theirs.weights.items():
            assert np.array_equal(ours.weights[key], value), key


def test_ranks_that_are_not_the_world(llama, tmp_path, capsys) -> None:
    argv = ["--model_dir", str(llama), "--tp_size", "2", "--output_dir", str(tmp_path)]
    assert main("0.7.0", "examples/llama/build.py", argv) == 1
    assert "--tp_size 2 * --pp_size 1 must be --world_size 1" in capsys.readouterr().err


@pytest.mark.parametrize("tp", [4, 8])
def test_ranks_with_copies_of_a_key_value_head(tp, llama, alone, tmp_path) -> None:
    found, engine = answer("0.16.0", llama, tmp_path / str(tp), tp=tp)
    assert found == alone
    weights = read(engine / "rank1.engine").weights
    assert weights["transformer.layers.0.attention.qkv.weight"].shape == (64 // tp + 16, 64)


@pytest.mark.parametrize("changes", [{"num_key_value_heads": None}, {"tie_word_embeddings": True}])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_greedy_tokens_are_those_of_transformers(changes, dtype, tmp_path) -> None:
    torch, transformers = peer("torch"), peer("transformers")
    model = write_model(tmp_path / "m", **changes)
    ours, _ = answer("1.0.0", model, tmp_path / "run", dtype=dtype)
    theirs = transformers.LlamaForCausalLM.from_pretrained(model).float().eval()
    tokens = list(PROMPT)
    with torch.no_grad():
        for value in theirs.parameters():
            value.copy_(value.to(getattr(torch, dtype)).float())
        while len(tokens) < len(PROMPT) + 30 and tokens[-1] != END_ID:
            tokens.append(int(theirs(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert len(set(tokens)) > len(PROMPT)
    assert ours == tokens + [END_ID] * (len(PROMPT) + 30 - len(tokens))


def test_logits_are_those_of_transformers(llama, tmp_path) -> None:
    torch, transformers = peer("torch"), peer("transformers")
    from kit_rehearsal.communicator import SingleRank
    from kit_rehearsal.decoder import Decoder

    _, engine = answer("0.9.0", llama, tmp_path / "run")
    loaded = read(engine / "rank0.engine")
    ours = Decoder(loaded, SingleRank())
    whole = ours.logits(PROMPT, ours.cache(len(PROMPT)), last_only=False)
    theirs = transformers.LlamaForCausalLM.from_pretrained(llama).float().eval()
    with torch.no_grad():
        expected = theirs(torch.tensor([PROMPT])).logits[0].numpy()
    assert whole.dtype == np.float32
    assert np.abs(whole - expected).max() <= 1e-4
    cache = ours.cache(len(PROMPT))
    steps = [ours.logits(PROMPT[:6], cache, last_only=True)[-1]]
    steps += [ours.logits([token], cache, last_only=True)[-1] for token in PROMPT[6:]]
    assert np.abs(np.stack(steps) - whole[5:]).max() <= 1e-4


def test_names_and_cuts(llama, tmp_path) -> None:
    _, engine = answer("0.9.0", llama, tmp_path / "run", tp=2)
    source = llama_huggingface.read_model(llama).weights
    weights = read(engine / "rank1.engine").weights
    layer = "transformer.layers.1."
    assert np.array_equal(weights[layer + "mlp.fc.weight"], source[layer + "mlp.fc.weight"][56:])
    assert np.array_equal(
        weights[layer + "mlp.gate.weight"], source[layer + "mlp.gate.weight"][56:]
    )
    qkv = weights[layer + "attention.qkv.weight"]
    whole = source[layer + "attention.qkv.weight"]  # 64 rows of queries, 16 of keys, 16 of values
    assert np.array_equal(qkv[:32], whole[32:64])
    assert np.array_equal(qkv[32:40], whole[72:80])
    assert np.array_equal(qkv[40:], whole[88:])


def test_fusion_after_the_sum_over_ranks_is_llamas(llama, tmp_path) -> None:
    for tp, expected in [(1, False), (2, True)]:
        build = ["--reduce_fusion", "enable"]
        _, engine = answer("0.16.0", llama, tmp_path / str(tp), tp=tp, build=build)
        config = json.loads((engine / "config.json").read_text())
        assert config["build_config"]["plugin_config"]["reduce_fusion"] is expected


@pytest.mark.parametrize(
    ("changes", "argv", "message"),
    [
        ({"model_type": "mistral"}, [], "models of type mistral"),
        ({"attention_bias": True}, [], "attention_bias = True"),
        ({"rope_scaling": {"rope_type": "llama3"}}, [], "rope_scaling"),
        ({"head_dim": 16}, [], "head_dim = 16"),
        ({"num_attention_heads": 7}, [], "no multiple"),
        ({}, ["--tp_size", "3"], "8 attention heads cannot be shared evenly by 3 ranks"),
        ({"num_key_value_heads": 3, "num_attention_heads": 6, "hidden_size": 48}, ["--tp_size", "2"],
         "3 key-value heads cannot be shared evenly by 2 ranks"),
        ({}, ["--use_embedding_sharing"], "a shared embedding that the model has not"),
        ({}, ["--pp_size", "3"], "2 layers cannot be shared evenly by 3 pipeline stages"),
        ({}, ["--moe_num_experts", "4"], "mixtures of experts"),
        ({}, ["--use_weight_only", "--weight_only_precision", "int4_gptq"], "GPTQ"),
    ],
)  # fmt: skip
def test_not_computed(changes, argv, message, tmp_path, capsys) -> None:
    model = write_model(tmp_path / "m", **changes)
    argv = ["--model_dir", str(model), "--output_dir", str(tmp_path / "c"), *argv]
    assert main("0.15.0", "examples/llama/convert_checkpoint.py", argv) == 1
    assert message in capsys.readouterr().err


def test_a_config_without_weights(llama, tmp_path) -> None:
    sizes = ["--dtype", "float32", "--tp_size", "2", "--output_dir"]
    found = []
    for name, more in [("whole", []), ("config", ["--save_config_only"])]:
        argv = ["--model_dir", str(llama), *sizes, str(tmp_path / name), *more]
        assert main("0.15.0", "examples/llama/convert_checkpoint.py", argv) == 0
        found.append((tmp_path / name / "config.json").read_bytes())
    assert found[0] == found[1]
    assert {path.name for path in (tmp_path / "config").iterdir()} == {"config.json"}


def test_options_of_0_8_0(llama, tmp_path, capsys) -> None:
    place = "examples/llama/convert_checkpoint.py"
    argv = ["--model_dir", str(llama), "--rotary_base", "5000", "--output_dir", str(tmp_path)]
    assert main("0.8.0", place, [*argv, "--use_prompt_tuning"]) == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["use_prompt_tuning"] is True
    assert config["quantization"]["sq_use_plugin"] is False
    assert config["quantization"]["exclude_modules"] == ["lm_head"]
    for more, what in [
        (["--rotary_scaling", "linear", "2"], "scaled rotary embeddings"),
        (["--enable_fp8"], "FP8"),
        (["--enable_pos_shift"], "StreamingLLM"),
        (["--hf_lora_dir", "x"], "LoRA"),
    ]:
        assert main("0.8.0", place, [*argv, *more]) == 1
        assert f"does not compute {what}" in capsys.readouterr().err


def test_without_a_model_or_with_another(tmp_path, capsys) -> None:
    place = "examples/models/core/llama/convert_checkpoint.py"
    assert main("1.2.1", place, ["--output_dir", str(tmp_path / "c")]) == 0
    assert {path.name for path in (tmp_path / "c").iterdir()} == {"config.json"}
    argv = ["--model_dir", str(MODEL), "--output_dir", str(tmp_path)]
    assert main("1.2.1", place, argv) == 1
    assert "models of type gpt2 as LLaMA" in capsys.readouterr().err


def test_rope_parameters_of_newer_files(tmp_path) -> None:
    rope = {"rope_theta": 900.0, "rope_type": "default"}
    model = write_model(tmp_path / "m", rope_parameters=rope)
    assert llama_huggingface.read_config(model)["rope_theta"] == 900.0
