"""L1: the server of an engine is an input, what it says is none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from kit.reproduce import inputs
from tests.unit.manifests.test_record import small
from tests.unit.reproduce.sides import SITE, side

if TYPE_CHECKING:
    from pathlib import Path

    from kit.reproduce.side import Side


def server(**changes: Any) -> dict[str, Any]:
    image = {"manifest_digest": "sha256:" + "1" * 64, "image_id": "sha256:" + "2" * 64}
    said = [{"prompt": "Hello", "text": " world"}]
    row = {"stack": "s", "image": image, "name": "triton", "version": "2.51.0", "answers": said}
    return {**row, **changes}


OTHER = {"manifest_digest": "sha256:" + "3" * 64, "image_id": "sha256:" + "4" * 64}


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"server": server(image=OTHER)}, ["server image"]),
        ({"server": server(stack="t")}, ["server stack"]),
        ({"server": server(version="2.52.0")}, ["server version"]),
        ({}, ["server image", "server stack", "server version"]),
        ({"server": server(answers=[{"prompt": "Hello", "text": " you"}])}, []),
    ],
)
def test_another_server_is_another_input(
    tmp_path: Path, other: dict[str, Any], what: list[str]
) -> None:
    one, two = side(tmp_path, {}, server=server()), side(tmp_path, {}, **other)
    rung = inputs.same(one, two.manifest, SITE)
    assert rung.state == ("failed" if what else "passed")
    assert [item.what for item in rung.differences] == what
    assert all(item.recorded and item.recorded != item.found for item in rung.differences)


def test_what_the_kit_wrote_for_a_step_is_an_input(tmp_path: Path) -> None:
    def run(digits: str) -> Side:
        given = {"path": "input/prompts.csv", "size": 1, "sha256": digits * 64}
        command = {**small()["commands"][0], "given": [given]}
        return side(tmp_path, {}, commands=[command])

    one, two = run("a"), run("b")
    assert inputs.same(one, one.manifest, SITE).state == "passed"
    rung = inputs.same(one, two.manifest, SITE)
    assert rung.state == "failed"
    (item,) = rung.differences
    assert item.what.endswith(": input/prompts.csv")
    assert (item.recorded, item.found) == (f"sha256:{'a' * 64}", f"sha256:{'b' * 64}")


def test_a_record_without_what_was_given_is_told_and_no_failure(tmp_path: Path) -> None:
    """As older kits wrote them."""
    command = small()["commands"][0]
    given = {"path": "input/prompts.csv", "size": 1, "sha256": "a" * 64}
    one = side(tmp_path, {}, commands=[{**command, "given": []}])
    two = side(tmp_path, {}, commands=[{**command, "given": [given]}])
    rung = inputs.same(one, two.manifest, SITE)
    assert (rung.state, [item.counts for item in rung.differences]) == ("passed", [False])
