"""The script of the Python API: run by the interpreter against modules that write down its calls."""

from __future__ import annotations

import ast
import dataclasses
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from kit import data
from kit.data import releases
from kit.errors import KitError
from kit.examples import dialect, plan, recipe
from kit.examples.dialects import python
from kit.examples.options import Options

if TYPE_CHECKING:
    from pathlib import Path

    from kit.examples.recipe import Recipe

EXAMPLE = recipe.find("llama-2-7b-chat-python")
ABLE = [name for name in releases.versions() if dialect.refusal(EXAMPLE, name) is None]
TWO = dataclasses.replace(
    EXAMPLE, checkpoint=dataclasses.replace(EXAMPLE.checkpoint, tp=2), options=Options()
)

GPT = recipe.find("gpt2-medium-python")
NEXT = dataclasses.replace(recipe.find("gpt-next-2b"), workflow="python")

# Every call writes a line; attributes of a configuration are written when it is built.
RECORDER = """
import json, os, types

def said(name, *values, **named):
    print(json.dumps([name, [str(value) for value in values], {k: str(v) for k, v in named.items()}]))

class BuildConfig:
    def __init__(self, **named):
        self.named, self.plugin_config = named, types.SimpleNamespace()

class Mapping:
    def __init__(self, world_size, tp_size, pp_size, rank=0):
        self.text = f"{tp_size}x{pp_size} of {world_size} rank {rank}"
    def __str__(self):
        return self.text

class Engine:
    def save(self, folder):
        said("save", folder)

class Model:
    def save_checkpoint(self, folder, save_config):
        said("save_checkpoint", folder, save_config=save_config)

class LLaMAForCausalLM:
    @classmethod
    def from_hugging_face(cls, folder, dtype, **named):
        said("from_hugging_face", folder, dtype, **named)
        return Model()
    @classmethod
    def from_nemo(cls, folder, **named):
        said("from_nemo", folder, **named)
        return Model()
    @classmethod
    def quantize(cls, folder, output, **named):
        said("quantize", folder, output, **named)
    @classmethod
    def from_checkpoint(cls, folder, rank):
        said("from_checkpoint", folder, rank=rank)
        return Model()

GPTForCausalLM = LLaMAForCausalLM

def build(model, config):
    said("build", **config.named)
    said("plugins", **vars(config.plugin_config))
    return Engine()

class QuantConfig:
    def __init__(self, quant_algo=None, kv_cache_quant_algo=None, smoothquant_val=None):
        self.text = f"{quant_algo} {kv_cache_quant_algo} {smoothquant_val}"
    def __str__(self):
        return self.text

class QuantAlgo:
    INT8, FP8, W8A16, W4A16, W4A16_AWQ = "INT8 FP8 W8A16 W4A16 W4A16_AWQ".split()
    W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN = "SQ-CHANNEL-TOKEN"
    W8A8_SQ_PER_TENSOR_PLUGIN = "SQ-TENSOR"

def mpi_rank():
    return int(os.environ["RANK"])

def mpi_barrier():
    said("barrier")

os.makedirs = lambda folder, exist_ok: said("makedirs", folder)
"""


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    package = tmp_path / "tensorrt_llm"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text(RECORDER)
    everything = "from tensorrt_llm import *\n"
    for name in ("_utils.py", "quantization.py", "models/__init__.py", "models/modeling_utils.py"):
        (package / name).write_text(everything)
    return tmp_path


def calls(modules: Path, example: Recipe, release: str, rank: int = 0) -> list[list[Any]]:
    done = subprocess.run(
        [sys.executable, "-S", "-c", python.script(example, release)],
        env={"PYTHONPATH": str(modules), "RANK": str(rank)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def asking(**values: Any) -> Recipe:
    return dataclasses.replace(TWO, options=Options(**values))


def test_the_releases_that_have_it() -> None:
    assert releases.select(">=0.9.0") == ABLE
    gpt = recipe.find("gpt2-medium-python")
    able = [name for name in releases.versions() if dialect.refusal(gpt, name) is None]
    assert releases.select(">=0.12.0") == able


# Whatever the script has words for, with the families and sources that it reads.
SCRIPTS = [
    dataclasses.replace(
        recipe.find(name),
        workflow="python",
        checkpoint=dataclasses.replace(recipe.find(name).checkpoint, tp=tp),
        options=Options(**options),
    )
    for name, tp in (("llama-2-7b-chat", 2), ("gpt2-medium", 2), ("starcoder-tp4", 4), ("gpt-next-2b", 1))
    for options in (
        {"max_beam_width": 2, "max_num_tokens": 99, "prompt_table_size": 9, "gather_logits": "all"},
        {"gpt_attention_plugin": "disable", "gemm_plugin": "float16", "context_fmha": True},
        {"packed_input": False, "in_flight_batching": True},
        *({"quantization": kind} for kind in ("int8", "int4", "int4_awq", "fp8")),
        {"quantization": "smoothquant", "smoothquant_alpha": 0.5, "per_token": True},
        *({"kv_cache_dtype": kind} for kind in ("int8", "fp8")),
    )
]  # fmt: skip
# Values that a script makes, whose attributes and calls are looked up in the table.
OBJECTS = {"model": "{model}", "engine": "Engine", "unpacked": "UnpackedNemoCheckpointDir"}


def test_the_scripts_say_what_the_release_has_and_nothing_else() -> None:
    table, seen = data.python_api(), set()
    for release in ABLE:
        rows = {row["name"]: row for row in table["calls"] if data.covers(row["releases"], release)}
        names = {
            (row["module"], row["name"])
            for row in table["imports"]
            if data.covers(row["releases"], release)
        }
        fields = {row["name"] for row in table["fields"] if data.covers(row["releases"], release)}
        for example in SCRIPTS:
            if python.refusal(example, release) is not None:
                continue
            kind = "GPTForCausalLM" if example.family == "gpt" else "LLaMAForCausalLM"
            tree = ast.parse(python.script(example, release))
            imported = set()
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and node.module.startswith("tensorrt_llm"):
                    imported |= {(node.module, alias.name) for alias in node.names}
            assert imported <= names
            ours = {name for _, name in imported}
            for node in ast.walk(tree):
                if not isinstance(node, ast.Call):
                    continue
                name = ast.unparse(node.func)
                first, _, last = name.partition(".")
                name = ".".join(filter(None, (OBJECTS.get(first, first).format(model=kind), last)))
                if first not in ours | set(OBJECTS) or name not in rows:
                    assert first not in ours - {"BuildConfig", "mpi_rank", "mpi_barrier"}, name
                    continue
                row, keywords = rows[name], {keyword.arg for keyword in node.keywords}
                assert len(node.args) <= len(row["positional"]), (release, name)
                free = {*row["positional"][len(node.args) :], *row["named"]}
                assert keywords <= free, (release, name, keywords - free)
                seen.add(name)
            built = next(
                node for node in ast.walk(tree)
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "BuildConfig"
            )  # fmt: skip
            assert {keyword.arg for keyword in built.keywords} <= fields
    # Nothing of the table is there for show.
    assert seen == {row["name"] for row in table["calls"]}


def test_every_row_of_the_table_has_its_source() -> None:
    table = data.python_api()
    for kind in ("calls", "fields", "imports", "ranks"):
        for row in table[kind]:
            assert table["sources"][row["source"]]
            assert all(
                data.covers(row["releases"], text.split("..")[0]) for text in row["releases"]
            )
    held = [
        (row["name"], release)
        for row in table["calls"]
        for release in ABLE
        if data.covers(row["releases"], release)
    ]
    assert len(held) == len(set(held))
    for release in ABLE:
        assert sum(data.covers(row["releases"], release) for row in table["ranks"]) == 1
        unknown = data.calibrating_rank(release) is None
        assert unknown == (release == "0.12.0")


@pytest.mark.parametrize("release", ABLE)
def test_every_rank_converts_and_builds_its_part(modules: Path, release: str) -> None:
    for rank in (0, 1):
        found = {
            name: (values, named) for name, values, named in calls(modules, TWO, release, rank)
        }
        mapping = f"2x1 of 2 rank {rank}"
        assert found["from_hugging_face"] == (["/kit/model", "bfloat16"], {"mapping": mapping})
        assert found["save_checkpoint"][1] == {"save_config": str(rank == 0)}
        assert found["save"] == (["/kit/work/engine"], {})
        shapes = found["build"][1]
        old = releases.between(release, None, "0.11.0")
        assert ("max_output_len" in shapes) == old
        assert shapes.get("max_seq_len", "2560") == "2560"
        plugins = found["plugins"][1]
        assert plugins["gpt_attention_plugin"] == plugins["gemm_plugin"] == "bfloat16"
        assert ("use_custom_all_reduce" in plugins) == releases.between(release, None, "0.12.0")


@pytest.mark.parametrize(
    ("values", "config"),
    [
        ({"quantization": "int4_awq", "kv_cache_dtype": "int8"}, "W4A16_AWQ INT8 None"),
        ({"quantization": "fp8", "kv_cache_dtype": "fp8"}, "FP8 FP8 None"),
        ({"kv_cache_dtype": "int8"}, "None INT8 None"),
        (
            {"quantization": "smoothquant", "smoothquant_alpha": 0.5, "per_token": True, "per_channel": True},
            "SQ-CHANNEL-TOKEN None 0.5",
        ),
        ({"quantization": "smoothquant", "smoothquant_alpha": 0.8}, "SQ-TENSOR None 0.8"),
    ],
)  # fmt: skip
def test_rank_0_quantizes_alone(modules: Path, values: dict[str, Any], config: str) -> None:
    made = calls(modules, asking(**values), "1.2.1")
    first = [name for name, _, _ in made]
    after = ["barrier", "from_checkpoint", "build", "plugins", "save"]
    assert first == ["makedirs", "quantize", *after]
    expected = {"quant_config": config, "dtype": "bfloat16", "mapping": "2x1 of 2 rank 0"}
    assert made[1] == ["quantize", ["/kit/model", "/kit/work/checkpoint"], expected]
    second = calls(modules, asking(**values), "1.2.1", rank=1)
    assert [name for name, _, _ in second] == ["makedirs", *after]
    assert second[2] == ["from_checkpoint", ["/kit/work/checkpoint"], {"rank": "1"}]


def test_until_0_11_0_quantize_wants_no_certain_rank(modules: Path) -> None:
    for release, rank in (("0.9.0", "-1"), ("0.11.0", "-1"), ("0.13.0", "0")):
        made = calls(modules, asking(kv_cache_dtype="int8"), release)[1]
        assert made[2]["mapping"] == f"2x1 of 2 rank {rank}"


def test_gpt_is_told_its_variant(modules: Path) -> None:
    for name, variant in (("gpt2-medium", "gpt2"), ("starcoder-tp4", "starcoder")):
        example = dataclasses.replace(recipe.find(name), workflow="python", options=Options())
        found = {name: named for name, _, named in calls(modules, example, "1.2.1")}
        assert found["from_hugging_face"]["gpt_variant"] == variant
        assert "gemm_plugin" not in found["plugins"]


@pytest.mark.parametrize(
    ("release", "keyword"),
    [("0.9.0", "quantization"), ("0.10.0", "quantization"), ("0.11.0", "quant_config"), ("0.16.0", "quant_config")],
)  # fmt: skip
def test_every_rank_quantizes_its_weights(modules: Path, release: str, keyword: str) -> None:
    for rank in (0, 1):
        name, _, named = calls(modules, asking(quantization="int4"), release, rank)[1]
        assert name == "from_hugging_face"
        assert named == {"mapping": f"2x1 of 2 rank {rank}", keyword: "W4A16 None None"}


def test_the_plan_brings_the_script_along() -> None:
    step = plan.plan(TWO, "0.16.0").steps[0]
    assert (step.name, step.mpi_ranks, step.argv[-1]) == ("python", 2, python.PLACE)
    assert step.writes == ((python.PLACE, python.script(TWO, "0.16.0")),)
    assert step.produces == ("/kit/work/checkpoint", "/kit/work/engine")
    assert step.to_dict()["writes"] == [{"path": python.PLACE, "content": step.writes[0][1]}]


def test_the_shell_script_writes_it(tmp_path: Path) -> None:
    planned = plan.plan(TWO, "0.16.0")
    text = planned.script().replace("/kit/work", str(tmp_path / "work"))
    root = tmp_path / "bin"
    root.mkdir()
    for name in ("mpirun", "python3"):
        (root / name).write_text("#!/bin/sh\n")
        (root / name).chmod(0o755)
    text = text.replace("cd /app/tensorrt_llm", f"cd {tmp_path}")
    subprocess.run(["sh"], input=text, text=True, check=True, env={"PATH": f"{root}:/usr/bin:/bin"})
    written = (tmp_path / "work/cache/build_engine.py").read_text()
    assert written == planned.steps[0].writes[0][1].replace("/kit/work", str(tmp_path / "work"))


@pytest.mark.parametrize(
    ("example", "release", "message"),
    [
        (EXAMPLE, "0.8.0", "release 0.8.0 has no Python API.*nearest release that can: 0.9.0"),
        (GPT, "0.11.0", "of release 0.11.0 converts no GPT.*nearest release that can: 0.12.0"),
        (
            dataclasses.replace(GPT, options=Options(quantization="fp8")),
            "0.14.0",
            "cannot be told the GPT variant gpt2 for fp8.*nearest release that can: 0.15.0",
        ),
        (
            dataclasses.replace(GPT, variant="starcoder", options=Options(quantization="fp8")),
            "1.2.1",
            "cannot be told the GPT variant starcoder for fp8; nearest release that can: none",
        ),
        (
            asking(kv_cache_dtype="int8"),
            "0.12.0",
            "mapping of rank 0 or -1: which of them is not known",
        ),
        (
            dataclasses.replace(NEXT, options=Options(quantization="int8")),
            "1.2.1",
            "quantizes Hugging Face models only",
        ),
        (
            dataclasses.replace(NEXT, checkpoint=dataclasses.replace(NEXT.checkpoint, pp=2)),
            "1.2.1",
            "reads NeMo archives for pp: 1 only",
        ),
        (asking(lookup_plugin="float16"), "0.16.0", "no words for lookup_plugin"),
        (asking(gemm_plugin="auto"), "0.10.0", "no gemm_plugin: auto.*0.11.0"),
    ],
)
def test_what_it_has_no_words_for_is_refused(example: Recipe, release: str, message: str) -> None:
    with pytest.raises(KitError, match=message):
        dialect.commands(example, release)
