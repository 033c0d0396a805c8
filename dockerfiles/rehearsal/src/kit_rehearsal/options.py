"""Command lines, parsed as strictly as a release parses them.

The parser is a real argparse parser made from the kit's table of options: prefixes of long options
work, an unknown option or a wrong choice ends with 2 and argparse's own message.
"""

from __future__ import annotations

import argparse
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import BackendError, CheckFailedError
from .expressions import holds
from .releases import PLACES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_HERE = Path(__file__).resolve().parent
_STORE_KEYS = ("nargs", "choices", "const")


def table_path() -> Path:
    """Where the table is: $KIT_CLI_TABLE, the package's own copy, or the checkout's kit/data."""
    named = os.environ.get("KIT_CLI_TABLE")
    places = [
        *([Path(named)] if named else []),
        _HERE / "data" / "cli.json",
        *(parent / "kit" / "data" / "cli.json" for parent in _HERE.parents),
    ]
    for place in places:
        if place.is_file():
            return place
    raise BackendError("the table of options (cli.json) is missing; set KIT_CLI_TABLE to its path")


def table() -> dict[str, Any]:
    """The table as it stands in its file; shared, not to be changed by the caller."""
    return _read(table_path())


@lru_cache(maxsize=4)
def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def covers(ranges: Sequence[str], release: str) -> bool:
    """Whether ranges of releases such as `0.9.0..0.16.0` hold a release."""
    for text in ranges:
        first, _, last = text.partition("..")
        if PLACES[first] <= PLACES[release] <= PLACES[last or first]:
            return True
    return False


def rows(script: str, release: str, kind: str = "options") -> list[dict[str, Any]]:
    """Rows of the table (`options` or `post_checks`) that hold for a script of a release."""
    entry = table()["scripts"].get(script, {"sources": {}})
    if release not in entry["sources"]:
        raise BackendError(f"release {release} has no {script}")
    return [row for row in entry[kind] if covers(row["releases"], release)]


def parser(script: str, release: str) -> argparse.ArgumentParser:
    """The release's parser of that script."""
    made = argparse.ArgumentParser(prog=Path(script).name)
    for row in rows(script, release):
        arguments = _arguments(row)
        if row.get("uncertain"):
            arguments = _uncertain(arguments, f"whether {release} has it: {row['uncertain']}")
        made.add_argument(*row["flags"], **arguments)
    return made


def parse(script: str, release: str, argv: Sequence[str]) -> argparse.Namespace:
    """Parsed arguments; SystemExit(2) as argparse does it when they are wrong."""
    method = table()["scripts"][script]["sources"][release]["parse"]
    made = parser(script, release)
    if method == "parse_known_args":
        return made.parse_known_args(argv)[0]
    return made.parse_args(argv)


def check(script: str, release: str, args: argparse.Namespace, *, tainted: bool) -> None:
    """The release's own checks after parsing; CheckFailedError names the one that fails.

    Those marked tainted read values that the script completes first, so they come second.
    """
    for row in rows(script, release, "post_checks"):
        if bool(row["tainted"]) is not tainted:
            continue
        if all(holds(text, args) for text in row["when"]) and not holds(row["must"], args):
            reason = f"needs {row['must']}" if row["must"] != "False" else "is refused"
            when = " and ".join(row["when"])
            raise CheckFailedError(
                f"{script} of release {release}: " + (f"{when}: {reason}" if when else reason)
            )


def _arguments(row: dict[str, Any]) -> dict[str, Any]:
    arguments: dict[str, Any] = {"dest": row["dest"], "action": row["action"]}
    if row["action"] in {"store", "append"}:
        arguments.update({key: row[key] for key in _STORE_KEYS if key in row})
        if row.get("type"):
            arguments["type"] = _TYPES[row["type"]]
    default = row.get("default")
    arguments["default"] = argparse.SUPPRESS if default == "==SUPPRESS==" else default
    if row.get("required"):
        arguments["required"] = True
    return arguments


class _Unknown(argparse.Action):
    """An option that a release may have or not: nobody could read its parser."""

    def __init__(self, *args: Any, reason: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._reason = reason

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,  # noqa: ARG002
        values: object,  # noqa: ARG002
        option_string: str | None = None,
    ) -> None:
        parser.error(f"argument {option_string}: not known {self._reason}")


def _uncertain(arguments: dict[str, Any], reason: str) -> dict[str, Any]:
    made: dict[str, Any] = {"action": _Unknown, "reason": reason}
    made.update((key, arguments[key]) for key in ("dest", "default", "nargs") if key in arguments)
    if arguments["action"] in {"store_true", "store_false"}:
        made["nargs"] = 0
    return made


def _bool_word(text: str) -> bool:
    return text.lower() in {"yes", "true", "t", "1"}


def _kv_cache_type(text: str) -> str:
    if text.lower() not in {"continuous", "paged", "disabled"}:
        raise ValueError(text)
    return text.upper()


_kv_cache_type.__name__ = "KVCacheType"  # argparse names the type in its message

_TYPES: dict[str, Callable[[str], Any]] = {
    "str": str,
    "int": int,
    "float": float,
    "Path": Path,
    "bool-word": _bool_word,
    "KVCacheType": _kv_cache_type,
}
