"""Engines of TensorRT: what can be told of a plan, and what nobody promises."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kit.digest import Digest
from kit.manifests import record
from kit.reproduce import behaviour, platform, request, structure
from kit.reproduce.side import Side, of_run
from tests.unit.artifacts import folders
from tests.unit.manifests.test_record import small

if TYPE_CHECKING:
    from pathlib import Path

PATH = "engine/rank0.engine"


def plan(body: bytes, version: tuple[int, ...] = (10, 7, 0, 23)) -> bytes:
    """A plan's documented header, then something."""
    return b"ftrt" + bytes(20) + bytes(version) + body


def side(folder: Path, content: bytes) -> Side:
    file = folder / PATH
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    document = small()
    digest = Digest.of_bytes(content).hex
    document["artifacts"] = [
        {"path": PATH, "size": len(content), "sha256": digest, "role": "engine"}
    ]
    return of_run(record.parse(document, "x"), folder)


def pair(folder: Path, first: bytes, second: bytes) -> tuple[Side, Side]:
    return side(folder / "first", first), side(folder / "second", second)


@pytest.mark.parametrize(
    ("first", "second", "of_structure", "of_bytes"),
    [
        (plan(b"abc"), plan(b"abc"), "passed", "passed"),
        (plan(b"abc"), plan(b"abd"), "unchecked", "differs"),
        (plan(b"abc"), plan(b"abcd"), "differs", "differs"),
        (plan(b"abc"), plan(b"abc", (10, 7, 0, 24)), "differs", "differs"),
    ],
)
def test_two_builds_of_tensorrt(
    tmp_path: Path, first: bytes, second: bytes, of_structure: str, of_bytes: str
) -> None:
    one, other = pair(tmp_path, first, second)
    assert structure.backend(other) == "TensorRT"
    assert structure.structure(one, other).state == of_structure
    assert structure.same_bytes(one, other, is_promised=False).state == of_bytes


def test_another_tensorrt_is_another_build_request(tmp_path: Path) -> None:
    one, other = pair(tmp_path, plan(b"abc"), plan(b"abc", (10, 8, 0, 1)))
    rung = request.compare(one, other)
    assert rung.state == "failed"
    (found,) = rung.differences
    assert (found.recorded, found.found) == ("TensorRT 10.7.0.23", "TensorRT 10.8.0.1")


def test_names_with_addresses_are_told(tmp_path: Path) -> None:
    first, second = (
        plan(b"nvrtc_prog_140726972735968_cu_1"),
        plan(b"nvrtc_prog_140726972735111_cu_1"),
    )
    (found,) = structure.same_bytes(*pair(tmp_path, first, second), is_promised=False).differences
    assert "all in names of generated kernels" in found.note


def test_what_can_be_claimed_of_tensorrt(tmp_path: Path) -> None:
    one, other = pair(tmp_path, plan(b"a"), plan(b"a"))
    rung = platform.compare(one.manifest, other.manifest)
    assert platform.claimable(rung, structure.backend(other)) == (0, 1, 2, 3, 4, 5, 6, 7)
    assert platform.claimable(rung, "rehearsal")[-1] == 8


LAYER = {"Name": "matmul", "LayerType": "gemm", "TacticValue": "0x1"}


def test_plans_of_the_rehearsal_are_compared_layer_by_layer(tmp_path: Path) -> None:
    """Bytes that differ alone are no other structure, another tactic is."""
    body = folders.plan("8.6.0.12")
    first = folders.rehearsal_plan([LAYER], body)
    again = folders.rehearsal_plan([LAYER], body + b"...")
    other = folders.rehearsal_plan([{**LAYER, "TacticValue": "0x2"}, LAYER], body)
    one, two = pair(tmp_path / "a", first, again)
    rung = structure.structure(one, two)
    assert rung.state == "passed"
    assert "the same layers with the same tactics" in rung.evidence[0]
    assert structure.same_bytes(one, two, is_promised=False).state == "differs"
    rung = structure.structure(*pair(tmp_path / "b", first, other))
    assert rung.state == "differs"
    assert [str(item) for item in rung.differences] == [
        f"{PATH}: layers: 1 → 2",
        f'{PATH}: layer 1 "matmul": TacticValue "0x1" → TacticValue "0x2"',
    ]


def test_of_many_other_layers_the_first_are_told(tmp_path: Path) -> None:
    body = folders.plan("8.6.0.12")
    first, second = (
        folders.rehearsal_plan([{**LAYER, "TacticValue": f"{half}{n}"} for n in range(90)], body)
        for half in "xy"
    )
    rung = structure.structure(*pair(tmp_path, first, second))
    assert len(rung.differences) == 21
    assert str(rung.differences[-1]).endswith("absent → 90 of 90")


def test_a_plan_of_the_rehearsal_instead_of_its_weights(tmp_path: Path) -> None:
    """Two backends of one kit: told, and what TensorRT built is promised by nobody."""
    one, other = pair(tmp_path, folders.rehearsal(), folders.rehearsal_plan())
    assert (structure.backend(one), structure.backend(other)) == ("rehearsal", "TensorRT")
    rung = structure.structure(one, other)
    assert rung.state == "differs"
    assert any("header plan.tensorrt" in item.what for item in rung.differences)
    assert structure.same_bytes(one, other, is_promised=False).state == "differs"


def test_a_server_has_to_say_the_same(tmp_path: Path) -> None:
    def served(*said: tuple[str, str]) -> Side:
        document = small()
        answers = [{"prompt": prompt, "text": text} for prompt, text in said]
        image = {"manifest_digest": "sha256:" + "1" * 64, "image_id": "sha256:" + "2" * 64}
        about = {"stack": "s", "image": image, "name": "triton", "version": "2.51.0"}
        document["server"] = {**about, "models": [], "answers": answers}
        return of_run(record.parse(document, "x"), tmp_path)

    one = served(("Hello", " world"), ("Good", " day"))
    same = behaviour.same_tokens(one, one, is_promised=True)
    assert same.state == "passed"
    assert "2 answers of triton 2.51.0" in same.evidence
    for other, expected in (
        (served(("Hello", " you"), ("Good", " day")), ("' world'", "' you'")),
        (served(("Good", " day")), ("' world'", None)),
    ):
        found = behaviour.same_tokens(one, other, is_promised=True)
        assert found.state == "failed"
        [difference] = found.differences
        assert difference.what == "the server's answer to 'Hello'"
        assert (difference.recorded, difference.found) == expected


def test_what_a_program_wrote_stands_for_answers(tmp_path: Path) -> None:
    def written(folder: Path, text: bytes) -> Side:
        file = folder / "output" / "runtime.txt"
        file.parent.mkdir(parents=True)
        file.write_bytes(text)
        document = small()
        row = {"path": "output/runtime.txt", "size": len(text), "role": "output"}
        document |= {
            "outputs": [],
            "artifacts": [{**row, "sha256": Digest.of_bytes(text).hex}],
        }
        return of_run(record.parse(document, "x"), folder)

    one, same = written(tmp_path / "1", b"0.16.0"), written(tmp_path / "2", b"0.16.0")
    other = written(tmp_path / "3", b"0.17.0")
    assert behaviour.same_tokens(one, same, is_promised=True).state == "passed"
    assert behaviour.same_tokens(one, other, is_promised=True).state == "differs"
    assert request.compare(one, same).state == "absent"
    assert structure.same_bytes(one, same, is_promised=True).state == "absent"
