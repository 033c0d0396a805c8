"""Sizes of what one rank holds and works in, each with the product that it comes from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit import data
from kit.data import releases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.examples.model_facts import Dimensions
    from kit.examples.recipe import Recipe

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
_FLOAT32 = 4
_GROUP = 128
"""Rows of an AWQ matrix that share a scale: quantize.py's own default of `--awq_block_size`."""
_MOST_TOKENS = "max_batch_size * max_input_len"


@dataclass(frozen=True, slots=True)
class Figure:
    """Bytes of one thing, and how they come about."""

    name: str
    size: int
    formula: str


class RankSizes:
    """Sizes of what one rank holds, by pipeline stage; every tensor parallel rank has the same."""

    def __init__(self, recipe: Recipe, model: Dimensions, vocabulary: int) -> None:
        self._recipe, self._model = recipe, model
        self._tp, self._last = recipe.checkpoint.tp, recipe.checkpoint.pp - 1
        self._width = _BYTES[recipe.checkpoint.dtype]
        self._vocabulary = vocabulary
        # The output is always shared, padded with empty rows.
        self._rows = math.ceil(vocabulary / self._tp)
        self._kv_heads = math.ceil(model.kv_heads / self._tp)
        self._queries = math.ceil(model.heads / self._tp) * model.head_size
        self._inner = math.ceil(model.inner / self._tp)

    def weights(self, stage: int, layers: int) -> Iterator[Figure]:
        """What the engine of a stage holds."""
        if stage == 0:
            yield self._embedding()
            if self._model.learned_positions:
                yield self._positions()
        matrices = self._matrices()
        each, said = self._matrix_bytes()
        for name in ("attention", "mlp"):
            shapes = [(rows, columns) for part, rows, columns in matrices if part == name]
            summed = " + ".join(f"{rows} * {columns}" for rows, columns in shapes)
            count = sum(rows * columns for rows, columns in shapes)
            size = math.ceil(layers * count * each)
            yield Figure(name, size, f"{layers} layers * ({summed}) * {said}")
        if (scales := self._scales(matrices)) is not None:
            size, formula = scales
            yield Figure("scales", layers * size, f"{layers} layers * {formula}")
        yield self._vectors(stage, layers)
        if stage == self._last and not self._is_shared():
            hidden = self._model.hidden
            formula = f"{self._share()} * {hidden} * {self._width} bytes"
            yield Figure("output", self._rows * hidden * self._width, formula)

    def cache_per_token(self, layers: int) -> int:
        """Keys and values of one token in the layers of a stage."""
        return 2 * layers * self._kv_heads * self._model.head_size * self._cache_width()

    def cache(self, layers: int, per_token: int) -> Figure:
        """Keys and values of a full batch."""
        build = self._recipe.build
        tokens = build.max_batch_size * self._beams() * build.max_seq_len
        return Figure(
            "KV cache",
            tokens * per_token,
            f"{self._batch()} * {build.max_seq_len} tokens * "
            f"2 * {layers} layers * {self._kv_heads} heads * {self._model.head_size} * "
            f"{self._cache_width()} bytes",
        )

    def workspace(self, stage: int, release: str) -> Iterator[Figure]:
        """What every way of computing a step needs: two hidden states of it, and the logits."""
        tokens, said = self._tokens(release)
        size = 2 * tokens * self._model.hidden * self._width
        formula = f"2 * {tokens} tokens ({said}) * {self._model.hidden} * {self._width} bytes"
        yield Figure("hidden states", size, formula)
        rows = self._recipe.options.prompt_table_size
        if rows is not None and stage == 0:
            size = rows * self._model.hidden * self._width
            formula = f"{rows} rows * {self._model.hidden} * {self._width} bytes"
            yield Figure("prompt table", size, formula)
        if stage == self._last:
            kept, what = self._recipe.build.max_batch_size * self._beams(), self._batch()
            if self._recipe.options.gather_logits in ("all", "context"):
                kept = max(kept, tokens)
                what = f"{kept} tokens"
            columns = self._rows * self._tp
            size = kept * columns * _FLOAT32
            yield Figure("logits", size, f"{what} * {columns} * {_FLOAT32} bytes")

    def _embedding(self) -> Figure:
        hidden, width = self._model.hidden, self._width
        parallel = self._recipe.options.parallel_embedding if self._tp > 1 else None
        if parallel == "vocabulary":
            formula = f"{self._share()} * {hidden} * {width} bytes"
            return Figure("embedding", self._rows * hidden * width, formula)
        if parallel == "hidden":
            part = math.ceil(hidden / self._tp)
            formula = f"{self._vocabulary} rows * {part} of {hidden} * {width} bytes"
            return Figure("embedding", self._vocabulary * part * width, formula)
        whole = ", whole on every rank" if self._tp > 1 else ""
        formula = f"{self._vocabulary} rows * {hidden} * {width} bytes{whole}"
        return Figure("embedding", self._vocabulary * hidden * width, formula)

    def _share(self) -> str:
        """The rows that a rank has of a table that is cut along the vocabulary."""
        return f"{self._rows} of {self._vocabulary} rows" if self._tp > 1 else f"{self._rows} rows"

    def _positions(self) -> Figure:
        rows, hidden = self._model.positions or 0, self._model.hidden
        size = rows * hidden * self._width
        return Figure("positions", size, f"{rows} rows * {hidden} * {self._width} bytes")

    def _is_shared(self) -> bool:
        """Whether the output reads the embedding's table.

        examples/gpt/README.md of 0.5.0, "Embedding sharing": only a table that the model itself
        shares, on one rank or cut along the vocabulary.
        """
        options = self._recipe.options
        return bool(
            options.share_embedding
            and self._model.is_tied
            and self._last == 0
            and (self._tp == 1 or options.parallel_embedding == "vocabulary")
        )

    def _matrices(self) -> list[tuple[str, int, int]]:
        hidden, inner = self._model.hidden, self._inner
        keys = 2 * self._kv_heads * self._model.head_size
        gate = [("mlp", hidden, inner)] if self._model.is_gated else []
        return [
            ("attention", hidden, self._queries + keys),
            ("attention", self._queries, hidden),
            *gate,
            ("mlp", hidden, inner),
            ("mlp", inner, hidden),
        ]

    def _matrix_bytes(self) -> tuple[float, str]:
        quantization = self._recipe.options.quantization
        if quantization in ("int4", "int4_awq"):
            return 0.5, f"half a byte ({quantization})"
        if quantization is not None:
            return 1, f"1 byte ({quantization})"
        return self._width, f"{self._width} bytes"

    def _scales(self, matrices: list[tuple[str, int, int]]) -> tuple[int, str] | None:
        """Bytes in a layer, and how they come about; None where nothing is scaled."""
        options, width = self._recipe.options, self._width
        columns = sum(columns for _, _, columns in matrices)
        # One number for all keys and values of a layer.
        cached, said = (_FLOAT32, f" + {_FLOAT32} bytes") if options.kv_cache_dtype else (0, "")
        if options.quantization in ("int8", "int4"):
            return columns * width + cached, f"({columns} columns * {width} bytes{said})"
        if options.quantization == "int4_awq":
            groups = sum(math.ceil(rows / _GROUP) * columns for _, rows, columns in matrices)
            rows = sum(rows for _, rows, _ in matrices)
            return (groups + rows) * width + cached, (
                f"(({groups} groups of {_GROUP} + {rows} rows that are scaled before) * "
                f"{width} bytes{said})"
            )
        if options.quantization == "smoothquant":
            count, formula = self._smooth(matrices)
            return count * _FLOAT32 + cached, f"({formula} * {_FLOAT32} bytes{said})"
        if options.quantization == "fp8":
            count = 2 * len(matrices)
            return count * _FLOAT32 + cached, f"({count} * {_FLOAT32} bytes{said})"
        return (cached, f"{cached} bytes") if cached else None

    def _smooth(self, matrices: list[tuple[str, int, int]]) -> tuple[int, str]:
        """Numbers of SmoothQuant in a layer (load_from_ft in examples/gpt/weight.py).

        What smoothes the inputs of dense and proj; scales of all columns, or of a whole matrix,
        but of those of qkv in any case; of activations those that are not found at run time.
        """
        options = self._recipe.options
        (_, _, qkv), *others = matrices
        smoothers = self._queries + self._inner
        columns = sum(columns for _, _, columns in others) if options.per_channel else len(others)
        activations = 2 + (0 if options.per_token else len(matrices) + 2)
        return smoothers + qkv + columns + activations, (
            f"({smoothers} smoothers + {qkv} + {columns} scales + {activations} of activations)"
        )

    def _vectors(self, stage: int, layers: int) -> Figure:
        model = self._model
        norm = model.norm_vectors * model.hidden
        keys = 2 * self._kv_heads * model.head_size
        biases = 0
        if model.attention_bias:
            biases += self._queries + keys + model.hidden
        if model.mlp_bias:
            biases += self._inner * (2 if model.is_gated else 1) + model.hidden
        count = layers * (2 * norm + biases)
        formula = f"{layers} layers * ({2 * norm} of norms + {biases} of biases)"
        if stage == self._last:
            count += norm
            formula = f"({formula} + {norm} of the last norm)"
        return Figure("vectors", count * self._width, f"{formula} * {self._width} bytes")

    def _cache_width(self) -> int:
        return self._width if self._recipe.options.kv_cache_dtype is None else 1

    def _beams(self) -> int:
        return self._recipe.options.max_beam_width or 1

    def _batch(self) -> str:
        sequences = f"{self._recipe.build.max_batch_size} sequences"
        return f"{sequences} * {self._beams()} beams" if self._beams() > 1 else sequences

    def _tokens(self, release: str) -> tuple[int, str]:
        """Tokens of the largest step, and where that comes from."""
        build, options = self._recipe.build, self._recipe.options
        most = build.max_batch_size * build.max_input_len
        if options.packed_input is False:
            return most, _MOST_TOKENS
        if options.max_num_tokens is not None:
            return options.max_num_tokens, "max_num_tokens"
        row = data.option("trtllm-build", "--max_num_tokens", release)
        default = row["default"] if row else None
        if isinstance(default, int) and releases.between(release, "0.9.0", None) and default < most:
            return default, f"the default max_num_tokens of {release}"
        return most, _MOST_TOKENS
