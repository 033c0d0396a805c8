"""How each release spells the steps of a recipe.

Every fact stands once, with the releases that it holds for. Options were read from the releases'
own parsers (`kit/data/cli.json`, which a test holds every line of every release against); what else
is relied on is said where it is used, with its source in NVIDIA/TensorRT-LLM.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from kit.data import releases
from kit.errors import usage_error
from kit.examples.words import Refusal, Script, Words, spelled

if TYPE_CHECKING:
    from kit.examples.recipe import Family, Recipe

FAMILY_NAMES: dict[Family, str] = {"gpt": "GPT", "llama": "LLaMA"}

MODEL = "/kit/model"
WORK = "/kit/work"
CHECKPOINT = f"{WORK}/checkpoint"
ENGINE = f"{WORK}/engine"
OUTPUT = f"{WORK}/output"
CACHE = f"{WORK}/cache"


@dataclass(frozen=True, slots=True)
class Command:
    """One step in a release's own words; `ranks` of 0 means that MPI does not start it."""

    name: str
    argv: tuple[str, ...]
    ranks: int
    produces: tuple[str, ...]


_DTYPES = ("float16", "bfloat16", "float32")
_FP8 = {"quantization": ("fp8",)}
_SMOOTHQUANT = {"quantization": ("smoothquant",)}
_INT8_CACHE = {"kv_cache_dtype": ("int8",)}
_FP8_CACHE = {"kv_cache_dtype": ("fp8",)}
_WEIGHTS = {"quantization": ("int8", "int4")}
_PER_TOKEN = {"per_token": (True,)}
_PER_CHANNEL = {"per_channel": (True,)}

_HF_GPT_CONVERT = (
    # examples/gpt/README.md of each release. The old converter writes `<out>/<tp>-gpu`.
    Words("python3 examples/gpt/hf_gpt_convert.py -i {model} -o {checkpoint}"),
    Words("--tensor-parallelism {tp} --storage-type {dtype}"),
    Words("--smoothquant {smoothquant_alpha}", when=_SMOOTHQUANT),
    Words("--calibrate-kv-cache", when=_INT8_CACHE),
)

_HF_LLAMA_CONVERT = (
    # Only what is calibrated goes this way; build.py reads everything else from the model itself.
    Words("python3 examples/llama/hf_llama_convert.py -i {model} -o {checkpoint}"),
    Words("--tensor-parallelism {tp}"),
    Words("--storage-type fp16", when={"dtype": ("float16",)}),
    Words("--storage-type fp32", when={"dtype": ("float32",)}),
    Words("--smoothquant {smoothquant_alpha}", when=_SMOOTHQUANT),
    Words("--calibrate-kv-cache", when=_INT8_CACHE),
)

# What convert_checkpoint.py of both families has in all of its releases.
_CONVERT_QUANTIZED = (
    Words("--use_weight_only --weight_only_precision {quantization}", when=_WEIGHTS),
    Words("--smoothquant {smoothquant_alpha}", when=_SMOOTHQUANT),
    Words("--per_token", when=_PER_TOKEN),
    Words("--per_channel", when=_PER_CHANNEL),
    Words("--int8_kv_cache", when=_INT8_CACHE),
)

_GPT_CONVERT = (
    Words("python3 examples/gpt/convert_checkpoint.py", before="0.19.0"),
    # 0.19.0 documents the new place of the families; 0.18.0 still has the old one.
    Words("python3 examples/models/core/gpt/convert_checkpoint.py", since="0.19.0"),
    Words("--model_dir {model} --dtype {dtype} --tp_size {tp} --pp_size {pp}"),
    # Left out, 0.9.0 looks for `gpt2` in the path of the model's folder.
    Words("--gpt_variant gpt2 --output_dir {checkpoint}"),
    *_CONVERT_QUANTIZED,
)

_LLAMA_CONVERT = (
    Words("python3 examples/llama/convert_checkpoint.py", before="0.19.0"),
    Words("python3 examples/models/core/llama/convert_checkpoint.py", since="0.19.0"),
    Words("--model_dir {model} --dtype {dtype} --tp_size {tp} --pp_size {pp}"),
    Words("--output_dir {checkpoint}"),
    *_CONVERT_QUANTIZED,
    # Not there from 0.9.0 to 0.11.0.
    Words("--fp8_kv_cache", before="0.9.0", when=_FP8_CACHE),
    Words("--fp8_kv_cache", since="0.12.0", when=_FP8_CACHE),
)

_QUANTIZE = (
    # In place of convert_checkpoint.py: it calibrates, and writes the same checkpoint.
    Words("python3 examples/quantization/quantize.py --model_dir {model} --dtype {dtype}"),
    Words("--qformat fp8", when=_FP8),
    Words("--kv_cache_dtype {kv_cache_dtype}", when={"kv_cache_dtype": ("int8", "fp8")}),
    Words("--tp_size {tp} --pp_size {pp} --output_dir {checkpoint}"),
)

_PACKED = {"packed_input": (None, True)}
_PACKED_SAID = {"packed_input": (True,)}
_PADDED = {"packed_input": (False,)}
_PAGED = {"paged_kv_cache": (True,)}
_CONTIGUOUS = {"paged_kv_cache": (False,)}
_FMHA = {"context_fmha": (True,)}
_NO_FMHA = {"context_fmha": (False,)}

_SHAPES = (
    Words("--max_batch_size {max_batch_size} --max_input_len {max_input_len}"),
    # New tokens became prompt and new tokens together: 0.11.0 takes both and deprecates the first.
    Words("--max_output_len {max_output_len}", before="0.11.0"),
    Words("--max_seq_len {max_seq_len}", since="0.11.0"),
    Words("--output_dir {engine}"),
    Words("--max_beam_width {max_beam_width}", unless={"max_beam_width": (None,)}),
)

# What build.py of both families has in all of its releases.
_BUILD_PLUGINS = (
    # Off by default before trtllm-build, on by default with it.
    Words("--use_gpt_attention_plugin {dtype}", when={"gpt_attention_plugin": (None,)}),
    Words(
        "--use_gpt_attention_plugin {gpt_attention_plugin}", when={"gpt_attention_plugin": _DTYPES}
    ),
    Words("", when={"gpt_attention_plugin": ("disable",)}),
    Words("--remove_input_padding", when=_PACKED),
    Words("", when=_PADDED),
)
_BUILD_OPTIONS = (
    Words("--use_gemm_plugin {gemm_plugin}", when={"gemm_plugin": _DTYPES}),
    Words("", when={"gemm_plugin": ("disable",)}),
    Words("--use_weight_only --weight_only_precision {quantization}", when=_WEIGHTS),
    Words("--use_smooth_quant", when=_SMOOTHQUANT),
    Words("--per_token", when=_PER_TOKEN),
    Words("--per_channel", when=_PER_CHANNEL),
    Words("--int8_kv_cache", when=_INT8_CACHE),
    Words("--fp8_kv_cache", when=_FP8_CACHE),
    Words("--paged_kv_cache", when=_PAGED),
    Words("", when=_CONTIGUOUS),
    Words("--enable_context_fmha", when=_FMHA),
    Words("", when=_NO_FMHA),
    # One process a rank, or one for all.
    Words("--parallel_build", unless={"workers": (None, 1)}),
    Words("--strongly_typed", when={"strongly_typed": (True,)}),
    Words("", when={"strongly_typed": (False,)}),
)
_TOGETHER = {"gather_logits": ("all",)}
_APART = {"gather_logits": ("context", "generation")}

_GPT_BUILD = (
    Words("python3 examples/gpt/build.py --model_dir {checkpoint}/{tp}-gpu"),
    Words("--dtype {dtype} --world_size {tp}"),
    *_BUILD_PLUGINS,
    *_SHAPES,
    *_BUILD_OPTIONS,
    Words("--gather_all_token_logits", when=_TOGETHER),
    Words("--gather_{gather_logits}_logits", since="0.8.0", when=_APART),
)

_LLAMA_BUILD = (
    Words("python3 examples/llama/build.py"),
    Words("--model_dir {model}", unless={**_SMOOTHQUANT, **_INT8_CACHE}),
    Words("--ft_model_dir {checkpoint}/{tp}-gpu", when=_SMOOTHQUANT),
    Words("--ft_model_dir {checkpoint}/{tp}-gpu", when=_INT8_CACHE, unless=_SMOOTHQUANT),
    Words("--dtype {dtype} --world_size {ranks} --tp_size {tp} --pp_size {pp}"),
    *_BUILD_PLUGINS,
    # 0.5.0 refuses bfloat16 without it.
    Words("--use_gemm_plugin {dtype}", when={"gemm_plugin": (None,)}),
    *_SHAPES,
    *_BUILD_OPTIONS,
    Words("--gather_all_token_logits", since="0.6.0", when=_TOGETHER),
)

_TRTLLM_BUILD = (
    Words("trtllm-build --checkpoint_dir {checkpoint}"),
    # The default is model.cache in the working folder, which is the image's and read-only.
    Words("--timing_cache {cache}/model.cache", before="0.9.0"),
    Words("--output_timing_cache {cache}/model.cache", since="0.9.0"),
    # The plugins' types are float16 by default before `auto` came with 0.11.0.
    Words("--gpt_attention_plugin {dtype}", when={"gpt_attention_plugin": (None,)}),
    Words(
        "--gpt_attention_plugin {gpt_attention_plugin}",
        when={"gpt_attention_plugin": (*_DTYPES, "disable")},
    ),
    Words("--gpt_attention_plugin auto", since="0.11.0", when={"gpt_attention_plugin": ("auto",)}),
    # What the documents of the family give; GPT's default is none.
    Words("--gemm_plugin {dtype}", when={"gemm_plugin": (None,), "family": ("llama",)}),
    Words("--gemm_plugin {gemm_plugin}", when={"gemm_plugin": (*_DTYPES, "disable")}),
    Words("--gemm_plugin auto", since="0.11.0", when={"gemm_plugin": ("auto",)}),
    Words("--nccl_plugin {dtype}", since="0.10.0", before="0.11.0"),
    # On by default while it was an option of the build: wants peer access, and may sum in another
    # order from run to run (TensorRT-LLM#1336).
    Words("--use_custom_all_reduce disable", before="0.12.0"),
    *_SHAPES,
    Words("--remove_input_padding enable", when=_PACKED_SAID),
    Words("--remove_input_padding disable", when=_PADDED),
    Words("--paged_kv_cache enable", before="0.13.0", when=_PAGED),
    Words("--paged_kv_cache disable", before="0.13.0", when=_CONTIGUOUS),
    Words("--kv_cache_type paged", since="0.13.0", when=_PAGED),
    Words("--kv_cache_type continuous", since="0.13.0", when=_CONTIGUOUS),
    Words("--context_fmha enable", when=_FMHA),
    Words("--context_fmha disable", when=_NO_FMHA),
    Words("--workers {workers}", unless={"workers": (None,)}),
    Words("--strongly_typed", before="0.11.0", when={"strongly_typed": (True,)}),
    Words("", before="0.11.0", when={"strongly_typed": (False,)}),
    Words("--gather_all_token_logits", when=_TOGETHER),
    Words("--gather_{gather_logits}_logits", when=_APART),
)

_GPT_RUN = (
    Words("python3 examples/gpt/run.py --tokenizer {model}", before="0.7.0"),
    Words("python3 examples/run.py --tokenizer_dir {model}", since="0.7.0"),
    # examples/gpt/run.py never adds special tokens; examples/run.py does unless told otherwise.
    Words("--no_add_special_tokens", since="0.7.0"),
)
_LLAMA_RUN = (
    Words("python3 examples/llama/run.py --tokenizer_dir {model}", before="0.7.0"),
    Words("python3 examples/run.py --tokenizer_dir {model}", since="0.7.0"),
)
_ASK = (
    Words("--engine_dir {engine} --max_output_len {run_output_len}"),
    # One row a prompt: its token ids, the new ones, then the end id up to the longest row. With it
    # run.py of all releases prints no text (its `print_output`), so the text is made from the ids.
    Words("--output_csv {tokens}"),
    Words("--end_id {end_id}", since="0.11.0", unless={"end_id": (None,)}),
)

_SCRIPTS: dict[Family, tuple[Script, ...]] = {
    "gpt": (
        Script("convert", _HF_GPT_CONVERT, before="0.9.0"),
        Script("convert", _GPT_CONVERT, since="0.9.0", unless=_FP8),
        Script("convert", _QUANTIZE, since="0.9.0", when=_FP8),
        Script("build", _GPT_BUILD, before="0.9.0"),
        Script("build", _TRTLLM_BUILD, since="0.9.0"),
        Script("run", (*_GPT_RUN, *_ASK)),
    ),
    "llama": (
        Script("convert", _HF_LLAMA_CONVERT, before="0.8.0", when=_SMOOTHQUANT),
        Script("convert", _HF_LLAMA_CONVERT, before="0.8.0", when=_INT8_CACHE, unless=_SMOOTHQUANT),
        Script("convert", _LLAMA_CONVERT, since="0.8.0", unless=_FP8),
        Script("convert", _QUANTIZE, since="0.8.0", when=_FP8),
        Script("build", _LLAMA_BUILD, before="0.8.0"),
        Script("build", _TRTLLM_BUILD, since="0.8.0"),
        Script("run", (*_LLAMA_RUN, *_ASK)),
    ),
}

_UNREAD = Refusal(
    "quantize.py, which makes fp8, was not read at release {release}: its options are not known",
    since="0.17.0",
    when=_FP8,
)
_ANOTHER_WAY = (
    "build.py of release {release} makes fp8 from scales that the kit has no step to measure"
)
_ALONE = "release {release} makes fp8 keys and values together with quantization: fp8 only"
_CALIBRATED = "hf_llama_convert.py of release {release}, which calibrates, "
_SPLITS = _CALIBRATED + "splits by tensor parallel ranks only, the example wants pp > 1"
_WRITES = _CALIBRATED + "writes float16 and float32 only"
_CANNOT: dict[Family, tuple[Refusal, ...]] = {
    "gpt": (
        _UNREAD,
        Refusal(_ANOTHER_WAY, before="0.9.0", when=_FP8),
        Refusal(_ALONE, since="0.9.0", when=_FP8_CACHE, unless=_FP8),
        Refusal(
            "release {release} has tensor parallel only for GPT, the example wants pp > 1",
            before="0.9.0",
            unless={"pp": (1,)},
        ),
        Refusal(
            "build.py of release {release} refuses fp8 keys and values without the attention "
            "plugin",
            before="0.9.0",
            when={**_FP8_CACHE, "gpt_attention_plugin": ("disable",)},
        ),
    ),
    "llama": (
        _UNREAD,
        Refusal(_ANOTHER_WAY, before="0.8.0", when=_FP8),
        Refusal(_ALONE, since="0.9.0", before="0.12.0", when=_FP8_CACHE, unless=_FP8),
        Refusal(
            "build.py of release {release} refuses to go without the attention plugin",
            before="0.6.0",
            when={"gpt_attention_plugin": ("disable",)},
        ),
        Refusal(
            "build.py of release {release} refuses bfloat16 without the GEMM plugin",
            before="0.6.0",
            when={"dtype": ("bfloat16",), "gemm_plugin": ("disable",)},
        ),
        Refusal(_SPLITS, before="0.8.0", when=_SMOOTHQUANT, unless={"pp": (1,)}),
        Refusal(_SPLITS, before="0.8.0", when=_INT8_CACHE, unless={"pp": (1,)}),
        Refusal(_WRITES, before="0.8.0", when={**_SMOOTHQUANT, "dtype": ("bfloat16",)}),
        Refusal(_WRITES, before="0.8.0", when={**_INT8_CACHE, "dtype": ("bfloat16",)}),
    ),
}
_END_ID = Refusal(
    "run.py of release {release} has no --end_id, which the example sets",
    before="0.11.0",
    unless={"end_id": (None,)},
)
_SEVERAL_PROMPTS = "0.7.0"
_PRODUCES = {"convert": CHECKPOINT, "build": ENGINE}
_EVERYWHERE = ("max_beam_width", "workers", "smoothquant_alpha")
"""Options that every release spells, the last one as part of another."""


def commands(recipe: Recipe, release: str) -> list[Command]:
    """The steps of a recipe as that release wants them.

    Raises:
        KitError: the release cannot; says why and names the nearest that can (exit 2).
    """
    release = releases.known(release)
    if (reason := refusal(recipe, release)) is not None:
        able = [name for name in recipe.releases if refusal(recipe, name) is None]
        near = releases.closest(release, able)
        raise usage_error(
            f"{reason}; nearest release that can: {near or 'none'}",
            hint=f"kit plan {recipe.argument or recipe.name} --release {near}"
            if near
            else "kit example list",
        )
    settings = _settings(recipe)
    ranks = recipe.world_size if recipe.world_size > 1 else 0
    found: list[Command] = []
    for script in _SCRIPTS[recipe.family]:
        if not script.hold(release, settings):
            continue
        if script.step != "run":
            argv = script.argv(release, settings)
            found.append(Command(script.step, argv, 0, (_PRODUCES[script.step],)))
            continue
        for name, tokens, prompts in questions(recipe, release):
            argv = script.argv(release, {**settings, "tokens": tokens})
            found.append(Command(name, (*argv, "--input_text", *prompts), ranks, (tokens,)))
    return found


def refusal(recipe: Recipe, release: str) -> str | None:
    """Why a known release cannot do what a recipe asks; None where it can."""
    if release not in recipe.releases:
        return f"example {recipe.name} is not meant for release {release}"
    settings = _settings(recipe)
    limits: tuple[Refusal, ...] = _CANNOT[recipe.family]
    if recipe.run.prompts:
        limits += (_END_ID,)
    for row in limits:
        if row.hold(release, settings):
            return row.reason.format(release=release)
    scripts = _SCRIPTS[recipe.family]
    for option, value in recipe.options.said().items():
        if option not in _EVERYWHERE and not spelled(scripts, option, release, settings):
            shown = str(value).lower() if isinstance(value, bool) else value
            return (
                f"the scripts of release {release} have no option for {option}: {shown} "
                f"with {FAMILY_NAMES[recipe.family]}"
            )
    return None


def questions(recipe: Recipe, release: str) -> list[tuple[str, str, tuple[str, ...]]]:
    """The run steps: name, file of token ids in the container, the prompts that it answers.

    `--input_text` takes one text before 0.7.0, so that every prompt is a step there.
    """
    prompts = recipe.run.prompts
    if not prompts:
        return []
    if len(prompts) == 1 or releases.between(release, _SEVERAL_PROMPTS, None):
        return [("run", f"{OUTPUT}/tokens.csv", prompts)]
    return [
        (f"run-{number}", f"{OUTPUT}/tokens-{number}.csv", (prompt,))
        for number, prompt in enumerate(prompts, start=1)
    ]


def _settings(recipe: Recipe) -> dict[str, Any]:
    """Everything that a row may ask for or fill in."""
    return {
        **asdict(recipe.options),
        "family": recipe.family,
        "model": MODEL,
        "checkpoint": CHECKPOINT,
        "engine": ENGINE,
        "cache": CACHE,
        "dtype": recipe.checkpoint.dtype,
        "tp": recipe.checkpoint.tp,
        "pp": recipe.checkpoint.pp,
        "ranks": recipe.world_size,
        "max_batch_size": recipe.build.max_batch_size,
        "max_input_len": recipe.build.max_input_len,
        "max_output_len": recipe.build.max_output_len,
        "max_seq_len": recipe.build.max_input_len + recipe.build.max_output_len,
        "run_output_len": recipe.run.max_output_len,
        "end_id": recipe.run.end_id,
    }
