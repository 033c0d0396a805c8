"""The workflow through the Python API of TensorRT-LLM: one script that converts and builds.

Sources in NVIDIA/TensorRT-LLM: docs/source/architecture/core-concepts.md and workflow.md,
examples/llama/convert_checkpoint.py, tensorrt_llm/models/llama/model.py and tensorrt_llm/builder.py
(a tree of 0.10.0, the converter of 0.11.0), tests/unittest/trt/model_api. What calibrates goes
through `quantize`, which takes the GPUs of all ranks itself, so that rank 0 alone calls it; weights
alone are quantized by every rank for itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kit.data import releases
from kit.examples import layout
from kit.examples.dialects import settings

if TYPE_CHECKING:
    from kit.examples.recipe import Recipe

PLACE = f"{layout.CACHE}/build_engine.py"
"""Where the script lies in the container."""

_FIRST = "0.9.0"
_UNREAD = "0.17.0"

_ALGORITHMS = {"int8": "W8A16", "int4": "W4A16", "int4_awq": "W4A16_AWQ", "fp8": "FP8"}
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
    if not releases.between(release, None, _UNREAD):
        return f"the Python API of release {release} was not read: its calls are not known"
    if recipe.family != "llama":
        return f"the Python API of release {release} was read for LLaMA only"
    if recipe.source.dummy is not None:
        return f"the script for release {release} loads weights, the example has dummy ones"
    for name in recipe.options.said():
        if name not in _SPOKEN:
            return f"the script for release {release} has no words for {name}"
    for name in ("gpt_attention_plugin", "gemm_plugin"):
        if getattr(recipe.options, name) == "auto" and releases.between(release, None, "0.11.0"):
            return f"the Python API of release {release} has no {name}: auto"
    return None


def script(recipe: Recipe, release: str) -> str:
    """The text of the script, the same for every rank."""
    body = [*_header(recipe), "", *_model(recipe, release), "", *_build(recipe, release)]
    return "\n".join(body) + "\n"


def _header(recipe: Recipe) -> list[str]:
    quantized = recipe.options.quantization or recipe.options.kv_cache_dtype
    lines = [
        '"""Converts a model and builds an engine; every rank of MPI does its part."""',
        "",
        "import importlib.util",
        "",
        "from tensorrt_llm import BuildConfig, Mapping, build",
        "from tensorrt_llm._utils import mpi_barrier, mpi_rank",
        "from tensorrt_llm.models import LLaMAForCausalLM",
    ]
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
    return asked.quantization not in (None, "int8", "int4") or asked.kv_cache_dtype is not None


def _model(recipe: Recipe, release: str) -> list[str]:
    split = recipe.checkpoint
    size = f"world_size={recipe.world_size}, tp_size={split.tp}, pp_size={split.pp}"
    dtype, model, checkpoint = repr(split.dtype), repr(layout.MODEL), repr(layout.CHECKPOINT)
    if not _calibrates(recipe):
        lines = [f"mapping = Mapping({size}, rank=rank)"]
        given = ""
        if recipe.options.quantization is not None:
            lines.append(f"quant_config = QuantConfig({_quantization(recipe)})")
            is_old = releases.between(release, None, "0.11.0")
            given = f", {'quantization' if is_old else 'quant_config'}=quant_config"
        return [
            *lines,
            f"model = LLaMAForCausalLM.from_hugging_face({model}, {dtype}, mapping=mapping{given})",
            f"model.save_checkpoint({checkpoint}, save_config=rank == 0)",
            "mpi_barrier()",
        ]
    return [
        "if rank == 0:  # quantize takes the GPUs of all ranks",
        f"    quant_config = QuantConfig({_quantization(recipe)})",
        "    LLaMAForCausalLM.quantize(",
        f"        {model}, {checkpoint}, quant_config, dtype={dtype}, mapping=Mapping({size})",
        "    )",
        "mpi_barrier()",
        f"model = LLaMAForCausalLM.from_checkpoint({checkpoint}, rank=rank)",
    ]


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
        value = getattr(asked, name) or dtype
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
