"""What people see: results on stdout, progress and notes on stderr."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tqdm import tqdm


def visible(text: str) -> str:
    """A text from elsewhere with everything escaped that a terminal would obey rather than show."""
    if text.isprintable():
        return text
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text
    )


def note(message: str) -> None:
    """Say what is going on, on stderr."""
    print(message, file=sys.stderr, flush=True)


def result(message: str) -> None:
    """Print a result line on stdout."""
    print(message, flush=True)


def envelope(command: str, *, ok: bool, **content: Any) -> None:
    """Print the one object that `--json` promises: `{"schema": "kit.<command>/1", "ok": …}`."""
    document = {"schema": f"kit.{command}/1", "ok": ok, **content}
    # Another encoding would replace what it lacks by escapes that JSON does not know.
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(document, indent=2, ensure_ascii=plain), flush=True)


def table(rows: Iterable[Sequence[str]], header: Sequence[str]) -> str:
    """Lay out rows under a header in columns, no trailing blanks."""
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in [lines[0], rule, *lines[1:]]
    )


def size(count: int, base: int = 1000) -> str:
    """`1500` → `1.5 KB`, in powers of 1000, as `--part-size` and disks count."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < base or unit == "GB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= base
    raise AssertionError


def memory_size(count: int) -> str:
    """`1536` → `1.5 KB`, in powers of 1024, as hosts and GPUs are sold."""
    return size(count, 1024)


def progress(total: int, label: str) -> tqdm[Any]:
    """A byte progress bar on stderr; silent where stderr is no terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=label,
        unit="B",
        unit_scale=True,
        disable=None,
        leave=False,
        file=sys.stderr,
    )


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds gone by."""
        return time.monotonic() - self._start
