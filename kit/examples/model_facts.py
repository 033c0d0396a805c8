"""What is known of a model before a container starts: its dimensions, or why nobody knows them.

Nothing here is run or unpickled: a folder's config.json, the model_config.yaml inside a NeMo
archive, a recipe's own numbers, or a row of `kit/data/models.json` are read.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kit.artifacts import bounded, nemo
from kit.data import models
from kit.errors import KitError, content_error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kit.examples.recipe import Recipe
    from kit.examples.source import Dummy

Architecture = Literal["gpt2", "santacoder", "starcoder", "gpt-next", "llama"]
"""A variant of GPT as recipes name them, or LLaMA."""

_BUNDLED = Path(__file__).with_name("models")
"""Models that came with the kit, by name."""

# Activations with two matrices before them: one gates the other.
_GATED = frozenset({"swiglu", "fast-swiglu", "geglu", "fast-geglu", "reglu", "fast-reglu"})
_LARGEST = 1 << 24
"""Of any dimension; the largest vocabulary is a million."""

# Defaults of examples/gpt/build.py, releases 0.5.0 to 0.8.0 (kit/data/cli.json).
_DUMMY_POSITIONS = 1024
_DUMMY_ACTIVATION = "gelu"


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A decoder's shape; the words are those of Hugging Face where they have one.

    Attributes:
        source: where it was read, for people.
        architecture: variant of GPT, or LLaMA.
        layers: of the decoder.
        hidden: width between the layers.
        heads: of queries.
        kv_heads: of keys and values; 1 is multi-query attention.
        head_size: width of one head.
        inner: width inside the MLP.
        vocabulary: rows of the embedding; None where only a pickle says it.
        positions: that the model was made for; None where it does not say.
        learned_positions: whether they are a table, which ends there; else they are rotations.
        activation: of the MLP.
        is_gated: whether the MLP has a gate: three matrices instead of two.
        attention_bias: whether its matrices have one.
        mlp_bias: likewise.
        is_tied: whether the output uses the embedding's table.
        dtype: of the weights as they come; None where it is not said.
    """

    source: str
    architecture: Architecture
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    inner: int
    vocabulary: int | None
    positions: int | None
    learned_positions: bool
    activation: str
    is_gated: bool
    attention_bias: bool
    mlp_bias: bool
    is_tied: bool
    dtype: str | None

    @property
    def norm_vectors(self) -> int:
        """Vectors of one normalization: LayerNorm has weights and biases, RMSNorm only weights."""
        return 1 if self.architecture == "llama" else 2


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows the dimensions; `reason` says why, and what would help."""

    reason: str


Facts = Dimensions | Unknown


def of_recipe(recipe: Recipe) -> Facts:
    """What can be known of a recipe's model here and now; a broken one is not known.

    `kit.examples.model_checks.check_model` says what is wrong with it.
    """
    source = recipe.source
    try:
        if source.dummy is not None:
            where = f"{recipe.where('model.dummy')}dummy weights of {recipe.name}"
            return of_dummy(source.dummy, wanted(recipe), where)
        if source.directory is not None:
            return of_folder(source.directory)
        if source.nemo is not None and source.nemo.exists():
            return of_nemo(source.nemo)
    except KitError as error:
        return Unknown(str(error))
    return known(recipe.model, source.repository)


def wanted(recipe: Recipe) -> Architecture:
    """The architecture that a recipe says its model has."""
    return "llama" if recipe.family == "llama" else recipe.variant


def of_folder(folder: Path) -> Dimensions:
    """The dimensions that the config.json of a Hugging Face model says.

    Raises:
        KitError: no such file (exit 2); no JSON, another architecture, a dimension that is missing
            or impossible (exit 4).
    """
    path = folder / "config.json"
    return of_config(bounded.json_object(path), str(path))


def of_config(config: Mapping[str, Any], where: str) -> Dimensions:
    """The dimensions in a config.json of GPT-2, SantaCoder, StarCoder or LLaMA.

    Raises:
        KitError: another architecture, a dimension that is missing or impossible (exit 4).
    """
    architecture = _architecture(config, where)
    if architecture == "llama":
        return _llama(config, where)
    return _gpt(config, architecture, where)


def of_nemo(archive: Path) -> Dimensions:
    """The dimensions that a NeMo archive's model_config.yaml says; weights are not looked at.

    Raises:
        KitError: no such file (exit 2); no such archive, a dimension that is missing (exit 4).
    """
    found = nemo.look(archive)
    return of_nemo_config(found.config, f"{archive}: {nemo.CONFIG}", found.vocabulary)


def of_nemo_config(config: Mapping[str, Any], where: str, vocabulary: int | None) -> Dimensions:
    """Like `of_nemo`, of a configuration that has been read; `vocabulary` is the tokenizer's."""
    layers, hidden, heads = (
        _count(config, key, where) for key in ("num_layers", "hidden_size", "num_attention_heads")
    )
    activation = bounded.text(config, "activation") or "gelu"
    bias = config.get("bias", True) is not False
    override = bounded.count(config, "override_vocab_size")
    return Dimensions(
        source=where,
        architecture="gpt-next",
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=_given(config, "num_query_groups", where) or heads,
        head_size=_given(config, "kv_channels", where) or _share(hidden, heads, where),
        inner=_given(config, "ffn_hidden_size", where) or 4 * hidden,
        vocabulary=override or _padded(config, vocabulary),
        positions=_given(config, "max_position_embeddings", where)
        or _given(config, "encoder_seq_length", where),
        learned_positions=config.get("position_embedding_type", "learned_absolute")
        == "learned_absolute",
        activation=activation,
        is_gated=activation in _GATED,
        attention_bias=bias,
        mlp_bias=bias,
        is_tied=config.get("share_embeddings_and_output_weights", True) is not False,
        dtype=None,
    )


def of_dummy(dummy: Dummy, architecture: Architecture, where: str) -> Dimensions:
    """The dimensions that a recipe gives in place of a model."""
    heads, hidden = dummy.num_attention_heads, dummy.hidden_size
    is_llama = architecture == "llama"
    one = architecture in ("santacoder", "starcoder")
    activation = dummy.hidden_act or ("silu" if is_llama else _DUMMY_ACTIVATION)
    bias = (not is_llama) if dummy.bias is None else dummy.bias
    return Dimensions(
        source=where,
        architecture=architecture,
        layers=dummy.num_hidden_layers,
        hidden=hidden,
        heads=heads,
        kv_heads=dummy.num_key_value_heads or (1 if one else heads),
        head_size=_share(hidden, heads, where),
        inner=dummy.intermediate_size or 4 * hidden,
        vocabulary=dummy.vocab_size,
        positions=dummy.max_position_embeddings or _DUMMY_POSITIONS,
        learned_positions=not is_llama and not dummy.rotary_pct,
        activation=activation,
        is_gated=is_llama or activation in _GATED,
        attention_bias=bias,
        mlp_bias=bias,
        is_tied=False,
        dtype=None,
    )


def known(name: str, repository: str | None) -> Facts:
    """What the kit knows of a model by its repository, or by the name that recipes give it."""
    bundled = _BUNDLED / name
    if repository is None and (bundled / "config.json").is_file():
        config = bounded.json_object(bundled / "config.json")
        return of_config(config, f"config.json of {name}, which comes with the kit")
    row = models.find(name, repository)
    if row is None:
        return Unknown(
            f"the dimensions of {repository or name} are not known before it is here: "
            "give its folder by --model"
        )
    if row["config"] is None:
        return Unknown(f"{row['hole']}: give the model by --model")
    where = f"{row['repository']} ({row['source']})"
    if row["format"] == "nemo":
        return of_nemo_config(row["config"], where, row["vocabulary"])
    return of_config(row["config"], where)


def _architecture(config: Mapping[str, Any], where: str) -> Architecture:
    """The class decides: others reuse the configuration of GPT-2 and LLaMA as their own."""
    named = bounded.texts(config, "architectures")
    kind = bounded.text(config, "model_type")
    found: set[Architecture | None] = {_CLASSES.get(name) for name in named} or {
        _TYPES.get(kind or "")
    }
    architecture = found.pop() if len(found) == 1 else None
    if architecture is None:
        raise content_error(
            f"{where}: model_type {kind!r}, architectures {list(named)!r}; "
            f"expected one of {', '.join(_CLASSES)}"
        )
    if architecture == "gpt2" and bounded.text(config, "attention_head_type") == "multiquery":
        return "santacoder"
    return architecture


# What transformers, and the code that comes with SantaCoder, write into config.json.
_CLASSES: dict[str, Architecture] = {
    "GPT2LMHeadModel": "gpt2",
    "GPT2LMHeadCustomModel": "santacoder",
    "GPTBigCodeForCausalLM": "starcoder",
    "LlamaForCausalLM": "llama",
}
_TYPES: dict[str, Architecture] = {
    "gpt2": "gpt2",
    "gpt_bigcode": "starcoder",
    "llama": "llama",
}


def _gpt(config: Mapping[str, Any], architecture: Architecture, where: str) -> Dimensions:
    hidden, heads = _count(config, "n_embd", where), _count(config, "n_head", where)
    is_multi_query = architecture == "santacoder" or (
        architecture == "starcoder" and config.get("multi_query", True) is not False
    )
    activation = bounded.text(config, "activation_function") or "gelu_new"
    return Dimensions(
        source=where,
        architecture=architecture,
        layers=_count(config, "n_layer", where),
        hidden=hidden,
        heads=heads,
        kv_heads=1 if is_multi_query else heads,
        head_size=_share(hidden, heads, where),
        inner=_given(config, "n_inner", where) or 4 * hidden,
        vocabulary=_count(config, "vocab_size", where),
        positions=_count(config, "n_positions", where),
        learned_positions=True,
        activation=activation,
        is_gated=False,
        attention_bias=True,
        mlp_bias=True,
        is_tied=config.get("tie_word_embeddings", True) is not False,
        dtype=_dtype(config),
    )


def _llama(config: Mapping[str, Any], where: str) -> Dimensions:
    hidden = _count(config, "hidden_size", where)
    heads = _count(config, "num_attention_heads", where)
    kv_heads = _given(config, "num_key_value_heads", where) or heads
    if heads % kv_heads:
        raise content_error(
            f"{where}: num_key_value_heads {kv_heads} do not divide num_attention_heads {heads}"
        )
    return Dimensions(
        source=where,
        architecture="llama",
        layers=_count(config, "num_hidden_layers", where),
        hidden=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=_given(config, "head_dim", where) or _share(hidden, heads, where),
        inner=_count(config, "intermediate_size", where),
        vocabulary=_count(config, "vocab_size", where),
        positions=_given(config, "max_position_embeddings", where),
        learned_positions=False,
        activation=bounded.text(config, "hidden_act") or "silu",
        is_gated=True,
        attention_bias=config.get("attention_bias") is True,
        mlp_bias=config.get("mlp_bias") is True,
        is_tied=config.get("tie_word_embeddings") is True,
        dtype=_dtype(config),
    )


def _padded(config: Mapping[str, Any], vocabulary: int | None) -> int | None:
    """Rows of the embedding: the tokenizer's, up to a multiple that training on ranks wants.

    NeMo's MegatronBaseModel: `make_vocab_size_divisible_by`, 128 by default, times its ranks.
    """
    if vocabulary is None:
        return None
    multiple = (bounded.count(config, "make_vocab_size_divisible_by") or 128) * (
        bounded.count(config, "tensor_model_parallel_size") or 1
    )
    return math.ceil(vocabulary / multiple) * multiple


def _count(config: Mapping[str, Any], key: str, where: str) -> int:
    found = _given(config, key, where)
    if found is None:
        raise content_error(f"{where}: {key} is missing; expected a whole number")
    return found


def _given(config: Mapping[str, Any], key: str, where: str) -> int | None:
    """The dimension under `key`; None where it is left out or null."""
    found = config.get(key)
    if found is None:
        return None
    if type(found) is not int or not 1 <= found <= _LARGEST:
        raise content_error(
            f"{where}: {key}: expected a whole number from 1 to {_LARGEST}, found {found!r:.80}"
        )
    return found


def _share(hidden: int, heads: int, where: str) -> int:
    if hidden % heads:
        raise content_error(f"{where}: {heads} heads do not divide the hidden size {hidden}")
    return hidden // heads


def _dtype(config: Mapping[str, Any]) -> str | None:
    # transformers 5 writes `dtype`.
    found = bounded.text(config, "torch_dtype") or bounded.text(config, "dtype")
    return re.sub(r"^torch\.", "", found) if found else None
