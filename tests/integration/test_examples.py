"""Entries of the catalogue at toy size in real containers, and runs that go on with others."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import yaml

from kit.examples import recipe
from tests.integration.conftest import kit
from tests.integration.test_interruptions import _start, _wait_for
from tests.unit.examples.toys import ARTICLES, Toys

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def built(selected, home):
    done = kit("build", "rehearsal", "--quiet", env=selected | {"KIT_HOME": str(home)})
    assert done.returncode == 0, done.stderr
    return selected | {"KIT_HOME": str(home)}


@pytest.fixture(scope="module")
def toys(scratch, built):
    folder = scratch / f"toys-{built['KIT_ENGINE']}"
    folder.mkdir()
    return Toys(folder)


@pytest.fixture(scope="module")
def small(toys):
    """An entry of the catalogue as a file, as small as a CPU wants it; other keys may be given."""

    def make(name, **changes):
        document = yaml.safe_load((recipe.CATALOG / f"{name}.yaml").read_bytes())
        longest = 240 if "evaluate" in document else 48
        document["build"] |= {
            "max_batch_size": 8,
            "max_input_len": longest,
            "max_output_len": 12,
        }
        document.setdefault("run", {}).update({"max_output_len": 6})
        if not document["run"].get("prompts"):
            document["run"]["prompts"] = ["Alice was"]
        if "evaluate" in document:
            document["evaluate"]["summarize"] |= {"rouge1": 1, "output_len": 12}
        for section, values in changes.items():
            document[section] = document.get(section, {}) | values
        path = toys.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return make


def run(built, config, release, output, *more):
    """`kit run` of a file; the manifest."""
    arguments = ["--stack", "rehearsal", "--release", release, "--output", str(output)]
    done = kit("run", "--config", str(config), *arguments, "--json", *more, env=built)
    assert done.returncode == 0, done.stderr
    path = Path(json.loads(done.stdout)["manifest"])
    verified = kit("manifest", "verify", str(path), env=built)
    assert verified.returncode == 0, verified.stdout
    return json.loads(path.read_bytes())


def said(manifest):
    return [output["token_ids"] for output in manifest["outputs"]]


def executed(manifest):
    """The steps that this run has done itself."""
    return [c["name"] for c in manifest["commands"] if not c.get("reused_from")]


@pytest.mark.parametrize("release", ["0.5.0", "0.16.0"])
def test_four_ranks_in_two_stages_answer_as_one(built, toys, small, tmp_path, release):
    model = ("--model", str(toys.model("llama")))
    one = run(built, small("llama-2-7b-chat"), release, tmp_path, *model)
    four = run(built, small("llama-2-7b-chat-tp2-pp2"), release, tmp_path, *model)
    assert all(said(one))
    assert said(four) == said(one)
    assert [c["mpi_ranks"] for c in four["commands"] if c["name"].startswith("run")][-1] == 4


@pytest.mark.parametrize("release", ["0.5.0", "1.2.1"])
def test_summaries_are_measured_by_rouge(built, toys, small, tmp_path, release):
    given = ("--model", str(toys.model("gpt2")), "--dataset", str(ARTICLES))
    manifest = run(built, small("gpt2-summarize"), release, tmp_path, *given)
    figures = {(e["subject"], e["metric"]): e for e in manifest["evaluations"]}
    ours = figures["TensorRT-LLM beam 0", "rouge1"]
    assert ours["least"] == 1
    assert ours["value"] == figures["HF beam 0", "rouge1"]["value"]
    assert [file["path"].rpartition("/")[2] for file in manifest["dataset"]["files"]].count(
        "test.jsonl"
    ) == 1


def test_too_little_rouge_ends_with_4_and_both_numbers(built, toys, small, tmp_path):
    evaluate = {"summarize": {"rouge1": 99, "output_len": 12, "batch_size": 1}}
    config = small("gpt2-summarize", evaluate=evaluate)
    arguments = ("--stack", "rehearsal", "--release", "0.9.0", "--output", str(tmp_path))
    given = ("--model", str(toys.model("gpt2")), "--dataset", str(ARTICLES))
    done = kit("run", "--config", str(config), *arguments, *given, env=built)
    assert done.returncode == 4
    assert ", expected 99 or more" in done.stderr
    assert "ROUGE-1 of TensorRT-LLM beam 0 is " in done.stderr


def test_the_python_api_gives_on_two_ranks_what_the_commands_give(built, toys, small, tmp_path):
    model = ("--model", str(toys.model("gpt2")))
    asked = {"tp": 2, "quantization": "smoothquant", "smoothquant_alpha": 0.5}
    ours = run(built, small("gpt2-medium-python", checkpoint=asked), "1.2.1", tmp_path, *model)
    theirs = run(built, small("gpt2-medium", checkpoint=asked), "1.2.1", tmp_path, *model)
    assert executed(ours) == ["python", "run"]
    assert [command["mpi_ranks"] for command in ours["commands"]] == [2, 2]
    assert said(ours) == said(theirs)
    assert "cache/build_engine.py" in [file["path"] for file in ours["commands"][0]["given"]]


def test_what_was_killed_is_gone_on_with(built, tmp_path):
    arguments = ("run", "gpt2-tiny-tp2", "--stack", "rehearsal", "--release", "0.12.0")
    arguments += ("--output", str(tmp_path), "--no-reuse")
    process = _start(*arguments, env=built)
    _wait_for(process, "[build] step 2 of 3")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert not list(tmp_path.rglob("manifest.json"))
    done = kit(*arguments, "--resume", "--json", env=built)
    assert done.returncode == 0, done.stderr
    path = Path(json.loads(done.stdout)["manifest"])
    assert executed(json.loads(path.read_bytes())) == ["build", "run"]
    assert kit("manifest", "verify", str(path), env=built).returncode == 0
    left = [item.name for item in path.parent.parent.iterdir() if item.is_dir()]
    assert left == [path.parent.name]
    whole = kit(*arguments, "--json", env=built)
    other = json.loads(whole.stdout)["manifest"]
    compared = kit("manifest", "diff", str(path), other, env=built)
    assert compared.returncode == 0, compared.stdout


def test_single_steps_and_a_known_checkpoint(built, tmp_path):
    arguments = ("--stack", "rehearsal", "--release", "0.11.0", "--output", str(tmp_path))

    def steps(*more):
        done = kit("run", "gpt2-tiny", *arguments, "--json", *more, env=built)
        assert done.returncode == 0, done.stderr
        path = Path(json.loads(done.stdout)["manifest"])
        assert kit("manifest", "verify", str(path), env=built).returncode == 0
        return json.loads(path.read_bytes())

    assert executed(steps("--only", "convert")) == ["convert"]
    assert executed(steps("--only", "build,run")) == ["build", "run"]
    assert executed(steps()) == ["build", "run"]
    assert executed(steps("--no-reuse")) == ["convert", "build", "run"]
    shutil.rmtree(tmp_path / "gpt2-tiny")
    assert executed(steps()) == ["convert", "build", "run"]
