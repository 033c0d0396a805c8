from __future__ import annotations

import pytest

from kit.diagnose.naming import named


@pytest.mark.parametrize(
    ("kind", "value", "part"),
    [
        ("serialization_tag", "226", "TensorRT 9.1"),
        ("serialization_tag", "237", "10.0.1"),
        ("tensorrt", "10.7.0.23", "0.16.0"),
        ("tensorrt_major", "9", "0.5.0 to 0.9.0"),
        ("compute_capability", "9.0", "H100"),
        ("sm", "sm_89", "compute capability 8.9"),
        ("driver", "535.54.03", "CUDA 12.2.0"),
        ("cuda", "12.4", "550.54.14"),
        ("cuda_error", "35", "older"),
        ("xid", "79", "bus"),
        ("bytes", "9637888", "9.6 MB"),
    ],
)
def test_numbers_have_names(kind: str, value: str, part: str) -> None:
    assert part in (named(kind, value) or "")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("serialization_tag", "999"), ("tensorrt", "99.1"), ("tensorrt", "x"), ("sm", "999999"),
        ("compute_capability", "99.9"), ("cuda_error", "12345"), ("xid", "1"), ("driver", "1"),
        ("cuda", "99.9"), ("tensorrt_major", "99"),
    ],
)  # fmt: skip
def test_an_unknown_number_has_none(kind: str, value: str) -> None:
    assert named(kind, value) is None
