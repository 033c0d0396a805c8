import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import console


def test_results_and_notes_go_apart(capsys):
    console.note("working")
    console.result("done")
    captured = capsys.readouterr()
    assert captured.out == "done\n"
    assert captured.err == "working\n"


def test_the_envelope(capsys):
    console.envelope("fetch", ok=True, inputs=["ä"])
    text = capsys.readouterr().out
    assert json.loads(text) == {"schema": "kit.fetch/1", "ok": True, "inputs": ["ä"]}


def test_a_table_has_straight_columns():
    text = console.table([["a", "long cell"], ["bbbb", "x"]], ["one", "two"])
    assert text.splitlines() == ["one   two", "----  ---------", "a     long cell", "bbbb  x"]


def test_a_table_without_rows():
    assert console.table([], ["one", "two"]) == "one  two\n---  ---"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (1536, "1.5 KB"),
        (10**6, "1.0 MB"),
        (4 * 10**9, "4.0 GB"),
        (5 * 10**12, "5000.0 GB"),
    ],
)
def test_sizes(count, text):
    assert console.size(count) == text


def test_memory_counts_by_1024():
    assert console.memory_size(80 << 30) == "80.0 GB"
    assert console.memory_size(1023) == "1023 B"


@given(st.integers(min_value=0, max_value=1 << 60))
def test_any_size_has_a_unit(count):
    assert console.size(count).split()[1] in ("B", "KB", "MB", "GB")


def test_no_progress_where_nobody_looks(capsys):
    with console.progress(10, "fetch") as bar:
        bar.update(5)
    assert capsys.readouterr().err == ""


def test_the_stopwatch_runs():
    watch = console.Stopwatch()
    time.sleep(0.01)
    assert 0.005 < watch.seconds < 5


def test_nothing_that_a_terminal_obeys():
    assert console.visible("grün → 0.16.0") == "grün → 0.16.0"
    assert console.visible("a\x1b[31mb\nc\x9b") == "a\\x1b[31mb\\nc\\x9b"
