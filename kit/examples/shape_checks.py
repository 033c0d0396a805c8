"""A recipe held against the dimensions of its model, before anything is converted.

The releases' own scripts find some of this after minutes, some by a stack trace of NumPy, and some
not at all. What stands here was read in NVIDIA/TensorRT-LLM; the function says where.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from kit.errors import usage_error
from kit.examples.model_facts import Dimensions, wanted

if TYPE_CHECKING:
    from kit.examples.model_facts import Facts
    from kit.examples.recipe import Recipe

_MOST_RANKS = 128
"""That a message names."""


def refuse_impossible(recipe: Recipe, release: str, facts: Facts) -> None:
    """Refuse what no release can do with a model of those dimensions; unknown ones refuse nothing.

    Raises:
        KitError: the recipe does not fit, with the line that says so, and what would (exit 2).
    """
    if not isinstance(facts, Dimensions):
        return
    asked = _Asked(recipe, release)
    _architecture(asked, facts)
    _tensor_parallel(asked, facts)
    _pipeline_parallel(asked, facts)
    _embedding(asked, facts)
    _lengths(asked, facts)


def warnings(recipe: Recipe, facts: Facts) -> tuple[str, ...]:
    """What a recipe can do and hardly means."""
    if not isinstance(facts, Dimensions):
        return ()
    found = []
    positions, longest = facts.positions, recipe.build.max_seq_len
    if positions is not None and longest > positions:
        said = ("build.max_seq_len", "build.max_output_len", "build")
        key = next((name for name in said if name in recipe.places), "")
        # trtllm-build of 0.11.0 and later warns of it, the releases before do not even do that.
        what = (
            "its table of positions ends there, and what is read behind it is garbage"
            if facts.learned_positions
            else "it was not trained on longer ones, and may answer worse"
        )
        found.append(
            f"{_where(recipe, key)}sequences of up to {longest} tokens: the model "
            f"has {positions} positions: {what}"
        )
    if recipe.options.share_embedding and not facts.is_tied:
        # examples/gpt/README.md of 0.5.0, "Embedding sharing".
        found.append(
            f"{_where(recipe, 'checkpoint.share_embedding')}share_embedding: does nothing: "
            "the model has another table for its output"
        )
    return tuple(found)


def dtype_warning(recipe: Recipe, facts: Facts) -> str | None:
    """That the weights come in another type of as many bits or fewer, and change on the way."""
    found = facts.dtype if isinstance(facts, Dimensions) else None
    dtype = recipe.checkpoint.dtype
    if found in (None, dtype, "float32"):
        return None
    effect = "takes twice the memory" if dtype == "float32" else "changes them a little"
    return (
        f"{_where(recipe, 'checkpoint.dtype')}dtype: the weights are {found}, and {dtype} {effect}"
    )


@dataclass(frozen=True, slots=True)
class _Asked:
    """A recipe for a release, and how it is refused."""

    recipe: Recipe
    release: str

    def refuse(self, key: str, why: str) -> NoReturn:
        name, recipe = key.rpartition(".")[2], self.recipe
        raise usage_error(
            f"{_where(recipe, key)}{name}: {why}",
            hint=f"kit plan {recipe.argument or recipe.name} --release {self.release}",
        )


def _where(recipe: Recipe, key: str) -> str:
    """The line of a user's own file that says `key`, else the name of the example."""
    return recipe.where(key) or f"{recipe.name}: "


def _architecture(asked: _Asked, model: Dimensions) -> None:
    expected = wanted(asked.recipe)
    if model.architecture == expected:
        return
    is_llama = "llama" in (model.architecture, expected)
    key = "family" if is_llama else "variant"
    found = "llama" if model.architecture == "llama" else "gpt" if is_llama else model.architecture
    said = asked.recipe.family if is_llama else expected
    asked.refuse(
        key,
        f"the recipe says {said}, the model is {found}: {model.source}",
    )


def _tensor_parallel(asked: _Asked, model: Dimensions) -> None:
    """Heads, MLP columns and key-value heads in equal shares.

    Every rank has `heads // tp` (tensorrt_llm/layers/attention.py); examples/llama/build.py of
    0.5.0 to 0.7.1 asserts what holds of key-value heads in later releases too: more than ranks are
    shared, fewer are copied.
    """
    tp = asked.recipe.checkpoint.tp
    if _can_share(model, tp):
        return
    fits = [number for number in range(1, _MOST_RANKS + 1) if _can_share(model, number)]
    if model.heads % tp:
        what = f"the model's {model.heads} attention heads"
    elif model.inner % tp:
        what = f"the {model.inner} columns of the model's MLP"
    else:
        what = f"the model's {model.kv_heads} key-value heads"
    asked.refuse(
        "checkpoint.tp",
        f"{tp} ranks cannot share {what} evenly; possible: {', '.join(map(str, fits))}",
    )


def _can_share(model: Dimensions, ranks: int) -> bool:
    keys = model.kv_heads
    return (
        model.heads % ranks == 0
        and model.inner % ranks == 0
        and (keys % ranks == 0 or ranks % keys == 0)
    )


def _pipeline_parallel(asked: _Asked, model: Dimensions) -> None:
    """Layers in equal shares.

    Mapping.pp_layers (tensorrt_llm/mapping.py) gives each rank `layers // pp` and loses the rest
    without a word; later it gives the first ranks one more, in which release is not known.
    """
    pp = asked.recipe.checkpoint.pp
    if model.layers % pp:
        fits = [number for number in range(1, _MOST_RANKS + 1) if model.layers % number == 0]
        asked.refuse(
            "checkpoint.pp",
            f"{pp} ranks cannot share the model's {model.layers} layers evenly; "
            f"possible: {', '.join(map(str, fits))}",
        )


def _embedding(asked: _Asked, model: Dimensions) -> None:
    """Rows or columns of the embedding in equal shares, where they are not padded.

    GPT's converters pad the vocabulary (examples/gpt/weight.py, split_embedding in
    tensorrt_llm/models/gpt/convert.py), LLaMA's cut the table as it is.
    """
    tp, along = asked.recipe.checkpoint.tp, asked.recipe.options.parallel_embedding
    if along == "hidden" and model.hidden % tp:
        asked.refuse(
            "checkpoint.parallel_embedding",
            f"{tp} ranks cannot share the model's {model.hidden} columns evenly; "
            "leave it out, or say vocabulary",
        )
    rows = model.vocabulary
    if along == "vocabulary" and asked.recipe.family == "llama" and rows is not None and rows % tp:
        asked.refuse(
            "checkpoint.parallel_embedding",
            f"{tp} ranks cannot share the model's {rows} words evenly, and LLaMA's converter does "
            "not pad them; leave it out, or say hidden",
        )


def _lengths(asked: _Asked, model: Dimensions) -> None:
    positions = model.positions
    if positions is None or not model.learned_positions:
        return
    for key, length in (
        ("build.max_input_len", asked.recipe.build.max_input_len),
        ("run.max_output_len", asked.recipe.run.max_output_len if asked.recipe.run.prompts else 0),
    ):
        # Longer ones alone fill the table: there is no prompt that would go.
        if length > positions:
            asked.refuse(
                key,
                f"{length} is more than the {positions} positions that the model has; "
                f"expected less than {positions}, prompt and answer together",
            )
