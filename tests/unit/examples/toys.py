"""Toy models of every family, and the catalogue at their size; the steps of a plan in this process.

Weights are random (GPT-2's are the committed ones), vocabulary and tokenizer those of `gpt2-tiny`, so
that texts become token ids; nothing but size and weights differs from what a recipe is made for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kit.examples import layout
from kit.examples.recipe import Build, with_model
from tests.conftest import ROOT, peer
from tests.unit.rehearsal.archives import GptNext, archived, sentencepiece_model, stored
from tests.unit.rehearsal.conftest import MODEL, ThreadWorld, main

from kit_rehearsal import api  # isort: skip - found once the line above has said where

if TYPE_CHECKING:
    from kit.examples.plan import Plan, Step
    from kit.examples.recipe import Recipe

ARTICLES = ROOT / "kit" / "examples" / "datasets" / "alice"
LONGEST = 48
"""Tokens of a prompt that a toy engine takes, and a few more than the longest of the catalogue."""
NEW = 6
HEADS, HIDDEN, WIDE, LAYERS = 4, 32, 256, 4


def gpt_bigcode(folder: Path) -> Path:
    """StarCoder: multi-query attention in one matrix."""
    config = {"model_type": "gpt_bigcode", "architectures": ["GPTBigCodeForCausalLM"],
              "multi_query": True, "activation_function": "gelu_pytorch_tanh", "n_inner": 4 * HIDDEN}  # fmt: skip
    head = HIDDEN // HEADS
    return _gpt(folder, config, {"attn.c_attn": (HIDDEN + 2 * head, HIDDEN)}, turned=False)


def santacoder(folder: Path) -> Path:
    """SantaCoder as its repository has it: GPT-2 with a matrix of queries and one of the rest."""
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_inner": None,
              "attention_head_type": "multiquery", "activation_function": "gelu_fast"}  # fmt: skip
    shapes = {"attn.q_attn": (HIDDEN, HIDDEN), "attn.kv_attn": (2 * HIDDEN // HEADS, HIDDEN)}
    return _gpt(folder, config, shapes, turned=True)


def _gpt(folder: Path, more: dict[str, Any], attention: dict[str, Any], *, turned: bool) -> Path:
    shapes = {**attention, "attn.c_proj": (HIDDEN, HIDDEN), "mlp.c_fc": (4 * HIDDEN, HIDDEN),
              "mlp.c_proj": (HIDDEN, 4 * HIDDEN)}  # fmt: skip
    old = json.loads((MODEL / "config.json").read_bytes())
    config = {**old, "n_embd": HIDDEN, "n_head": HEADS, "n_layer": LAYERS, **more}
    made = _Weights()
    weights = {"transformer.wte.weight": made(config["vocab_size"], HIDDEN),
               "transformer.wpe.weight": made(config["n_positions"], HIDDEN)}  # fmt: skip
    for place in (*(f"h.{layer}" for layer in range(LAYERS)), ""):
        for norm in ("ln_1", "ln_2") if place else ("ln_f",):
            name = f"transformer.{place}.{norm}" if place else f"transformer.{norm}"
            weights[f"{name}.weight"] = 1 + made(HIDDEN) / 4
            weights[f"{name}.bias"] = made(HIDDEN) / 4
        for name, (outer, inner) in shapes.items() if place else ():
            matrix = made(outer, inner)
            weights[f"transformer.{place}.{name}.weight"] = matrix.T.copy() if turned else matrix
            weights[f"transformer.{place}.{name}.bias"] = made(outer) / 4
    return _saved(folder, config, weights)


def llama(folder: Path) -> Path:
    """LLaMA with grouped queries, as wide as AWQ's groups want it on two ranks."""
    wide, keys, inner = WIDE, WIDE // 2, WIDE
    shapes = {"self_attn.q_proj": (wide, wide), "self_attn.k_proj": (keys, wide),
              "self_attn.v_proj": (keys, wide), "self_attn.o_proj": (wide, wide),
              "mlp.gate_proj": (inner, wide), "mlp.up_proj": (inner, wide),
              "mlp.down_proj": (wide, inner)}  # fmt: skip
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": wide,
              "num_attention_heads": HEADS, "num_key_value_heads": HEADS // 2,
              "num_hidden_layers": LAYERS, "intermediate_size": inner, "vocab_size": 384,
              "hidden_act": "silu", "max_position_embeddings": 256, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "float16",
              "bos_token_id": 383, "eos_token_id": 383}  # fmt: skip
    made = _Weights()
    weights = {"model.embed_tokens.weight": made(384, wide), "lm_head.weight": made(384, wide),
               "model.norm.weight": 1 + made(wide) / 4}  # fmt: skip
    for layer in range(LAYERS):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{norm}.weight"] = 1 + made(wide) / 4
        for name, sizes in shapes.items():
            weights[f"model.layers.{layer}.{name}.weight"] = made(*sizes)
    return _saved(folder, config, weights)


class _Weights:
    """Random matrices, the same every time, of a spread that keeps the answers apart."""

    def __init__(self) -> None:
        self._random = peer("numpy").random.default_rng(11)

    def __call__(self, *sizes: int) -> Any:
        spread = 2.5 / sizes[-1] ** 0.5
        return (self._random.standard_normal(sizes) * spread).astype("float32")


def _saved(folder: Path, config: dict[str, Any], weights: dict[str, Any]) -> Path:
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        if (MODEL / name).exists():
            shutil.copy(MODEL / name, folder / name)
    (folder / "config.json").write_text(json.dumps(config))
    peer("safetensors.numpy").save_file(weights, folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # the library makes it its owner's alone
    return folder


def gpt_next(folder: Path) -> Path:
    """Archives of GPT-Next, a table of learned prompts, and a question that names its rows."""
    torch = peer("torch")
    folder.mkdir()
    text = (ROOT / "kit" / "examples" / "models" / "alice29.txt").read_text()[:4000]
    network = GptNext(vocabulary=96)
    for name, tp in (("GPT-2B-001_bf16_tp1", 1), ("megatron_converted_8b_tp4_pp1", 4)):
        network.save(folder / f"{name}.nemo", sentencepiece_model(text), tp=tp)
    torch.manual_seed(3)
    table = {"prompt_table": {"prompt_table.mail.prompt_embeddings.weight": torch.randn(4, 32)}}
    config = json.dumps({"task_templates": [{"taskname": "mail"}]}).encode()
    files = {"model_config.yaml": config, "mp_rank_00/model_weights.ckpt": stored(table)}
    archived(folder / "email_composition.nemo", files)
    (folder / "input.csv").write_text("96,97,98,99,5,9,17\n")
    return folder


_MAKERS = {"santacoder": santacoder, "starcoder": gpt_bigcode, "llama": llama, "gpt-next": gpt_next}


@dataclass
class Toys:
    """Toy models below a folder, made when they are asked for."""

    folder: Path
    _made: dict[str, Path] = field(default_factory=dict)

    def of(self, example: Recipe) -> Recipe:
        """An example of the catalogue at toy size, its model and data given."""
        kind = "llama" if example.family == "llama" else example.variant
        source, evaluate = example.source, example.evaluate
        if source.dummy is not None:
            dummy = dataclasses.replace(
                source.dummy, vocab_size=384, hidden_size=64, num_hidden_layers=2,
                num_attention_heads=16,
                intermediate_size=source.dummy.intermediate_size and 128,
                max_position_embeddings=source.dummy.max_position_embeddings and 256,
            )  # fmt: skip
            example = dataclasses.replace(
                example, source=dataclasses.replace(source, dummy=dummy, directory=MODEL)
            )
        else:
            example = with_model(example, self.model(kind))
        if evaluate is not None:
            batch = min(evaluate.summarize.batch_size or 1, 8)
            summarize = dataclasses.replace(
                evaluate.summarize, dataset=ARTICLES, output_len=12, batch_size=batch, rouge1=1.0
            )
            evaluate = dataclasses.replace(evaluate, summarize=summarize)
        longest = 240 if evaluate else LONGEST
        return dataclasses.replace(
            example,
            build=Build(min(example.build.max_batch_size, 8), longest, 12),
            run=dataclasses.replace(example.run, max_output_len=NEW),
            evaluate=evaluate,
        )

    def model(self, kind: str) -> Path:
        """The folder of a kind of model."""
        if kind == "gpt2":
            return MODEL
        if kind not in self._made:
            self._made[kind] = _MAKERS[kind](self.folder / kind)
        return self._made[kind]


@dataclass
class Ended:
    """What the steps of a plan have left: folders by their place in a container, and their logs."""

    places: dict[str, Path]
    logs: dict[str, str]

    def tokens(self) -> list[tuple[int, ...]]:
        """All rows of token ids, in the order of the prompts."""
        rows = []
        for path in sorted(self.places[layout.OUTPUT].glob("tokens*.csv")):
            rows += [tuple(map(int, line.split(","))) for line in path.read_text().split()]
        return rows


def execute(planned: Plan, example: Recipe, work: Path, known: dict[str, Path]) -> Ended:
    """Do the steps in this process, each rank a thread; a conversion that is `known` is not again.

    A step that fails is an AssertionError with what it said.
    """
    places = {layout.DATASET: ARTICLES, **{place: path for path, place in example.inputs}}
    if example.source.directory is not None:
        places[layout.MODEL] = example.source.directory
    elif example.source.nemo is not None:
        places[layout.MODEL] = example.source.nemo.parent
    for place in (layout.CHECKPOINT, layout.ENGINE, layout.OUTPUT, layout.CACHE):
        places[place] = work / place.rpartition("/")[2]
        places[place].mkdir(parents=True)
    ended = Ended(places, {})
    converted = ""
    for step in planned.steps:
        if step.is_served:
            break
        if step.produces and all(path.startswith(layout.CHECKPOINT) for path in step.produces):
            converted += f"{planned.release} {places.get(layout.MODEL)} {step.line()}"
            if converted in known:
                places[layout.CHECKPOINT] = known[converted]
                continue
            known[converted] = places[layout.CHECKPOINT]
        ended.logs[step.name] = _do(planned.release, step, places)
        for path in step.produces:
            assert _here(path, places).exists(), f"{step.name} wrote nothing to {path}"
    return ended


def _do(release: str, step: Step, places: dict[str, Path]) -> str:
    words = list(step.argv)
    if words[0] == "mpirun":
        del words[: 5 if words[3] == "-N" else 3]
    words = words[1:] if words[0] == "python3" else words
    argv = [str(_here(word, places)) for word in words[1:]]
    world = ThreadWorld(step.mpi_ranks)
    said = io.StringIO()

    local = threading.local()

    def work(rank: object) -> int:
        if step.writes:
            local.rank = rank
            return _do_script(step, places)
        return main(release, words[0], argv, ranks=lambda: rank)

    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv(api.VARIABLE, release)
        patch.setattr(api, "connect", lambda: local.rank)
        try:
            codes = world.run(work)
        except SystemExit as error:
            codes = [error.code]
    assert set(codes) == {0}, f"{step.name}: {step.line()}\n{said.getvalue()[-2000:]}"
    return said.getvalue()


def _do_script(step: Step, places: dict[str, Path]) -> int:
    """A script against the Python API, as one rank does it."""
    ((_, text),) = step.writes
    for place in sorted(places, reverse=True):
        text = text.replace(f"'{place}", f"'{places[place]}")
    exec(compile(text, "build_engine.py", "exec"), {"__name__": "__main__"})
    return 0


def _here(word: str, places: dict[str, Path]) -> Path | str:
    for place in sorted(places, reverse=True):
        if word == place or word.startswith(f"{place}/"):
            return Path(f"{places[place]}{word[len(place) :]}")
    return word
