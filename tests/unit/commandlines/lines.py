"""Random command lines for the options of a script: good ones, and ones with something wrong."""

from __future__ import annotations

import argparse
import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit.commandlines.shell import Word

if TYPE_CHECKING:
    import random

_KINDS: dict[str, Any] = {
    "int": int,
    "float": float,
    "Path": Path,
    "bool-word": lambda text: text.lower() in {"yes", "true"},
}


def words(texts: list[str]) -> list[Word]:
    return [Word(text, text, text) for text in texts]


def real(rows: list[dict]) -> argparse.ArgumentParser:
    """The real parser of a release's options."""
    parser = argparse.ArgumentParser(prog="script")
    for row in rows:
        arguments: dict[str, Any] = {"action": row["action"]}
        if row["flags"]:
            arguments.update(dest=row["dest"], required=bool(row.get("required")))
        if row["action"] in {"store", "append"}:
            arguments.update({k: row[k] for k in ("nargs", "choices") if row.get(k) is not None})
            arguments["type"] = (
                _cache_type if row["type"] == "KVCacheType" else _KINDS.get(row["type"])
            )
        if row["action"] == "store_const":
            arguments["const"] = row["const"]
        parser.add_argument(*(row["flags"] or [row["dest"]]), **arguments)
    return parser


def _cache_type(text: str) -> str:
    if text.lower() not in {"continuous", "paged", "disabled"}:
        raise ValueError(text)
    return text


def accepts(parser: argparse.ArgumentParser, texts: list[str]) -> bool:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        try:
            parser.parse_args(texts)
        except SystemExit as ended:
            return not ended.code
    return True


def value(row: dict, chance: random.Random) -> str:
    """A value that the option takes."""
    if row["choices"]:
        return str(chance.choice([c for c in row["choices"] if c is not None]))
    if row["type"] == "int":
        return str(chance.choice([0, 1, 8, 2048, -1]))
    if row["type"] == "float":
        return chance.choice(["0.5", "1", "-2.5", "1e-3"])
    if row["type"] == "KVCacheType":
        return chance.choice(["paged", "CONTINUOUS", "Disabled"])
    return chance.choice(["x", "./a/b", "a b", "fp16", "0", "-1", "-0.5", "", "=", "a=b"])


def count(row: dict, chance: random.Random) -> int:
    nargs = row["nargs"]
    if nargs in {"+", "*"}:
        return chance.randint(1, 3)
    return chance.randint(0, 1) if nargs == "?" else nargs or 1


def option(row: dict, chance: random.Random) -> list[str]:
    """The option with values that it takes, in one of its spellings."""
    flag = chance.choice(row["flags"]) if row["flags"] else ""
    if row["action"] not in {"store", "append"}:
        return [flag]
    values = [value(row, chance) for _ in range(count(row, chance))]
    if not flag:
        return [text if not text.startswith("-") else "x" for text in values]
    if len(values) == 1 and row["nargs"] in {None, "?", "+", "*"} and chance.random() < 0.3:
        if flag.startswith("--"):
            return [f"{flag}={values[0]}"]
        if len(flag) == 2 and values[0]:
            return [flag + values[0]]
    return [flag, *values]


def good(rows: list[dict], chance: random.Random) -> list[str]:
    """A line that the release accepts: what is required, and some of the rest."""
    chosen = [row for row in rows if row.get("required") or chance.random() < 0.2]
    named = [row for row in chosen if row["flags"]]
    chance.shuffle(named)
    line = [text for row in chosen if not row["flags"] for text in option(row, chance)]
    return [*line, *(text for row in named for text in option(row, chance))]


def spoiled(line: list[str], rows: list[dict], chance: random.Random) -> list[str]:
    """A line with a few things done to it that argparse may or may not take."""
    line = list(line)
    flags = [flag for row in rows for flag in row["flags"]] or ["--x"]
    for _ in range(chance.randint(1, 3)):
        at = chance.randint(0, len(line))
        flag = chance.choice(flags)
        line[at:at] = chance.choice(
            [
                ["extra"],
                ["--no_such_option"],
                ["--no_such_option=1"],
                ["-z"],
                ["-1"],
                ["-1.5"],
                ["-"],
                ["-5x"],
                ["-a b"],
                [flag],
                [flag, "wrong"],
                [f"{flag}=wrong"],
                [f"{flag}="],
                [flag[: chance.randint(2, len(flag))]],
                [flag[: chance.randint(2, len(flag))] + "=1", "7"],
                [flag + "x", "1"],
                ["-h"] if chance.random() < 0.2 else ["3"],
            ]
        )
    if line and chance.random() < 0.3:
        del line[chance.randrange(len(line))]
    return line
