from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

import pytest

from kit.errors import environment_error
from kit.host import programs


def _script(tmp_path, text):
    path = tmp_path / "program"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return [str(path)]


def test_a_good_answer(tmp_path):
    said = programs.ask(_script(tmp_path, "echo out; echo err >&2; echo $LC_ALL"))
    assert (said.code, said.out, said.err, said.problem) == (0, "out\nC\n", "err\n", None)
    assert said.text == "out\nC\n\nerr"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("echo why >&2; exit 3", "program: exit code 3: why"),
        ("echo 'said here'; exit 9", "program: exit code 9: said here"),
        ("exit 1", "program: exit code 1: no message"),
        ("kill -9 $$", "program: exit code -9: no message"),
    ],
)
def test_failures_are_told(tmp_path, text, problem):
    assert programs.ask(_script(tmp_path, text)).problem == problem


def test_a_program_that_is_not_there(tmp_path):
    said = programs.ask([str(tmp_path / "none")])
    assert (said.code, said.problem) == (None, "none: No such file or directory")


def _alive(group):
    """Processes of a process group that are not merely waiting to be reaped."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _parent, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if its_group == group and state != "Z":
                found.append(path)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "trap '' TERM INT; /bin/sleep 60",
        "/bin/sleep 60 & exit 0",  # its child keeps the pipe
        "exec >&- 2>&-; /bin/sleep 60",  # says it is done and is not
    ],
)
def test_a_program_that_hangs_is_ended_with_all_it_started(tmp_path, text):
    text = f"echo begun; echo $$ > {tmp_path}/pid; {text}"
    said = programs.ask(_script(tmp_path, text), 0.3)
    assert said.code is None
    assert said.out == "begun\n"
    assert said.problem == "program: no answer within 0 s"
    limit = time.monotonic() + 30
    while running := _alive((tmp_path / "pid").read_text().strip()):
        assert time.monotonic() < limit, running
        time.sleep(0.02)


def test_a_program_that_never_stops_talking(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "LIMIT", 1 << 18)
    said = programs.ask(_script(tmp_path, "while :; do echo 0123456789012345678901234567; done"))
    assert "said more than" in (said.problem or "")
    assert len(said.out) < 1 << 19


def test_what_is_no_text_is_read(tmp_path):
    assert programs.ask(_script(tmp_path, r"printf '\377\000'")).out == "�\0"


def test_jobs_run_at_the_same_time_and_their_failures_are_reasons():
    both = threading.Barrier(2, timeout=30)

    def meet():
        both.wait()
        return "met"

    def fail():
        raise OSError(5, "Input/output error")

    def explain():
        raise environment_error("no engine")

    jobs = {"a": meet, "b": meet, "c": fail, "d": explain}
    found, failures = programs.together(jobs, 30)
    assert found == {"a": "met", "b": "met"}
    assert failures == {"c": "OSError: [Errno 5] Input/output error", "d": "no engine"}


def test_a_job_that_hangs_is_left_behind():
    never = threading.Event()
    found, failures = programs.together({"hangs": never.wait, "works": lambda: 1}, 0.2)
    never.set()
    assert found == {"works": 1}
    assert failures == {"hangs": "no answer within 0 s"}


def test_finding(tmp_path, monkeypatch):
    _script(tmp_path, "exit 0")
    monkeypatch.setenv("PATH", "/nowhere")
    assert programs.find("program") is None
    assert programs.find("program", "/none", str(tmp_path)) == str(tmp_path / "program")
