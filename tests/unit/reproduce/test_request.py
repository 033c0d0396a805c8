"""L3: keys that are not taken for each other, and engines that are not here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.errors import KitError
from kit.reproduce import request
from tests.unit.artifacts import folders
from tests.unit.reproduce.sides import CONFIG, side, without

if TYPE_CHECKING:
    from pathlib import Path

ENGINE = "engine/rank0.engine"
KEYS = st.text(alphabet=".\\a", max_size=4)
DOCUMENTS = st.dictionaries(
    KEYS,
    st.recursive(
        st.one_of(st.booleans(), st.integers(0, 2), st.none(), st.sampled_from(["", "{}"])),
        lambda inner: st.dictionaries(KEYS, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=2,
)


def strict(value: Any) -> Any:
    """Equal only to what is equal by type too."""
    if isinstance(value, dict):
        return {name: strict(inner) for name, inner in value.items()}
    return type(value), value


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"a.b": 1}, {"a": {"b": 1}}),
        ({"a.b": 1, "a": {"b": 2}}, {"a": {"b": 2}}),
        ({"a\\": {"b": 1}}, {"a.b": 1}),
        ({"": {"b": 1}}, {"b": 1}),
        ({"": {}}, {}),
        ({"a": 1}, {"a": True}),
    ],
)
def test_other_documents_are_other_when_flat(first: Any, second: Any) -> None:
    assert request.flat(first) != request.flat(second)


@given(first=DOCUMENTS, second=DOCUMENTS)
def test_documents_are_flat_the_same_if_and_only_if_they_are(first: Any, second: Any) -> None:
    assert (request.flat(first) == request.flat(second)) == (strict(first) == strict(second))


def test_keys_are_dotted() -> None:
    assert request.flat({"a": {"b": [1, {"d": 2, "c": 3}]}}) == {"a.b": '[1, {"c": 3, "d": 2}]'}


def test_a_document_without_an_end_is_refused() -> None:
    document: dict[str, Any] = {}
    for _ in range(5000):
        document = {"a": document}
    with pytest.raises(KitError, match="nested too deep"):
        request.flat(document)


def test_a_key_with_a_dot_is_not_taken_for_one_that_varies(tmp_path: Path) -> None:
    (tmp_path / "1").write_text('{"build_config": {"x.input_timing_cache": "a"}}')
    (tmp_path / "2").write_text('{"build_config": {"x.input_timing_cache": "b"}}')
    (item,) = request.documents("c", tmp_path / "1", tmp_path / "2")
    assert item.counts


def test_that_an_engine_is_not_here_is_told(tmp_path: Path) -> None:
    """Its header may name another TensorRT; which one it was, the image says (L1)."""
    files = {"engine/config.json": CONFIG}
    one = side(tmp_path / "1", {**files, ENGINE: folders.plan("10.7.0.1")})
    other = side(tmp_path / "2", {**files, ENGINE: folders.plan("10.4.0.1")})
    assert request.compare(one, other).state == "failed"
    rung = request.compare(without(one, ENGINE), other)
    assert rung.state == "passed"
    assert f"{ENGINE}: another file, whose header is not here to be looked into" in rung.evidence


def test_of_the_same_bytes_one_that_is_here_tells_of_both(tmp_path: Path) -> None:
    files = {"engine/config.json": CONFIG, ENGINE: folders.plan("10.7.0.1")}
    one, other = side(tmp_path / "1", files), side(tmp_path / "2", files)
    rung = request.compare(without(one, ENGINE), other)
    assert rung.state == "passed"
    assert f"{ENGINE}: header of TensorRT, 10.7.0.1" in rung.evidence
