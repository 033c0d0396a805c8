"""Tokens in and out: the tokenizer's files, prompts, and what run.py prints and writes."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from .errors import BackendError
from .files import read_json, write_npy, write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .generation import Generated


class Vocabulary(Protocol):
    """Text to token ids and back."""

    @property
    def end_id(self) -> int | None:
        """The token that ends a text."""
        ...

    @property
    def size(self) -> int:
        """How many tokens there are: the first virtual token has this id."""
        ...

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text."""
        ...

    def decode(self, ids: Sequence[int], *, special: bool = True) -> str:
        """The text of token ids, those beyond the vocabulary left out.

        Special tokens are shown, as run.py does it, unless `special` is false.
        """
        ...


class Tokenizer:
    """A tokenizer.json with the end-of-text token that its neighbours name."""

    def __init__(self, directory: str) -> None:
        from tokenizers import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            Tokenizer as Loaded,
        )

        path = Path(directory) / "tokenizer.json"
        if not path.is_file():
            raise BackendError(
                f"no tokenizer.json in {directory}; give the model's directory "
                "(--tokenizer before 0.7.0, --tokenizer_dir later): nothing is downloaded"
            )
        self._loaded: Any = Loaded.from_file(str(path))
        self.size = int(self._loaded.get_vocab_size(with_added_tokens=True))
        self.end_id = self._find_end(Path(directory))

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text."""
        ids: list[int] = self._loaded.encode(text, add_special_tokens=special).ids
        return ids

    def decode(self, ids: Sequence[int], *, special: bool = True) -> str:
        """The text of token ids."""
        real = [token for token in ids if token < self.size]
        text: str = self._loaded.decode(real, skip_special_tokens=not special)
        return text

    def _find_end(self, directory: Path) -> int | None:
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            if (directory / name).is_file():
                token = read_json(directory / name).get("eos_token")
                text = token.get("content") if isinstance(token, dict) else token
                if text is not None and self._loaded.token_to_id(text) is not None:
                    return int(self._loaded.token_to_id(text))
        if (directory / "config.json").is_file():
            found = read_json(directory / "config.json").get("eos_token_id")
            return int(found) if isinstance(found, int) else None
        return None


class SentencePieceTokenizer:
    """A SentencePiece model, as NeMo's archives have one.

    The releases read it with transformers' T5Tokenizer, which ends every text with the end token
    where special tokens are wanted; so does this.
    """

    def __init__(self, path: str, end_id: int | None = None) -> None:
        from sentencepiece import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
            SentencePieceProcessor,
        )

        if not Path(path).is_file():
            raise BackendError(f"--vocab_file {path}: no such file")
        try:
            self._loaded: Any = SentencePieceProcessor(model_file=path)
        except RuntimeError as error:
            raise BackendError(f"--vocab_file {path}: not a SentencePiece model") from error
        self.size = int(self._loaded.get_piece_size())
        own = int(self._loaded.eos_id())
        self._mark = own if own >= 0 else None
        self.end_id = self._mark if end_id is None else end_id
        begin = int(self._loaded.bos_id())
        self.begin_id = begin if begin >= 0 else None

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of a text."""
        ids = [int(token) for token in self._loaded.encode(text)]
        return [*ids, self._mark] if special and self._mark is not None else ids

    def decode(self, ids: Sequence[int], *, special: bool = True) -> str:
        """The text of token ids; control tokens have no text of their own here."""
        real = [token for token in ids if token < self.size]
        if not special:
            real = [token for token in real if not self._loaded.is_control(token)]
        text: str = self._loaded.decode(real)
        return text


def read_prompts(
    path: Path, tokenizer: Vocabulary, *, special: bool, text: Literal["whole", "lines"] | None
) -> list[list[int]]:
    """Prompts from a .csv or .npy file of token ids.

    With `text` also from a .txt: one prompt, or one each line.
    """
    if not path.is_file():
        raise BackendError(f"{path}: no such file")
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                return [[int(cell) for cell in line] for line in csv.reader(file) if line]
        if path.suffix == ".npy":
            rows = np.load(path, allow_pickle=False)
            return [[int(t) for t in row if t != tokenizer.end_id] for row in rows]
    except ValueError as error:
        raise BackendError(f"{path}: not a file of token ids: {error}") from error
    if path.suffix == ".txt" and text is not None:
        with path.open(encoding="utf-8", errors="replace") as file:
            texts = list(file) if text == "lines" else [file.read()]
        return [tokenizer.encode(one, special=special) for one in texts]
    raise BackendError(f"{path}: input file format not supported")


def rows(generated: Sequence[Generated], max_output_len: int, pad_id: int) -> list[list[int]]:
    """One row per sequence, all of one length: its prompt, the generated tokens, then padding.

    The length is that of the longest prompt plus max_output_len.
    """
    length = max(len(one.prompt) for one in generated) + max_output_len
    full = [[*one.prompt, *one.tokens] for one in generated]
    return [row + [pad_id] * (length - len(row)) for row in full]


def write_csv(path: Path, table: list[list[int]]) -> None:
    """Token ids as comma-separated lines."""
    text = io.StringIO()
    csv.writer(text, delimiter=",").writerows(table)
    write_text(path, text.getvalue())


def write_ids(path: Path, table: list[list[int]]) -> None:
    """Token ids as an int32 NumPy file."""
    write_npy(path, np.array(table, dtype=np.int32))


def quoted(label: str, text: str) -> str:
    """A line of run.py: the label and the text between quotation marks, unescaped."""
    return f'{label}: "{text}"'
