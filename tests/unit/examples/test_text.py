from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.examples import text
from tests.unit.examples.local import MODEL

if TYPE_CHECKING:
    from pathlib import Path

TOKENIZER = text.load(MODEL)


@settings(max_examples=80, deadline=None)
@given(prompt=st.text(min_size=1, max_size=40), answer=st.text(max_size=40))
def test_agrees_with_the_library_for_any_text(prompt: str, answer: str) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    assert TOKENIZER is not None
    asked, said = library.encode(prompt).ids, library.encode(answer).ids
    assert TOKENIZER.decode(said) == answer
    assert TOKENIZER.prompt_length([*asked, *said], prompt) == len(asked)


@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.integers(0, 382), max_size=20))
def test_any_ids_decode_as_in_the_library(ids: list[int]) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    assert TOKENIZER is not None
    assert TOKENIZER.decode(ids) == library.decode(ids, skip_special_tokens=False)


def test_ids_of_another_prompt_are_not_taken_for_it() -> None:
    assert TOKENIZER is not None
    ids = [32, 33, 34]
    assert TOKENIZER.prompt_length(ids, "something else") is None
    assert TOKENIZER.prompt_length([100_000], "A") is None
    assert TOKENIZER.prompt_length([], "A") is None


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"decoder": {"type": "WordPiece"}, "model": {"vocab": {"a": 0}}}',
     '{"decoder": {"type": "ByteLevel"}, "model": {"vocab": {"\u2581a": 0}}}'],
)  # fmt: skip
def test_other_tokenizers_are_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    assert text.load(tmp_path) is None


def test_end_id_is_the_models(tmp_path: Path) -> None:
    assert TOKENIZER is not None
    assert TOKENIZER.end_id == json.loads((MODEL / "config.json").read_text())["eos_token_id"]
    assert text.load(tmp_path) is None
