"""Every release with every container, and every hole: nothing unknown is called compatible."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest

from kit.compat.facts import Facts, container
from kit.compat.gather import of_gpu
from kit.compat.verdict import judge
from kit.data import drivers, gpus, releases, tensorrt, triton

PAIRS = list(itertools.product(releases.order(), triton.containers()))


def answer(release: str, month: str) -> str:
    return judge(Facts(release=release, triton=container(month))).answer


def expected(release: str, month: str) -> set[str]:
    """By the table alone: who ships what, and where that is not stated, TensorRT decides."""
    row = triton.row(month)
    assert row is not None
    if row["tensorrt_llm"] is not None:
        return {"compatible" if row["tensorrt_llm"] == release else "incompatible"}
    pinned, stated = releases.value(release, "tensorrt"), row["tensorrt"]
    if pinned is not None and tensorrt.same(stated, pinned) is False:
        return {"incompatible"}
    return {"unknown"}


def test_every_release_with_every_container() -> None:
    wrong = {
        pair: (answer(*pair), expected(*pair))
        for pair in PAIRS
        if answer(*pair) not in expected(*pair)
    }
    assert not wrong
    assert {answer(*pair) for pair in PAIRS} == {"compatible", "incompatible", "unknown"}


LISTED = [name for name in releases.order() if releases.value(name, "triton_container") is not None]


@pytest.mark.parametrize("release", LISTED)
def test_both_columns_of_the_table_agree(release: str) -> None:
    listed = releases.value(release, "triton_container")
    served = {month for month in triton.containers() if answer(release, month) == "compatible"}
    assert served == {tag.partition("-")[0] for tag in listed}


@pytest.mark.parametrize("release", releases.order())
def test_a_mismatch_offers_containers_that_fit(release: str) -> None:
    for month in triton.containers():
        verdict = judge(Facts(release=release, triton=container(month)))
        if verdict.answer != "incompatible" or not triton.shipping(release):
            continue
        said = verdict.sentence()
        offered = [other for other in triton.containers() if f"use {other}" in said]
        assert offered, said
        assert all(answer(release, other) == "compatible" for other in offered), said


@pytest.fixture
def emptied(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Set one cell of a table to null, with a reason."""

    def blank(month: str, field: str) -> None:
        changed = copy.deepcopy(triton.table())
        for row in changed["containers"]:
            if row["container"] == month:
                row[field] = None
                row.setdefault("holes", {})[field] = "emptied"
        monkeypatch.setattr(triton, "table", lambda: changed)

    return blank


@pytest.mark.parametrize("month", triton.containers())
def test_container_with_an_unknown_release_is_never_compatible(emptied: Any, month: str) -> None:
    emptied(month, "tensorrt_llm")
    for release in releases.order():
        assert answer(release, month) != "compatible"


def test_month_beyond_the_table_is_unknown() -> None:
    for month in ("19.03", "30.01"):
        for release in releases.order():
            assert answer(release, month) == "unknown"


@pytest.mark.parametrize("release", releases.order())
@pytest.mark.parametrize("capability", gpus.capabilities())
def test_every_release_on_every_gpu(release: str, capability: str) -> None:
    supported = releases.value(release, "compute_capabilities_supported")
    verdict = judge(Facts(release=release, gpu=of_gpu(capability)))
    if supported is None:
        assert verdict.answer == "unknown"
    else:
        assert verdict.answer == ("compatible" if capability in supported else "incompatible")


def test_every_toolkit_of_a_release_or_container_has_a_driver() -> None:
    cudas = {releases.value(release, "cuda") for release in releases.versions()}
    cudas |= {row["cuda"] for row in triton.table()["containers"]}
    for cuda in cudas - {None}:
        assert drivers.of_toolkit(cuda) is not None, cuda
        assert drivers.minor_version(cuda) is not None, cuda
        assert drivers.forward(cuda) is not None, cuda
