"""The tokenizer of the models that turn text into tokens and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit_rehearsal.errors import BackendError
from kit_rehearsal.tokens import Tokenizer

if TYPE_CHECKING:
    from .tensors import Configuration

_TRUE = ("true", "yes", "1", "t")
_TYPES = ("t5", "auto", "llama")
_OLD = "tokenizer_type"
"""A parameter of the versions before 0.9.0."""


def tokenizer(config: Configuration) -> Tokenizer:
    """What `tokenizer_dir` names; nothing is downloaded.

    Raises:
        BackendError: it is not there, or of a type that the version does not know.
    """
    if _OLD in config.parameters and config.parameters[_OLD] not in _TYPES:
        raise BackendError(
            f"unexpected tokenizer type: {config.parameters[_OLD]!r}; "
            f"expected one of {', '.join(_TYPES)}"
        )
    return Tokenizer(config.parameters["tokenizer_dir"])


def switch(config: Configuration, name: str, *, absent: bool) -> bool:
    """A parameter that is yes or no; left as it was it counts as yes, with a warning by the caller.

    `absent` is what holds in a version that does not have it.
    """
    if name not in config.parameters:
        return absent
    value = config.setting(name)
    return value is None or value.lower() in _TRUE
