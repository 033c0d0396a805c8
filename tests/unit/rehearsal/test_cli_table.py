"""The table of options: complete, and right where the facts name a change."""

from __future__ import annotations

import json

import pytest

from kit.data import CLI_TABLE, cli_table, covers, options, post_checks, scripts

RELEASES = [
    "0.5.0",
    "0.6.0",
    "0.6.1",
    "0.7.0",
    "0.7.1",
    "0.8.0",
    "0.9.0",
    "0.10.0",
    "0.11.0",
    "0.12.0",
    "0.13.0",
    "0.14.0",
    "0.15.0",
    "0.16.0",
    "0.17.0",
    "0.18.0",
    "0.18.1",
    "0.18.2",
    "0.19.0",
    "0.20.0",
    "0.21.0",
    "1.0.0",
    "1.1.0",
    "1.2.0",
    "1.2.1",
]


def row(script: str, release: str, flag: str) -> dict:
    return next(r for r in options(script, release) if flag in r["flags"])


def test_every_release_is_there() -> None:
    assert cli_table()["releases"] == RELEASES
    for release in RELEASES:
        assert scripts(release), release


@pytest.mark.parametrize(
    ("release", "count"),
    [("0.7.0", 26), ("0.8.0", 41), ("0.9.0", 60), ("0.16.0", 66), ("0.19.0", 70), ("1.2.1", 67)],
)
def test_number_of_trtllm_build_options(release: str, count: int) -> None:
    assert len(options("trtllm-build", release)) == count


@pytest.mark.parametrize(
    ("script", "flag", "defaults"),
    [
        ("trtllm-build", "--max_batch_size", {"0.7.0": 1, "0.10.0": 1, "0.11.0": 256, "0.14.0": 2048}),
        ("trtllm-build", "--tokens_per_block", {"0.7.0": 64, "0.8.0": 128, "0.10.0": 64, "0.19.0": 32}),
        ("trtllm-build", "--gemm_plugin", {"0.8.0": None, "0.11.0": "disable", "0.18.2": None}),
        ("trtllm-build", "--gpt_attention_plugin", {"0.8.0": "float16", "0.11.0": "auto"}),
        ("trtllm-build", "--max_output_len", {"0.7.0": 1024, "0.11.0": None}),
        ("trtllm-build", "--paged_kv_cache", {"0.7.0": False, "0.8.0": "enable", "0.13.0": "==SUPPRESS=="}),
        ("examples/gpt/build.py", "--output_dir", {"0.5.0": "gpt_outputs", "0.7.0": "engine_outputs"}),
    ],
)  # fmt: skip
def test_defaults_that_moved(script: str, flag: str, defaults: dict) -> None:
    for release, default in defaults.items():
        assert row(script, release, flag)["default"] == default


def test_scripts_come_and_go() -> None:
    assert not options("trtllm-build", "0.6.1")
    assert not options("examples/gpt/build.py", "0.9.0")
    assert options("examples/gpt/convert_checkpoint.py", "0.18.2")
    assert not options("examples/gpt/convert_checkpoint.py", "0.19.0")
    assert options("examples/models/core/gpt/convert_checkpoint.py", "0.19.0")


def test_no_option_twice_in_one_release() -> None:
    for name in cli_table()["scripts"]:
        for release in RELEASES:
            flags = [flag for r in options(name, release) for flag in r["flags"]]
            assert len(flags) == len(set(flags)), (name, release)


def test_every_release_of_a_script_has_a_source() -> None:
    for name, script in cli_table()["scripts"].items():
        for release, source in script["sources"].items():
            assert source["status"] in {"extracted", "docs", "bracketed", "nearest"}
            assert source["source"]
            assert source["commit"]
            assert options(name, release)


def test_checks_and_ranges() -> None:
    assert any(
        "max_num_tokens" in c["when"][0]
        for c in post_checks("examples/gpt/build.py", "0.5.0")
        if c["when"]
    )
    assert covers(["0.9.0..0.16.0"], "0.10.0")
    assert not covers(["0.9.0", "0.11.0..1.2.1"], "0.10.0")
    with pytest.raises(KeyError):
        covers(["0.9.0"], "0.10.1")
    with pytest.raises(KeyError):
        options("examples/nothing.py", "0.9.0")


def test_one_variant_per_line_with_sorted_keys() -> None:
    lines = CLI_TABLE.read_text(encoding="utf-8").splitlines()
    rows = [line.strip().rstrip(",") for line in lines if line.strip().startswith('{"action"')]
    assert len(rows) == sum(len(s["options"]) for s in cli_table()["scripts"].values())
    for line in rows:
        assert json.dumps(json.loads(line), sort_keys=True, ensure_ascii=False) == line
