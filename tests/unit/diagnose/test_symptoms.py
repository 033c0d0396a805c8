"""The table: every row has examples, every anchor is sound, every reference leads somewhere."""

from __future__ import annotations

import json
import re
from collections import Counter

import pytest

from kit.arguments import parser
from kit.data import releases
from kit.diagnose.naming import named
from kit.diagnose.symptoms import TABLE, fold, patterns
from tests.unit.diagnose.conftest import answered, diagnosed, examples

ROWS = json.loads(TABLE.read_bytes())["symptoms"]
IDS = [row["id"] for row in ROWS]


def test_names_are_unique_and_all_have_examples() -> None:
    assert Counter(IDS).most_common(1)[0][1] == 1
    assert set(IDS) == {symptom for symptom, _ in examples()}


@pytest.mark.parametrize("row", ROWS, ids=IDS)
def test_row_is_complete(row: dict) -> None:
    assert row["source"]
    assert all(pattern["anchors"] and all(pattern["anchors"]) for pattern in row["patterns"])
    if row.get("kind") not in {"suspect", "release"}:
        assert row["cause"]
        assert row["fix"]
    for fix in row.get("fixes", ()):
        for bound in ("since", "before"):
            assert fix.get(bound) is None or fix[bound] in releases.order()
    assert set(row.get("facts", ())) <= set(releases.table()["fields"])
    categories = {other["category"] for other in ROWS}
    for name in row.get("explains", ()):
        assert name in IDS or name.removeprefix("category:") in categories | ABSTRACT, name


# Categories that only stand for what follows from others.
ABSTRACT = {"cuda-consequence", "consequence-exit", "build-consequence", "compile-consequence",
            "network-consequence", "docker-consequence", "pip-consequence", "mpi-consequence"}  # fmt: skip


def test_numbers_belong_to_groups_and_known_kinds() -> None:
    for row in ROWS:
        for group, kind in row.get("numbers", {}).items():
            assert any(f"(?P<{group}>" in pattern["text"] for pattern in row["patterns"]), row["id"]
            named(kind, "10")


def test_no_pattern_matches_nothing() -> None:
    assert [one.text for one in patterns() if one.search("")] == []


def test_anchors_stand_in_every_example_that_a_pattern_matches() -> None:
    matched = set()
    for _, text in examples():
        words = set(fold(text.encode()).split())
        for pattern in patterns():
            if (found := pattern.search(text)) is None:
                continue
            matched.add((pattern.symptom.id, pattern.place))
            assert not any(words.isdisjoint(group) for group in pattern.anchors), pattern.text
            assert pattern.literal.decode() in found.group(), pattern.text
    assert len(matched) > 0.4 * len(patterns())


@pytest.mark.parametrize(("symptom", "text"), answered())
def test_example_is_the_best_answer(symptom: str, text: str) -> None:
    assert [match.id for match in diagnosed(text).matches][:1] == [symptom]


@pytest.mark.parametrize(("symptom", "text"), [one for one in examples() if one not in answered()])
def test_other_lines_are_no_answer(symptom: str, text: str) -> None:
    diagnosis = diagnosed(text)
    assert diagnosis.matches == ()
    assert bool(diagnosis.suspects) == symptom.startswith("suspect-")
    assert bool(diagnosis.release) == symptom.startswith("release-")


def test_every_command_that_is_advised_is_there() -> None:
    top = parser()
    commands = {
        name
        for action in top._actions
        if isinstance(action.choices, dict)
        for name in action.choices
    }
    for row in ROWS:
        texts = [row.get("fix") or "", *(found["fix"] for found in row.get("fixes", ()))]
        for text in texts:
            # "the kit does" is prose; a command stands with an argument in capitals or a subcommand.
            advised = re.findall(
                r"\bkit ([a-z-]+)(?: (?:[A-Z-]|show|diff|verify|list)|[.;,:)]|$)", text
            )
            assert set(advised) <= commands, (row["id"], set(advised) - commands)
