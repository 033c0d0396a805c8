from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.reproduce import structure, tensors

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, **content: tuple[str, bytes, int]) -> Path:
    """A safetensors file of vectors: name → type, payload, count."""
    header: dict[str, Any] = {}
    payload = b""
    for name, (dtype, raw, count) in content.items():
        header[name] = {
            "dtype": dtype,
            "shape": [count],
            "data_offsets": [len(payload), len(payload) + len(raw)],
        }
        payload += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    return path


def halves(*values: float) -> tuple[str, bytes, int]:
    return "F16", struct.pack(f"<{len(values)}e", *values), len(values)


def found(folder: Path, first: Any, second: Any, *, is_quantized: bool) -> list[Any]:
    one = tensors.of_safetensors(write(folder / "one", **first))
    other = tensors.of_safetensors(write(folder / "other", **second))
    return list(tensors.compare("x", one, other, is_quantized=is_quantized))


@pytest.mark.parametrize(
    ("name", "second", "is_quantized", "counts"),
    [
        ("mlp.fc.weights_scaling_factor", 1.005, True, False),
        ("mlp.fc.weights_scaling_factor", 1.2, True, True),
        ("mlp.fc.weights_scaling_factor", 1.005, False, True),
        ("mlp.fc.weight", 1.005, True, True),
    ],
)
def test_only_scales_of_quantized_checkpoints_have_a_tolerance(
    tmp_path: Path, name: str, second: float, is_quantized: bool, counts: bool
) -> None:
    (item,) = found(
        tmp_path, {name: halves(1.0, 2.0)}, {name: halves(second, 2.0)}, is_quantized=is_quantized
    )
    assert item.counts is counts
    assert ("within" in item.note) is not counts
    assert "1 of 2 numbers differ" in item.note


def test_other_type_other_shape_and_absent(tmp_path: Path) -> None:
    first = {"a": halves(1.0), "b": halves(1.0, 2.0), "c": halves(1.0)}
    second = {"a": ("F32", struct.pack("<f", 1.0), 1), "b": halves(1.0)}
    items = found(tmp_path, first, second, is_quantized=False)
    assert [(item.recorded, item.found) for item in items] == [
        ("F16 [1]", "F32 [1]"),
        ("F16 [2]", "F16 [1]"),
        ("F16 [1]", None),
    ]


def test_numbers_of_bfloat16_and_types_without_numbers(tmp_path: Path) -> None:
    one, other = (struct.pack("<f", value)[2:] for value in (1.0, 3.0))
    first = {"a": ("BF16", one, 1), "b": ("F8_E4M3", b"\1", 1)}
    second = {"a": ("BF16", other, 1), "b": ("F8_E4M3", b"\2", 1)}
    items = found(tmp_path, first, second, is_quantized=False)
    assert "number 0: 1 → 3" in items[0].note
    assert "compared as bytes" in items[1].note


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one=st.binary(max_size=300), other=st.binary(max_size=300))
def test_bytes_are_counted_as_a_loop_would(tmp_path: Path, one: bytes, other: bytes) -> None:
    (tmp_path / "one").write_bytes(one)
    (tmp_path / "other").write_bytes(other)
    result = structure.bytes_of(tmp_path / "one", tmp_path / "other")
    places = [at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
    assert result.count == len(places)
    expected = (places[0], one[places[0]], other[places[0]]) if places else None
    assert result.first == expected


@pytest.mark.parametrize("before", [0, 10, (1 << 20) - 20, (1 << 20) - 1, 1 << 20])
def test_addresses_of_the_builder_are_told_from_other_bytes(tmp_path: Path, before: int) -> None:
    """Also where a name stands across the border of what is read at a time."""
    head, tail = b"\7" * before, b"\6" * 500
    one = head + b"nvrtc_prog_140726972735968_cu_0001" + tail
    other = head + b"nvrtc_prog_140726999999968_cu_0001" + tail
    (tmp_path / "one").write_bytes(one)
    (tmp_path / "other").write_bytes(other)
    assert structure.bytes_of(tmp_path / "one", tmp_path / "other").only_addresses
    (tmp_path / "other").write_bytes(other[:-1] + b"x")
    assert not structure.bytes_of(tmp_path / "one", tmp_path / "other").only_addresses
