"""What no release can make sense of in a recipe, whatever its parser takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.errors import usage_error

if TYPE_CHECKING:
    from kit.errors import KitError
    from kit.examples.recipe import Recipe
    from kit.examples.tasks import Evaluate


def check(recipe: Recipe) -> None:
    """Hold the parts of a recipe against each other.

    Raises:
        KitError: they contradict each other; with file, line and column, and the fix (exit 2).
    """
    _model(recipe)
    _ranks(recipe)
    _engine(recipe)
    if recipe.evaluate is not None:
        _evaluation(recipe, recipe.evaluate)
    if recipe.serve is not None:
        _server(recipe)


def _error(recipe: Recipe, key: str, why: str) -> KitError:
    return usage_error(f"{recipe.where(key)}{key.rpartition('.')[2]}: {why}")


def _model(recipe: Recipe) -> None:
    source = recipe.source
    if recipe.family != "gpt" and recipe.variant != "gpt2":
        raise _error(recipe, "variant", f"is of family gpt, found family {recipe.family}")
    if source.nemo is not None and recipe.variant != "gpt-next":
        raise _error(
            recipe, "model.nemo", "needs family: gpt and variant: gpt-next, whose weights NeMo has"
        )
    if recipe.variant == "gpt-next" and source.nemo is None and source.dummy is None:
        raise _error(
            recipe,
            "variant",
            "gpt-next has weights of NeMo only: give model: {nemo: FILE} or dummy",
        )
    if source.dummy is not None and recipe.asks and not (source.tokenizer or source.directory):
        raise _error(
            recipe,
            "model.dummy",
            "dummy weights have no tokenizer, which run, evaluate and serve need; give tokenizer, "
            "the name of a model in a stack's lock",
        )


def _ranks(recipe: Recipe) -> None:
    nodes, gpus = recipe.run.nodes or 1, recipe.run.gpus_per_node
    each, rest = divmod(recipe.world_size, nodes)
    if rest or (gpus is not None and each > gpus):
        size = "" if gpus is None else f" of {gpus} GPUs"
        raise _error(
            recipe,
            "run.gpus_per_node" if recipe.run.nodes is None else "run.nodes",
            f"{nodes} nodes{size} do not hold tp {recipe.checkpoint.tp} x pp "
            f"{recipe.checkpoint.pp} = {recipe.world_size} ranks evenly",
        )


def _engine(recipe: Recipe) -> None:
    run, asked = recipe.run, recipe.options
    if (run.num_beams or 1) > (asked.max_beam_width or 1):
        raise _error(
            recipe,
            "run.num_beams",
            f"{run.num_beams} is more than the engine is built for; give build: "
            f"{{max_beam_width: {run.num_beams}}}",
        )
    if run.prompt_table is not None and asked.prompt_table_size is None:
        raise _error(
            recipe, "run.prompt_table", "needs an engine with build: {prompt_table_size: ROWS}"
        )
    is_split = recipe.checkpoint.tp > 1
    if asked.share_embedding and is_split and asked.parallel_embedding != "vocabulary":
        raise _error(
            recipe,
            "checkpoint.share_embedding",
            "ranks share one table only where it is split along the vocabulary; give "
            "parallel_embedding: vocabulary",
        )


def _evaluation(recipe: Recipe, evaluate: Evaluate) -> None:
    summary, build = evaluate.summarize, recipe.build
    for name, value, most in (
        ("output_len", summary.output_len, build.max_output_len),
        ("batch_size", summary.batch_size, build.max_batch_size),
        ("max_input_len", summary.max_input_len, build.max_input_len),
        ("num_beams", summary.num_beams, recipe.options.max_beam_width or 1),
    ):
        if value is not None and value > most:
            raise _error(
                recipe,
                f"evaluate.summarize.{name}",
                f"{value} is more than the engine is built for ({most})",
            )
    if evaluate.perplexity is not None and recipe.options.gather_logits not in ("all", "context"):
        raise _error(
            recipe,
            "evaluate.perplexity",
            "needs the logits of the prompt; give build: {gather_logits: context}",
        )
    if summary.hugging_face and (recipe.source.nemo or recipe.source.dummy):
        raise _error(
            recipe,
            "evaluate.summarize.hugging_face",
            "needs a Hugging Face model, the recipe has none",
        )


def _server(recipe: Recipe) -> None:
    assert recipe.serve is not None
    if recipe.source.nemo is not None:
        raise _error(
            recipe, "serve", "Triton's models want a Hugging Face tokenizer, NeMo brings another"
        )
    asked, batching = recipe.options, recipe.serve.triton.batching
    whole = asked.paged_kv_cache is False or asked.packed_input is False
    if batching != "static" and (whole or asked.gpt_attention_plugin == "disable"):
        raise _error(
            recipe,
            "serve.triton.batching",
            "in flight needs packed input and a paged cache; give batching: static",
        )
