"""L4: what is the same platform, what is another, and what nobody knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kit.reproduce import platform
from tests.unit.artifacts import folders
from tests.unit.manifests.test_record import small
from tests.unit.reproduce.sides import ladder, side

if TYPE_CHECKING:
    from pathlib import Path

    from kit.reproduce.ladder import Rung


def host(*gpus: str, **changes: Any) -> dict[str, Any]:
    rows = [{"name": name, "compute_capability": "9.0", "memory_bytes": 1 << 36} for name in gpus]
    known = {**small()["host"], "cpu": "EPYC", "gpus": rows, "driver": "550.1"}
    return {**known, **changes}


def ranks(count: int) -> list[dict[str, Any]]:
    return [{**small()["commands"][0], "mpi_ranks": count}]


def found(
    folder: Path,
    first: dict[str, Any],
    second: dict[str, Any],
    *,
    count: int = 1,
    gpus: str = "all",
) -> Rung:
    one, other = (
        side(folder / name, {}, host=facts, gpus=gpus, commands=ranks(count))
        for name, facts in (("1", first), ("2", second))
    )
    return platform.compare(one.manifest, other.manifest)


H200 = ("H200",)


@pytest.mark.parametrize(
    ("first", "second", "what"),
    [
        (host(), host(), "GPUs"),
        (host(*H200, driver=None), host(*H200, driver=None), "driver branch"),
        (host(*H200, driver=None), host(*H200), "driver branch"),
    ],
)
def test_what_is_not_known_is_not_the_same(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], what: str
) -> None:
    rung = found(tmp_path, first, second)
    assert rung.state == "unchecked"
    assert what in rung.reason
    assert platform.claimable(rung, "rehearsal") == (0, 1, 2, 3, 7)


def test_memory_of_a_gpu_that_is_not_known(tmp_path: Path) -> None:
    facts = host(*H200)
    facts["gpus"][0]["memory_bytes"] = None
    rung = found(tmp_path, facts, facts)
    assert (rung.state, rung.reason) == ("unchecked", "not known of both: GPU memory")


def test_a_difference_counts_beside_what_is_not_known(tmp_path: Path) -> None:
    rung = found(tmp_path, host("H200", driver=None), host("L40S", driver=None))
    assert rung.state == "differs"
    assert any("driver branch" in line for line in rung.evidence)


def test_a_run_without_gpus_needs_its_processor(tmp_path: Path) -> None:
    known, unknown = host(*H200), host(*H200, cpu=None)
    assert found(tmp_path / "a", known, known, gpus="none").state == "passed"
    rung = found(tmp_path / "b", unknown, unknown, gpus="none")
    assert (rung.state, rung.reason) == ("unchecked", "not known of both: processor")


def test_no_bytes_are_promised_on_a_platform_that_nobody_knows(tmp_path: Path) -> None:
    """Other bytes and other tokens are no failure there; the same on both are what they are."""
    unknown = host(cpu=None)
    files = {"engine/rank0.engine": folders.rehearsal()}
    other = {"engine/rank0.engine": folders.rehearsal()[:-1] + b"x"}
    one = side(tmp_path / "1", files, host=unknown)
    said = [{**small()["outputs"][0], "token_ids": [9]}]
    rungs = ladder(one, side(tmp_path / "2", other, host=unknown, outputs=said)).rungs
    assert (rungs[4].state, rungs[6].state, rungs[8].state) == ("unchecked", "differs", "differs")
    assert ladder(one, one).rungs[8].state == "passed"


@pytest.mark.parametrize(
    ("first", "second", "count", "state"),
    [
        (H200 * 8, H200, 1, "passed"),
        (H200 * 8, H200, 2, "differs"),
        (H200 * 8, H200 * 2, 2, "passed"),
        (("H200", "L40S"), ("L40S", "H200"), 1, "differs"),
        (("H200", "L40S"), ("L40S", "H200"), 2, "differs"),
        (("H200", "L40S"), ("H200", "A100"), 1, "passed"),
    ],
)
def test_the_gpus_that_ranks_run_on_are_compared_in_order(
    tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...], count: int, state: str
) -> None:
    assert found(tmp_path, host(*first), host(*second), count=count).state == state


@pytest.mark.parametrize(
    ("gpus", "present", "state"),
    [
        ("1", ("L40S", "H200"), "passed"),
        ("7", H200, "unchecked"),
        ("GPU-0123456789ab", H200 * 2, "passed"),
        ("GPU-0123456789ab", ("H200", "L40S"), "unchecked"),
        ("MIG-0123456789ab", H200, "unchecked"),
    ],
)
def test_gpus_that_the_record_does_not_tell_apart(
    tmp_path: Path, gpus: str, present: tuple[str, ...], state: str
) -> None:
    assert found(tmp_path, host(*present), host(*present), gpus=gpus).state == state


def cluster(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {"scheduler": "slurm", "version": "23", "mpi_plugin": "pmix", "nodes": list(nodes)}


def test_all_nodes_of_a_cluster_are_compared(tmp_path: Path) -> None:
    first = host(*H200)

    def run(name: str, *nodes: dict[str, Any]) -> Any:
        more = {"cluster": cluster(*nodes)} if nodes else {}
        return side(tmp_path / name, {}, host=first, gpus="all", **more).manifest

    same = run("1", first, host(*H200))
    assert platform.compare(same, same).state == "passed"
    rung = platform.compare(same, run("2", first, host("L40S")))
    assert rung.state == "differs"
    assert [str(item) for item in rung.differences] == ["node 2: GPUs: H200 → L40S"]
    rung = platform.compare(same, run("3", first, host()))
    assert rung.state == "unchecked"
    assert "node 2: GPUs" in rung.reason
    rung = platform.compare(same, run("4"))
    assert [str(item) for item in rung.differences] == ["nodes: 2 → 1"]
