"""Both sides of the rendezvous as real processes that share nothing but a folder."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.slurm import rendezvous

SCRIPT = Path(rendezvous.__file__)


class Meeting:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder.parent / "rendezvous.py"
        text = SCRIPT.read_text().replace(f'"{rendezvous.FOLDER}"', repr(str(folder)))
        assert str(folder) in text
        self.script.write_text(text.replace("PATIENCE = 180.0", "PATIENCE = 0.5"))

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(self.script), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    folder = tmp_path / "nodes"
    folder.mkdir()
    return Meeting(folder)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=20)
    return process.returncode, said


@pytest.mark.parametrize("first", ["agent", "follow"])
def test_the_command_is_done_there_and_its_exit_code_comes_back(
    meeting: Meeting, first: str
) -> None:
    # As mpirun hands it over: words for a shell, an assignment and quotes among them.
    agent = ("agent", "kit2.example.org", "X='a b';", "echo", '"$X";', "exit", "7")
    follow = ("follow", "kit2")
    parts = [agent, follow] if first == "agent" else [follow, agent]
    processes = {}
    for words in parts:
        processes[words[0]] = meeting.start(*words)
        time.sleep(0.1)
    assert ended(processes["follow"]) == (7, "a b\n")
    assert ended(processes["agent"]) == (7, "")


def test_a_node_that_never_answers_is_named(meeting: Meeting) -> None:
    code, said = ended(meeting.start("agent", "kit2", "true"))
    assert code == 1
    assert "node kit2 has not answered" in said


def test_whom_nobody_calls_goes_home_at_the_end(meeting: Meeting) -> None:
    process = meeting.start("follow", "kit2")
    time.sleep(0.2)
    assert process.poll() is None
    (meeting.folder / "over").write_text("0")
    assert ended(process) == (0, "")


def test_a_node_that_is_gone_ends_its_agent(meeting: Meeting) -> None:
    """What the node's program leaves when the container has ended without a word."""
    agent = meeting.start("agent", "kit2", "true")
    for name in ("kit2.taken", "kit2.ended"):
        (meeting.folder / name).write_text("143")
    assert ended(agent) == (143, "")
