"""The workflow through the Python API of TensorRT-LLM: one script that converts and builds.

What the script says stands in the kit's table (`python_api` of cli.json) with its sources, and a
test holds every script of every release against it. What calibrates goes through `quantize`, which
takes the GPUs of all ranks itself, so that rank 0 alone calls it; weights alone are quantized by
every rank for itself. More facts of NVIDIA/TensorRT-LLM that the script rests on:

* `save_checkpoint`, and `quantize` until 0.12.0, write into a folder that is there
  (tensorrt_llm/models/modeling_utils.py, models/llama/convert.py of 0.9.0 to 0.11.0).
* GPT wants to be told its variant: the path `/kit/model` does not name it, the model's type does
  since 0.15.0 (tensorrt_llm/models/gpt/config.py). `quantize` does not hand what it is told on to
  the tool that does FP8 and AWQ (models/gpt/model.py of main in October 2024 and of 1.2.1).
* A NeMo archive is unpacked, and its tokenizer laid beside the checkpoint, by what
  examples/gpt/convert_checkpoint.py uses for it, whose embedding is cut along the vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit import data
from kit.data import releases
from kit.examples import layout
from kit.examples.dialects import settings

if TYPE_CHECKING:
    from kit.examples.recipe import Family, Recipe

PLACE = f"{layout.CACHE}/build_engine.py"
"""Where the script lies in the container."""

_UNPACKED = f"{layout.CACHE}/nemo"
_FIRST = "0.9.0"
_FIRST_OF_GPT = "0.12.0"
_TYPE_NAMES_VARIANT = "0.15.0"
_CLASSES: dict[Family, str] = {"gpt": "GPTForCausalLM", "llama": "LLaMAForCausalLM"}

_ALGORITHMS = {"int8": "W8A16", "int4": "W4A16", "int4_awq": "W4A16_AWQ", "fp8": "FP8"}
_WEIGHTS_ALONE = ("int8", "int4")
_OF_THE_TOOL = ("int4_awq", "fp8")
_SPOKEN = frozenset(
    {
        *("quantization", "smoothquant_alpha", "per_token", "per_channel", "kv_cache_dtype"),
        *("max_beam_width", "max_num_tokens", "prompt_table_size", "gather_logits"),
        *("gpt_attention_plugin", "gemm_plugin", "packed_input", "in_flight_batching"),
        *("context_fmha",),
    }
)
"""The options that the script has words for."""


def refusal(recipe: Recipe, release: str) -> str | None:
    """Why the script cannot be written for that release; None where it can."""
    if not releases.between(release, _FIRST, None):
        return f"release {release} has no Python API that converts and builds"
    if recipe.family == "gpt" and not releases.between(release, _FIRST_OF_GPT, None):
        return f"the Python API of release {release} converts no GPT"
    if recipe.source.dummy is not None:
        return f"the script for release {release} loads weights, the example has dummy ones"
    for name in recipe.options.said():
        if name not in _SPOKEN:
            return f"the script for release {release} has no words for {name}"
    for name in ("gpt_attention_plugin", "gemm_plugin"):
        if getattr(recipe.options, name) == "auto" and releases.between(release, None, "0.11.0"):
            return f"the Python API of release {release} has no {name}: auto"
    if recipe.source.nemo is not None and recipe.checkpoint.pp > 1:
        return f"the Python API of release {release} reads NeMo archives for pp: 1 only"
    return _unquantized(recipe, release)


def _unquantized(recipe: Recipe, release: str) -> str | None:
    """Why that release cannot quantize as the recipe wants it."""
    asked = recipe.options
    if asked.quantization is None and asked.kv_cache_dtype is None:
        return None
    if recipe.source.nemo is not None:
        return f"the Python API of release {release} quantizes Hugging Face models only"
    if asked.quantization in _OF_THE_TOOL:
        if recipe.family != "gpt":
            return None
        if recipe.variant == "gpt2" and releases.between(release, _TYPE_NAMES_VARIANT, None):
            return None
        return (
            f"quantize of release {release} cannot be told the GPT variant {recipe.variant} for "
            f"{asked.quantization}"
        )
    if _calibrates(recipe) and data.calibrating_rank(release) is None:
        return (
            f"quantize of release {release} wants a mapping of rank 0 or -1: which of them is not "
            "known"
        )
    return None


def script(recipe: Recipe, release: str) -> str:
    """The text of the script, the same for every rank."""
    body = [*_header(recipe), "", *_model(recipe, release), "", *_build(recipe, release)]
    return "\n".join(body) + "\n"


def _header(recipe: Recipe) -> list[str]:
    quantized = recipe.options.quantization or recipe.options.kv_cache_dtype
    is_nemo = recipe.source.nemo is not None
    lines = [
        '"""Converts a model and builds an engine; every rank of MPI does its part."""',
        "",
        "import importlib.util",
        "import os",
        *(["import shutil", "from pathlib import Path"] if is_nemo else []),
        "",
        "from tensorrt_llm import BuildConfig, Mapping, build",
        "from tensorrt_llm._utils import mpi_barrier, mpi_rank",
        f"from tensorrt_llm.models import {_CLASSES[recipe.family]}",
    ]
    if is_nemo:
        names = ["UnpackedNemoCheckpointDir", "copy_tokenizer_files"]
        names += ["unpack_nemo_ckpt", "update_tokenizer_paths"]
        lines += ["from tensorrt_llm.models.gpt.convert import ("]
        lines += [*(f"    {name}," for name in names), ")"]
    if quantized:
        lines += [
            "from tensorrt_llm.models.modeling_utils import QuantConfig",
            "from tensorrt_llm.quantization import QuantAlgo",
        ]
    return [
        *lines,
        "",
        "rank = mpi_rank()",
        'if importlib.util.find_spec("torch"):  # one GPU a rank',
        "    import torch",
        "",
        "    if torch.cuda.is_available():",
        "        torch.cuda.set_device(rank % torch.cuda.device_count())",
    ]


def _calibrates(recipe: Recipe) -> bool:
    asked = recipe.options
    return asked.quantization not in (None, *_WEIGHTS_ALONE) or asked.kv_cache_dtype is not None


def _model(recipe: Recipe, release: str) -> list[str]:
    split = recipe.checkpoint
    size = f"world_size={recipe.world_size}, tp_size={split.tp}, pp_size={split.pp}"
    first = [f"os.makedirs({layout.CHECKPOINT!r}, exist_ok=True)"]
    if recipe.source.nemo is not None:
        return [*first, *_from_nemo(recipe, size)]
    if _calibrates(recipe):
        return [*first, *_quantized(recipe, release, size)]
    lines = [*first, f"mapping = Mapping({size}, rank=rank)"]
    words = [repr(layout.MODEL), repr(split.dtype), "mapping=mapping"]
    if recipe.options.quantization is not None:
        lines.append(f"quant_config = QuantConfig({_quantization(recipe)})")
        is_old = releases.between(release, None, "0.11.0")
        words.append(f"{'quantization' if is_old else 'quant_config'}=quant_config")
    words += _variant(recipe)
    return [
        *lines,
        f"model = {_CLASSES[recipe.family]}.from_hugging_face(",
        f"    {', '.join(words)}",
        ")",
        f"model.save_checkpoint({layout.CHECKPOINT!r}, save_config=rank == 0)",
        "mpi_barrier()",
    ]


def _quantized(recipe: Recipe, release: str, size: str) -> list[str]:
    kind, rank = _CLASSES[recipe.family], data.calibrating_rank(release)
    size += f", rank={rank}" if rank else ""
    words = [repr(layout.MODEL), repr(layout.CHECKPOINT), "quant_config=quant_config"]
    words += [f"dtype={recipe.checkpoint.dtype!r}", f"mapping=Mapping({size})"]
    if recipe.options.quantization not in _OF_THE_TOOL:
        words += _variant(recipe)
    return [
        "if rank == 0:  # quantize takes the GPUs of all ranks",
        f"    quant_config = QuantConfig({_quantization(recipe)})",
        f"    {kind}.quantize(",
        *(f"        {word}," for word in words),
        "    )",
        "mpi_barrier()",
        f"model = {kind}.from_checkpoint({layout.CHECKPOINT!r}, rank=rank)",
    ]


def _from_nemo(recipe: Recipe, size: str) -> list[str]:
    archive = settings.of(recipe)["nemo"]
    return [
        "if rank == 0:",
        f"    unpack_nemo_ckpt({archive!r}, {_UNPACKED!r})",
        "mpi_barrier()",
        f"mapping = Mapping({size}, rank=rank)",
        "model = GPTForCausalLM.from_nemo(",
        f"    {_UNPACKED!r},",
        f"    dtype={recipe.checkpoint.dtype!r},",
        "    mapping=mapping,",
        "    use_parallel_embedding=True,",
        "    embedding_sharding_dim=0,",
        ")",
        f"model.save_checkpoint({layout.CHECKPOINT!r}, save_config=rank == 0)",
        "mpi_barrier()",
        "if rank == 0:",
        f"    unpacked = UnpackedNemoCheckpointDir({_UNPACKED!r})",
        "    tokenizer = update_tokenizer_paths(",
        '        unpacked.model_config["tokenizer"], unpacked.get_all_tokenizer_file_paths()',
        "    )",
        f"    copy_tokenizer_files(tokenizer, Path({layout.CHECKPOINT!r}))",
        f"    shutil.rmtree({_UNPACKED!r})",
    ]


def _variant(recipe: Recipe) -> list[str]:
    return [f"gpt_variant={recipe.variant!r}"] if recipe.family == "gpt" else []


def _quantization(recipe: Recipe) -> str:
    asked = recipe.options
    words = []
    if asked.quantization == "smoothquant":
        words.append(f"quant_algo=QuantAlgo.{settings.of(recipe)['smooth_algorithm']}")
        words.append(f"smoothquant_val={asked.smoothquant_alpha}")
    elif asked.quantization is not None:
        words.append(f"quant_algo=QuantAlgo.{_ALGORITHMS[asked.quantization]}")
    if asked.kv_cache_dtype is not None:
        words.append(f"kv_cache_quant_algo=QuantAlgo.{asked.kv_cache_dtype.upper()}")
    return ", ".join(words)


def _build(recipe: Recipe, release: str) -> list[str]:
    build, asked = recipe.build, recipe.options
    values: dict[str, Any] = {
        "max_batch_size": build.max_batch_size,
        "max_input_len": build.max_input_len,
    }
    if releases.between(release, None, "0.11.0"):
        values["max_output_len"] = build.max_output_len
    else:
        values["max_seq_len"] = build.max_seq_len
    values["max_beam_width"] = asked.max_beam_width
    values["max_num_tokens"] = asked.max_num_tokens
    values["max_prompt_embedding_table_size"] = asked.prompt_table_size
    for kind in ("context", "generation"):
        if asked.gather_logits in ("all", kind):
            values[f"gather_{kind}_logits"] = True
    lines = ["build_config = BuildConfig("]
    lines += [f"    {name}={value}," for name, value in values.items() if value is not None]
    lines.append(")")
    plugins = _plugins(recipe, release)
    lines += [f"build_config.plugin_config.{name} = {value!r}" for name, value in plugins.items()]
    return [*lines, "engine = build(model, build_config)", f"engine.save({layout.ENGINE!r})"]


def _plugins(recipe: Recipe, release: str) -> dict[str, Any]:
    """Like the rows of `trtllm-build`: the types are float16 before `auto` came with 0.11.0."""
    asked, dtype = recipe.options, recipe.checkpoint.dtype
    found: dict[str, Any] = {}
    for name in ("gpt_attention_plugin", "gemm_plugin"):
        value = getattr(asked, name)
        if value is None and (name, recipe.family) != ("gemm_plugin", "gpt"):
            value = dtype
        if value is not None:
            found[name] = None if value == "disable" else value
    if releases.between(release, "0.10.0", "0.11.0"):
        found["nccl_plugin"] = dtype
    if releases.between(release, None, "0.12.0"):
        found["use_custom_all_reduce"] = False
    without = asked.gpt_attention_plugin == "disable"
    packed = asked.packed_input if not without else False
    if packed is None and asked.in_flight_batching:
        packed = True
    if packed is not None:
        found["remove_input_padding"] = packed
    if asked.context_fmha is not None or without:
        found["context_fmha"] = bool(asked.context_fmha)
    return found
