"""What was changed is found on its level, with both values, and no higher level is claimed."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit.digest import Digest
from kit.errors import content_error
from kit.manifests import record
from kit.reproduce import behaviour, checkpoint, inputs, platform, request, side, structure
from tests.unit.reproduce.conftest import Pair, only

if TYPE_CHECKING:
    from pathlib import Path

    from kit.reproduce.ladder import Ladder

OTHER = "b" * 64
CHECKPOINT = "checkpoint/rank0.safetensors"
ENGINE = "engine/rank0.engine"
CONFIG = "engine/config.json"


def states(ladder: Ladder) -> str:
    """One letter a level: passed, failed, differs, unchecked, absent."""
    return "".join(rung.state[0] for rung in ladder.rungs)


def reached(ladder: Ladder) -> str | None:
    return str(ladder.reached) if ladder.reached else None


def flip(content: bytearray) -> None:
    content[-3] ^= 0x10


def test_the_same_again_is_the_same_to_the_byte(pair: Pair) -> None:
    ladder = pair.ladder()
    assert states(ladder) == "ppppppppp"
    assert reached(ladder) == "L8"
    assert not any(rung.differences for rung in ladder.rungs)
    assert ladder.claimable == tuple(range(9))


def test_the_manifest_alone_is_compared_by_digests(pair: Pair, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(pair.path, alone)
    ladder = Pair(pair.site, alone, pair.found).ladder()
    assert reached(ladder) == "L8"
    assert "compared by digest only" in " ".join(ladder.rungs[0].evidence)


def test_of_the_manifest_alone_a_difference_cannot_be_explained(pair: Pair, tmp_path: Path) -> None:
    pair.change_file(CHECKPOINT, flip)
    pair.change_json(CONFIG, lambda content: content["build_config"].update(max_beam_width=9))
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(pair.path, alone)
    ladder = Pair(pair.site, alone, pair.found).ladder()
    assert "not here to be looked into" in only(ladder, 2).note
    assert ladder.rungs[3].state == "unchecked"
    assert CONFIG in ladder.rungs[3].reason
    assert reached(ladder) == "L1"


@pytest.mark.parametrize("path", [CHECKPOINT, ENGINE, "logs/build.log"])
def test_a_file_that_its_record_does_not_name_was_not_received_as_sent(
    pair: Pair, path: str
) -> None:
    before = Digest.of_file(pair.folder / path).hex
    pair.change_file(path, flip, told=False)
    ladder = pair.ladder()
    found = only(ladder, 0)
    assert found.what == path
    assert found.recorded == f"sha256 {before}"
    assert found.found == Digest.of_file(pair.folder / path).hex
    assert reached(ladder) is None


def test_a_link_and_a_shorter_file_are_told_apart(pair: Pair, tmp_path: Path) -> None:
    moved = (pair.folder / ENGINE).rename(tmp_path / "elsewhere")
    (pair.folder / ENGINE).symlink_to(moved)
    pair.change_file(CHECKPOINT, lambda content: content.pop(), told=False)
    ladder = pair.ladder()
    found = {item.what: item.found for item in ladder.rungs[0].differences}
    assert found[ENGINE] == "a link"
    assert "bytes instead of" in str(found[CHECKPOINT])


def test_another_lock_on_this_host(pair: Pair) -> None:
    path = pair.site.project.lock_path("rehearsal")
    text = path.read_text()
    try:
        path.write_text(text.replace('version: ""', 'version: "2"', 1))
        ladder = pair.ladder()
    finally:
        path.write_text(text)
    found = only(ladder, 1)
    assert "lock" in found.what
    assert found.recorded == record.read(pair.path).lock != found.found
    assert reached(ladder) == "L0"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda m: m["model"]["files"][0].update(sha256=OTHER), "model"),
        (lambda m: m["image"].update(manifest_digest=f"sha256:{OTHER}"), "image"),
        (lambda m: m["example"].update(digest=f"sha256:{OTHER}"), "example"),
        (lambda m: m["commands"][0]["argv"].append("--fast"), "commands convert argv"),
        (lambda m: m["versions"]["distributions"].update(numpy="9"), "versions numpy"),
        (
            lambda m: m.update(
                dataset={"name": "d", "files": [{"path": "a", "size": 1, "sha256": OTHER}]}
            ),
            "dataset a",
        ),
    ],
)
def test_other_inputs(pair: Pair, change: Any, what: str) -> None:
    pair.change_record(change)
    ladder = pair.ladder()
    assert only(ladder, 1).what.startswith(what)
    assert reached(ladder) == "L0"


def test_a_changed_tensor_is_named_with_both_numbers(pair: Pair) -> None:
    pair.change_file(CHECKPOINT, flip)
    ladder = pair.ladder()
    found = only(ladder, 2)
    assert found.what == f"{CHECKPOINT}: transformer.vocab_embedding.weight"
    assert found.recorded.startswith("sha256 ")
    assert found.recorded != found.found
    assert "1 of " in found.note
    assert "→" in found.note
    assert states(ladder) == "ppfpppppp"
    assert reached(ladder) == "L1"


def test_a_changed_tensor_of_an_old_checkpoint(old: Pair, tmp_path: Path) -> None:
    pair = old.copy(tmp_path / "record")
    assert reached(pair.ladder()) == "L8"
    (name,) = [
        item.path
        for item in record.read(pair.path).select("checkpoint")
        if item.path.endswith("model.wpe.bin")
    ]
    pair.change_file(name, flip)
    found = only(pair.ladder(), 2)
    assert found.what.startswith(name)
    assert "F32" in found.note
    assert "1 of " in found.note


def test_a_tensor_that_is_not_there(pair: Pair) -> None:
    def drop(content: bytearray) -> None:
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        name = max(header, key=lambda key: header[key]["data_offsets"])
        start, _ = header.pop(name)["data_offsets"]
        text = json.dumps(header).encode()
        content[:] = len(text).to_bytes(8, "little") + text + content[8 + length :][:start]

    pair.change_file(CHECKPOINT, drop)
    found = only(pair.ladder(), 2)
    assert found.recorded is None
    assert found.found.startswith("F32")


def test_another_build_request(pair: Pair) -> None:
    pair.change_json(CONFIG, lambda content: content["build_config"].update(max_batch_size=77))
    ladder = pair.ladder()
    found = only(ladder, 3)
    assert (found.what, found.recorded) == (f"{CONFIG}: build_config.max_batch_size", "77")
    assert found.found == "4"
    assert reached(ladder) == "L2"


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content["build_config"].update(output_timing_cache="/home/a/model.cache"),
        lambda content: content["build_config"].update(input_timing_cache="/b"),
        lambda content: content["build_config"]["auto_parallel_config"].update(
            cluster_key="H100-SXM", cluster_info={"clock": 1980}
        ),
    ],
)
def test_what_varies_by_itself_is_told_and_does_not_count(pair: Pair, change: Any) -> None:
    pair.change_json(CONFIG, change)
    ladder = pair.ladder()
    assert reached(ladder) == "L8"
    told = ladder.rungs[3].differences
    assert told
    assert not any(item.counts for item in told)
    assert all(item.note for item in told)


def test_an_engine_byte_is_found_with_both_values(pair: Pair) -> None:
    before = (pair.folder / ENGINE).read_bytes()
    pair.change_file(ENGINE, flip)
    ladder = pair.ladder()
    found = only(ladder, 8)
    at = len(before) - 3
    assert f"1 bytes differ, the first at byte {at}: " in found.note
    assert f"{before[at] ^ 0x10:02x} → {before[at]:02x}" in found.note
    assert "transformer.vocab_embedding.weight" in found.note
    assert states(ladder) == "ppppppppf"
    assert reached(ladder) == "L7"


def test_an_engine_of_other_parts(pair: Pair) -> None:
    def rename(content: bytearray) -> None:
        content[:] = content.replace(b'"rank":0', b'"rank":7', 1)

    pair.change_file(ENGINE, rename)
    ladder = pair.ladder()
    assert ladder.rungs[5].state == "differs"
    (found,) = ladder.rungs[5].differences
    assert (found.what, found.recorded, found.found) == (f"{ENGINE}: header rank", "7", "0")


def test_another_token(pair: Pair) -> None:
    def say(manifest: dict[str, Any]) -> None:
        manifest["outputs"][1]["token_ids"][4] = 300

    pair.change_record(say)
    ladder = pair.ladder()
    found = only(ladder, 6)
    assert found.what.startswith("prompt 2 'The Queen said'")
    assert "300" in found.recorded
    assert found.note == "the first 4 of 24 tokens are the same"
    # The bytes are the same; that they say something else now is no L8.
    assert states(ladder) == "ppppppfup"
    assert reached(ladder) == "L5"


def on_gpu(name: str, capability: str = "9.0") -> Any:
    def change(manifest: dict[str, Any]) -> None:
        gpu = {"name": name, "compute_capability": capability, "memory_bytes": 1 << 36}
        manifest["host"] |= {"gpus": [gpu], "driver": "560.35.03"}
        manifest["gpus"] = "0"

    return change


def test_on_another_gpu_less_is_claimed_and_nothing_fails(pair: Pair) -> None:
    pair.change_record(on_gpu("NVIDIA A100", "8.0"))
    pair.change_record(lambda manifest: manifest["outputs"][0].update(token_ids=[1, 2]))
    pair.change_file(ENGINE, flip)
    ladder = pair.ladder(on_gpu("NVIDIA H100"))
    assert ladder.claimable == (0, 1, 2, 3, 7)
    assert states(ladder) == "ppppdpdud"
    assert not ladder.failed
    found = {item.what: (item.recorded, item.found) for item in ladder.rungs[4].differences}
    assert found["GPUs"] == ("NVIDIA A100", "NVIDIA H100")
    assert found["compute capability"] == ("8.0", "9.0")
    assert reached(ladder) == "L5"  # a rehearsal engine's parts are the same on any


def test_a_driver_of_the_same_branch_is_the_same_platform(pair: Pair) -> None:
    pair.change_record(on_gpu("NVIDIA H100"))

    def update(manifest: dict[str, Any]) -> None:
        on_gpu("NVIDIA H100")(manifest)
        manifest["host"]["driver"] = "560.99.01"

    ladder = pair.ladder(update)
    assert ladder.rungs[4].state == "passed"
    assert reached(ladder) == "L8"
    assert [item.what for item in ladder.rungs[4].differences] == ["driver"]


def score(
    metric: str,
    value: float,
    least: float | None = None,
    most: float | None = None,
    subject: str = "TensorRT-LLM beam 0",
) -> Any:
    row = {"step": "summarize", "subject": subject, "metric": metric, "value": value}
    return lambda manifest: manifest.update(evaluations=[{**row, "least": least, "most": most}])


@pytest.mark.parametrize(
    ("recorded", "found", "state"),
    [
        (score("rouge1", 20.0, least=15.0), score("rouge1", 20.9, least=15.0), "passed"),
        (score("rouge1", 20.0, least=15.0), score("rouge1", 21.5, least=15.0), "failed"),
        (score("rouge1", 15.2, least=15.0), score("rouge1", 14.9, least=15.0), "failed"),
        (score("perplexity", 9.0, most=15.0), score("perplexity", 14.0, most=15.0), "passed"),
        (score("perplexity", 9.0, most=15.0), score("perplexity", 15.5, most=15.0), "failed"),
        (score("perplexity", 9.0), score("perplexity", 9.0), "passed"),
        (score("perplexity", 9.0), score("perplexity", 9.1), "unchecked"),
        (score("rouge1", 20.0), lambda _: None, "failed"),
    ],
)
def test_scores_are_held_against_their_bounds(
    pair: Pair, recorded: Any, found: Any, state: str
) -> None:
    pair.change_record(recorded)
    assert pair.ladder(found).rungs[7].state == state


def test_side_reads_no_file_that_it_is_not_told_of(pair: Pair) -> None:
    (pair.folder / "note.txt").write_text("mine")
    found = side.of_run(record.read(pair.path), pair.folder)
    assert not found.altered
    assert not found.missing
    assert len(found.whole) == len(found.manifest.files())


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_flipped_byte_is_found_on_its_level(pair: Pair, data: st.DataObject) -> None:
    path, level = data.draw(st.sampled_from([(CHECKPOINT, 2), (ENGINE, 8)]))
    told = data.draw(st.booleans())
    before = {name: (pair.folder / name).read_bytes() for name in (path, record.FILE)}
    place = data.draw(st.integers(0, len(before[path]) - 1))
    mask = data.draw(st.integers(1, 255))

    def change(content: bytearray) -> None:
        content[place] ^= mask

    try:
        pair.change_file(path, change, told=told)
        ladder = pair.ladder()
    finally:
        for name, content in before.items():
            (pair.folder / name).write_bytes(content)
    found = ladder.rungs[level if told else 0]
    assert any(path in item.what for item in found.differences)
    assert not ladder.holds(8) or level == 2


def test_a_configuration_of_other_bytes_alone_is_not_bit_identical(pair: Pair) -> None:
    def again(content: bytearray) -> None:
        content[:] = json.dumps(json.loads(content)).encode()

    pair.change_file(CONFIG, again)
    ladder = pair.ladder()
    assert only(ladder, 8).what == CONFIG
    assert reached(ladder) == "L7"


def test_what_varies_by_itself_is_named_where_all_else_is_bit_identical(pair: Pair) -> None:
    def vary(content: dict[str, Any]) -> None:
        content["build_config"].update(input_timing_cache="/b")

    pair.change_json(CONFIG, vary)
    rung = pair.ladder().rungs[8]
    assert rung.state == "passed"
    assert rung.reason.endswith(f"but for what varies by itself in {CONFIG}")
    (item,) = rung.differences
    assert item.note == "varies by itself: build_config.input_timing_cache"


def test_another_configuration_that_is_not_here_leaves_bytes_unchecked(pair: Pair) -> None:
    pair.change_json(CONFIG, lambda content: content["build_config"].update(input_timing_cache="/"))
    (pair.folder / CONFIG).unlink()
    rung = pair.ladder().rungs[8]
    assert rung.state == "unchecked"
    assert CONFIG in rung.reason


def fails(error: Exception) -> Any:
    def raising(*_given: Any, **_more: Any) -> Any:
        raise error

    return raising


@pytest.mark.parametrize(
    "error", [content_error("damaged"), OSError(5, "the disk fails"), ValueError("no number")]
)
@pytest.mark.parametrize(
    ("module", "name", "level"),
    [
        (inputs, "received", 0),
        (inputs, "same", 1),
        (checkpoint, "compare", 2),
        (request, "compare", 3),
        (platform, "compare", 4),
        (structure, "structure", 5),
        (behaviour, "same_tokens", 6),
        (behaviour, "within_bounds", 7),
        (structure, "same_bytes", 8),
    ],
)
def test_a_level_that_cannot_be_compared_does_not_lose_the_others(
    pair: Pair,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    module: Any,
    name: str,
    level: int,
) -> None:
    monkeypatch.setattr(module, name, fails(error))
    rungs = pair.ladder().rungs
    assert rungs[level].state == "unchecked"
    assert str(error) in rungs[level].reason
    # Without tokens there may still be logits; these records have none.
    others = [rung.state for rung in rungs if rung.level.number not in (level, 7)]
    assert others == ["passed"] * len(others)


@pytest.mark.parametrize("error", [TypeError("a bug"), AttributeError("a bug")])
def test_a_bug_is_not_taken_for_content(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(request, "compare", fails(error))
    with pytest.raises(type(error), match="a bug"):
        pair.ladder()


def test_an_engine_that_cannot_be_read_promises_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure, "backend", fails(OSError(5, "the disk fails")))
    pair.change_file(ENGINE, flip)
    ladder = pair.ladder()
    assert ladder.rungs[8].state == "differs"
    assert 8 not in ladder.claimable
