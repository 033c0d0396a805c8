"""The end of a long output arrives, whatever the engine drops in the middle."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / "dockerfiles/trtllm/install/ends.py"
STEP_LIMIT = 2 << 20
"""Bytes that BuildKit keeps of what one step prints (its BUILDKIT_STEP_LOG_MAX_SIZE)."""


def through(content):
    done = subprocess.run([sys.executable, SCRIPT], input=content, capture_output=True, check=True)
    return done.stdout


@pytest.mark.parametrize("content", [b"", b"one\n", b"no newline", b"\xff\n" * 1000])
def test_a_short_output_is_passed_on(content):
    assert through(content) == content


def test_the_end_of_a_long_output_is_there():
    lines = [f"[{number}] compiling something\n".encode() for number in range(200_000)]
    content = b"".join([*lines, b"error: the cause\n"])
    assert len(content) > 2 * STEP_LIMIT
    found = through(content)
    assert len(found) < STEP_LIMIT
    assert found.startswith(lines[0])
    assert found.endswith(b"".join(lines[-1000:]) + b"error: the cause\n")


def test_one_endless_line():
    found = through(b"x" * (3 * STEP_LIMIT) + b"\nerror: the cause\n")
    assert len(found) < STEP_LIMIT
    assert found.endswith(b"\nerror: the cause\n")


def test_the_exit_code_of_the_command_counts():
    script = f"set -o pipefail; (echo said; exit 7) | {sys.executable} {SCRIPT}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (7, b"said\n")


def test_what_comes_first_does_not_wait_for_what_comes_later():
    running = subprocess.Popen(
        [sys.executable, SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with running:
        running.stdin.write(b"first\n")
        running.stdin.flush()
        assert running.stdout.readline() == b"first\n"
        running.stdin.close()
        assert running.stdout.read() == b""
