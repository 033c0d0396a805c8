"""tools/fill_template.py of every version: puts values into a config.pbtxt."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from kit_rehearsal.errors import BackendError
from kit_rehearsal.files import write_text

from . import table

if TYPE_CHECKING:
    from collections.abc import Sequence

_ESCAPES = "0.16.0"
"""From then on a backslash keeps a comma or a colon within a value."""
_REFUSES = "0.19.0"
"""From then on a name that the file does not have is an error; before, it is passed over."""


def main(version: str, argv: Sequence[str] | None = None) -> int:
    """Fill in, to standard output or in place; 0, or 1 with the reason on stderr."""
    args = _parser(version).parse_args(argv)
    path = Path(args.file_path)
    try:
        text = filled(version, path, args.substitutions)
    except (BackendError, OSError) as error:
        sys.stderr.write(f"fill_template.py: {error}\n")
        return 1
    if args.in_place:
        write_text(path, text)
    else:
        sys.stdout.write(text)
    return 0


def filled(version: str, path: Path, substitutions: str) -> str:
    """The text of a file with values for its placeholders; those without one stay.

    Raises:
        BackendError: no `name:value`, or a name that the file does not have.
    """
    text = path.read_text(encoding="utf-8")
    values = {row["name"]: row["value"] for row in table.rows("supplied", version)}
    held = {match[1] for match in re.finditer(r"\$\{(\w+)\}", text)}
    for pair in _split(version, substitutions, ","):
        words = _split(version, pair, ":")
        if len(words) != 2:
            escapes = " (a backslash keeps one within a value)"
            hint = escapes if table.since(version, _ESCAPES) else " (a value can hold none of them)"
            raise BackendError(f"{pair!r}: expected name:value{hint}, between commas")
        name, value = words
        if table.since(version, _REFUSES) and name not in held:
            raise BackendError(
                f"{name!r}: no such placeholder in {path}: {', '.join(sorted(held))}"
            )
        values[name] = value
    return Template(text).safe_substitute(values)


def _split(version: str, text: str, mark: str) -> list[str]:
    if not table.since(version, _ESCAPES):
        return text.split(mark)
    parts = re.split(rf"(?<!\\){mark}", text)
    # What is split first keeps the escapes of what is split next.
    return [part.replace(f"\\{mark}", mark) for part in parts]


def _parser(version: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fill_template.py")
    parser.add_argument("file_path")
    parser.add_argument("substitutions")
    for row in table.rows("fill", version):
        if row["type"] == "bool":
            parser.add_argument(*row["flags"], action="store_true")
        else:
            parser.add_argument(*row["flags"], default=row["default"])
    return parser
