"""What a run has left in its work folder: files with digests, and the answers to the prompts."""

from __future__ import annotations

import csv
import os
import stat
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from kit.errors import content_error
from kit.examples import dialect, layout, text
from kit.manifests.record import ROLES, Artifact, Output, Role

if TYPE_CHECKING:
    from collections.abc import Collection

    from kit.examples.fingerprints import Fingerprints
    from kit.examples.recipe import Recipe


def artifacts(work: Path, seen: Fingerprints) -> tuple[Artifact, ...]:
    """Every file below `work` with its digest, sorted by path; each is read once.

    Raises:
        KitError: as `members`.
    """
    found = members(work)
    files = seen.files(work, sorted(found))
    return tuple(Artifact(file.path, file.size, file.sha256, found[file.path]) for file in files)


def members(work: Path) -> dict[str, Role]:
    """Every file below `work` with its role.

    Raises:
        KitError: a link, a device, or a file outside the folders that the plan writes to (exit 4).
    """
    found: dict[str, Role] = {}
    for folder, folders, names in os.walk(work, onerror=_raise):
        for name in (*folders, *names):
            path = Path(folder) / name
            member = path.relative_to(work).as_posix()
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode) and member.partition("/")[0] in ROLES:
                continue
            role = _role(member)
            if role is None or not stat.S_ISREG(mode):
                raise content_error(
                    f"{path}: expected regular files in {', '.join(ROLES)}, found something else: "
                    "it cannot be recorded"
                )
            found[member] = role
    return found


def outputs(
    recipe: Recipe, release: str, work: Path, model: Path | None, done: Collection[str]
) -> tuple[Output, ...]:
    """The answers, in the order of the prompts, of the steps that are `done`.

    Raises:
        KitError: a file of token ids is malformed or lacks a row for a prompt (exit 4).
    """
    tokenizer = None if model is None else text.load(model)
    end_id = recipe.run.end_id
    if end_id is None and tokenizer is not None:
        end_id = tokenizer.end_id
    answers: list[Output] = []
    for step, tokens, prompts in dialect.questions(recipe, release):
        if step not in done:
            continue
        path = in_work(work, tokens)
        rows = _rows(path)
        if recipe.run.input_file is not None:
            # Token ids were asked, which no text stands for.
            name = recipe.run.input_file.name
            answers += [
                Output(f"{name} row {number}", None, row, None)
                for number, row in enumerate(rows, start=1)
            ]
            continue
        if len(rows) != len(prompts):
            raise content_error(
                f"{path}: expected {len(prompts)} rows of token ids, found {len(rows)}"
            )
        answers += [
            _answer(prompt, row, recipe.run.max_output_len, end_id, tokenizer)
            for prompt, row in zip(prompts, rows, strict=True)
        ]
    return tuple(answers)


def in_work(work: Path, path: str) -> Path:
    """Where a path of the container lies on the host."""
    return work / PurePosixPath(path).relative_to(layout.WORK)


def _answer(
    prompt: str,
    row: tuple[int, ...],
    max_output_len: int,
    end_id: int | None,
    tokenizer: text.Tokenizer | None,
) -> Output:
    length = None if tokenizer is None else tokenizer.prompt_length(row, prompt)
    if tokenizer is None or length is None:
        return Output(prompt, None, row, None)
    fresh = row[length : length + max_output_len]
    if end_id is not None and end_id in fresh:
        fresh = fresh[: fresh.index(end_id)]
    try:
        answer = tokenizer.decode(fresh)
    except KeyError as error:
        raise content_error(f"token id {error} is not in the model's tokenizer") from error
    return Output(prompt, row[:length], fresh, answer)


def _rows(path: Path) -> list[tuple[int, ...]]:
    try:
        with path.open(encoding="ascii", newline="") as stream:
            rows = [tuple(_token(cell) for cell in row) for row in csv.reader(stream) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise content_error(f"{path}: no rows of token ids: {error}") from error
    return rows


def _token(cell: str) -> int:
    token = int(cell)
    if token < 0:
        raise ValueError(f"token id {token} is negative")
    return token


def _role(member: str) -> Role | None:
    if member.endswith(".cache"):  # timing caches: TensorRT's own, different on every host
        return "cache"
    top = member.partition("/")[0]
    return next((role for role in ROLES if role == top and top != member), None)


def _raise(error: OSError) -> None:
    raise error
