"""The tables of command lines: complete, consistent with each other, and true where upstream is known."""

from __future__ import annotations

import json

import pytest

from kit import data

ORDER = data.release_order()
NAMES = [*data.cli_table()["scripts"], *data.scripts_table()["scripts"]]


def flags(script: str, release: str) -> set[str]:
    return {flag for row in data.options(script, release) for flag in row["flags"]}


def test_scripts_of_both_tables_are_apart() -> None:
    assert len(NAMES) == len(set(NAMES))
    assert len(data.cli_table()["scripts"]) >= 41
    assert len(data.scripts_table()["scripts"]) > 100


def test_a_script_is_in_the_tree_of_every_release_it_was_read_at() -> None:
    for name in NAMES:
        if not name.endswith(".py"):
            continue
        for release in ORDER:
            tree, source = data.files(release), data.source(name, release)
            if tree is not None and source is not None:
                assert name in tree, (name, release)
            if tree is not None and name in tree and name in data.cli_table()["scripts"]:
                assert source is not None, (name, release)


def test_commands_are_installed_where_their_options_were_read() -> None:
    for name in data.cli_table()["scripts"]:
        if name.startswith("trtllm-"):
            for release in ORDER:
                if data.source(name, release) is not None:
                    assert name.split()[0] in data.commands(release), (name, release)


def test_no_option_twice_in_one_release() -> None:
    for name in NAMES:
        for release in ORDER:
            if data.source(name, release) is not None:
                given = [flag for row in data.options(name, release) for flag in row["flags"]]
                assert len(given) == len(set(given)), (name, release)


def test_rows_are_of_the_known_form() -> None:
    actions = {"store", "store_true", "store_false", "store_const", "append"}
    types = {None, "str", "int", "float", "Path", "bool-word", "KVCacheType", "unchecked"}
    for name in NAMES:
        for release in ORDER:
            if data.source(name, release) is None:
                continue
            for row in data.options(name, release):
                assert row["action"] in actions, (name, row)
                assert row["type"] in types, (name, row)
                assert row["nargs"] in {None, "?", "*", "+"} or isinstance(row["nargs"], int)
                assert all(flag.startswith("-") for flag in row["flags"])


def test_sources_name_their_status() -> None:
    for name in NAMES:
        found = [data.source(name, release) for release in ORDER]
        assert any(found), name
        for source in filter(None, found):
            assert source["status"] in {"extracted", "docs", "bracketed", "nearest", "read"}
            assert source["parse"] in {"parse_args", "click"}


@pytest.mark.parametrize(
    ("release", "path", "there"),
    [
        ("0.5.0", "examples/gpt/build.py", True),
        ("0.16.0", "examples/gpt/build.py", False),
        ("0.8.0", "examples/llama/convert_checkpoint.py", True),
        ("0.7.1", "examples/llama/convert_checkpoint.py", False),
        ("0.7.0", "tensorrt_llm/commands/build.py", True),
        ("0.16.0", "examples/qwen/convert_checkpoint.py", True),
    ],
)
def test_files(release: str, path: str, there: bool) -> None:
    assert (path in (data.files(release) or [])) is there


def test_what_is_not_known_is_not_made_up() -> None:
    assert data.files("0.17.0") is None
    assert data.source("examples/qwen/convert_checkpoint.py", "0.17.0") is None
    assert data.source("trtllm-serve", "0.17.0") is None
    assert data.source("no/such.py", "0.16.0") is None


def test_option() -> None:
    row = data.option("trtllm-build", "--max_batch_size", "0.16.0")
    assert row is not None
    assert row["default"] == 2048
    assert row == next(
        r for r in data.options("trtllm-build", "0.16.0") if r["dest"] == "max_batch_size"
    )
    assert data.option("trtllm-build", "--max_output_len", "0.16.0") is None


def test_renames_agree_with_the_options() -> None:
    for row in data.renames()["options"]:
        script, since = row["script"], row["since"]
        assert row["source"]
        assert data.source(script, since) is not None, row
        if row["new"] is not None:
            assert row["new"].split()[0] in flags(script, since), row
        same = row["new"] is not None and row["new"].split()[0] == row["old"]
        gone = row["old"] not in flags(script, since)
        uncertain = not gone and "uncertain" in (data.option(script, row["old"], since) or {})
        assert gone or same or uncertain, row
        rewrite = row.get("rewrite", {})
        assert set(rewrite) <= {"name", "bare", "plus", "drop"}
        for key in ("name", "plus"):
            if key in rewrite:
                assert rewrite[key] in flags(script, since), row


def test_moved_scripts_agree_with_the_files() -> None:
    for row in data.renames()["scripts"]:
        files = data.files(row["since"])
        before = data.files(ORDER[ORDER.index(row["since"]) - 1])
        assert files is not None
        assert before is not None
        assert row["old"] in before
        assert row["old"] not in files
        for name in row["new"]:
            assert name in files or name in data.commands(row["since"]), row


def test_one_row_per_line_so_that_changes_can_be_read() -> None:
    text = data.SCRIPTS_TABLE.read_text(encoding="utf-8")
    rows = [line.strip().rstrip(",") for line in text.splitlines() if '{"action"' in line]
    assert len(rows) == sum(len(s["options"]) for s in data.scripts_table()["scripts"].values())
    for line in rows:
        assert json.dumps(json.loads(line), sort_keys=True, ensure_ascii=False) == line
