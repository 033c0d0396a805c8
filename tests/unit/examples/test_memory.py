from __future__ import annotations

import json
import math
import shutil
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from kit.errors import ExitCode, KitError
from kit.examples import dialect, layout, memory, model_facts
from kit.examples.memory import Gpu, Memory
from kit.examples.model_facts import Dimensions, Unknown
from kit.examples.options import Options
from kit.examples.recipe import Build, Checkpoint, Recipe
from kit.examples.source import Dummy, Source
from kit.examples.tasks import Run, Serve, Triton
from tests.unit.examples.local import MODEL

if TYPE_CHECKING:
    from pathlib import Path

GIB = 1 << 30
BATCH, LONGEST = Build(8, 100, 28), 128


def asked(dtype: str = "float16", tp: int = 1, pp: int = 1, **options: Any) -> Recipe:
    return Recipe(
        name="x",
        description="x",
        family="gpt",
        model="x",
        checkpoint=Checkpoint(dtype, tp, pp),  # type: ignore[arg-type]
        build=BATCH,
        run=Run((), 28, None),
        releases=("0.16.0",),
        options=Options(**options),
    )


def table(name: str) -> Dimensions:
    found = model_facts.known(name, None)
    assert isinstance(found, Dimensions)
    return found


def needs(model: Dimensions, wanted: Recipe, release: str = "0.16.0", **more: Any) -> Memory:
    return memory.estimate(wanted, release, model, **more)


def part(found: Memory, name: str, stage: int = 0) -> int:
    return sum(figure.size for figure in found.stages[stage].weights if figure.name == name)


# --- the parameters that transformers has in a model of the same configuration -------------------


def hugging_face(kind: str, **config: Any) -> tuple[Dimensions, int]:
    """Dimensions that the kit reads, and the parameters of the module, with a tied output twice."""
    transformers = pytest.importorskip("transformers", reason="the peer is not installed")
    torch = pytest.importorskip("torch", reason="the peer is not installed")
    made = getattr(transformers, f"{kind}Config")(**config)
    named = {"GPT2": "GPT2LMHeadModel", "GPTBigCode": "GPTBigCodeForCausalLM"}
    name = named.get(kind, "LlamaForCausalLM")
    with torch.device("meta"):
        module = getattr(transformers, name)(made)
    count = sum(parameter.numel() for parameter in module.parameters())
    if module.lm_head.weight is module.get_input_embeddings().weight:
        count += module.lm_head.weight.numel()
    written = json.loads(made.to_json_string(use_diff=False)) | {"architectures": [name]}
    return model_facts.of_config(written, "config.json"), count


# GPT-BigCode of transformers 4 is written for it.
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("GPT2", {}),
        ("GPT2", {"n_layer": 24, "n_embd": 1024, "n_head": 16}),
        ("GPT2", {"n_layer": 3, "n_embd": 96, "n_head": 4, "n_inner": 100, "vocab_size": 301}),
        ("GPTBigCode", {"n_layer": 4, "n_embd": 256, "n_head": 8, "vocab_size": 1000}),
        ("GPTBigCode", {"n_layer": 40, "n_embd": 6144, "n_head": 48, "n_positions": 8192}),
        ("Llama", {"max_position_embeddings": 4096}),
        ("Llama", {"num_hidden_layers": 80, "hidden_size": 8192, "intermediate_size": 28672}
         | {"num_attention_heads": 64, "num_key_value_heads": 8}),
        ("Llama", {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96}
         | {"num_attention_heads": 4, "num_key_value_heads": 1, "attention_bias": False}),
        ("Llama", {"num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 96}
         | {"num_attention_heads": 4, "tie_word_embeddings": True, "head_dim": 32}),
    ],
)  # fmt: skip
def test_weights_are_the_parameters_of_the_same_model(kind: str, config: dict[str, Any]) -> None:
    model, count = hugging_face(kind, **config)
    for dtype, width in (("float32", 4), ("float16", 2), ("bfloat16", 2)):
        found = needs(model, asked(dtype))
        assert found.stages[0].weights_size == count * width


@pytest.mark.parametrize(
    ("name", "tp", "pp"),
    [("gpt2", 2, 1), ("llama-2-7b-hf", 2, 2), ("llama-2-7b-hf", 8, 4), ("starcoder", 4, 1)],
)
def test_ranks_share_what_can_be_shared(name: str, tp: int, pp: int) -> None:
    model = table(name)
    whole = needs(model, asked()).stages[0]
    found = needs(model, asked(tp=tp, pp=pp))
    assert [stage.ranks for stage in found.stages] == [
        tuple(range(stage * tp, (stage + 1) * tp)) for stage in range(pp)
    ]
    assert sum(stage.layers for stage in found.stages) == model.layers
    for part_name in ("attention", "mlp"):
        shared = sum(part(found, part_name, stage) * tp for stage in range(pp))
        alone = sum(figure.size for figure in whole.weights if figure.name == part_name)
        copied = 0
        if part_name == "attention" and model.kv_heads < tp:
            copies = tp - model.kv_heads
            copied = copies * model.layers * model.hidden * 2 * model.head_size * 2
        assert shared == alone + copied
    # The first stage has the embedding, whole; the last the output, cut.
    assert part(found, "embedding", 0) == model.vocabulary * model.hidden * 2  # type: ignore[operator]
    assert part(found, "output", pp - 1) == math.ceil(model.vocabulary / tp) * model.hidden * 2  # type: ignore[operator]
    if pp > 1:
        assert part(found, "embedding", 1) == 0
        assert part(found, "output", 0) == 0


def test_embeddings_cut_and_shared() -> None:
    model = table("gpt2")
    table_bytes = 50257 * 768 * 2
    assert part(needs(model, asked(tp=2)), "embedding") == table_bytes
    rows = needs(model, asked(tp=2, parallel_embedding="vocabulary"))
    assert part(rows, "embedding") == 25129 * 768 * 2  # padded: the vocabulary is odd
    columns = needs(model, asked(tp=2, parallel_embedding="hidden"))
    assert part(columns, "embedding") == table_bytes // 2
    # One rank has nothing to cut.
    assert part(needs(model, asked(parallel_embedding="hidden")), "embedding") == table_bytes
    assert part(needs(model, asked()), "output") == table_bytes
    assert part(needs(model, asked(share_embedding=True)), "output") == 0
    shared = asked(tp=2, share_embedding=True, parallel_embedding="vocabulary")
    assert part(needs(model, shared), "output") == 0
    not_cut = asked(tp=2, share_embedding=True)
    assert part(needs(model, not_cut), "output") == 25129 * 768 * 2
    # LLaMA's output is a table of its own.
    assert part(needs(table("llama-2-7b-hf"), asked(share_embedding=True)), "output") > 0


def test_quantized_weights() -> None:
    model = table("llama-2-7b-hf")
    matrices = 32 * (4096 * 3 * 4096 + 4096 * 4096 + 3 * 4096 * 11008)
    columns = 32 * (3 * 4096 + 4096 + 2 * 11008 + 4096)
    rows = 32 * (4096 + 4096 + 2 * 4096 + 11008)
    plain = 2 * 32000 * 4096 * 2 + (2 * 32 + 1) * 4096 * 2
    sizes = {
        quantization: needs(model, asked(quantization=quantization)).stages[0].weights_size
        for quantization in ("int8", "int4", "smoothquant", "int4_awq", "fp8")
    }
    assert sizes["int8"] == matrices + columns * 2 + plain
    assert sizes["int4"] == matrices // 2 + columns * 2 + plain
    # smoothers, columns of qkv, four matrices, activations before and after each of the five
    smooth = 32 * (4096 + 11008 + 3 * 4096 + 4 + 2 + 5 + 2)
    assert sizes["smoothquant"] == matrices + smooth * 4 + plain
    by_token = needs(model, asked(quantization="smoothquant", per_token=True)).stages[0]
    assert by_token.weights_size == sizes["smoothquant"] - 32 * 7 * 4
    by_channel = needs(model, asked(quantization="smoothquant", per_channel=True)).stages[0]
    assert by_channel.weights_size == sizes["smoothquant"] + (columns - 32 * (3 * 4096 + 4)) * 4
    cached = needs(model, asked(kv_cache_dtype="int8")).stages[0]
    assert cached.weights_size == needs(model, asked()).stages[0].weights_size + 32 * 4
    assert sizes["int4_awq"] == matrices // 2 + (matrices // 128 + rows) * 2 + plain
    assert sizes["fp8"] == matrices + 32 * 10 * 4 + plain


# --- what was seen ------------------------------------------------------------------------------


def test_llama_2_7b_is_13_gb_of_engine_and_6_5_gb_a_rank_at_two() -> None:
    model = table("llama-2-7b-chat-hf")
    whole = needs(model, asked("bfloat16")).stages[0].weights_size
    assert whole == 6738415616 * 2  # what transformers counts
    assert round(whole / GIB, 1) == 12.6
    half = needs(model, asked("bfloat16", tp=2)).stages[0].weights_size
    assert abs(half / GIB - 6.5) < 0.15
    assert half == (whole + 32000 * 4096 * 2 + 65 * 4096 * 2) // 2


def test_serving_llama_2_7b_takes_what_was_seen_less_what_tensorrt_decides() -> None:
    """33.8 GB on a card of 80 GB, with 0.2 of the free memory for the cache."""
    model = table("llama-2-7b-chat-hf")
    wanted = replace(asked("bfloat16"), build=Build(4, 2048, 512))
    found = needs(model, wanted, gpu=memory.find_gpu("A100 80GB"), fraction=0.2)
    served = found.stages[0].served
    assert served is not None
    assert 0.8 * 33.8e9 < served < 33.8e9
    # Every further byte of workspace takes 0.8 of a byte more.
    stage = found.stages[0]
    assert stage.pool is not None
    assert stage.pool.size == math.floor(
        0.2 * (80 * GIB - stage.weights_size - stage.workspace_size)
    )


def test_a_cache_and_weights_that_a_log_has() -> None:
    """TensorRT-LLM#1400: LLaMA-2-7B with SmoothQuant, 0.8.0 on an A100.

    `now: CPU 0, GPU 6683 (MiB)`, `Allocate 69524783104 bytes for k/v cache`, `Using 132608 tokens`.
    """
    stage = needs(table("llama-2-7b-hf"), asked(quantization="smoothquant")).stages[0]
    assert stage.cache_per_token * 132608 == 69524783104
    assert abs(stage.weights_size / (1 << 20) - 6683) < 10


@pytest.mark.parametrize(
    ("layers", "hidden", "heads", "tp", "billions"), [(96, 12288, 96, 8, 175), (105, 20480, 128, 16, 530)]
)  # fmt: skip
def test_the_dummies_of_the_documents(
    layers: int, hidden: int, heads: int, tp: int, billions: int
) -> None:
    dummy = Dummy(51200, hidden, layers, heads)
    wanted = replace(
        asked(tp=tp), source=Source(dummy=dummy), build=Build(128, 128, 20), releases=("0.5.0",)
    )
    found = memory.of_recipe(wanted, "0.5.0", "A100 80GB", None)
    assert isinstance(found, Memory)
    stage = found.stages[0]
    assert (
        abs(stage.weights_size * tp / 2e9 / billions - 1) < 0.035
    )  # the embedding is whole on every rank
    # build.py keeps the cache in one piece unless it is told otherwise.
    assert stage.pool is None
    assert stage.cache.size == 128 * 148 * 2 * layers * (heads // tp) * (hidden // heads) * 2
    assert stage.total < 80 * GIB
    assert "are left at most" in found.text()


# --- the cache ----------------------------------------------------------------------------------


def test_the_cache_of_a_full_batch() -> None:
    model = table("llama-2-7b-hf")
    per_token = 2 * 32 * 32 * 128 * 2
    stage = needs(model, asked()).stages[0]
    assert stage.cache_per_token == per_token
    assert stage.cache.size == 8 * LONGEST * per_token
    assert needs(model, asked(max_beam_width=4)).stages[0].cache.size == 4 * stage.cache.size
    for dtype in ("int8", "fp8"):
        small = needs(model, asked(kv_cache_dtype=dtype)).stages[0]
        assert small.cache.size * 2 == stage.cache.size
    assert needs(model, asked(pp=2)).stages[1].cache.size * 2 == stage.cache.size
    assert needs(model, asked(tp=4)).stages[0].cache.size * 4 == stage.cache.size


def test_one_key_value_head_is_on_every_rank() -> None:
    model = table("santacoder")
    assert model.kv_heads == 1
    one, four = (needs(model, asked(tp=tp)).stages[0].cache_per_token for tp in (1, 4))
    assert one == four == 2 * 24 * 128 * 2


@pytest.mark.parametrize(
    ("release", "family", "options", "paged"),
    [
        ("0.8.0", "gpt", {}, False),
        ("0.9.0", "gpt", {}, True),
        ("0.7.1", "llama", {}, False),
        ("0.8.0", "llama", {}, True),
        ("0.5.0", "gpt", {"in_flight_batching": True}, True),
        ("0.5.0", "gpt", {"paged_kv_cache": True}, True),
        ("0.16.0", "gpt", {"paged_kv_cache": False}, False),
    ],
)
def test_which_caches_are_paged(
    release: str, family: str, options: dict[str, Any], paged: bool
) -> None:
    wanted = replace(asked(**options), family=family)  # type: ignore[arg-type]
    assert memory.is_paged(wanted, release) is paged
    assert (needs(table("gpt2"), wanted, release).stages[0].pool is not None) is paged


def test_the_pool_of_a_server() -> None:
    model, gpu = table("gpt2"), Gpu("x", 10 * GIB, None)
    stage = needs(model, asked(), gpu=gpu).stages[0]
    assert stage.pool is not None
    assert stage.pool.fraction == 0.9  # what run.py of 0.16.0 has by default
    free = 10 * GIB - stage.weights_size - stage.workspace_size
    assert stage.pool.size == math.floor(0.9 * free)
    assert stage.served == stage.weights_size + stage.workspace_size + stage.pool.size

    serve = Serve(Triton(kv_cache_fraction=0.5))
    said = needs(model, replace(asked(), serve=serve), gpu=gpu).stages[0].pool
    assert said is not None
    assert (said.fraction, said.size) == (0.5, math.floor(0.5 * free))
    over = needs(model, replace(asked(), serve=serve), gpu=gpu, fraction=0.25).stages[0].pool
    assert over is not None
    assert over.fraction == 0.25
    few = Serve(Triton(max_tokens_in_cache=100))
    capped = needs(model, replace(asked(), serve=few), gpu=gpu).stages[0]
    assert capped.pool is not None
    assert capped.pool.size == 100 * capped.cache_per_token

    unnamed = needs(model, asked()).stages[0]
    assert unnamed.pool is not None
    assert (unnamed.pool.size, unnamed.served) == (None, None)
    assert "--gpu" in str(unnamed.pool.reason)
    old = needs(model, asked(paged_kv_cache=True), "0.7.1", gpu=gpu).stages[0].pool
    assert old is not None
    assert (old.fraction, old.size) == (None, None)
    assert "0.7.1" in str(old.reason)


def test_weights_larger_than_the_gpu() -> None:
    found = needs(table("llama-2-7b-hf"), asked(), gpu=Gpu("small", 8 * GIB, None))
    assert found.stages[0].pool is not None
    assert found.stages[0].pool.size == 0
    assert "small, 8.0 GB: too small: stage 0 needs 12.6 GB or more" in found.text()


# --- the workspace ------------------------------------------------------------------------------


def test_the_least_that_a_step_works_in() -> None:
    model = table("gpt2")

    def workspace(release: str = "0.16.0", **options: Any) -> dict[str, int]:
        stage = needs(model, asked(**options), release).stages[0]
        return {figure.name: figure.size for figure in stage.workspace}

    states = 2 * 800 * 768 * 2
    assert workspace() == {"hidden states": states, "logits": 8 * 50257 * 4}
    assert workspace(max_num_tokens=100)["hidden states"] == states // 8
    assert workspace(packed_input=False, max_num_tokens=100)["hidden states"] == states
    assert workspace(gather_logits="all")["logits"] == 800 * 50257 * 4
    assert workspace(max_beam_width=2)["logits"] == 2 * 8 * 50257 * 4
    assert workspace(prompt_table_size=10)["prompt table"] == 10 * 768 * 2
    large = replace(asked(), build=Build(64, 900, 100))
    size = needs(model, large).stages[0].workspace[0].size
    assert size == 2 * 8192 * 768 * 2  # the default of trtllm-build from 0.11.0 on
    before = needs(model, large, "0.10.0").stages[0].workspace[0].size
    assert before == 2 * 64 * 900 * 768 * 2
    # The vocabulary is padded over two ranks; only the last stage has it.
    two = needs(table("llama-2-7b-hf"), asked(tp=2, pp=2))
    assert [len(stage.workspace) for stage in two.stages] == [1, 2]


# --- names of GPUs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gb"),
    [("H200", 141), ("A100 80GB", 80), ("A100-SXM4-40GB", 40), ("NVIDIA H100 80GB HBM3", 80), ("L40S", 48)],
)  # fmt: skip
def test_gpus_whose_memory_is_known(name: str, gb: int) -> None:
    assert memory.find_gpu(name) == Gpu(name, gb * GIB, None)


@pytest.mark.parametrize(("name", "said"), [("A100", "40 and 80 GB"), ("GB200", "no table")])
def test_gpus_whose_memory_is_not_known(name: str, said: str) -> None:
    found = memory.find_gpu(name)
    assert found.size is None
    assert said in str(found.reason)
    assert f"'{name} 80GB'" in str(found.reason)
    assert str(found.reason) in needs(table("gpt2"), asked(), gpu=found).text()


def test_an_unknown_gpu() -> None:
    with pytest.raises(KitError, match="unknown GPU 'H1O0'; did you mean H100") as caught:
        memory.find_gpu("H1O0")
    assert caught.value.exit_code == ExitCode.USAGE


# --- what is printed ----------------------------------------------------------------------------


def test_every_formula_is_its_figure() -> None:
    """The product that is printed, worked out, is the size that stands beside it."""
    checked = 0
    for wanted in (
        asked(),
        asked("float32", tp=2, pp=2, kv_cache_dtype="int8", max_beam_width=3),
        asked(tp=2, parallel_embedding="vocabulary", quantization="int8", prompt_table_size=7),
        asked(tp=2, parallel_embedding="hidden", quantization="int4"),
        asked(quantization="int4_awq", gather_logits="all"),
        asked(quantization="smoothquant"),
        asked("bfloat16", quantization="fp8"),
    ):
        for name in ("gpt2", "llama-2-7b-hf", "starcoder", "gpt-2b-001"):
            for stage in needs(table(name), wanted).stages:
                for figure in (*stage.weights, stage.cache, *stage.workspace):
                    assert worked_out(figure.formula) == figure.size, figure
                    checked += 1
    assert checked > 200


def worked_out(formula: str) -> float:
    """A formula without its words: `25129 of 50257 rows` is the first number."""
    import re

    formula = re.sub(r"\([a-z][^()]*\)", "", formula)  # (max_batch_size * max_input_len)
    formula = formula.split(", ")[0].replace("half a byte", "0.5")
    formula = re.sub(r"groups of 128", "", formula)
    formula = re.sub(r"(\d+) of \d+", r"\1", formula)
    formula = re.sub(r"[a-z][a-z -]*", "", formula)
    assert re.fullmatch(r"[0-9.+*() ]+", formula), formula
    return float(eval(formula))


def test_the_text_has_a_row_for_each_stage_and_a_paragraph_for_each_kind() -> None:
    text = needs(table("llama-2-7b-hf"), asked(pp=4)).text()
    rows = [line for line in text.splitlines() if line[:1].isdigit()]
    assert [row.split()[:2] for row in rows] == [["0", "0"], ["1", "1"], ["2", "2"], ["3", "3"]]
    assert [line for line in text.splitlines() if line.startswith("stage ")] == [
        "stage 0",
        "stage 1, 2",
        "stage 3",
    ]
    assert "workspace: there is a least and no most" in text
    wide = needs(table("llama-2-7b-hf"), asked(tp=8, pp=2)).text().splitlines()
    assert [row.split()[:2] for row in wide[2:4]] == [["0", "0-7"], ["1", "8-15"]]


def test_as_plain_data() -> None:
    found = needs(table("gpt2"), asked(tp=2), gpu=memory.find_gpu("H200")).to_dict()
    assert json.loads(json.dumps(found)) == found
    (stage,) = found["stages"]
    assert stage["ranks"] == [0, 1]
    assert stage["weights"]["bytes"] == sum(row["bytes"] for row in stage["weights"]["parts"])
    assert stage["workspace"]["bytes_at_most"] is None
    assert stage["workspace"]["reason"]
    assert stage["total"]["bytes_at_least"] == (
        stage["weights"]["bytes"]
        + stage["kv_cache"]["bytes"]
        + stage["workspace"]["bytes_at_least"]
    )
    assert found["gpu"] == {"name": "H200", "bytes": 141 * GIB, "reason": None}


def test_what_is_not_known_has_its_reason() -> None:
    found = memory.of_recipe(asked(), "0.16.0", None, None)
    assert isinstance(found, Unknown)
    assert "x" in found.reason
    for fraction in (0.0, 1.5, -1.0, math.nan):
        with pytest.raises(KitError, match="--kv-fraction: expected more than 0"):
            memory.of_recipe(asked(), "0.16.0", None, fraction)
    without = replace(table("gpt2"), vocabulary=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_facts, "of_recipe", lambda _: without)
        found = memory.of_recipe(asked(), "0.16.0", None, None)
    assert isinstance(found, Unknown)
    assert "pickle" in found.reason


# --- engines that the reference backend wrote -----------------------------------------------------


def toy_llama(folder: Path) -> Path:
    """Random weights: four layers, two key-value heads; everything a multiple of AWQ's groups."""
    hidden, inner, vocabulary, heads, keys = 256, 512, 64, 4, 2
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "num_hidden_layers": 4,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "intermediate_size": inner,
        "max_position_embeddings": 64,
        "vocab_size": vocabulary,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    }
    shapes = {
        "model.embed_tokens": (vocabulary, hidden),
        "lm_head": (vocabulary, hidden),
        "model.norm": (hidden,),
    }
    for layer in range(4):
        before = f"model.layers.{layer}."
        size = hidden // heads
        shapes |= {
            f"{before}self_attn.q_proj": (hidden, hidden),
            f"{before}self_attn.k_proj": (keys * size, hidden),
            f"{before}self_attn.v_proj": (keys * size, hidden),
            f"{before}self_attn.o_proj": (hidden, hidden),
            f"{before}mlp.gate_proj": (inner, hidden),
            f"{before}mlp.up_proj": (inner, hidden),
            f"{before}mlp.down_proj": (hidden, inner),
            f"{before}input_layernorm": (hidden,),
            f"{before}post_attention_layernorm": (hidden,),
        }
    numbers = np.random.default_rng(0)
    entries, tensors, place = {}, [], 0
    for name, shape in shapes.items():
        tensor = numbers.normal(0, 0.1, shape).astype("<f2").tobytes()
        ends = [place, place + len(tensor)]
        entries[f"{name}.weight"] = {"dtype": "F16", "shape": shape, "data_offsets": ends}
        tensors.append(tensor)
        place += len(tensor)
    header = json.dumps(entries).encode()
    folder.mkdir()
    content = struct.pack("<Q", len(header)) + header + b"".join(tensors)
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copy(MODEL / "tokenizer.json", folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {"gpt": MODEL, "llama": toy_llama(tmp_path_factory.mktemp("toys") / "llama")}


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "int8": {"quantization": "int8"},
    "int4": {"quantization": "int4"},
    "awq": {"quantization": "int4_awq"},
    "smoothquant": {"quantization": "smoothquant", "smoothquant_alpha": 0.5},
    "smoothquant-by-token": {
        "quantization": "smoothquant",
        "smoothquant_alpha": 0.5,
        "per_token": True,
        "per_channel": True,
    },
    "int8-cache": {"kv_cache_dtype": "int8"},
    "embedding-by-vocabulary": {"parallel_embedding": "vocabulary"},
    "embedding-by-hidden": {"parallel_embedding": "hidden"},
    "shared": {"parallel_embedding": "vocabulary", "share_embedding": True},
}


# Of the era of build.py what it cannot is left out: AWQ, and pipelines with calibration; of GPT-2
# what its 96 columns cannot, and of LLaMA sharing, as its output is a table of its own.
ENGINES = [
    ("gpt", "0.5.0", (2, 1), [name for name in VARIANTS if name != "awq"]),
    ("gpt", "0.16.0", (2, 1), [name for name in VARIANTS if name not in ("awq", "shared")]),
    ("llama", "0.5.0", (2, 1), ["smoothquant", "smoothquant-by-token", "int8-cache"]),
    ("llama", "0.5.0", (2, 2), ["plain", "int8", "embedding-by-hidden"]),
    ("llama", "0.16.0", (2, 2), [name for name in VARIANTS if name != "shared"]),
    ("llama", "0.16.0", (1, 1), ["plain", "awq", "smoothquant"]),
]


@pytest.mark.parametrize(
    ("family", "release", "ranks", "variant"),
    [(*case, name) for *case, names in ENGINES for name in names],
)
def test_engines_hold_what_was_foretold(
    tmp_path: Path,
    models: dict[str, Path],
    family: Any,
    release: str,
    ranks: tuple[int, int],
    variant: str,
) -> None:
    """Byte for byte, but for the header that an engine file begins with: by a plan's own commands."""
    wanted = replace(
        asked(tp=ranks[0], pp=ranks[1], **VARIANTS[variant]),
        family=family,
        source=Source(directory=models[family]),
        build=Build(2, 16, 16),
        run=Run((), 16, None),
        releases=(release,),
    )
    model = model_facts.of_recipe(wanted)
    assert isinstance(model, Dimensions)
    make(wanted, release, tmp_path)
    engines = 0
    for stage in needs(model, wanted, release).stages:
        for rank in stage.ranks:
            (engine,) = (tmp_path / "engine").glob(f"*rank{rank}.engine")
            assert payload(engine) == stage.weights_size
            engines += 1
    assert engines == wanted.world_size


def make(wanted: Recipe, release: str, work: Path) -> None:
    """Convert and build by the plan's commands, in a folder of this host."""
    from tests.unit.rehearsal.conftest import main

    for name in ("checkpoint", "engine", "cache", "output"):
        (work / name).mkdir(parents=True)
    for command in dialect.commands(wanted, release):
        words = [
            word.replace(layout.MODEL, str(wanted.source.directory)).replace(layout.WORK, str(work))
            for word in command.argv
        ]
        script, *arguments = words[1:] if words[0] == "python3" else words
        assert main(release, script, arguments) == 0


def payload(engine: Path) -> int:
    """The bytes of the tensors in an engine file of the reference backend."""
    content = engine.read_bytes()
    (header,) = struct.unpack_from("<I", content, 20)
    place = 24 + header
    (entries,) = struct.unpack_from("<Q", content, place)
    return len(content) - place - 8 - entries
