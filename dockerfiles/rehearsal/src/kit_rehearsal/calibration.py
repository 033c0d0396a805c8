"""Ranges of activations, measured by running the unquantized model on a few texts.

The releases take their texts from a dataset that they download. Here they are a local folder's, if
an option names one (`train.jsonl`, `validation.jsonl` or `test.jsonl`, an object a line with `text`
or `article`), else a page of *Alice's Adventures in Wonderland* (public domain): the ranges are
real, but of that text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from .communicator import SingleRank
from .decoder import Decoder
from .engine import Engine
from .errors import BackendError
from .linears import MATRICES, linear_of
from .log import info
from .split import with_embedding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .linears import Linear
    from .split import Network
    from .tensors import Array

_PAGE = """\
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing
to do: once or twice she had peeped into the book her sister was reading, but it had no pictures or
conversations in it, `and what is the use of a book,' thought Alice `without pictures or
conversation?'

So she was considering in her own mind (as well as she could, for the hot day made her feel very
sleepy and stupid), whether the pleasure of making a daisy-chain would be worth the trouble of
getting up and picking the daisies, when suddenly a White Rabbit with pink eyes ran close by her.

There was nothing so VERY remarkable in that; nor did Alice think it so VERY much out of the way to
hear the Rabbit say to itself, `Oh dear! Oh dear! I shall be late!' (when she thought it over
afterwards, it occurred to her that she ought to have wondered at this, but at the time it all
seemed quite natural).

The rabbit-hole went straight on like a tunnel for some way, and then dipped suddenly down, so
suddenly that Alice had not a moment to think about stopping herself before she found herself
falling down a very deep well.
"""
_FILES = ("train.jsonl", "validation.jsonl", "test.jsonl")
_FIELDS = ("text", "article")
# Rows of a layer's input that are kept to weigh errors with: until so many, and of one text.
_SAMPLES, _SAMPLES_OF_TEXT = 256, 64


@dataclass(frozen=True)
class Range:
    """What a layer's input and output were like, over all texts.

    Attributes:
        inputs: the largest size of each input, [in].
        outputs: the largest size of each output with its bias, [out].
        means: the mean size of each input, [in].
        samples: some inputs as they were, [rows, in].
    """

    inputs: Array
    outputs: Array
    means: Array
    samples: Array


class _Observed:
    """A layer that notes what it sees, in a size that does not grow with the texts."""

    def __init__(self, linear: Linear, bias: Array | None) -> None:
        self._linear = linear
        self._bias = bias
        self._inputs, self._outputs = np.float32(0), np.float32(0)
        self._sum: npt.NDArray[np.float64] | float = 0.0
        self._rows = 0
        self._samples: list[Array] = []

    def __call__(self, x: Array) -> Array:
        made = self._linear(x)
        out, sizes = made if self._bias is None else made + self._bias, np.abs(x)
        self._inputs = np.maximum(self._inputs, sizes.max(axis=0))
        self._outputs = np.maximum(self._outputs, np.abs(out).max(axis=0))
        self._sum = self._sum + sizes.sum(axis=0, dtype=np.float64)
        self._rows += len(x)
        if sum(map(len, self._samples)) < _SAMPLES:
            self._samples.append(x[:: -(-len(x) // _SAMPLES_OF_TEXT)])
        return made

    def range(self) -> Range:
        means = np.asarray(self._sum / self._rows, dtype=np.float32)
        inputs, outputs = np.asarray(self._inputs), np.asarray(self._outputs)
        return Range(inputs, outputs, means, np.concatenate(self._samples))


def measure(network: Network, prompts: Sequence[Sequence[int]]) -> dict[str, Range]:
    """The ranges of every layer's matrices by name (`transformer.layers.0.mlp.fc` …)."""
    observed: dict[str, _Observed] = {}

    def watch(weights: dict[str, Array], name: str) -> Linear:
        linear = linear_of(weights, name)
        if not name.endswith(MATRICES):
            return linear
        observed[name] = _Observed(linear, weights.get(f"{name}.bias"))
        return observed[name]

    whole = with_embedding(network, "whole")
    engine = Engine("", 0, 1, 1, "float32", whole.shape, dict(whole.weights))
    decoder = Decoder(engine, SingleRank(), watch)
    for prompt in prompts:
        kept = list(prompt[: network.shape.n_positions])
        decoder.logits(kept, decoder.cache(len(kept)), last_only=True)
    if not observed:
        raise BackendError("there is no text to calibrate with")
    return {name: one.range() for name, one in observed.items()}


def prompts_of(
    tokenizer: str, dataset: str | None, *, most: int = 512, longest: int = 512
) -> list[list[int]]:
    """Token ids to calibrate with: at most so many texts of at most so many tokens each.

    Args:
        tokenizer: the model's folder.
        dataset: what the dataset option says; read if it is a folder.
        most: how many texts.
        longest: tokens of a text.
    """
    from .tokens import Tokenizer

    if dataset is not None and Path(dataset).is_dir():
        texts = _texts_of(Path(dataset))
        info(f"calibrating with the texts of {dataset}")
    else:
        texts = [" ".join(text.split()) for text in _PAGE.split("\n\n")]
        asked = dataset or "the release's dataset"
        info(f"calibrating with {len(texts)} built-in texts, not with {asked}")
    loaded = Tokenizer(tokenizer)
    prompts = [loaded.encode(text, special=True)[:longest] for text in texts[:most]]
    return [prompt for prompt in prompts if prompt]


def source(dataset: str | None) -> str:
    """Where texts come from, for the files that rest on them."""
    is_local = dataset is not None and Path(dataset).is_dir()
    return "texts of --calib_dataset" if is_local else "built-in texts"


def _texts_of(folder: Path) -> list[str]:
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    if path is None:
        raise BackendError(f"{folder}: no dataset to calibrate with: none of {', '.join(_FILES)}")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_text_of(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]


def _text_of(line: str, place: str) -> str:
    try:
        entry = json.loads(line)
        return next(str(entry[name]) for name in _FIELDS if name in entry)
    except (ValueError, TypeError, StopIteration):
        raise BackendError(
            f"{place}: expected a JSON object with {' or '.join(_FIELDS)}, found {line[:40]!r}"
        ) from None
