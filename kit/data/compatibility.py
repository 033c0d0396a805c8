"""Triton's own table of its containers: compatibility.md of triton-inference-server/server."""

from __future__ import annotations

import re
from urllib.parse import unquote

from kit.data import triton
from kit.errors import content_error

DOCUMENT = "triton-inference-server/server docs/introduction/compatibility.md"
_HEADING = re.compile(r"#+\s.*\btrtllm-python-py3\s*")
_MONTH = re.compile(r"[0-9]{2}\.(?:0[1-9]|1[0-2])")
_COLUMNS = {
    "triton release version": "container",
    "ngc tag": "image",
    "tensorrt-llm version": "tensorrt_llm",
    "tensorrt version": "tensorrt",
    "cuda version": "cuda",
    "cuda driver version": "driver",
    "python version": "python",
    "torch version": "torch",
    "size": "size",
}
CELLS = tuple(field for field in _COLUMNS.values() if field not in ("container", "image"))


def rows(text: str, where: str) -> list[dict[str, str | None]]:
    """The rows of the TensorRT-LLM containers, oldest first: `container` and `CELLS`.

    A cell that is empty is None.

    Args:
        text: the whole document, Markdown.
        where: its name, for messages.

    Raises:
        KitError: no such table, a column is missing, or a row is not in order (exit 4).
    """
    lines = _table(text.splitlines(), where)
    number, header = lines[0]
    columns = [_COLUMNS.get(name.lower()) for name in header]
    if missing := [name for name, field in _COLUMNS.items() if field not in columns]:
        raise content_error(
            f"{where}, line {number}: the table of containers has no column "
            f"{' and no column '.join(map(repr, missing))}; found {', '.join(header)}"
        )
    found: dict[str, dict[str, str | None]] = {}
    for number, cells in lines[1:]:
        if len(cells) != len(columns):
            raise content_error(
                f"{where}, line {number}: expected {len(columns)} cells, found {len(cells)}"
            )
        row = {field: cell for field, cell in zip(columns, cells, strict=True) if field}
        month = row["container"]
        if not _MONTH.fullmatch(month) or row["image"] != triton.image(month) or month in found:
            raise content_error(
                f"{where}, line {number}: expected a month and its image "
                f"{triton.image('YY.MM')}, each once; found {month!r}, {row['image']!r}"
            )
        found[month] = {"container": month, **{field: _value(row[field]) for field in CELLS}}
    return [found[month] for month in sorted(found)]


def _table(lines: list[str], where: str) -> list[tuple[int, list[str]]]:
    """Header and rows with their line numbers, the rule between them left out."""
    start = next((place for place, line in enumerate(lines) if _HEADING.fullmatch(line)), None)
    if start is None:
        raise content_error(f"{where}: no heading that ends in trtllm-python-py3")
    found: list[tuple[int, list[str]]] = []
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if line.lstrip().startswith("|"):
            found.append((number, [" ".join(cell.split()) for cell in line.split("|")[1:-1]]))
        elif found or line.startswith("#"):
            break
    if len(found) < 3:
        raise content_error(f"{where}: no table of containers under its heading")
    return [found[0], *found[2:]]


def _value(cell: str) -> str | None:
    text = unquote(cell.removeprefix("Python ").strip())  # 2.3.0a0%2Bebedce2 stood there in 2025
    return text if text not in ("", "-", "N/A") else None
