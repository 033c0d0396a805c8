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


def answer(release: str, model, work, tp: int = 1, dtype: str = "float32", build=()):
    """Convert, build and run; token ids of the prompt's row and the folder of the engine."""
    work.mkdir(parents=True)
    convert, build_script, run = SCRIPTS[release][3], *SCRIPTS[release][1:3]
    checkpoint, engine = work / "checkpoint", work / "engine"
    argv = ["--model_dir", str(model), "--dtype", dtype, "--tp_size", str(tp)]
    assert main(release, convert, [*argv, "--output_dir", str(checkpoint)]) == 0
    argv = ["--checkpoint_dir", str(checkpoint), "--output_dir", str(engine), *build]
    argv += ["--output_timing_cache", str(work / "cache"), "--max_input_len", "64"]
    assert main(release, build_script, argv) == 0
    with (work / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerow(PROMPT)
    argv = ["--engine_dir", str(engine), "--tokenizer_dir", str(MODEL), "--max_output_len", "30"]
    argv += ["--input_file", str(work / "in.csv"), "--output_csv", str(work / "out.csv")]
    world = ThreadWorld(tp)
    assert world.run(lambda rank: main(release, run, argv, ranks=lambda: rank)) == [0] * tp
    with (work / "out.csv").open(newline="") as file:
        return [int(cell) for cell in next(csv.reader(file))], engine


@pytest.mark.parametrize("release", UNIFIED)
def test_every_release_says_the_same_on_one_rank_and_more(release, llama, tmp_path) -> None:
    alone, engine = answer(release, llama, tmp_path / "1")
    assert alone[: len(PROMPT)] == PROMPT
    assert len(set(alone[len(PROMPT) :])) > 5  # not one token for ever
    two, _ = answer(release, llama, tmp_path / "2", tp=2)
    assert two == alone
    header = read(engine / "rank0.engine")
    assert (header.model.n_kv_head, header.model.rotary_base) == (2, 5000.0)
    config = json.loads((engine / "config.json").read_text())["pretrained_config"]
    assert config["architecture"] == "LlamaForCausalLM"
    assert config["position_embedding_type"] == "rope_gpt_neox"
    assert config["num_key_value_heads"] == 2
    for key, span in [
        ("attn_bias", Span("0.9.0")),
        ("kv_dtype", Span("0.9.0", "0.11.0")),
        ("moe_tp_mode", Span("0.9.0", "0.11.0")),
        ("residual_mlp", Span("0.10.0")),
        ("mlp_bias", Span("0.11.0")),
        ("remove_duplicated_kv_heads", Span("0.12.0")),
        ("layer_idx_offset", Span("0.15.0")),
        ("tie_word_embeddings", Span("0.15.0")),
    ]:
        assert (key in config) is span.holds(release), key
    checkpoint = json.loads((tmp_path / "1" / "checkpoint" / "config.json").read_text())
    assert list(checkpoint) == list(config)


@pytest.mark.parametrize("tp", [4, 8])
def test_ranks_with_copies_of_a_key_value_head(tp, llama, tmp_path) -> None:
    alone, _ = answer("0.16.0", llama, tmp_path / "1")
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
    from kit_rehearsal.llama import Llama

    _, engine = answer("0.9.0", llama, tmp_path / "run")
    loaded = read(engine / "rank0.engine")
    ours = Llama(loaded, loaded.model, SingleRank())
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
    assert np.array_equal(
        weights[layer + "mlp.fc.weight"], source["layers.1.mlp.gate_proj.weight"][56:]
    )
    assert np.array_equal(
        weights[layer + "mlp.gate.weight"], source["layers.1.mlp.up_proj.weight"][56:]
    )
    qkv = weights[layer + "attention.qkv.weight"]
    assert np.array_equal(qkv[:32], source["layers.1.self_attn.q_proj.weight"][32:])
    assert np.array_equal(qkv[32:40], source["layers.1.self_attn.k_proj.weight"][8:])
    assert np.array_equal(qkv[40:], source["layers.1.self_attn.v_proj.weight"][8:])


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
        ({}, ["--pp_size", "2"], "pipeline parallelism"),
        ({}, ["--moe_num_experts", "4"], "mixtures of experts"),
        ({}, ["--use_weight_only"], "weight-only"),
        ({}, ["--tp_size", "2", "--use_parallel_embedding"], "embeddings"),
    ],
)  # fmt: skip
def test_not_computed(changes, argv, message, tmp_path, capsys) -> None:
    model = write_model(tmp_path / "m", **changes)
    argv = ["--model_dir", str(model), "--output_dir", str(tmp_path / "c"), *argv]
    assert main("0.15.0", "examples/llama/convert_checkpoint.py", argv) == 1
    assert message in capsys.readouterr().err


def test_without_a_model_or_with_another(tmp_path, capsys) -> None:
    place = "examples/models/core/llama/convert_checkpoint.py"
    assert main("1.2.1", place, []) == 1
    assert "checkpoints without a model" in capsys.readouterr().err
    argv = ["--model_dir", str(MODEL), "--output_dir", str(tmp_path)]
    assert main("1.2.1", place, argv) == 1
    assert "models of type gpt2 as LLaMA" in capsys.readouterr().err


def test_rope_parameters_of_newer_files(tmp_path) -> None:
    rope = {"rope_theta": 900.0, "rope_type": "default"}
    model = write_model(tmp_path / "m", rope_parameters=rope)
    assert llama_huggingface.read_config(model)["rope_theta"] == 900.0
