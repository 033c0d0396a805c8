from __future__ import annotations

import io
import sys
import time

import pytest

from kit.examples import live as lives
from kit.examples.live import live, shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (75.9, "1:15"), (3599, "59:59"), (3675, "1:01:15")]
)
def test_time_as_people_write_it(seconds: float, text: str) -> None:
    assert shown(seconds) == text


def test_a_quiet_step_has_a_clock_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lives, "_TICK", 0.01)
    monkeypatch.setattr(lives, "_QUIET", 0.05)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with live("build") as notes:
        notes.say("first")
        limit = time.monotonic() + 20
        while "quiet for" not in terminal.getvalue() and time.monotonic() < limit:
            time.sleep(0.01)
        notes.say("second")
    text = terminal.getvalue()
    assert text.startswith("[build] first\n\r\x1b[K[build] 0:00, quiet for 0 s")
    # A line begins where the clock was, and nothing of it is left at the end.
    assert "\r\x1b[K[build] second\n" in text
    assert "quiet" not in text.rpartition("\r\x1b[K")[2]


def test_elsewhere_there_are_lines_only(capsys: pytest.CaptureFixture[str]) -> None:
    with live("run") as notes:
        notes.say("one")
        notes.say("two")
    assert capsys.readouterr().err == "[run] one\n[run] two\n"
