"""Token ids back to text, for byte-level tokenizers (GPT-2's), without their library.

`run.py` prints no text when it writes token ids to a file, so the kit makes it from them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """The bytes of every token id; special tokens have none and stop nothing by themselves."""

    pieces: Mapping[int, bytes]
    end_id: int | None

    def decode(self, ids: Sequence[int]) -> str:
        """The text of `ids`, as `tokenizer.decode` gives it: broken UTF-8 becomes U+FFFD."""
        return b"".join(self.pieces[token] for token in ids).decode(errors="replace")

    def prompt_length(self, ids: Sequence[int], prompt: str) -> int | None:
        """How many of the first ids are the prompt, or None if they are not that text."""
        wanted = prompt.encode()
        seen = b""
        for count, token in enumerate(ids):
            if seen == wanted:
                return count
            if token not in self.pieces:
                return None
            seen += self.pieces[token]
            if not wanted.startswith(seen):
                return None
        return len(ids) if seen == wanted else None


def load(folder: Path) -> Tokenizer | None:
    """The tokenizer of a Hugging Face model folder; None when it is not a byte-level one."""
    tokenizer = _json(folder / "tokenizer.json")
    config = _json(folder / "config.json") or {}
    if tokenizer is None or not _is_byte_level(tokenizer):
        return None
    letters = _letters()
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    added = {row["id"]: row["content"] for row in tokenizer.get("added_tokens") or []}
    try:
        pieces = {
            token: bytes(letters[letter] for letter in word)
            for word, token in vocabulary.items()
            if token not in added
        }
    except KeyError:
        return None
    pieces.update({token: word.encode() for token, word in added.items()})
    end_id = config.get("eos_token_id")
    return Tokenizer(pieces, end_id if isinstance(end_id, int) else None)


def _is_byte_level(tokenizer: Mapping[str, Any]) -> bool:
    decoder = tokenizer.get("decoder") or {}
    model = tokenizer.get("model") or {}
    return decoder.get("type") == "ByteLevel" and isinstance(model.get("vocab"), dict)


def _letters() -> dict[str, int]:
    """GPT-2's spelling of bytes as printable letters: its `bytes_to_unicode`, turned round.

    Printable Latin-1 stands for itself; the other bytes, in order, are U+0100 and following.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return letters | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
