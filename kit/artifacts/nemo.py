"""NeMo archives: a tar with model_config.yaml, a tokenizer, and weights that are a pickle.

Of the configuration everything is read, of the weights nothing: their file is a Python pickle
(`model_weights.ckpt`), or a folder of arrays with a pickle beside them, and is only named.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from kit import document
from kit.artifacts import bounded, layers, pointer, tar
from kit.artifacts.layers import Region
from kit.artifacts.tar import Limit
from kit.errors import KitError, content_error

if TYPE_CHECKING:
    from pathlib import Path

    from kit.artifacts.tar import Member

CONFIG = "model_config.yaml"
_CONFIG_LIMIT = 1 << 20
_TOKENIZER_LIMIT = 64 << 20
_MEMBERS_LIMIT = 100_000
_WEIGHTS = re.compile(r"(.*/)?model_weights(\.ckpt|/.*)|(.*/)?mp_rank_\d+(/.*)?")
_TOKENIZER = re.compile(r".*\.model")
_NAMED = 8
_GZIP = b"\x1f\x8b"
_REFERENCE = re.compile(r"\$\{\.?(\w+)\}")
_PIECES, _BYTES = 1, 2
"""Field of the pieces, and the wire type of everything that has a length."""
_USTAR, _USTAR_AT = b"ustar", 257


@dataclass(frozen=True, slots=True)
class NemoArchive:
    """What an archive says of its model.

    Attributes:
        path: the archive.
        config: the content of model_config.yaml.
        vocabulary: pieces of its SentencePiece tokenizer; None where it has no single one.
        tokenizers: the files of tokenizers.
        weights: the first files of weights.
    """

    path: Path
    config: dict[str, Any]
    vocabulary: int | None
    tokenizers: tuple[str, ...]
    weights: tuple[str, ...]


def is_archive(path: Path) -> bool:
    """Whether a file begins as a tar archive does, plain or gzipped."""
    head, _ = bounded.head(path, tar.BLOCK)
    return head.startswith(_GZIP) or head[_USTAR_AT : _USTAR_AT + 5] == _USTAR


def look(path: Path) -> NemoArchive:
    """Read an archive's configuration and count its tokenizer's pieces.

    Raises:
        KitError: there is no such file (exit 2); a Git LFS pointer, no archive, none of NeMo, a
            configuration that is no plain YAML (exit 4).
    """
    head, size = bounded.head(path, tar.BLOCK)
    if (found := pointer.of(head)) is not None:
        raise content_error(f"{path}: {found}", hint=f"git lfs pull --include {path.name}")
    if not is_archive(path):
        raise content_error(f"{path}: no NeMo archive: expected a tar archive, plain or gzipped")
    status = path.stat()
    return _read(path, size, (status.st_ino, status.st_mtime_ns))


@lru_cache(maxsize=4)
def _read(path: Path, size: int, _content: tuple[int, int]) -> NemoArchive:
    """All members; of a gzipped archive that takes its time, and is not done twice."""
    config: dict[str, Any] | None = None
    vocabularies: dict[str, int] = {}
    weights: list[str] = []
    for number, member in enumerate(layers.of_region(Region(path, 0, size), str(path), Limit())):
        if number >= _MEMBERS_LIMIT:
            raise content_error(f"{path}: more than {_MEMBERS_LIMIT} members: no NeMo archive")
        if member.kind != "file":
            continue
        if member.path == CONFIG:
            config = _config(member, f"{path}: {CONFIG}")
        elif _TOKENIZER.fullmatch(member.path):
            vocabularies[member.path] = _pieces(member, f"{path}: {member.path}")
        elif _WEIGHTS.fullmatch(member.path) and len(weights) < _NAMED:
            weights.append(member.path)
    if config is None:
        raise content_error(f"{path}: no NeMo archive: no {CONFIG} in it")
    return NemoArchive(
        path=path,
        config=config,
        vocabulary=next(iter(vocabularies.values())) if len(vocabularies) == 1 else None,
        tokenizers=tuple(vocabularies),
        weights=tuple(weights),
    )


def _config(member: Member, where: str) -> dict[str, Any]:
    if member.size > _CONFIG_LIMIT:
        raise content_error(f"{where}: {member.size} bytes: expected at most {_CONFIG_LIMIT}")
    try:
        section = document.loads(member.content(_CONFIG_LIMIT), where)
        found = {key: section.plain(key) for key in section.keys()}  # noqa: SIM118 - no mapping
    except KitError as error:  # of a file that no user wrote
        raise content_error(str(error)) from error
    return {key: _resolved(value, found) for key, value in found.items()}


def _resolved(value: Any, config: dict[str, Any]) -> Any:
    """What a reference to a neighbour such as `${.encoder_seq_length}` stands for."""
    match = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return config.get(match.group(1)) if match else value


def _pieces(member: Member, where: str) -> int:
    """How many pieces a SentencePiece model has: the entries of field 1 of its protocol buffer.

    Raises:
        KitError: too large, or no such model (exit 4).
    """
    if member.size > _TOKENIZER_LIMIT:
        raise content_error(f"{where}: {member.size} bytes: expected at most {_TOKENIZER_LIMIT}")
    content = member.content(_TOKENIZER_LIMIT)
    count = place = 0
    while place < len(content):
        key, place = _varint(content, place, where)
        if key & 7 != _BYTES:  # a model has nothing but messages at its top
            raise content_error(f"{where}: no SentencePiece model")
        length, place = _varint(content, place, where)
        place += length
        if place > len(content):
            raise content_error(f"{where}: no SentencePiece model, or cut short")
        count += key >> 3 == _PIECES
    if not count:
        raise content_error(f"{where}: no SentencePiece model: no piece in it")
    return count


def _varint(content: bytes, place: int, where: str) -> tuple[int, int]:
    value = shift = 0
    while place < len(content) and shift < 64:
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, place
    raise content_error(f"{where}: no SentencePiece model, or cut short")
