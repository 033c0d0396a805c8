"""L2: what the files of a checkpoint are compared as, and what is said of it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from kit.reproduce import checkpoint
from tests.unit.reproduce.sides import floats, safetensors, side

if TYPE_CHECKING:
    from pathlib import Path

    from kit.reproduce.ladder import Rung

RANK = "checkpoint/rank0.safetensors"
QUANTIZED = {"checkpoint/config.json": b'{"quantization": {"quant_algo": "FP8"}}'}


def found(folder: Path, first: dict[str, bytes], second: dict[str, bytes]) -> Rung:
    return checkpoint.compare(side(folder / "1", first), side(folder / "2", second))


def scales(*values: float) -> dict[str, bytes]:
    entry = ("F32", [len(values)], [0, 4 * len(values)])
    return {**QUANTIZED, RANK: safetensors({"l.weights_scaling_factor": entry}, floats(*values))}


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_a_scale_that_is_no_number_is_outside_any_tolerance(tmp_path: Path, odd: float) -> None:
    for name, first, second in (("a", 1.0, odd), ("b", odd, 1.0)):
        rung = found(tmp_path / name, scales(first, 2.0), scales(second, 2.0))
        assert rung.state == "failed"


def test_the_reason_names_scales_where_scales_differ(tmp_path: Path) -> None:
    rung = found(tmp_path, scales(1.0, 2.0), scales(1.001, 2.0))
    assert rung.state == "passed"
    assert "scales" in rung.reason


def test_the_reason_names_no_scales_where_only_the_file_differs(tmp_path: Path) -> None:
    first, second = ("F32", [1], [0, 4]), ("F32", [1], [4, 8])
    entries = {"a": first, "b": second}
    again = {"b": second, "a": first}
    rung = found(
        tmp_path,
        {RANK: safetensors(entries, floats(1, 2))},
        {RANK: safetensors(again, floats(1, 2))},
    )
    assert rung.state == "passed"
    assert rung.reason == "all tensors of 1 files are equal, what else differs does not count"


def test_an_old_file_that_is_no_list_of_numbers_is_compared_as_bytes(tmp_path: Path) -> None:
    about = {"checkpoint/config.ini": b"[gpt]\nweight_data_type = fp16\n"}
    path = "checkpoint/model.w.bin"
    rung = found(tmp_path, {**about, path: b"abc"}, {**about, path: b"abd"})
    assert rung.state == "failed"
    (item,) = rung.differences
    assert item.what.startswith(path)
    assert "compared as bytes" in item.note


def test_tensors_that_lie_outside_of_the_file_are_not_equal(tmp_path: Path) -> None:
    entry = {"w": ("F32", [1], [100, 104])}
    first, second = safetensors(entry, floats(1)), safetensors(entry, floats(99))
    rung = found(tmp_path, {RANK: first}, {RANK: second})
    assert rung.state == "failed"
    assert "a gap before it" in rung.differences[0].note


def test_a_damaged_file_has_no_count_of_tensors(tmp_path: Path) -> None:
    content = {RANK: b"{}", "checkpoint/config.json": json.dumps({}).encode()}
    rung = found(tmp_path, content, content)
    assert rung.evidence == ("2 of 2 files have the same digest",)
