"""Safetensors headers: the tensors have to fill the payload, one after the other."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kit.artifacts import tensors

if TYPE_CHECKING:
    from pathlib import Path


def problem(folder: Path, payload: int, **places: tuple[int, int]) -> str | None:
    """What is wrong with a file of bytes at these places."""
    header = {
        name: {"dtype": "U8", "shape": [end - start], "data_offsets": [start, end]}
        for name, (start, end) in places.items()
    }
    text = json.dumps(header).encode()
    path = folder / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(payload))
    return tensors.look(path).problem


@pytest.mark.parametrize(
    ("payload", "places"),
    [
        (0, {}),
        (6, {"a": (0, 4), "b": (4, 6)}),
        (6, {"b": (4, 6), "a": (0, 4)}),
        (4, {"a": (0, 4), "empty": (4, 4), "none": (0, 0)}),
        (6, {"a": (0, 4), "empty": (4, 4), "b": (4, 6)}),
    ],
)
def test_places_one_after_the_other(
    tmp_path: Path, payload: int, places: dict[str, tuple[int, int]]
) -> None:
    assert problem(tmp_path, payload, **places) is None


@pytest.mark.parametrize(
    ("payload", "places", "what"),
    [
        (4, {"a": (100, 104)}, "'a' begins at byte 100, expected 0: a gap before it"),
        (8, {"a": (0, 4), "b": (0, 4)}, "'b' begins at byte 0, expected 4: it overlaps"),
        (6, {"a": (0, 4), "b": (3, 5)}, "'b' begins at byte 3, expected 4: it overlaps"),
        (4, {"a": (0, 2), "b": (3, 5)}, "'b' begins at byte 3, expected 2: a gap before it"),
        (4, {"a": (0, 4), "empty": (2, 2)}, "'empty' begins at byte 2, expected 4: it overlaps"),
    ],
)
def test_gaps_and_overlaps(
    tmp_path: Path, payload: int, places: dict[str, tuple[int, int]], what: str
) -> None:
    assert what in (problem(tmp_path, payload, **places) or "")
