"""How each release spells the steps of a recipe.

Every fact stands once, with the releases that it holds for. Options were read from the releases'
own parsers (`kit/data/cli.json`, which a test holds every line of every release against); what else
is relied on is said where it is used, with its source in NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.data import releases
from kit.errors import usage_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.examples.recipe import Recipe

MODEL = "/kit/model"
WORK = "/kit/work"
CHECKPOINT = f"{WORK}/checkpoint"
ENGINE = f"{WORK}/engine"
OUTPUT = f"{WORK}/output"
CACHE = f"{WORK}/cache"


@dataclass(frozen=True, slots=True)
class Words:
    """Words of a command line for the releases from `since` on and older than `before`."""

    text: str
    since: str | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """One step in a release's own words; `ranks` of 0 means that MPI does not start it."""

    name: str
    argv: tuple[str, ...]
    ranks: int
    produces: tuple[str, ...]


_CONVERT = (
    # examples/gpt/README.md of each release. The old converter writes `<out>/<tp>-gpu`.
    Words("python3 examples/gpt/hf_gpt_convert.py -i {model} -o {checkpoint}", before="0.9.0"),
    Words("--tensor-parallelism {tp} --storage-type {dtype}", before="0.9.0"),
    Words("python3 examples/gpt/convert_checkpoint.py", since="0.9.0", before="0.19.0"),
    # 0.19.0 documents the new place of the families; 0.18.0 still has the old one.
    Words("python3 examples/models/core/gpt/convert_checkpoint.py", since="0.19.0"),
    Words("--model_dir {model} --dtype {dtype} --tp_size {tp} --pp_size {pp}", since="0.9.0"),
    # Left out, 0.9.0 looks for `gpt2` in the path of the model's folder.
    Words("--gpt_variant gpt2 --output_dir {checkpoint}", since="0.9.0"),
)

_BUILD = (
    Words("python3 examples/gpt/build.py --model_dir {checkpoint}/{tp}-gpu", before="0.9.0"),
    Words("--dtype {dtype} --world_size {tp}", before="0.9.0"),
    # Off by default before trtllm-build, on by default with it.
    Words("--use_gpt_attention_plugin {dtype} --remove_input_padding", before="0.9.0"),
    Words("trtllm-build --checkpoint_dir {checkpoint}", since="0.9.0"),
    # The default is model.cache in the working folder, which is the image's and read-only.
    Words("--output_timing_cache {cache}/model.cache", since="0.9.0"),
    # The plugins' types are float16 by default before `auto` came with 0.11.0.
    Words("--gpt_attention_plugin {dtype}", since="0.9.0"),
    Words("--nccl_plugin {dtype}", since="0.10.0", before="0.11.0"),
    # On by default while it was an option of the build: wants peer access, and may sum in another
    # order from run to run (TensorRT-LLM#1336).
    Words("--use_custom_all_reduce disable", since="0.9.0", before="0.12.0"),
    Words("--max_batch_size {max_batch_size} --max_input_len {max_input_len}"),
    # New tokens became prompt and new tokens together: 0.11.0 takes both and deprecates the first.
    Words("--max_output_len {max_output_len}", before="0.11.0"),
    Words("--max_seq_len {max_seq_len}", since="0.11.0"),
    Words("--output_dir {engine}"),
)

_RUN = (
    Words("python3 examples/gpt/run.py --tokenizer {model}", before="0.7.0"),
    Words("python3 examples/run.py --tokenizer_dir {model}", since="0.7.0"),
    # examples/gpt/run.py never adds special tokens; examples/run.py does unless told otherwise.
    Words("--no_add_special_tokens", since="0.7.0"),
    Words("--engine_dir {engine} --max_output_len {run_output_len}"),
    # One row a prompt: its token ids, the new ones, then the end id up to the longest row. With it
    # run.py of all releases prints no text (its `print_output`), so the text is made from the ids.
    Words("--output_csv {tokens}"),
)
_END_ID = "0.11.0"
_SEVERAL_PROMPTS = "0.7.0"
_PIPELINE_PARALLEL = "0.9.0"


def commands(recipe: Recipe, release: str) -> list[Command]:
    """The steps of a recipe as that release wants them.

    Raises:
        KitError: the release cannot; says why and names the nearest that can (exit 2).
    """
    release = releases.known(release)
    _refuse(recipe, release)
    values: dict[str, str | int] = {
        "model": MODEL,
        "checkpoint": CHECKPOINT,
        "engine": ENGINE,
        "cache": CACHE,
        "dtype": recipe.checkpoint.dtype,
        "tp": recipe.checkpoint.tp,
        "pp": recipe.checkpoint.pp,
        "max_batch_size": recipe.build.max_batch_size,
        "max_input_len": recipe.build.max_input_len,
        "max_output_len": recipe.build.max_output_len,
        "max_seq_len": recipe.build.max_input_len + recipe.build.max_output_len,
        "run_output_len": recipe.run.max_output_len,
    }
    found = [
        Command("convert", _words(_CONVERT, release, values), 0, (CHECKPOINT,)),
        Command("build", _words(_BUILD, release, values), 0, (ENGINE,)),
    ]
    ranks = recipe.world_size if recipe.world_size > 1 else 0
    for name, tokens, prompts in questions(recipe, release):
        argv = _words(_RUN, release, {**values, "tokens": tokens})
        if recipe.run.end_id is not None:
            argv += ("--end_id", str(recipe.run.end_id))
        found.append(Command(name, (*argv, "--input_text", *prompts), ranks, (tokens,)))
    return found


def questions(recipe: Recipe, release: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """The run steps: name, file of token ids in the container, the prompts that it answers.

    `--input_text` takes one text before 0.7.0, so that every prompt is a step there.
    """
    prompts = recipe.run.prompts
    if len(prompts) == 1 or releases.between(release, _SEVERAL_PROMPTS, None):
        return [("run", f"{OUTPUT}/tokens.csv", prompts)]
    return [
        (f"run-{number}", f"{OUTPUT}/tokens-{number}.csv", (prompt,))
        for number, prompt in enumerate(prompts, start=1)
    ]


def _refuse(recipe: Recipe, release: str) -> None:
    able = list(recipe.releases)
    reason = f"example {recipe.name} is not meant for release {release}"
    if release in able and recipe.checkpoint.pp > 1:
        able = [name for name in able if releases.between(name, _PIPELINE_PARALLEL, None)]
        reason = f"release {release} has tensor parallel only for GPT, the example wants pp > 1"
    if release in able and recipe.run.end_id is not None:
        able = [name for name in able if releases.between(name, _END_ID, None)]
        reason = f"run.py of release {release} has no --end_id, which the example sets"
    if release not in able:
        near = releases.closest(release, able)
        raise usage_error(
            f"{reason}; nearest release that can: {near or 'none'}",
            hint=f"kit plan {recipe.name} --release {near}" if near else "kit example list",
        )


def _words(
    spelling: tuple[Words, ...], release: str, values: dict[str, str | int]
) -> tuple[str, ...]:
    return tuple(_chosen(spelling, release, values))


def _chosen(
    spelling: tuple[Words, ...], release: str, values: dict[str, str | int]
) -> Iterator[str]:
    for words in spelling:
        if releases.between(release, words.since, words.before):
            yield from (word.format(**values) for word in words.text.split())
