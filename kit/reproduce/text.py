"""The report of a reproduction for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.console import visible
from kit.reproduce.ladder import WORDS

if TYPE_CHECKING:
    from kit.reproduce.again import Reproduction
    from kit.reproduce.ladder import Rung

_SHOWN = 20
"""Differences of one level; `--json` and the page have all."""


def headline(found: Reproduction) -> str:
    """The result in one line."""
    reached = found.ladder.reached
    failed = ", ".join(str(rung.level) for rung in found.ladder.failed)
    subject = f"{found.recorded.example.name} with TensorRT-LLM {found.recorded.release}"
    if reached is None:
        return f"{subject}: not reproduced" + (f", {failed} failed" if failed else "")
    tail = f"; {failed} failed" if failed else ""
    return f"{subject}: reproduced to {reached}, {reached.name}{tail}"


def text(found: Reproduction) -> str:
    """The whole result: a level a line, the highest first, below it what differs."""
    lines = [visible(headline(found)), ""]
    for rung in reversed(found.ladder.rungs):
        lines.append(visible(f"  {rung.level}  {rung.level.name}: {WORDS[rung.state]}"))
        if rung.state != "passed":
            lines += [f"      {visible(line)}" for line in rung.reason.split("\n")]
        lines += _differences(rung)
    if found.ladder.claimable:
        claimed = " ".join(f"L{number}" for number in found.ladder.claimable)
        lines += ["", f"can be claimed on this platform: {claimed}"]
    lines += ["", visible(f"record  {found.path} (sha256 {found.digest.hex})")]
    if found.again_path is not None:
        lines.append(visible(f"again   {found.again_path}"))
    return "\n".join(lines)


def _differences(rung: Rung) -> list[str]:
    shown = [
        visible(f"      {'-' if item.counts else '·'} {item}") for item in rung.differences[:_SHOWN]
    ]
    more = len(rung.differences) - _SHOWN
    return [*shown, f"      … and {more} more"] if more > 0 else shown
