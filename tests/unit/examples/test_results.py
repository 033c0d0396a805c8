from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.examples import recipe, results, text
from kit.examples.fingerprints import Fingerprints
from tests.unit.examples.local import MODEL

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = recipe.find("gpt2-tiny")


def put(work: Path, name: str, content: bytes = b"x") -> None:
    path = work / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_artifacts_are_sorted_with_role_and_digest(tmp_path: Path) -> None:
    for name in ("engine/rank0.engine", "engine/model.cache", "checkpoint/1-gpu/a.bin"):
        put(tmp_path, name, name.encode())
    found = results.artifacts(tmp_path, Fingerprints())
    assert [(item.path, item.role) for item in found] == [
        ("checkpoint/1-gpu/a.bin", "checkpoint"),
        ("engine/model.cache", "cache"),
        ("engine/rank0.engine", "engine"),
    ]
    assert found[2].sha256 == Digest.of_bytes(b"engine/rank0.engine").hex


@pytest.mark.parametrize("name", ["stray", "other/file", "engine/back\\slash", "engine/\udcff"])
def test_what_cannot_be_recorded_is_refused(tmp_path: Path, name: str) -> None:
    put(tmp_path, name)
    with pytest.raises(KitError) as caught:
        results.artifacts(tmp_path, Fingerprints())
    assert caught.value.exit_code == ExitCode.CONTENT


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "engine").mkdir()
    os.mkfifo(tmp_path / "engine" / "pipe")
    with pytest.raises(KitError, match="regular files"):
        results.artifacts(tmp_path, Fingerprints())
    (tmp_path / "engine" / "pipe").unlink()
    (tmp_path / "engine" / "link").symlink_to("/")
    with pytest.raises(KitError, match="regular files"):
        results.artifacts(tmp_path, Fingerprints())


def rows_for(answers: dict[str, list[int]]) -> str:
    tokenizers = pytest.importorskip("tokenizers")
    library = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    rows = [library.encode(prompt).ids + answer for prompt, answer in answers.items()]
    longest = max(map(len, rows))
    return "".join(",".join(map(str, r + [383] * (longest - len(r)))) + "\r\n" for r in rows)


def test_prompt_answer_and_padding_are_told_apart(tmp_path: Path) -> None:
    prompts = EXAMPLE.run.prompts
    answers = dict(zip(prompts, ([5, 6, 383, 7], [8], []), strict=True))
    put(tmp_path, "output/tokens.csv", rows_for(answers).encode())
    found = results.outputs(EXAMPLE, "0.16.0", tmp_path, MODEL, {"run"})
    assert [list(output.token_ids) for output in found] == [[5, 6], [8], []]
    tokenizer = text.load(MODEL)
    assert tokenizer is not None
    assert found[0].text == tokenizer.decode([5, 6])
    assert all(tokenizer.decode(o.prompt_token_ids or ()) == o.prompt for o in found)


def test_answers_end_at_the_length_that_was_asked_for(tmp_path: Path) -> None:
    example = dataclasses.replace(EXAMPLE, run=recipe.Run(("Alice was",), 2, None))
    put(tmp_path, "output/tokens.csv", rows_for({"Alice was": [1, 2, 3, 4]}).encode())
    (found,) = results.outputs(example, "0.16.0", tmp_path, MODEL, {"run"})
    assert found.token_ids == (1, 2)


def test_without_a_readable_tokenizer_the_row_is_kept(tmp_path: Path) -> None:
    example = dataclasses.replace(EXAMPLE, run=recipe.Run(("Alice was",), 2, None))
    put(tmp_path, "output/tokens.csv", b"1,2,3\n")
    (found,) = results.outputs(example, "0.16.0", tmp_path, tmp_path, {"run"})
    assert (found.prompt_token_ids, found.token_ids, found.text) == (None, (1, 2, 3), None)


@pytest.mark.parametrize(
    "content", [b"", b"1,2\n", b"1\n2\n3\n4\n", b"a,b\n1\n2\n", b"-1\n1\n1\n", b"\xff\n"]
)
def test_malformed_rows_are_refused(tmp_path: Path, content: bytes) -> None:
    put(tmp_path, "output/tokens.csv", content)
    with pytest.raises(KitError, match=r"tokens\.csv") as caught:
        results.outputs(EXAMPLE, "0.16.0", tmp_path, MODEL, {"run"})
    assert caught.value.exit_code == ExitCode.CONTENT
