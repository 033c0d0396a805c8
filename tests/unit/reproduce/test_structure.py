"""Engines of TensorRT: what can be told of a plan, and what nobody promises."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kit.digest import Digest
from kit.manifests import record
from kit.reproduce import behaviour, platform, request, structure
from kit.reproduce.side import Side, of_run
from tests.unit.artifacts import folders
from tests.unit.manifests.test_record import small
from tests.unit.reproduce import sides

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
    document["host"]["cpu"] = "EPYC"
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


MANAGED = "engine/rank0_managed_weights.safetensors"


def managed(*values: float) -> bytes:
    return sides.safetensors({"w": ("F32", [2], [0, 8])}, sides.floats(*values))


@pytest.mark.parametrize("builder", ["TensorRT", "rehearsal"])
def test_weights_beside_an_engine_are_a_part_of_it(tmp_path: Path, builder: str) -> None:
    content = plan(b"abc") if builder == "TensorRT" else folders.rehearsal()
    files = {"engine/config.json": sides.CONFIG, PATH: content, MANAGED: managed(1, 2)}
    one = sides.side(tmp_path / "1", files)
    other = sides.side(tmp_path / "2", {**files, MANAGED: managed(1, 9)})
    ladder = sides.ladder(one, other)
    (item,) = ladder.rungs[8].differences
    assert item.what == MANAGED
    assert ladder.rungs[8].state == ("differs" if builder == "TensorRT" else "failed")
    (item,) = ladder.rungs[5].differences
    assert item.what == f"{MANAGED}: w"
    assert "number 1: 2 → 9" in item.note
    assert sides.ladder(one, one).rungs[8].state == "passed"


@pytest.mark.parametrize("lacking", [PATH, MANAGED, "engine/config.json"])
def test_a_file_that_one_side_lacks_is_a_difference(tmp_path: Path, lacking: str) -> None:
    files = {"engine/config.json": sides.CONFIG, PATH: folders.rehearsal(), MANAGED: managed(1, 2)}
    whole = sides.side(tmp_path / "1", files)
    short = sides.side(tmp_path / "2", {k: v for k, v in files.items() if k != lacking})
    for first, second in ((whole, short), (short, whole)):
        rungs = (
            structure.structure(first, second),
            structure.same_bytes(first, second, is_promised=True),
        )
        assert [rung.state for rung in rungs] == ["differs", "failed"]
        for rung in rungs:
            (item,) = rung.differences
            assert item.what == lacking
            assert None in (item.recorded, item.found)


def test_a_kind_of_file_that_the_kit_does_not_know(tmp_path: Path) -> None:
    one = sides.side(tmp_path / "1", {PATH: plan(b"a"), "engine/more.bin": b"1"})
    other = sides.side(tmp_path / "2", {PATH: plan(b"a"), "engine/more.bin": b"2"})
    rung = structure.structure(one, other)
    assert rung.state == "unchecked"
    assert "engine/more.bin" in rung.reason


def test_an_engine_of_no_known_format_is_not_called_the_same(tmp_path: Path) -> None:
    one, other = pair(tmp_path, b"PK\x03\x04" + b"1" * 50, b"PK\x03\x04" + b"2" * 50)
    rung = structure.structure(one, other)
    assert (rung.state, rung.evidence) == ("unchecked", ())
    assert structure.structure(one, one).state == "passed"
    rung = platform.compare(one.manifest, other.manifest)
    assert 8 not in platform.claimable(rung, structure.backend(other))


def test_two_damaged_engines_are_not_called_the_same(tmp_path: Path) -> None:
    whole = folders.rehearsal()
    one, other = pair(tmp_path, whole[:-1], whole[:-2] + b"x")
    rung = structure.structure(one, other)
    assert (rung.state, rung.evidence) == ("unchecked", ())
    assert "truncated" in rung.reason


def with_layers(listed: bytes, body: bytes) -> bytes:
    """A rehearsal engine whose list of layers is written as it is given."""
    about = {"release": "0.16.0", "plan": {"bytes": len(body), "layer_bytes": len(listed)}}
    header = json.dumps(about).encode()
    fixed = b"KIT-REHEARSAL\0\0\0" + (3).to_bytes(4, "little") + len(header).to_bytes(4, "little")
    return fixed + header + listed + body


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (b"{}", b"{}", "tells of no layers"),
        (b'{"layers": []}', b'{"layers": []}', "tells of no layers"),
        (b'{"layers": ["a"]}', b"{}", "tells of no layers"),
        (b"[1]", b"[2]", "expected a JSON object"),
        (b'{"layers": 7}', b'{"layers": 7}', "expected a list"),
        (b'{"layers": [7]}', b'{"layers": [7]}', "expected a list"),
        (b"", b"", "not valid JSON"),
        (b'{"layers": ["a"]}', b'{"layers": ["a"]}', "tactics are not told"),
    ],
)
def test_layers_that_nobody_tells_are_a_gap(
    tmp_path: Path, first: bytes, second: bytes, why: str
) -> None:
    body = folders.plan("8.6.0.12")
    one, other = pair(tmp_path, with_layers(first, body + b"1"), with_layers(second, body + b"2"))
    rung = structure.structure(one, other)
    assert (rung.state, rung.evidence) == ("unchecked", ())
    assert why in rung.reason


@pytest.mark.parametrize(("first", "second"), [("1", "true"), ("1", "1.0"), ("0", "false")])
def test_one_is_not_true(tmp_path: Path, first: str, second: str) -> None:
    body = folders.plan("8.6.0.12")
    one, other = pair(
        tmp_path,
        *(
            with_layers(b'{"layers": [{"Name": "x", "p": %s}]}' % value.encode(), body)
            for value in (first, second)
        ),
    )
    rung = structure.structure(one, other)
    assert rung.state == "differs"
    assert str(rung.differences[-1]).endswith(f"p {first} → p {second}")
