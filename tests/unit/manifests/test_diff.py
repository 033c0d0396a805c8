from __future__ import annotations

import json
from typing import Any

import pytest

from kit.manifests import record
from kit.manifests.diff import diff
from tests.unit.manifests.test_record import at, small

OTHER = "b" * 64


def changed(path: tuple[Any, ...], value: Any) -> record.Manifest:
    document = small()
    at(document, path[:-1])[path[-1]] = value
    return record.parse(document, "changed")


FIRST = record.parse(small(), "first")


def test_equal_manifests_do_not_differ() -> None:
    result = diff(FIRST, FIRST)
    assert result.ok
    assert not result.volatile
    assert result.text() == "same inputs, commands and results"


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("example", "digest"), f"sha256:{OTHER}", "example"),
        (("release",), "0.9.0", "release"),
        (("stack",), "other", "stack"),
        (("lock",), f"sha256:{OTHER}", "lock"),
        (("image", "manifest_digest"), f"sha256:{OTHER}", "image"),
        (("versions", "distributions", "numpy"), "2.0", "versions"),
        (("versions", "openmpi"), "5.0", "versions"),
        (("gpus",), "0,1", "gpus"),
        (("model", "files", 0, "sha256"), OTHER, "model"),
        (("commands", 0, "argv"), ["y"], "commands"),
        (("commands", 0, "env"), {}, "commands"),
        (("commands", 0, "exit_code"), 1, "commands"),
        (("artifacts", 0, "sha256"), OTHER, "engine"),
        (("outputs", 0, "token_ids"), [3], "outputs"),
    ],
)
def test_what_counts(path: tuple[Any, ...], value: Any, part: str) -> None:
    result = diff(FIRST, changed(path, value))
    assert not result.ok
    assert [item.part for item in result.differences] == [part]
    assert result.differences[0].first is not None
    (row,) = json.loads(json.dumps(result.to_dict()))["differences"]
    assert row["name"] == f"{row['part']} {row['key']}".rstrip()
    assert "→" in result.text()


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("created",), "2027-01-02T03:04:05Z", "created"),
        (("kit", "version"), "2", "kit"),
        (("engine", "name"), "docker", "container engine"),
        (("host", "cores"), 64, "host"),
        (("host", "gpus"), [], "host"),
        (("commands", 0, "seconds"), 9.0, "measurements"),
        (("commands", 0, "peak_memory_bytes"), 9, "measurements"),
        (("commands", 0, "log", "sha256"), OTHER, "logs"),
    ],
)
def test_what_does_not(path: tuple[Any, ...], value: Any, part: str) -> None:
    result = diff(FIRST, changed(path, value))
    assert result.ok
    assert [item.part for item in result.volatile] == [part]
    assert "not counted" in result.text()


def test_one_side_only_is_absent_on_the_other() -> None:
    result = diff(FIRST, changed(("artifacts",), []))
    (item,) = result.differences
    assert (item.key, item.second) == ("engine/rank0.engine", None)
    assert str(item).endswith("→ absent")
