from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

from kit.reproduce import page
from kit.reproduce.ladder import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.unit.reproduce.conftest import Pair

HOSTILE = '<script>alert("x")</script>\x1b[31m&amp;'
VOID = {"meta", "br"}


class Reader(HTMLParser):
    """Tags in balance, and every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    return reader


@pytest.fixture
def damaged(pair: Pair) -> Any:
    """A report with differences, and with a text that would be code."""

    def say(manifest: dict[str, Any]) -> None:
        manifest["outputs"][0].update(text=HOSTILE, token_ids=[1])
        manifest["host"]["os"] = HOSTILE

    pair.change_record(say)
    pair.change_file("checkpoint/rank0.safetensors", lambda content: content.reverse())
    from dataclasses import replace

    from kit.manifests import record

    return replace(pair.found, recorded=record.read(pair.path), ladder=pair.ladder())


def test_it_stands_alone(damaged: Any) -> None:
    reader = read(page.page(damaged, LEVELS[6]))
    assert not reader.seen & {"script", "link", "img", "iframe", "object", "form"}
    addresses = [value for name, value in reader.attributes if name in ("href", "src", "action")]
    assert addresses
    assert all(address and address.startswith("#L") for address in addresses)
    style = page._STYLE.read_text()
    assert not re.search(r"url\(|@import|https?:", style)


def test_what_was_recorded_is_text_and_never_code(damaged: Any) -> None:
    text = page.page(damaged)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "\x1b" not in text


def test_every_level_is_told_with_its_state(unified: Pair, damaged: Any) -> None:
    for found in (unified.found, damaged):
        text = page.page(found)
        for rung in found.ladder.rungs:
            assert f'<article id="{rung.level}" class="{rung.state}">' in text
            assert rung.level.claim.replace("'", "&#x27;") in text
    assert "reproduced to L8" in page.page(unified.found)
    assert 'class="verdict bad"' in page.page(damaged)
    assert 'class="verdict good"' in page.page(unified.found, LEVELS[8])


def chromium(missing: Callable[[str], None]) -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        missing("chromium is not installed")
    assert program is not None
    return program


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_shows_it(
    unified: Pair, damaged: Any, tmp_path: Path, missing: Callable[[str], None], scheme: str
) -> None:
    """No error on the console, and a picture with content."""
    program = chromium(missing)
    for name, found in (("good", unified.found), ("bad", damaged)):
        file = tmp_path / f"{name}.html"
        file.write_text(page.page(found), encoding="utf-8")
        picture = tmp_path / f"{name}.png"
        done = subprocess.run(
            [
                *(program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"),
                *("--window-size=900,1400", "--enable-logging=stderr", "--v=0"),
                *(["--force-dark-mode"] if scheme == "dark" else []),
                *(f"--screenshot={picture}", file.as_uri()),
            ],
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert picture.is_file(), done.stderr
        assert "CONSOLE" not in done.stderr
        assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
        assert int.from_bytes(picture.read_bytes()[16:20], "big") == 900
        assert picture.stat().st_size > 30_000  # an empty page has some 5 KB


def test_it_prints(unified: Pair, tmp_path: Path, missing: Callable[[str], None]) -> None:
    program = chromium(missing)
    file, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    file.write_text(page.page(unified.found), encoding="utf-8")
    subprocess.run(
        [
            *(program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *(f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={paper}", file.as_uri()),
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    content = paper.read_bytes()
    assert content.startswith(b"%PDF-")
    assert 2 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 8
