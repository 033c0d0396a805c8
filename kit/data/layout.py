"""How the tables are written: one row per line, so that a changed value is a one-line diff."""

from __future__ import annotations

import json
from typing import Any


def text(table: dict[str, Any]) -> str:
    """The table as its file holds it; of a table that was read, exactly the same bytes again.

    The table's own keys, the rows of its lists and those of its `fields` stand on their own lines,
    everything inside a row on that of the row.
    """
    return _laid_out(table, 0) + "\n"


def _laid_out(value: Any, depth: int) -> str:
    margin = "\n" + " " * (depth + 1)
    if _is_rows(value):
        lines = (_line(row) for row in value)
        return f"[{margin}{f',{margin}'.join(lines)}\n{' ' * depth}]"
    if isinstance(value, dict) and value and (depth == 0 or all(map(_is_rows, value.values()))):
        lines = (f"{_line(key)}: {_laid_out(inner, depth + 1)}" for key, inner in value.items())
        return f"{{{margin}{f',{margin}'.join(lines)}\n{' ' * depth}}}"
    return _line(value)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
