"""Prompt tables: learned vectors that stand for tokens beyond the vocabulary.

A table is a NumPy file [tasks, tokens, hidden]; nemo_prompt_convert.py makes it. A prompt belongs
to a task, and its token `vocab_size + i` is that task's vector i.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .errors import BackendError
from .tensors import decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .engine_directory import Limits
    from .tensors import Array


def read(path: Path, hidden_size: int, dtype: str, limits: Limits) -> Array:
    """The table, its values rounded to the engine's type.

    Raises:
        BackendError: it is no such table, or larger than the engine was built for.
    """
    try:
        table = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise BackendError(f"{path}: no such prompt table") from None
    except (ValueError, EOFError) as error:
        raise BackendError(f"{path}: not a NumPy file: {error}") from error
    if table.ndim != 3 or table.shape[2] != hidden_size or table.dtype.kind != "f":
        raise BackendError(
            f"{path}: expected floats [tasks, tokens, {hidden_size}], "
            f"found {table.dtype} {list(table.shape)}"
        )
    most = limits.max_prompt_table
    rows = table.shape[0] * table.shape[1]
    if most is not None and rows > most:
        raise BackendError(
            f"{path}: {table.shape[0]} tasks of {table.shape[1]} tokens are {rows} rows: "
            f"the engine has max_prompt_embedding_table_size {most}"
        )
    return decode(encode(table.astype(np.float32), dtype), dtype, table.shape)


def of_prompts(table: Array, tasks: str | None, count: int) -> list[Array]:
    """Each prompt's vectors; `tasks` are numbers with commas between, by default all 0."""
    try:
        numbers = [0] * count if tasks is None else [int(text) for text in tasks.split(",")]
    except ValueError:
        raise BackendError(f"tasks {tasks!r}: expected numbers such as 0,1,0") from None
    if len(numbers) != count:
        raise BackendError(f"{len(numbers)} tasks for {count} prompts: expected one each")
    for number in numbers:
        if not 0 <= number < len(table):
            raise BackendError(f"task {number}: the prompt table has {len(table)} tasks")
    return [table[number] for number in numbers]


def check_tokens(
    prompts: Sequence[Sequence[int]], vocab_size: int, virtual: Sequence[Array | None]
) -> None:
    """BackendError for a token that neither the vocabulary nor the prompt's table has."""
    for prompt, vectors in zip(prompts, virtual):
        most = vocab_size + (0 if vectors is None else len(vectors))
        for token in prompt:
            if not 0 <= token < most:
                table = "without a prompt table" if vectors is None else "with its prompt table"
                raise BackendError(f"token {token}: there are {most} tokens {table}")
