"""The model `postprocessing`: the text of tokens, of every beam."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import tokenizing
from .serving import Served

_OUT = "OUT_"
"""Begins the name of an output that repeats the input of the rest of the name."""


class TritonPythonModel(Served):
    """What the server calls."""

    def load(self) -> None:
        """Read the tokenizer."""
        self.tokenizer = tokenizing.tokenizer(self.config)
        self.skips = tokenizing.switch(self.config, "skip_special_tokens", absent=False)

    def answer(self, given: dict[str, Any]) -> dict[str, Any]:
        """The texts of one request."""
        rows = given["TOKENS_BATCH"]
        lengths = given.get("SEQUENCE_LENGTH", [rows.shape[-1]] * len(rows))
        texts = [
            self.tokenizer.decode([int(token) for token in row[:length]], special=not self.skips)
            for row, length in zip(rows, lengths, strict=True)
        ]
        made: dict[str, Any] = {
            f"{_OUT}{name}": np.asarray(value)[None] for name, value in given.items()
        }
        made["OUTPUT"] = np.array([[text.encode() for text in texts]], dtype=np.object_)
        return made
