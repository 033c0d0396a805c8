"""Where the weights of a recipe come from: a lock, Hugging Face, a folder, a NeMo file, nowhere."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from kit.errors import nearest

if TYPE_CHECKING:
    from kit.document import Section

Activation = Literal["gelu", "gelu_new", "relu", "silu", "swiglu", "fast-swiglu"]
ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)

SOURCES = ("repository", "directory", "nemo", "dummy")
"""A model has one of these at most; with none a stack's lock has it under its name."""

DUMMY_NUMBERS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "max_position_embeddings",
)
"""Dimensions that are whole numbers."""
DUMMY_REQUIRED = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")

_COMMIT = re.compile(r"[0-9a-f]{40}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Of models and of files: it becomes a folder's and stands in scripts."""

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Dummy:
    """Dimensions of a model without weights: the build fills in its own.

    None is not said: a key-value head for every head, four times the hidden size, the release's
    own activation and positions, no rotary embedding, biases.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int | None = None
    intermediate_size: int | None = None
    hidden_act: Activation | None = None
    max_position_embeddings: int | None = None
    rotary_pct: float | None = None
    bias: bool | None = None

    def said(self) -> dict[str, Any]:
        """The dimensions that have a value."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Source:
    """What a recipe says of its model beyond the name; one of `SOURCES` at most is there.

    Attributes:
        repository: of Hugging Face that has it.
        commit: of that repository; None where it is not pinned.
        directory: a local folder in Hugging Face's layout, or of nothing but a tokenizer for dummy
            weights.
        nemo: a .nemo archive; a plain name is a file that the command line has to give.
        dummy: dimensions in place of weights.
        tokenizer: of dummy weights: the model in a stack's lock that it is of.
    """

    repository: str | None = None
    commit: str | None = None
    directory: Path | None = None
    nemo: Path | None = None
    dummy: Dummy | None = None
    tokenizer: str | None = None

    def identity(self) -> dict[str, Any]:
        """What of it counts for the digest of a recipe: not where something lies."""
        found: dict[str, Any] = {}
        if self.commit is not None:
            found["commit"] = self.commit
        if self.nemo is not None:
            found["nemo"] = self.nemo.name
        if self.dummy is not None:
            found["dummy"] = self.dummy.said()
        if self.tokenizer is not None:
            found["tokenizer"] = self.tokenizer
        return found


def read(top: Section, beside: Path) -> tuple[str, Source]:
    """The name and the source under `model`; relative paths are beside the folder `beside`.

    Raises:
        KitError: two sources, an impossible value, an unknown key; with its place (exit 2).
    """
    if not top.is_mapping("model"):
        return _name(top, "model"), Source()
    section = top.section("model")
    given = [key for key in SOURCES if key in section]
    if len(given) > 1:
        raise section.error(f"{given[1]}: the model has {given[0]} already; expected one", given[1])
    found = Source(
        repository=_repository(section),
        commit=_commit(section),
        directory=_path(section, "directory", beside),
        # The converters take a file for a NeMo one by its name.
        nemo=file(section, "nemo", (".nemo",), beside) if "nemo" in section else None,
        dummy=_dummy(section.section("dummy")) if "dummy" in section else None,
        tokenizer=_name(section, "tokenizer") if "tokenizer" in section else None,
    )
    if found.tokenizer is not None and found.dummy is None:
        raise section.error("tokenizer: is of dummy weights, others have their own", "tokenizer")
    name = _name(section, "name")
    section.taken.update(("commit", "tokenizer", *SOURCES))
    section.close()
    return name, found


def _name(section: Section, key: str) -> str:
    name = section.text(key)
    if not NAME.fullmatch(name):
        raise section.error(
            f"{key}: expected a name of letters, digits, '.', '_', '-', found {name!r}", key
        )
    return name


def _repository(section: Section) -> str | None:
    if "repository" not in section:
        return None
    value = section.text("repository")
    if not _REPOSITORY.fullmatch(value):
        raise section.error(f"repository: expected OWNER/NAME, found {value!r}", "repository")
    return value


def _commit(section: Section) -> str | None:
    if "commit" not in section or (value := section.optional_text("commit")) is None:
        return None
    if "repository" not in section:
        raise section.error("commit: is of a repository", "commit")
    if not _COMMIT.fullmatch(value):
        raise section.error(
            f"commit: expected 40 hexadecimal digits, or null where nothing is pinned, "
            f"found {value!r}",
            "commit",
        )
    return value


def _path(section: Section, key: str, beside: Path) -> Path | None:
    return path(section, key, beside) if key in section else None


def path(section: Section, key: str, beside: Path) -> Path:
    """The path under `key`; a relative one is taken from the folder `beside`."""
    value = section.text(key)
    if not value.strip() or "\0" in value:
        raise section.error(f"{key}: expected a path, found {value!r}", key)
    try:
        return beside / Path(value).expanduser()
    except RuntimeError as error:  # ~ of a user that there is none of
        raise section.error(f"{key}: {value}: {error}", key) from error


def file(section: Section, key: str, suffixes: tuple[str, ...], beside: Path) -> Path:
    """Like `path`, of a file whose name becomes one in the container."""
    found = path(section, key, beside)
    if found.suffix not in suffixes or not NAME.fullmatch(found.name):
        expected = " or ".join(f"NAME{suffix}" for suffix in suffixes)
        raise section.error(
            f"{key}: expected a file {expected} of letters, digits, '.', '_', '-', "
            f"found {found.name!r}",
            key,
        )
    return found


def _dummy(section: Section) -> Dummy:
    values: dict[str, Any] = {}
    for key in DUMMY_NUMBERS:
        if key in section or key in DUMMY_REQUIRED:
            values[key] = section.integer(key)
            if values[key] < 1:
                raise section.error(f"{key}: expected 1 or more, found {values[key]}", key)
    if "hidden_act" in section:
        values["hidden_act"] = section.text("hidden_act")
        if values["hidden_act"] not in ACTIVATIONS:
            raise section.error(
                f"hidden_act: unknown {values['hidden_act']!r}; "
                + nearest(values["hidden_act"], ACTIVATIONS),
                "hidden_act",
            )
    if "rotary_pct" in section:
        values["rotary_pct"] = section.number("rotary_pct", 0, 1)
    if "bias" in section:
        values["bias"] = section.boolean("bias")
    section.taken.update(Dummy.__slots__)
    section.close()
    if values["hidden_size"] % values["num_attention_heads"]:
        raise section.error(
            f"num_attention_heads: {values['num_attention_heads']} do not divide hidden_size "
            f"{values['hidden_size']}",
            "num_attention_heads",
        )
    if values["num_attention_heads"] % values.get("num_key_value_heads", 1):
        raise section.error(
            f"num_key_value_heads: {values['num_key_value_heads']} do not divide "
            f"num_attention_heads {values['num_attention_heads']}",
            "num_key_value_heads",
        )
    return Dummy(**values)
