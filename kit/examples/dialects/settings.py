"""What rows of words may ask for or fill in, and the values that many of them ask for."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from kit.examples import layout, options

if TYPE_CHECKING:
    from kit.examples.recipe import Recipe
    from kit.examples.words import Values

DTYPES = ("float16", "bfloat16", "float32")
FP8: Values = {"quantization": ("fp8",)}
QUANTIZED: Values = {"quantization": ("fp8", "int4_awq")}
"""What quantize.py makes in place of the converters."""
SMOOTHQUANT: Values = {"quantization": ("smoothquant",)}
INT8_CACHE: Values = {"kv_cache_dtype": ("int8",)}
FP8_CACHE: Values = {"kv_cache_dtype": ("fp8",)}
WEIGHTS: Values = {"quantization": ("int8", "int4")}
PER_TOKEN: Values = {"per_token": (True,)}
PER_CHANNEL: Values = {"per_channel": (True,)}
SHARDED: Values = {"parallel_embedding": options.EMBEDDINGS}
HUGGING_FACE: Values = {"weights": ("hugging face",)}
NEMO: Values = {"weights": ("nemo",)}
DUMMY: Values = {"weights": ("dummy",)}
NO_PLUGIN: Values = {"gpt_attention_plugin": ("disable",)}
IN_FLIGHT: Values = {"in_flight_batching": (True,)}


def said(*names: str) -> Values:
    """For `unless` of a row: it stands where a recipe says all of these."""
    return dict.fromkeys(names, (None,))


def of(recipe: Recipe) -> dict[str, Any]:
    """All settings of a recipe; None is one that it does not make."""
    return {
        **asdict(recipe.options),
        **_places(recipe),
        **_model(recipe),
        **_run(recipe),
        **_evaluation(recipe),
        "family": recipe.family,
        "variant": recipe.variant,
        "workflow": recipe.workflow,
        "dtype": recipe.checkpoint.dtype,
        "tp": recipe.checkpoint.tp,
        "pp": recipe.checkpoint.pp,
        "ranks": recipe.world_size,
        "max_batch_size": recipe.build.max_batch_size,
        "max_input_len": recipe.build.max_input_len,
        "max_output_len": recipe.build.max_output_len,
        "max_seq_len": recipe.build.max_seq_len,
        "embedding_dim": {"vocabulary": 0, "hidden": 1}.get(
            recipe.options.parallel_embedding or ""
        ),
        "blocks": _blocks(recipe.options.tokens_per_block),
        "smooth_algorithm": _smooth_algorithm(recipe),
    }


def wishes(recipe: Recipe) -> dict[str, tuple[str, Any]]:
    """Settings that a release must have words for: name → key in a recipe, value in it."""
    run, lora = recipe.run, recipe.options.lora
    found: dict[str, tuple[str, Any]] = {}
    for name, value in recipe.options.said().items():
        section = "checkpoint" if name in options.CHECKPOINT_KEYS else "build"
        found[name] = (f"{section}.{name}", value)
    if lora is not None:
        found["lora"] = ("build.lora", lora.dir.name)
        found["lora_modules"] = ("build.lora.modules", lora.modules)
        found["lora_rank"] = ("build.lora.rank", lora.rank)
    if recipe.source.dummy is not None:
        for name, value in recipe.source.dummy.said().items():
            found[name] = (f"model.dummy.{name}", value)
    if run.prompts or run.input_file:
        for name in _ASKED:
            found[name] = (f"run.{name}", getattr(run, name))
        for name in ("prompt_table", "input_file"):
            file = getattr(run, name)
            found[name] = (f"run.{name}", file.name if file else None)
    if recipe.evaluate is not None:
        found["perplexity"] = ("evaluate.perplexity", recipe.evaluate.perplexity)
        summary = asdict(recipe.evaluate.summarize)
        found |= {name: (f"evaluate.summarize.{key}", summary[key]) for key, name in _SUMMARY}
    return {name: wish for name, wish in found.items() if wish[1] is not None}


_ASKED = ("num_beams", "temperature", "top_k", "top_p", "random_seed", "end_id", "prompt_tasks")
_SUMMARY = (
    ("rouge1", "rouge1"),
    ("batch_size", "summary_batch_size"),
    ("max_articles", "max_articles"),
    ("output_len", "summary_len"),
    ("max_input_len", "article_len"),
    ("num_beams", "summary_beams"),
    ("top_k", "summary_top_k"),
    ("hugging_face", "hugging_face"),
    ("rouge_dir", "rouge_dir"),
)


def _places(recipe: Recipe) -> dict[str, Any]:
    nemo, table, ids = recipe.source.nemo, recipe.run.prompt_table, recipe.run.input_file
    timing, made = recipe.options.timing_cache, f"{layout.OUTPUT}/prompt_table.npy"
    converted = table is not None and table.suffix == ".nemo"
    given = f"{layout.INPUT}/{table.name}" if table else None
    return {
        "model": layout.MODEL,
        "checkpoint": layout.CHECKPOINT,
        "engine": layout.ENGINE,
        "cache": layout.CACHE,
        "dataset": layout.DATASET,
        "nemo": f"{layout.MODEL}/{nemo.name}" if nemo else None,
        "learned_prompts": given if converted else None,
        "prompt_table": made if converted else given,
        "input_file": f"{layout.INPUT}/{ids.name}" if ids else None,
        "timing_cache": f"{layout.INPUT}/{timing.name}" if timing else None,
    }


def _model(recipe: Recipe) -> dict[str, Any]:
    dummy, lora = recipe.source.dummy, recipe.options.lora
    found: dict[str, Any] = {
        "weights": "nemo" if recipe.source.nemo else "dummy" if dummy else "hugging face",
        "lora": layout.LORA if lora else None,
        "lora_modules": lora.modules if lora else None,
        "lora_rank": lora.rank if lora else None,
        "lora_tasks": ("0",) * max(1, len(recipe.run.prompts)),
    }
    if dummy is not None:
        found |= asdict(dummy)
        kv_heads = dummy.num_key_value_heads
        found["multi_query"] = (kv_heads == 1) if kv_heads != dummy.num_attention_heads else None
        found["grouped"] = kv_heads is not None and 1 < kv_heads < dummy.num_attention_heads
    return found


def _run(recipe: Recipe) -> dict[str, Any]:
    run = recipe.run
    tasks = ",".join(str(task) for task in run.prompt_tasks) if run.prompt_tasks else None
    return {
        "run_output_len": run.max_output_len,
        **{name: getattr(run, name) for name in _ASKED},
        "prompt_tasks": tasks,
        # Files of several beams have another shape, and none that the rest of the run answers to.
        "logits": f"{layout.OUTPUT}/logits.npy"
        if recipe.options.gather_logits and run.num_beams in (None, 1)
        else None,
    }


def _evaluation(recipe: Recipe) -> dict[str, Any]:
    if recipe.evaluate is None:
        return {"evaluate": None}
    summary = asdict(recipe.evaluate.summarize)
    bounds = (recipe.evaluate.summarize.rouge1, recipe.evaluate.perplexity)
    return {
        "evaluate": True,
        "perplexity": recipe.evaluate.perplexity,
        **{name: summary[key] for key, name in _SUMMARY},
        "rouge_dir": layout.ROUGE if recipe.evaluate.summarize.rouge_dir else None,
        "bounds": any(bound is not None for bound in bounds) or None,
    }


def _blocks(tokens: int | None) -> str | None:
    """What the checks of build.py make of the size of a block."""
    if tokens is None:
        return None
    if not math.log2(tokens).is_integer():
        return "odd"
    return "small" if tokens < 128 else "large"


def _smooth_algorithm(recipe: Recipe) -> str:
    """The name of SmoothQuant's algorithm (class QuantAlgo, tensorrt_llm/quantization/mode.py)."""
    weights = "CHANNEL" if recipe.options.per_channel else "TENSOR"
    if recipe.options.per_token:
        return f"W8A8_SQ_PER_{weights}_PER_TOKEN_PLUGIN"
    return f"W8A8_SQ_PER_{weights}" + ("_PER_TENSOR" if weights == "CHANNEL" else "") + "_PLUGIN"
