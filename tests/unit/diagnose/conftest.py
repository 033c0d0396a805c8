from __future__ import annotations

import io
import json
from pathlib import Path

from kit.diagnose.diagnosis import Diagnosis, conclude
from kit.diagnose.scan import Scanner
from kit.diagnose.source import blocks
from kit.diagnose.symptoms import patterns

DATA = Path(__file__).parent / "data"


def examples() -> list[tuple[str, str]]:
    """`(symptom, text)` of every example."""
    rows = map(json.loads, (DATA / "examples.jsonl").read_text(encoding="utf-8").splitlines())
    return [(row["id"], row["text"]) for row in rows]


def answered() -> list[tuple[str, str]]:
    """The examples of symptoms that are an answer."""
    return [one for one in examples() if not one[0].startswith(("suspect-", "release-"))]


def diagnosed(log: str | bytes, release: str | None = None) -> Diagnosis:
    data = log.encode() if isinstance(log, str) else log
    scanner = Scanner(patterns())
    for block in blocks(io.BytesIO(data), "log"):
        scanner.feed(block)
    return conclude(scanner.finish(), release)


def first(log: str | bytes) -> str | None:
    """The best answer's symptom."""
    matches = diagnosed(log).matches
    return matches[0].id if matches else None
