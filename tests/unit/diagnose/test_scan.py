"""The pass over a log: what comes first, what repeats, what is never held in memory."""

from __future__ import annotations

import io
import random
import tracemalloc
from typing import TYPE_CHECKING

import pytest

from kit.diagnose.scan import MOST_FINDINGS, Scanner
from kit.diagnose.source import BLOCK, blocks
from kit.diagnose.symptoms import patterns
from kit.errors import ExitCode, KitError
from tests.unit.diagnose.conftest import DATA, diagnosed, first

if TYPE_CHECKING:
    from collections.abc import Iterator

MISMATCH = (
    "expecting library version 9.2.0.5 got 9.3.0.1, please rebuild.",
    "trt-library-version-mismatch",
)


def test_a_healthy_log_gives_nothing() -> None:
    diagnosis = diagnosed((DATA / "healthy.log").read_bytes())
    assert diagnosis.matches == ()
    assert diagnosis.consequences == ()
    assert diagnosis.suspects == ()
    assert diagnosis.release == "0.16.0"


@pytest.mark.parametrize("before", [0, 1, 7, BLOCK - 40, BLOCK, BLOCK + 1, 3 * BLOCK + 17])
def test_block_edges_hide_nothing(before: int) -> None:
    padding = ("x" * 79 + "\n") * (before // 80) + "y" * (before % 80)
    log = f"{padding}\n{MISMATCH[0]}\nThere are not enough slots available in the system to\nsatisfy the 2 slots\nend"
    found = {match.id: match.line for match in diagnosed(log).matches}
    line = padding.count("\n") + 2
    assert found == {MISMATCH[1]: line, "mpi-not-enough-slots": line + 1}


@pytest.mark.parametrize("cut", range(BLOCK - 60, BLOCK + 60, 10))
def test_a_line_without_an_end_is_read_over_block_edges(cut: int) -> None:
    assert first("z " * (cut // 2) + MISMATCH[0] + " z" * BLOCK) == MISMATCH[1]


def test_what_was_said_often_is_found_where_it_stands_first() -> None:
    log = ("step fine\n" * 5 + MISMATCH[0] + "\n") * 4000
    (match,) = diagnosed(log).matches
    assert match.line == 6


def test_one_symptom_with_other_values_is_named_a_few_times() -> None:
    log = "".join(
        f"ImportError: libfoo{letter}.so: cannot open shared object file\n" for letter in "abcdef"
    )
    assert [match.line for match in diagnosed(log).matches] == list(range(1, MOST_FINDINGS + 1))


def test_numbers_decide_where_they_must() -> None:
    log = "worker exited with code 0\n" * 2000 + "worker exited with code 137\n"
    assert [(match.id, match.line) for match in diagnosed(log).matches] == [
        ("oom-host-killed-build", 2001)
    ]


def _garbage(seed: int, size: int) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.mark.parametrize("seed", range(5))
def test_binary_garbage_is_one_clear_answer(seed: int) -> None:
    with pytest.raises(KitError, match="not a text log") as caught:
        diagnosed(_garbage(seed, 3 * BLOCK))
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize(
    "data",
    [b"\0" * 5000, b"\x1f\x8b\x08" + b"x" * 99, b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 9],
)
def test_other_files_are_no_logs(data: bytes) -> None:
    with pytest.raises(KitError, match="not a text log"):
        diagnosed(data)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_text_never_stops_it(seed: int) -> None:
    chance = random.Random(seed)
    log = bytearray((DATA / "examples.jsonl").read_bytes())
    for _ in range(2000):
        log[chance.randrange(len(log))] = chance.randrange(256)
    diagnosed(bytes(log))


@pytest.mark.parametrize("seed", range(3))
def test_random_words_of_the_table_never_stop_it(seed: int) -> None:
    chance = random.Random(seed)
    words = [word.decode() for one in patterns() for group in one.anchors for word in group]
    marks = [" ", "\n", ": ", "'", "|", "\t", " | ", "{", "[", "\r", "\\n", '"']
    diagnosed("".join(chance.choice(words) + chance.choice(marks) for _ in range(5_000)))


@pytest.mark.parametrize(
    "log", ["", "\n", "\n" * 100_000, " ", "|", "|\n" * 5000, "[" * 100_000, '{"' * 50_000 + "}"]
)
def test_odd_logs_give_nothing(log: str) -> None:
    assert diagnosed(log).matches == ()


class _Endless(io.RawIOBase):
    """A log of some megabytes that is never whole in memory."""

    def __init__(self, size: int, pieces: Iterator[bytes]) -> None:
        self._left, self._pieces = size, pieces

    def read(self, size: int = -1, /) -> bytes:
        if self._left <= 0:
            return b""
        piece = next(self._pieces)[:size]
        self._left -= len(piece)
        return piece


def _lines() -> Iterator[bytes]:
    number = 0
    while True:
        number += 1
        yield b"".join(
            b"[E] worker %d of node%d failed request 0x%x: error\n"
            % (number, line, hash((number, line)))
            for line in range(400)
        )


def _one_line() -> Iterator[bytes]:
    while True:
        yield b"error failed model " * 1000


@pytest.mark.parametrize("pieces", [_lines, _one_line])
def test_memory_stays_flat(pieces) -> None:
    scanner = Scanner(patterns())
    stream = _Endless(5 << 20, pieces())
    seen = 0
    tracemalloc.start()
    try:
        for block in blocks(stream, "log"):
            scanner.feed(block)
            seen += len(block.data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert seen > 4 << 20
    assert peak < 4 << 20
