"""The model of argparse, against real parsers made from the same table."""

from __future__ import annotations

import random

import pytest

from kit import data
from kit.commandlines.parse import parse
from kit.commandlines.shell import Command, split

from . import lines

SCRIPTS = [
    (name, release)
    for name in data.cli_table()["scripts"]
    for release in data.release_order()
    if (source := data.source(name, release)) is not None
    and source["status"] == "extracted"
    and source["parse"] != "click"
]
FAMILIES = [
    (name, release)
    for name in data.scripts_table()["scripts"]
    for release in data.release_order()
    if data.source(name, release) is not None
]


def outcome(script: str, release: str, text: str):
    [command] = split(f"x {text}") or [Command(())]
    return parse(data.options(script, release), command.words[1:])


def kinds(script: str, release: str, text: str) -> list[tuple[str, str]]:
    return [(fault.kind, fault.option) for fault in outcome(script, release, text).faults]


def test_same_as_argparse() -> None:
    chance = random.Random(7)
    compared = {True: 0, False: 0}
    for script, release in SCRIPTS + chance.sample(FAMILIES, 150):
        rows = data.options(script, release)
        checkable = not any(r["type"] == "unchecked" or "choices_unrecorded" in r for r in rows)
        if not checkable:
            continue
        parser = lines.real(rows)
        for _ in range(20):
            line = lines.good(rows, chance)
            if chance.random() < 0.7:
                line = lines.spoiled(line, rows, chance)
            wanted = lines.accepts(parser, line)
            found = parse(rows, lines.words(line))
            if found.assumed:  # a word such as N or XX, which documentation writes for a number
                continue
            assert not found.doubts
            assert (not found.faults) is wanted, (script, release, line, found.faults)
            compared[wanted] += 1
    assert min(compared.values()) > 1000, compared


def test_what_a_release_takes_is_accepted_and_what_it_lacks_is_not() -> None:
    chance = random.Random(11)
    for script, release in SCRIPTS:
        rows = data.options(script, release)
        line = lines.good(rows, chance)
        assert not parse(rows, lines.words(line)).faults, (script, release, line)
        for wrong in (["--no_such_option"], ["--no_such_option", "1"]):
            found = parse(rows, lines.words([*line, *wrong])).faults
            assert [(f.kind, f.option) for f in found] == [("unknown-option", "--no_such_option")]
        required = [row for row in rows if row.get("required") and row["flags"]]
        for row in required:
            rest = lines.good([other for other in rows if other is not row], chance)
            found = parse(rows, lines.words(rest)).faults
            assert [f.kind for f in found] == ["missing-option"], (script, release, rest)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("--checkpoint_dir x", []),
        ("--checkpoint_dir=x --max_batch_size 8", []),
        ("--checkpoint x --max_ba 8", []),
        ("--checkpoint_dir x --max_ 8", [("ambiguous-option", "--max_")]),
        ("--checkpoint_dir x --max_batch_size", [("missing-value", "--max_batch_size")]),
        ("--checkpoint_dir x --max_batch_size eight", [("invalid-value", "--max_batch_size")]),
        ("--checkpoint_dir x --gemm_plugin fp17", [("invalid-choice", "--gemm_plugin")]),
        ("--checkpoint_dir x --strip_plan yes", [("unexpected-argument", "yes")]),
        ("--checkpoint_dir x --strip_plan=yes", [("unexpected-value", "--strip_plan")]),
        ("--checkpoint_dir x --max_output_len 5", [("unknown-option", "--max_output_len")]),
        ("--checkpoint_dir x --no --such a b", [("unknown-option", "--no"), ("unknown-option", "--such")]),
        ("--checkpoint_dir x --kv_cache_type PAGED", []),
        ("--checkpoint_dir x --kv_cache_type linear", [("invalid-value", "--kv_cache_type")]),
        ("--nothing --help", []),
        ("--max_batch_size N --checkpoint_dir x", []),
    ],
)  # fmt: skip
def test_trtllm_build(text: str, faults: list) -> None:
    assert kinds("trtllm-build", "0.16.0", text) == faults


def test_placeholders_are_values() -> None:
    found = outcome(
        "trtllm-build", "0.16.0", "--checkpoint_dir <path> --max_batch_size $N --workers={w}"
    )
    assert not found.faults
    assert not found.doubts
    assert found.assumed == ["--checkpoint_dir <path>", "--max_batch_size $N", "--workers {w}"]


@pytest.mark.parametrize(
    "extra", ["$EXTRA", "${ARGS[@]}", '"$@"', "$(cat flags)", "[options]", "..."]
)
def test_words_that_may_be_anything_are_doubted(extra: str) -> None:
    found = outcome("trtllm-build", "0.16.0", f"--checkpoint_dir x {extra}")
    assert found.doubts
    assert not found.faults
    assert not [f for f in outcome("examples/run.py", "0.16.0", extra).faults if f.certain]


def test_an_unknown_option_is_refused_whatever_stands_beside_it() -> None:
    for text in ("--no_such $ARGS", "$ARGS --no_such", "--no_such=$X"):
        assert ("unknown-option", "--no_such") in kinds("trtllm-build", "0.16.0", text)


def test_a_word_that_a_variable_may_claim_is_doubted() -> None:
    found = outcome("trtllm-build", "0.16.0", "$ARGS 8")
    assert not found.faults
    assert len(found.doubts) == 2


def test_half_an_option_name_is_doubted() -> None:
    found = outcome("trtllm-build", "0.16.0", "--use_$WHAT enable")
    assert found.doubts
    assert not found.faults


def test_uncertain_rows() -> None:
    assert outcome("examples/run.py", "0.19.0", "--max_output_len 5 --min_p 0.1").doubts
    assert not outcome("examples/run.py", "0.19.0", "--max_output_len 5 --top_p 0.1").doubts
    found = outcome("trtllm-build", "0.17.0", "--gemm_plugin nvfp4").faults
    assert [fault.certain for fault in found] == [False]


def test_two_dashes_end_the_options() -> None:
    script = "examples/gpt/merge_ptuning_tables.py"
    assert not outcome(script, "0.16.0", "-- a b c").faults
    assert not outcome(script, "0.16.0", "a -- -b c").faults
    assert [f.certain for f in outcome("trtllm-prune", "0.16.0", "--").faults] == [False]
