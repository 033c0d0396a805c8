"""The model `preprocessing`: a prompt's tokens, and those of words that stop or are banned."""

from __future__ import annotations

from typing import Any

import numpy as np
from kit_rehearsal.errors import BackendError, NotComputedError

from . import tensors, tokenizing
from .serving import Served

_IMAGES = ("IMAGE", "IMAGE_BYTES", "IMAGE_URL", "IMAGES", "VIDEO_BYTES", "PROMPT_EMBEDDING_TABLE")


class TritonPythonModel(Served):
    """What the server calls."""

    def load(self) -> None:
        """Read the tokenizer."""
        self.tokenizer = tokenizing.tokenizer(self.config)
        self.special = tokenizing.switch(self.config, "add_special_tokens", absent=True)
        if self.config.setting("multimodal_model_path") is not None:
            raise NotComputedError("models with images", "multimodal_model_path")

    def answer(self, given: dict[str, Any]) -> dict[str, Any]:
        """The tokens of one request."""
        for name in _IMAGES:
            if name in given:
                raise NotComputedError("prompts with images", f"input {name}")
        if tensors.texts(given.get("EMBEDDING_BIAS_WORDS", [])):
            raise NotComputedError("a bias of words", "input EMBEDDING_BIAS_WORDS")
        tokens = self.tokenizer.encode(tensors.text(given["QUERY"]), special=self.special)
        if not tokens:
            raise BackendError("an empty prompt")
        end_id = self.tokenizer.end_id
        end = given.get("END_ID", np.array([-1 if end_id is None else end_id]))
        return {
            "INPUT_ID": [tokens],
            "REQUEST_INPUT_LEN": [[len(tokens)]],
            "REQUEST_OUTPUT_LEN": given["REQUEST_OUTPUT_LEN"].reshape(1, -1),
            "BAD_WORDS_IDS": self._words(given.get("BAD_WORDS_DICT", [])),
            "STOP_WORDS_IDS": self._words(given.get("STOP_WORDS_DICT", [])),
            # Of nothing an empty one, as the next model wants one of each.
            "EMBEDDING_BIAS": np.zeros((1, 0), dtype=np.float32),
            "OUT_PROMPT_EMBEDDING_TABLE": np.zeros((1, 0, 0), dtype=np.float32),
            "OUT_END_ID": end.reshape(1, -1),
            "OUT_PAD_ID": given.get("PAD_ID", end).reshape(1, -1),
        }

    def _words(self, values: Any) -> Any:
        words = [self.tokenizer.encode(text, special=False) for text in tensors.texts(values)]
        return tensors.of_words(words)
