"""The GPT family beyond one rank of GPT-2: SantaCoder, StarCoder, stages, cut and shared embeddings."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from kit_rehearsal import tensors
from kit_rehearsal.commands import SCRIPTS, main
from kit_rehearsal.engine import read
from kit_rehearsal.releases import RELEASES, Span

from tests.conftest import peer
from tests.unit.rehearsal.conftest import MODEL, ThreadWorld

UNIFIED = [release for release in RELEASES if Span("0.9.0").holds(release)]
END_ID = 383  # of the tokenizer
PROMPT = list(range(5, 45, 3))
HIDDEN, HEADS, LAYERS, VOCABULARY, POSITIONS = 64, 8, 2, 384, 128
QKV = HIDDEN + 2 * HIDDEN // HEADS
CONFIG = {
    "n_embd": HIDDEN,
    "n_head": HEADS,
    "n_layer": LAYERS,
    "n_positions": POSITIONS,
    "vocab_size": VOCABULARY,
    "n_inner": 4 * HIDDEN,
}


def write_model(folder, variant: str):
    """A random multi-query model with large weights, as Hugging Face has that variant."""
    starcoder = variant == "starcoder"
    config = {
        **CONFIG,
        "model_type": "gpt_bigcode" if starcoder else "gpt2",
        "architectures": ["GPTBigCodeForCausalLM" if starcoder else "GPT2LMHeadCustomModel"],
        "activation_function": "gelu_pytorch_tanh",
        **({"multi_query": True} if starcoder else {"attention_head_type": "multiquery"}),
    }
    rng = np.random.default_rng(11)
    matrices = {
        "attn.c_attn": (QKV, HIDDEN),
        "attn.c_proj": (HIDDEN, HIDDEN),
        "mlp.c_fc": (4 * HIDDEN, HIDDEN),
        "mlp.c_proj": (HIDDEN, 4 * HIDDEN),
    }
    weights = {
        "transformer.wte.weight": rng.standard_normal((VOCABULARY, HIDDEN)),
        "transformer.wpe.weight": rng.standard_normal((POSITIONS, HIDDEN)),
    }
    norms = ["transformer.ln_f"]
    for layer in range(LAYERS):
        name = f"transformer.h.{layer}."
        norms += [f"{name}ln_1", f"{name}ln_2"]
        for matrix, (out, into) in matrices.items():
            weights[f"{name}{matrix}.weight"] = rng.standard_normal((out, into)) * 0.2
            weights[f"{name}{matrix}.bias"] = rng.standard_normal(out) * 0.1
    for name in norms:
        weights[f"{name}.weight"] = 1 + rng.standard_normal(HIDDEN) * 0.1
        weights[f"{name}.bias"] = rng.standard_normal(HIDDEN) * 0.1
    weights = {name: value.astype(np.float32) for name, value in weights.items()}
    if not starcoder:
        weights = dict(pair for item in weights.items() for pair in _of_santacoder(*item))
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(tensors.pack(weights, "float32"))
    return folder


def _of_santacoder(name, value):
    """The same tensors as SantaCoder's own code has them: [in, out], queries apart."""
    value = value.T if value.ndim > 1 and ".h." in name else value
    if ".c_attn." not in name:
        return [(name, value)]
    queries, rest = np.split(value, [HIDDEN], axis=-1)
    return [
        (name.replace("c_attn", "q_attn"), queries),
        (name.replace("c_attn", "kv_attn"), rest),
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "gpt2": MODEL,
        **{name: write_model(folder / name, name) for name in ("santacoder", "starcoder")},
    }


def answer(
    release: str, variant: str, model, work, tp=1, pp=1, dtype="float32", convert=(), build=()
):
    """Convert, build and run; token ids of the prompt's row and the folder of the engine.

    `convert` are the options that cut the embedding: build.py's until 0.8.0.
    """
    work.mkdir(parents=True)
    checkpoint, engine = work / "checkpoint", work / "engine"
    lengths = [
        "--max_batch_size",
        "4",
        "--max_input_len",
        "64",
        "--output_dir",
        str(engine),
        *build,
    ]
    if release in UNIFIED:
        argv = ["--model_dir", str(model), "--gpt_variant", variant, "--dtype", dtype, *convert]
        argv += ["--tp_size", str(tp), "--pp_size", str(pp), "--output_dir", str(checkpoint)]
        assert main(release, SCRIPTS[release][0], argv) == 0
        argv = ["--checkpoint_dir", str(checkpoint), "--output_timing_cache", str(work / "cache")]
        assert main(release, "trtllm-build", [*argv, *lengths]) == 0
    else:
        argv = ["-i", str(model), "-o", str(checkpoint), "-tp", str(tp), "-t", dtype]
        assert main(release, "examples/gpt/hf_gpt_convert.py", [*argv, "--model", variant]) == 0
        argv = ["--model_dir", str(checkpoint / f"{tp}-gpu"), "--world_size", str(tp), *convert]
        assert main(release, "examples/gpt/build.py", [*argv, *lengths]) == 0
    return run(release, engine, work, tp * pp), engine


def run(release: str, engine, work, size: int) -> list[int]:
    with (work / "in.csv").open("w", newline="") as file:
        csv.writer(file).writerow(PROMPT)
    new = "examples/run.py" in SCRIPTS[release]
    argv = ["--engine_dir", str(engine), "--tokenizer_dir" if new else "--tokenizer", str(MODEL)]
    argv += ["--max_output_len", "30", "--input_file" if new else "--input_tokens"]
    argv += [str(work / "in.csv"), "--output_csv", str(work / "out.csv")]
    place = "examples/run.py" if new else "examples/gpt/run.py"
    world = ThreadWorld(size)
    assert world.run(lambda rank: main(release, place, argv, ranks=lambda: rank)) == [0] * size
    with (work / "out.csv").open(newline="") as file:
        return [int(cell) for cell in next(csv.reader(file))]


@pytest.fixture(scope="module")
def alone(models, tmp_path_factory):
    """What one rank says of each variant."""
    work = tmp_path_factory.mktemp("alone")
    made = {name: answer("0.16.0", name, model, work / name)[0] for name, model in models.items()}
    assert made["santacoder"] == made["starcoder"]  # the same tensors in two layouts
    assert all(len(set(tokens[len(PROMPT) :])) > 5 for tokens in made.values())
    return made


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("variant", ["santacoder", "starcoder"])
def test_multi_query_in_every_release(release, variant, models, alone, tmp_path) -> None:
    made, engine = answer(release, variant, models[variant], tmp_path / "run", tp=4)
    assert made == alone[variant]
    config = json.loads((engine / "config.json").read_text())
    one = read(next(engine.glob("*rank3.engine")))
    assert one.model.n_kv_head == 1
    assert one.weights["transformer.layers.0.attention.qkv.weight"].shape == (16 + 2 * 8, HIDDEN)
    if release not in UNIFIED:
        assert config["builder_config"]["num_kv_heads"] == 1
        return
    assert config["pretrained_config"]["num_key_value_heads"] == 1
    if Span("0.12.0").holds(release):
        assert config["pretrained_config"]["gpt_variant"] == variant


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_greedy_tokens_are_those_of_transformers(dtype, models, tmp_path) -> None:
    torch, transformers = peer("torch"), peer("transformers")
    ours, _ = answer("1.2.1", "starcoder", models["starcoder"], tmp_path / "x", tp=2, dtype=dtype)
    theirs = transformers.GPTBigCodeForCausalLM.from_pretrained(
        models["starcoder"], attn_implementation="eager"
    )
    theirs = theirs.float().eval()
    tokens = list(PROMPT)
    with torch.no_grad():
        for value in theirs.parameters():
            value.copy_(value.to(getattr(torch, dtype)).float())
        while len(tokens) < len(PROMPT) + 30 and tokens[-1] != END_ID:
            tokens.append(int(theirs(torch.tensor([tokens])).logits[0, -1].argmax()))
    assert ours == tokens + [END_ID] * (len(PROMPT) + 30 - len(tokens))


@pytest.mark.parametrize("release", UNIFIED)
def test_stages_change_nothing(release, models, alone, tmp_path) -> None:
    made, engine = answer(release, "starcoder", models["starcoder"], tmp_path / "x", tp=2, pp=2)
    assert made == alone["starcoder"]
    mapping = json.loads((engine / "config.json").read_text())["pretrained_config"]["mapping"]
    assert (mapping["world_size"], mapping["tp_size"], mapping["pp_size"]) == (4, 2, 2)
    first, last = (set(read(engine / f"rank{rank}.engine").weights) for rank in (0, 3))
    assert {name.rpartition(".")[0] for name in first - last} == {
        "transformer.vocab_embedding",
        "transformer.position_embedding",
    }
    assert {name.rpartition(".")[0] for name in last - first} == {"transformer.ln_f", "lm_head"}


def test_three_stages_of_gpt2(models, alone, tmp_path) -> None:
    made, _ = answer("0.9.0", "gpt2", models["gpt2"], tmp_path / "x", pp=3)
    assert made == alone["gpt2"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("dimension", ["0", "1"])
def test_a_cut_embedding_changes_nothing(release, dimension, models, alone, tmp_path) -> None:
    cut = ["--use_parallel_embedding", "--embedding_sharding_dim", dimension]
    lookup = []
    if Span(before="0.9.0").holds(release):
        lookup = ["--use_lookup_plugin", "float32"]
    elif Span(before="0.15.0").holds(release):
        lookup = ["--lookup_plugin", "float32"]
    made, engine = answer(
        release, "gpt2", models["gpt2"], tmp_path / "x", tp=2, convert=cut, build=lookup
    )
    assert made == alone["gpt2"]
    weights = read(next(engine.glob("*rank1.engine"))).weights
    table = weights["transformer.vocab_embedding.weight"]
    assert table.shape == ((192, 96) if dimension == "0" else (384, 48))
    config = json.loads((engine / "config.json").read_text())
    plugins = config.get("build_config", config)["plugin_config"]
    if lookup:
        assert plugins["lookup_plugin"] == "float32"


@pytest.mark.parametrize("release", [one for one in RELEASES if Span(before="0.16.0").holds(one)])
@pytest.mark.parametrize("tp", [1, 2])
def test_one_embedding_for_both_ends(release, tp, models, alone, tmp_path, capsys) -> None:
    share = ["--use_embedding_sharing"]
    cut = ["--use_parallel_embedding"] if tp > 1 else []
    work = tmp_path / "x"
    made, engine = answer(release, "gpt2", models["gpt2"], work, tp=tp, convert=[*share, *cut])
    assert made == alone["gpt2"]
    assert "lm_head.weight" not in read(next(engine.glob("*rank0.engine"))).weights
    assert "the embeddings stay two" not in capsys.readouterr().err


def test_sharing_needs_a_table_that_is_cut_by_vocabulary(models, alone, tmp_path, capsys) -> None:
    cut = ["--use_embedding_sharing", "--use_parallel_embedding", "--embedding_sharding_dim", "1"]
    for release in ("0.5.0", "0.9.0"):
        work = tmp_path / release
        made, engine = answer(release, "gpt2", models["gpt2"], work, tp=2, convert=cut)
        assert made == alone["gpt2"]
        assert "lm_head.weight" in read(next(engine.glob("*rank0.engine"))).weights
        assert "the embeddings stay two" in capsys.readouterr().err


def test_the_variant_must_be_that_of_the_model(models, tmp_path, capsys) -> None:
    out = ["--output_dir", str(tmp_path / "c")]
    argv = ["--model_dir", str(models["starcoder"]), "--gpt_variant", "santacoder", *out]
    assert main("0.9.0", "examples/gpt/convert_checkpoint.py", argv) == 1
    assert "the model has the layout of starcoder" in capsys.readouterr().err
    argv = ["-i", str(models["santacoder"]), "-o", str(tmp_path / "d")]
    assert main("0.5.0", "examples/gpt/hf_gpt_convert.py", argv) == 1
    assert "the variant is gpt2" in capsys.readouterr().err
    # From the path's text, as the releases have it.
    argv = ["--model_dir", str(models["starcoder"]), *out]
    assert main("0.9.0", "examples/gpt/convert_checkpoint.py", argv) == 0


def test_heads_of_their_own_in_bigcode(models, tmp_path, capsys) -> None:
    folder = tmp_path / "starcoder"
    folder.mkdir()
    config = json.loads((models["starcoder"] / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "multi_query": False}))
    argv = ["-i", str(folder), "-o", str(tmp_path / "c"), "--model", "starcoder"]
    assert main("0.8.0", "examples/gpt/hf_gpt_convert.py", argv) == 1
    assert "multi_query = False" in capsys.readouterr().err


def test_a_santacoder_without_its_queries(models, tmp_path, capsys) -> None:
    folder = tmp_path / "santacoder"
    folder.mkdir()
    (folder / "config.json").write_bytes((models["santacoder"] / "config.json").read_bytes())
    weights = tensors.unpack((models["santacoder"] / "model.safetensors").read_bytes(), "x")
    del weights["transformer.h.1.attn.q_attn.bias"]
    (folder / "model.safetensors").write_bytes(tensors.pack(weights, "float32"))
    argv = ["-i", str(folder), "-o", str(tmp_path / "c"), "--model", "santacoder"]
    assert main("0.8.0", "examples/gpt/hf_gpt_convert.py", argv) == 1
    assert "no tensor 'h.1.attn.q_attn.bias'" in capsys.readouterr().err
