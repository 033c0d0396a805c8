"""Tensors between the server and a model: what a configuration says, what a request brings."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from kit_rehearsal.errors import BackendError, NotComputedError

if TYPE_CHECKING:
    from collections.abc import Mapping

TYPES = {
    "TYPE_BOOL": np.bool_,
    "TYPE_UINT8": np.uint8,
    "TYPE_UINT32": np.uint32,
    "TYPE_UINT64": np.uint64,
    "TYPE_INT32": np.int32,
    "TYPE_INT64": np.int64,
    "TYPE_FP16": np.float16,
    "TYPE_FP32": np.float32,
    "TYPE_STRING": np.object_,
}


class Configuration:
    """A model's configuration as the server hands it over."""

    def __init__(self, text: str) -> None:
        content: dict[str, Any] = json.loads(text)
        self.name = str(content["name"])
        self.decoupled = bool(content.get("model_transaction_policy", {}).get("decoupled"))
        self.parameters = {
            name: str(value["string_value"]) for name, value in content["parameters"].items()
        }
        self.inputs = frozenset(item["name"] for item in content["input"])
        self.outputs = {item["name"]: item for item in content["output"]}
        for name, item in self.outputs.items():
            if item["data_type"] not in TYPES:
                raise NotComputedError(f"tensors of {item['data_type']}", f"output {name}")

    def setting(self, name: str) -> str | None:
        """A parameter's text; None where it is missing, empty, or left as a placeholder."""
        text = self.parameters.get(name, "")
        return None if not text or text.startswith("${") else text

    def filled(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Every output, in its type: the values, and zeros of the least size for all others."""
        made = {}
        for name, item in self.outputs.items():
            kind = TYPES[item["data_type"]]
            if name in values:
                made[name] = np.asarray(values[name]).astype(kind)
            else:
                sizes = [1 if int(size) < 0 else int(size) for size in item["dims"]]
                zero = b"" if kind is np.object_ else 0
                made[name] = np.full((1, *sizes), zero, dtype=kind)
        return made


def of_request(request: Any) -> dict[str, Any]:
    """A request's tensors by name, without the batch's dimension.

    Raises:
        BackendError: it brings a batch of several.
    """
    found = {}
    for tensor in request.inputs():
        values = tensor.as_numpy()
        if values.shape[:1] != (1,):
            raise BackendError(
                f"input {tensor.name()}: a batch of {values.shape[:1]}: expected one prompt a "
                "request; several requests are put together by the server"
            )
        found[tensor.name()] = values[0]
    return found


def text(values: Any) -> str:
    """The one text of a tensor of texts."""
    (item,) = np.asarray(values, dtype=np.object_).reshape(-1)
    return item.decode("utf-8") if isinstance(item, bytes) else str(item)


def texts(values: Any) -> list[str]:
    """The texts of a tensor that say something."""
    items = np.asarray(values, dtype=np.object_).reshape(-1)
    found = [item.decode("utf-8") if isinstance(item, bytes) else str(item) for item in items]
    return [item for item in found if item]


def word_lists(values: Any) -> tuple[tuple[int, ...], ...]:
    """Words as token ids from their two rows: ids one after the other, and where each ends."""
    flat, ends = np.asarray(values).reshape(2, -1)
    found, start = [], 0
    for end in (int(end) for end in ends if end > 0):
        found.append(tuple(int(token) for token in flat[start:end]))
        start = end
    return tuple(found)


def of_words(words: list[list[int]]) -> Any:
    """The two rows of words, [1, 2, length]; of none a row of nothing."""
    flat = [token for word in words for token in word] or [0]
    ends = [int(end) for end in np.cumsum([len(word) for word in words])]
    ends += [-1] * (len(flat) - len(ends))
    return np.array([[flat, ends]], dtype=np.int32)
