from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.examples import launcher

SCRIPT = Path(launcher.__file__)


def start(report: Path, *words: str, path: str | None = None) -> subprocess.Popen[str]:
    options = ["--path", path] if path else []
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *options, "--report", str(report), "--", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("true",), 0),
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("no-such-program-anywhere",), 127),
        (("/etc/passwd",), 126),
        (("echo", "--", "--report"), 0),
    ],
)
def test_exit_code_is_the_commands(tmp_path: Path, words: tuple[str, ...], code: int) -> None:
    report = tmp_path / "report.json"
    process = start(report, *words)
    process.communicate(timeout=20)
    assert process.returncode == code
    content = json.loads(report.read_text())
    assert set(content) == {"exit_code", "seconds", "peak_memory_bytes"}
    assert content["exit_code"] == code


def test_time_and_the_memory_of_the_largest_process(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    program = "import time; block = bytearray(100 << 20); time.sleep(0.2)"
    start(report, "sh", "-c", f"{sys.executable} -c '{program}'; true").communicate(timeout=20)
    content = json.loads(report.read_text())
    assert 0.2 <= content["seconds"] < 10
    assert 100 << 20 <= content["peak_memory_bytes"] < 200 << 20


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_command(tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got {name}; exit 5' {name}; echo ready; while :; do sleep 0.05; done"
    process = start(tmp_path / "report.json", "sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert output == f"got {name}\n"
    assert process.returncode == 5


def test_no_signal_is_ignored_by_the_command(tmp_path: Path) -> None:
    numbers = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGQUIT)
    script = (
        "import os, signal, sys\n"
        f"for number in {[int(number) for number in numbers]}:\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
    )
    words = ["--report", str(tmp_path / "report.json"), "--", "grep", "SigIgn", "/proc/self/status"]
    done = subprocess.run(
        [sys.executable, "-c", script, str(SCRIPT), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    ignored = int(done.stdout.split()[1], 16)
    assert not [number.name for number in numbers if ignored >> (number - 1) & 1]


def test_orphans_do_not_end_the_command(tmp_path: Path) -> None:
    start_time = time.monotonic()
    process = start(tmp_path / "report.json", "sh", "-c", "(sleep 0.1 &) ; sleep 0.4; exit 3")
    process.communicate(timeout=20)
    assert process.returncode == 3
    assert time.monotonic() - start_time >= 0.4


def test_the_folder_comes_first_on_path(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "echo"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nprintf mine\n")
    program.chmod(0o755)
    process = start(tmp_path / "report.json", "echo", "x", path=str(program.parent))
    assert process.communicate(timeout=20)[0] == "mine"


def test_the_command_does_not_outlive_whoever_started_it(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    holder = (
        "import fcntl, sys, time; stream = open(sys.argv[1], 'wb')\n"
        "fcntl.flock(stream, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", holder, str(alive)], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    process = subprocess.Popen(
        [
            *(sys.executable, str(SCRIPT), "--report", str(tmp_path / "report.json")),
            *("--alive", str(alive), "--", "sh", "-c", "echo $$; exec sleep 60"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    time.sleep(0.2)
    assert process.poll() is None
    owner.kill()
    owner.communicate()
    process.communicate(timeout=20)
    assert process.returncode == 137
    limit = time.monotonic() + 10
    while Path(f"/proc/{child}").exists():
        assert time.monotonic() < limit
        time.sleep(0.05)
