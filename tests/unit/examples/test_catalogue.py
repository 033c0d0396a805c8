"""Every example for every release: what is planned is accepted, and old plans do not change."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kit import cli
from kit.commandlines.check import check
from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.examples import catalogue, plan, recipe

if TYPE_CHECKING:
    from kit.examples.recipe import Recipe

BEFORE = json.loads(Path(__file__).with_name("plans.json").read_text())
"""Of two examples: the recipe's digest, and of each plan (table, script, JSON) a part of its own.

Manifests hold the digests, and people the scripts: what a new option or family adds must not show.
"""


NEWER = releases.select(">=0.15.0")
CANNOT = {
    "gpt2-embedding-sharing": ("no option for (lookup_plugin|share_embedding)", NEWER),
    "gpt2-embedding-vocabulary-lookup": ("no option for lookup_plugin", NEWER),
    "gpt2-medium-python": ("has no Python API|converts no GPT", releases.select("<0.12.0")),
    "llama-2-7b-chat-python": ("has no Python API", releases.select("<0.9.0")),
    "llama-2-7b-chat-triton": ("no Triton container", ["0.6.0", "0.6.1", "0.18.1"]),
}
"""Which examples which releases cannot do, and why."""


@pytest.mark.parametrize("release", releases.versions())
@pytest.mark.parametrize("example", recipe.catalog(), ids=lambda example: example.name)
def test_every_command_is_accepted(example: Recipe, release: str) -> None:
    why, those = CANNOT.get(example.name, ("", []))
    if release in those:
        with pytest.raises(KitError, match=rf"({why}).*; nearest release that can: \d") as caught:
            plan.plan(example, release)
        assert caught.value.exit_code == ExitCode.USAGE
        return
    for step in plan.plan(example, release).steps:
        if step.image or step.writes:
            continue  # not a command of the release's
        answers = check(step.line(), release, explain=False)
        assert len(answers.commands) == 1
        assert (answers.verdict == "accepted") == (step.doubt is None), answers.to_dict()
        assert not answers.commands[0].problems


def test_what_nobody_has_read_is_marked() -> None:
    example = recipe.find("gpt2-summarize")
    last = plan.plan(example, "1.2.1").steps[-1]
    assert last.doubt == (
        "examples/summarize.py was not read at release 1.2.1: its options are an older one's"
    )
    assert last.to_dict()["doubt"] == last.doubt
    assert plan.plan(example, "0.16.0").steps[-1].doubt is None
    assert f"# {last.doubt}." in plan.plan(example, "1.2.1").script().splitlines()


ISSUE = {
    "gpt2-medium": ("float16", 1),
    "gpt2-summarize": ("float16", 1),
    "gpt-175b-dummy": ("float16", 8),
    "gpt-530b-dummy": ("float16", 16),
    "santacoder-tp4": ("float16", 4),
    "starcoder-tp4": ("float16", 4),
    "gpt2-smoothquant": ("float16", 1),
    "gpt2-smoothquant-per-token": ("float16", 1),
    "gpt2-int8-kv-cache": ("float16", 1),
    "gpt2-int8-kv-cache-no-plugin": ("float16", 1),
    "gpt-next-2b": ("bfloat16", 1),
    "gpt-next-2b-dummy": ("float16", 1),
    "gpt-next-8b-prompt-tuning": ("float16", 1),
    "gpt2-embedding-hidden": ("float16", 2),
    "gpt2-embedding-vocabulary": ("float16", 2),
    "gpt2-embedding-vocabulary-lookup": ("float16", 2),
    "gpt2-embedding-sharing": ("bfloat16", 2),
    "llama-2-7b-chat": ("bfloat16", 1),
    "llama-2-7b-chat-tp2": ("bfloat16", 2),
    "llama-2-7b-chat-tp2-pp2": ("bfloat16", 4),
    "llama-2-7b-chat-triton": ("bfloat16", 1),
    "llama-2-7b-chat-python": ("bfloat16", 1),
}
"""What the catalogue has at least: type and ranks."""


@pytest.mark.parametrize("name", sorted(ISSUE))
def test_the_catalogue_has(name: str) -> None:
    example = recipe.find(name)
    assert (example.checkpoint.dtype, example.world_size) == ISSUE[name]


@pytest.mark.parametrize("name", sorted(BEFORE))
def test_plans_stay_what_they_were(name: str) -> None:
    example = recipe.find(name)
    found = {"digest": str(example.digest)}
    for release in releases.versions():
        planned = plan.plan(example, release)
        text = "\0".join([planned.table(), planned.script(), json.dumps(planned.to_dict())])
        found[release] = hashlib.sha256(text.encode()).hexdigest()[:16]
    assert found == BEFORE[name]


def test_one_of_name_and_file(tmp_path: Path) -> None:
    for name, config in ((None, None), ("gpt2-tiny", str(tmp_path / "x.yaml"))):
        with pytest.raises(KitError, match="the name of an example, or --config") as caught:
            catalogue.chosen(name, config)
        assert caught.value.exit_code == ExitCode.USAGE


def test_a_file_may_be_a_recipe(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = (recipe.CATALOG / "gpt2-tiny.yaml").read_text()
    file.write_text(text.replace("name: gpt2-tiny", "name: mine"))
    example = catalogue.chosen(None, str(file))
    assert plan.plan(example, "0.16.0").steps == plan.plan(recipe.find("gpt2-tiny"), "0.16.0").steps


def test_a_refusal_names_the_file_to_plan(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = (recipe.CATALOG / "gpt2-tiny.yaml").read_text()
    text = text.replace("name: gpt2-tiny", "name: mine").replace("float32\n", "float32\n  pp: 2\n")
    file.write_text(text)
    with pytest.raises(KitError, match=r"pp > 1; nearest release that can: 0\.9\.0") as caught:
        plan.plan(catalogue.load(file), "0.8.0")
    assert caught.value.hint == f"kit plan --config {file} --release 0.9.0"


def test_the_list_says_which_stack_can_run_what(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["example", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["examples"]}
    assert sorted(rows) == catalogue.names()
    held = {item["stack"]: item["releases"] for item in rows["gpt2-tiny-tp2"]["stacks"]}
    assert held["rehearsal"] == releases.versions()
    assert held["trtllm-0.16.0"] == ["0.16.0"]
    llama = rows["llama-2-7b-chat-tp2-pp2"]
    assert (llama["world_size"], llama["stacks"], llama["needs"]) == (4, [], "--model DIR")
    assert llama["repository"] == "meta-llama/Llama-2-7b-chat-hf"
    given = {item["stack"]: item["releases"] for item in llama["stacks_with_model"]}
    assert given["trtllm-0.16.0"] == ["0.16.0"]
    assert rows["gpt2-summarize"]["needs"] == "--model DIR --dataset DIR"
    assert rows["gpt-next-2b"]["needs"] == "--model FILE.nemo"
    assert rows["gpt-next-8b-prompt-tuning"]["needs"] == "--model DIR"
    assert rows["gpt-next-2b-dummy"]["needs"] is None
    assert rows["llama-2-7b-chat-python"]["releases"] == releases.select(">=0.9.0")
    far = rows["gpt-530b-dummy"]
    assert far["nodes"] == 2
    assert {"stack": "trtllm-0.16.0", "releases": ["0.16.0"]} in far["stacks"]
    # TensorRT in the rehearsal: one rank, no quantization.
    on_a_gpu = {
        name
        for name, row in rows.items()
        for item in row["stacks"]
        if item["stack"] == "rehearsal-gpu"
    }
    assert "gpt2-tiny" in on_a_gpu
    assert not {"gpt2-tiny-tp2", "gpt-530b-dummy"} & on_a_gpu
    assert cli.run(["example", "list"]) == 0
    said = {line.partition(" ")[0]: line for line in capsys.readouterr().out.splitlines()}
    where = "rehearsal, rehearsal-gpu, trtllm-0.5.0 … trtllm-1.2.1; --model DIR "
    assert where in said["gpt2-medium"]
    assert "rehearsal, trtllm-0.5.0 … trtllm-1.2.1; kit slurm: 2 nodes " in said["gpt-530b-dummy"]


def test_plan_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    file = tmp_path / "buildconfig.yaml"
    file.write_text(
        "model: {model_dir: ., output_dir: engine, dtype: float16}\n"
        "checkpoint: {checkpoint_dir: checkpoint, tp_size: 1, pp_size: 1}\n"
        "build: {max_input_len: 9, max_output_len: 9, max_batch_size: 1, max_beam_width: 1}\n"
    )
    words = ["plan", "--config", str(file), "--release", "0.16.0"]
    assert cli.run([*words, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["ok"], answer["example"]) == (True, "buildconfig")
    assert [step["name"] for step in answer["steps"]] == ["convert", "build"]
    assert cli.run(words) == 0
    said = capsys.readouterr()
    assert f"/kit/model is {tmp_path}" in said.err
    assert said.out.startswith("STEP ")
    assert cli.run(["plan", "gpt2-tiny", *words[1:]]) == ExitCode.USAGE
