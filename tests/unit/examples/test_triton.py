"""Triton's steps against the placeholders and options of each release's own templates."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kit import data
from kit.data import releases
from kit.errors import KitError
from kit.examples import dialect, plan, recipe
from kit.examples.tasks import Serve, Triton

if TYPE_CHECKING:
    from kit.examples.plan import Step
    from kit.examples.recipe import Recipe

ROWS = json.loads(Path(__file__).with_name("triton.json").read_text())["rows"]
SERVED = recipe.find("llama-2-7b-chat-triton")
ABLE = [name for name in releases.versions() if dialect.refusal(SERVED, name) is None]


def names(place: str, release: str, *, needed: bool = False) -> set[str]:
    return {
        name
        for name, is_needed, held in ROWS[place]
        if data.covers([held], release) and (is_needed or not needed)
    }


def serving(example: Recipe, release: str) -> list[Step]:
    return [step for step in plan.plan(example, release).steps if step.is_served]


def asking(**values: Any) -> Recipe:
    return dataclasses.replace(SERVED, serve=Serve(Triton(**values)))


def test_most_releases_can() -> None:
    assert set(releases.versions()) - set(ABLE) == {"0.6.0", "0.6.1", "0.18.1"}


@pytest.mark.parametrize("release", ABLE)
@pytest.mark.parametrize(
    "example",
    [
        SERVED,
        asking(),
        asking(decoupled=True, kv_cache_fraction=0.5, max_tokens_in_cache=4096),
    ],
)
def test_what_a_model_needs_is_filled_in_and_nothing_else(example: Recipe, release: str) -> None:
    steps = serving(example, release)
    assert [step.name for step in steps][0 :: len(steps) - 1] == ["repository", "serve"]
    filled = {step.name.removeprefix("fill-"): step.argv for step in steps[1:-1]}
    for model, argv in filled.items():
        assert argv[2:4] == ("-i", f"/kit/work/output/repository/{model}/config.pbtxt")
        given = {pair.partition(":")[0] for pair in argv[4].split(",")}
        assert len(given) == len(argv[4].split(","))
        assert names(model, release, needed=True) <= given <= names(model, release)
        assert "None" not in argv[4]
    for model in ROWS:
        if model != "launch" and model not in filled:
            assert not names(model, release, needed=True)
    given = {word for word in steps[-1].argv if word.startswith("--")}
    assert given <= names("launch", release)


@pytest.mark.parametrize("release", ABLE)
def test_the_container_has_the_release(release: str) -> None:
    for step in serving(SERVED, release):
        assert step.image is not None
        month = step.image.rpartition(":")[2].partition("-")[0]
        rows = json.loads((Path(data.__file__).parent / "triton.json").read_text())["containers"]
        found = next(row for row in rows if row["container"] == month)
        assert found["tensorrt_llm"] == release


def test_ranks_are_the_servers_own() -> None:
    two = dataclasses.replace(SERVED, checkpoint=dataclasses.replace(SERVED.checkpoint, tp=2, pp=2))
    last = serving(two, "0.16.0")[-1]
    assert " --world_size 4 " in last.line()
    assert (last.mpi_ranks, last.argv[0], last.cwd) == (1, "python3", "/")


@pytest.mark.parametrize(
    ("values", "release", "message"),
    [
        ({"kv_cache_reuse": True}, "0.5.0", "no setting for kv_cache_reuse: true.*0.7.0"),
        ({"http_port": 9000}, "0.5.0", "no setting for http_port: 9000.*0.7.0"),
        ({"batching": "static"}, "0.5.0", "no setting for batching: static.*0.7.0"),
        ({"instances": 2}, "0.5.0", "no setting for instances: 2.*0.7.0"),
        ({"max_queue_delay": 9}, "0.5.0", "no setting for max_queue_delay: 9.*0.7.0"),
        ({}, "0.18.1", "no Triton container with release 0.18.1 is known.*0.18.0"),
    ],
)
def test_what_a_backend_cannot_is_refused(
    values: dict[str, Any], release: str, message: str
) -> None:
    with pytest.raises(KitError, match=message):
        plan.plan(asking(**values), release)


def test_a_script_says_whose_container() -> None:
    script = plan.plan(SERVED, "0.16.0").script()
    assert script.count("# In a container of ") == 7
    assert "24.12-trtllm-python-py3" in script
