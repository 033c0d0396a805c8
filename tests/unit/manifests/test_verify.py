from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.digest import Digest
from kit.errors import KitError
from kit.images.oci import Layout
from kit.manifests import record
from kit.manifests.verify import Problem, verify

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.manifests.conftest import Recorded


def problems(recorded: Recorded) -> list[tuple[str, str]]:
    return [(item.kind, item.what) for item in verify(recorded.project, recorded.path).problems]


def test_untouched_folder_verifies(recorded: Recorded) -> None:
    result = verify(recorded.project, recorded.path.parent)
    assert result.ok, result.text()
    assert any("files by size and sha256" in line for line in result.checked)
    assert any(line.startswith("lock sha256:") for line in result.checked)
    assert any(line.startswith("image sha256:") for line in result.unchecked)
    assert json.loads(json.dumps(result.to_dict()))["problems"] == []
    assert result.text().splitlines()[0].endswith(": verified")


def test_missing_altered_and_extra_files_are_named(recorded: Recorded) -> None:
    folder = recorded.path.parent
    (folder / "engine" / "rank0.engine").unlink()
    log = folder / "logs" / "build.log"
    log.write_bytes(log.read_bytes().swapcase())
    (folder / "engine" / "rank1.engine").write_text("x")
    (folder / "checkpoint" / "config.json").write_text("{}")
    assert problems(recorded) == [
        ("altered", "checkpoint/config.json"),
        ("missing", "engine/rank0.engine"),
        ("extra", "engine/rank1.engine"),
        ("altered", "logs/build.log"),
    ]
    rows = verify(recorded.project, recorded.path).to_dict()["problems"]
    assert [row["name"] for row in rows] == [row["what"] for row in rows]
    text = verify(recorded.project, recorded.path).text()
    assert "NOT verified" in text
    assert "expected sha256" in text


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_flipped_byte_is_found(recorded: Recorded, data: st.DataObject) -> None:
    manifest = record.read(recorded.path)
    chosen = data.draw(st.sampled_from([file for file in manifest.files() if file.size]))
    path = recorded.path.parent / chosen.path
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    original = path.read_bytes()
    path.write_bytes(content)
    try:
        assert problems(recorded) == [("altered", chosen.path)]
    finally:
        path.write_bytes(original)


def test_a_link_is_no_file(recorded: Recorded, tmp_path: Path) -> None:
    path = recorded.path.parent / "engine" / "rank0.engine"
    moved = path.rename(tmp_path / "elsewhere")
    path.symlink_to(moved)
    assert problems(recorded) == [("altered", "engine/rank0.engine")]


def test_another_lock_is_named_with_both_digests(recorded: Recorded) -> None:
    path = recorded.project.lock_path("rehearsal")
    path.write_text(path.read_text().replace('version: ""', 'version: "2"', 1))
    (problem,) = verify(recorded.project, recorded.path).problems
    assert (problem.kind, problem.what) == ("altered", "lock")
    assert problem.expected == record.read(recorded.path).lock
    assert problem.found != problem.expected


def test_without_the_stack_the_lock_is_not_checked(recorded: Recorded) -> None:
    recorded.project.lock_path("rehearsal").unlink()
    result = verify(recorded.project, recorded.path)
    assert result.ok
    assert [line.split()[0] for line in result.unchecked] == ["lock", "image"]


def test_the_image_of_the_layout_is_compared(recorded: Recorded) -> None:
    layout = Layout(recorded.project.images)
    image = layout.write_image(
        name="localhost/trtllm-kit/rehearsal:latest",
        layers=(),
        settings={},
        history=(),
        platform="linux/amd64",
        epoch=0,
    )
    content = json.loads(recorded.path.read_bytes())
    content["image"] = {
        "manifest_digest": str(image.manifest_digest),
        "image_id": str(image.image_id),
    }
    recorded.path.write_text(json.dumps(content))
    assert verify(recorded.project, recorded.path).ok
    content["image"]["image_id"] = str(Digest.of_bytes(b"other"))
    recorded.path.write_text(json.dumps(content))
    assert problems(recorded) == [("altered", "image")]


def test_a_manifest_cannot_point_outside_its_folder(recorded: Recorded) -> None:
    content = json.loads(recorded.path.read_bytes())
    content["artifacts"][0]["path"] = "../../../../outside"
    recorded.path.write_text(json.dumps(content))
    with pytest.raises(KitError, match="outside its folder"):
        verify(recorded.project, recorded.path)


def test_problem_in_words() -> None:
    assert str(Problem("missing", "a", None, None)) == "missing: a"
    assert str(Problem("altered", "lock", "x", "y")) == "altered: lock: expected x, found y"
