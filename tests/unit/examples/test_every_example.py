"""Every entry of the catalogue at toy size, through the reference backend, with every release.

The steps are those of the plan, word for word up to the folders; each is parsed as strictly as the
release does it.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from kit.artifacts import engine as engines
from kit.data import releases
from kit.errors import ExitCode, KitError
from kit.examples import dialect, evaluation, layout, recipe, results
from kit.examples.plan import plan
from tests.unit.examples.toys import NEW, Ended, Toys, execute

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kit.examples.recipe import Recipe
    from kit.manifests.record import Evaluation, Output

RELEASES = releases.versions()
NAMES = recipe.names()

# Where a release cannot, and why; everything else runs.
REFUSED = [
    ("gpt2-embedding-sharing", releases.select(">=0.15.0"), "no option for (share_emb|lookup_pl)"),
    (
        "gpt2-embedding-vocabulary-lookup",
        releases.select(">=0.15.0"),
        "no option for lookup_plugin",
    ),
    ("llama-2-7b-chat-python", releases.select("<0.9.0"), "no Python API that converts and builds"),
    ("gpt2-medium-python", releases.select("<0.9.0"), "no Python API that converts and builds"),
    ("gpt2-medium-python", releases.select(">=0.9.0,<0.12.0"), "converts no GPT"),
    ("llama-2-7b-chat-triton", ["0.6.0", "0.6.1", "0.18.1"], "no Triton container"),
]
REASONS = {(name, release): reason for name, them, reason in REFUSED for release in them}
ALL = [(name, release) for name in NAMES for release in RELEASES]
ABLE = [pair for pair in ALL if pair not in REASONS]


@dataclass
class Bench:
    """Toy models, and what has been run with them."""

    toys: Toys
    converted: dict[str, object] = field(default_factory=dict)
    ended: dict[tuple[str, str], Ended] = field(default_factory=dict)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def run(self, example: Recipe, release: str) -> Ended:
        """The steps of an example, once."""
        key = str(example.digest), release
        if key not in self.ended:
            work = self.toys.folder / "work" / str(next(self.numbers))
            self.ended[key] = execute(plan(example, release), example, work, self.converted)
        return self.ended[key]

    def answers(self, example: Recipe, release: str) -> list[tuple[int, ...]]:
        """The new tokens of every prompt; whole rows where the kit cannot read the tokenizer."""
        found = self.outputs(example, release)
        return [output.token_ids for output in found]

    def outputs(self, example: Recipe, release: str) -> tuple[Output, ...]:
        ended = self.run(example, release)
        work = ended.places[layout.OUTPUT].parent
        return results.outputs(example, release, work, example.source.directory, set(ended.logs))

    def figures(self, example: Recipe, release: str) -> tuple[Evaluation, ...]:
        log = self.run(example, release).logs["summarize"].splitlines()
        return evaluation.read("summarize", log, example.evaluate)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(Toys(tmp_path_factory.mktemp("toys")))


@pytest.mark.parametrize(("name", "release"), REASONS)
def test_what_a_release_cannot_is_refused_with_the_reason(
    bench: Bench, name: str, release: str
) -> None:
    with pytest.raises(KitError, match=REASONS[name, release]) as caught:
        plan(bench.toys.of(recipe.find(name)), release)
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize(("name", "release"), ABLE)
def test_everything_else_runs_to_the_end(bench: Bench, name: str, release: str) -> None:
    example = bench.toys.of(recipe.find(name))
    ended = bench.run(example, release)
    assert list(ended.places[layout.ENGINE].glob("*.engine"))
    found = bench.outputs(example, release)
    assert [output.prompt for output in found if output.text is not None] == (
        list(example.run.prompts) if example.source.directory is not None else []
    )
    assert all(output.token_ids for output in found)
    assert all(len(output.token_ids) <= NEW for output in found if output.text is not None)
    if example.evaluate is not None:
        figures = bench.figures(example, release)
        assert evaluation.problem(figures, example.evaluate, ended_well=True) is None
        assert {item.metric for item in figures} >= {"rouge1", "rouge2", "rougeL"}


SPLIT = [
    name
    for name in NAMES
    if recipe.find(name).world_size > 1 and recipe.find(name).source.dummy is None
]


@pytest.mark.parametrize(("name", "release"), [pair for pair in ABLE if pair[0] in SPLIT])
def test_what_is_split_answers_as_one_rank_does(bench: Bench, name: str, release: str) -> None:
    example = bench.toys.of(recipe.find(name))
    alone = dataclasses.replace(
        example,
        checkpoint=dataclasses.replace(example.checkpoint, tp=1, pp=1),
        options=dataclasses.replace(
            example.options, parallel_embedding=None, share_embedding=None, lookup_plugin=None
        ),
    )
    assert bench.answers(example, release) == bench.answers(alone, release)
    if example.evaluate is not None:
        assert bench.figures(example, release) == bench.figures(alone, release)


@pytest.mark.parametrize("name", [name for name in NAMES if recipe.find(name).source.dummy is None])
def test_all_releases_answer_alike(bench: Bench, name: str) -> None:
    example = bench.toys.of(recipe.find(name))
    able = [release for one, release in ABLE if one == name]
    said = {tuple(bench.answers(example, release)) for release in able}
    assert len(said) == 1, said
    if example.evaluate is not None:
        assert len({bench.figures(example, release) for release in able}) == 1


# The workflow through the Python API, and the same wishes through the commands.
PYTHON: dict[str, tuple[str, dict[str, object]]] = {
    "gpt2": ("gpt2-medium", {}),
    "gpt2-int8": ("gpt2-medium", {"quantization": "int8"}),
    "gpt2-smoothquant": ("gpt2-smoothquant-per-token", {}),
    "gpt2-int8-cache": ("gpt2-int8-kv-cache", {}),
    "gpt2-fp8": ("gpt2-medium", {"quantization": "fp8", "kv_cache_dtype": "fp8"}),
    "santacoder": ("santacoder-tp4", {"workers": None, "processes": None}),
    "gpt-next": ("gpt-next-2b", {}),
    "llama": ("llama-2-7b-chat-tp2-pp2", {}),
    "llama-smoothquant": ("llama-2-7b-chat", {"quantization": "smoothquant", "smoothquant_alpha": 0.5}),
    "llama-awq": ("llama-2-7b-chat", {"quantization": "int4_awq", "kv_cache_dtype": "int8"}),
}  # fmt: skip
PYTHON_RELEASES = ["0.9.0", "0.11.0", "0.12.0", "0.13.0", "0.15.0", "1.2.1"]


@pytest.mark.parametrize("release", PYTHON_RELEASES)
@pytest.mark.parametrize("case", PYTHON)
def test_the_python_api_makes_what_the_commands_make(bench: Bench, case: str, release: str) -> None:
    name, asked = PYTHON[case]
    plain = bench.toys.of(recipe.find(name))
    tp = max(plain.checkpoint.tp, 1 if case == "gpt-next" else 2)
    commands = dataclasses.replace(
        plain,
        checkpoint=dataclasses.replace(plain.checkpoint, dtype="float16", tp=tp),
        options=dataclasses.replace(plain.options, **asked),
    )
    script = dataclasses.replace(commands, workflow="python")
    if dialect.refusal(script, release) is not None:
        assert (case, release) in NO_PYTHON
        return
    assert (case, release) not in NO_PYTHON
    one, two = bench.run(script, release), bench.run(commands, release)
    assert one.tokens() == two.tokens()
    for place in (layout.CHECKPOINT, layout.ENGINE):
        made, expected = _contents(one.places[place]), _contents(two.places[place])
        assert sorted(made) == sorted(expected)
        assert {name for name in made if made[name] != expected[name]} <= {"config.json"}
    # What the engine was asked for is said alike, but for the timing cache that a command names.
    said, wanted = (
        json.loads((ended.places[layout.ENGINE] / "config.json").read_bytes())
        for ended in (one, two)
    )
    for config in (said, wanted):
        config["build_config"].pop("output_timing_cache")
    assert said == wanted


NO_PYTHON = {
    *((case, release) for case in PYTHON for release in ("0.9.0", "0.11.0")
      if not case.startswith("llama")),
    ("gpt2-smoothquant", "0.12.0"), ("gpt2-int8-cache", "0.12.0"), ("llama-smoothquant", "0.12.0"),
    ("gpt2-fp8", "0.12.0"), ("gpt2-fp8", "0.13.0"),
}  # fmt: skip


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


# What a release's own configuration says of a quantized engine; old ones: the kind of the weights.
ALGORITHMS = {
    "gpt2-smoothquant": ("W8A8_SQ_PER_TENSOR_PLUGIN", None),
    "gpt2-smoothquant-per-token": ("W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN", None),
    "gpt2-int8-kv-cache": (None, "INT8"),
    "gpt2-int8-kv-cache-no-plugin": (None, "INT8"),
}


def test_the_table_of_algorithms_has_all_that_are_quantized() -> None:
    asked = [
        example.name
        for example in recipe.catalog()
        if example.options.quantization or example.options.kv_cache_dtype
    ]
    assert asked == sorted(ALGORITHMS)


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_quantized_engines_say_so(bench: Bench, name: str, release: str) -> None:
    example = bench.toys.of(recipe.find(name))
    folder = bench.run(example, release).places[layout.ENGINE]
    config = json.loads((folder / "config.json").read_bytes())
    if "builder_config" in config:
        assert config["builder_config"]["int8"] is True
    else:
        said = config["pretrained_config"]["quantization"]
        assert (said["quant_algo"], said["kv_cache_quant_algo"]) == ALGORITHMS[name]
    # Not only said: the bytes of the engine are others than those of the same without.
    plain = dataclasses.replace(
        example,
        options=dataclasses.replace(
            example.options, quantization=None, smoothquant_alpha=None, per_token=None,
            per_channel=None, kv_cache_dtype=None,
        ),
    )  # fmt: skip
    other = bench.run(plain, release).places[layout.ENGINE]
    (one,), (two,) = folder.glob("*.engine"), other.glob("*.engine")
    assert one.read_bytes() != two.read_bytes()


@pytest.mark.parametrize("release", RELEASES)
def test_engines_are_read_by_the_kit_as_what_they_are(bench: Bench, release: str) -> None:
    for name in NAMES:
        if (name, release) in ABLE:
            example = bench.toys.of(recipe.find(name))
            found = engines.look(bench.run(example, release).places[layout.ENGINE])
            assert not found.problems, (name, found.problems)
            assert len(found.ranks) == example.world_size


# What the catalogue leaves out: every quantization, of both families, where releases differ.
BORDERS = ["0.5.0", "0.6.1", "0.7.1", "0.8.0", "0.9.0", "0.11.0", "0.12.0", "0.16.0", "1.2.1"]
QUANTIZATIONS: list[dict[str, object]] = [
    *({"quantization": kind} for kind in ("int8", "int4", "int4_awq", "fp8")),
    {"quantization": "smoothquant", "smoothquant_alpha": 0.5},
    {"quantization": "smoothquant", "smoothquant_alpha": 0.5, "per_token": True, "per_channel": True},
    *({"kv_cache_dtype": kind} for kind in ("int8", "fp8")),
    {"quantization": "int8", "kv_cache_dtype": "int8"},
    {"quantization": "fp8", "kv_cache_dtype": "fp8"},
]  # fmt: skip


@pytest.mark.parametrize("release", BORDERS)
@pytest.mark.parametrize(
    "asked", QUANTIZATIONS, ids=lambda asked: "-".join(map(str, asked.values()))
)
@pytest.mark.parametrize("name", ["gpt2-medium", "llama-2-7b-chat"])
def test_every_quantization_is_refused_or_runs_on_one_and_two_ranks(
    bench: Bench, name: str, asked: dict[str, object], release: str
) -> None:
    plain = bench.toys.of(recipe.find(name))
    dtype = dataclasses.replace(plain.checkpoint, dtype="float16")
    example = dataclasses.replace(
        plain, checkpoint=dtype, options=dataclasses.replace(plain.options, **asked)
    )
    if dialect.refusal(example, release) is not None:
        with pytest.raises(KitError, match="nearest release that can"):
            plan(example, release)
        return
    both = dataclasses.replace(example, checkpoint=dataclasses.replace(dtype, tp=2))
    uncomputed = _uncomputed(example, release)
    for one in (example, both):
        if uncomputed:
            with pytest.raises(AssertionError, match=uncomputed):
                bench.run(one, release)
        else:
            assert all(bench.answers(one, release))


def _uncomputed(example: Recipe, release: str) -> str | None:
    """What the reference backend says that it does not compute, of what the catalogue has not."""
    asked = example.options
    old = release in releases.select("<0.9.0" if example.family == "gpt" else "<0.8.0")
    if old and asked.kv_cache_dtype == "fp8":
        return "does not compute an FP8 cache"
    if example.family == "gpt" and asked.quantization == "int4_awq":
        return "inputs are no multiple of the group size 128"  # of gpt2-tiny, not of the backend
    return None
