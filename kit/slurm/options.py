"""What `sbatch` is told: values that cannot be anything else, quoted as it reads them."""

from __future__ import annotations

import re

from kit.errors import usage_error

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*(,[A-Za-z0-9][A-Za-z0-9_.+-]*)*")
_TIME = re.compile(r"\d+(:\d{1,2}){0,2}|\d+-\d{1,2}(:\d{1,2}){0,2}|UNLIMITED|INFINITE")
_LONG = re.compile(r"--([a-z][a-z0-9-]*)(=(.*))?", re.DOTALL)
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./\[\]-]+")

OWN = {
    "nodes": "the recipe says how many",
    "ntasks": "kit run starts what is needed",
    "ntasks-per-node": "kit run starts what is needed",
    "gpus-per-node": "it has an option of kit slurm's own",
    "partition": "it has an option of kit slurm's own",
    "account": "it has an option of kit slurm's own",
    "time": "it has an option of kit slurm's own",
    "job-name": "the kit names the job after the example",
    "array": "one job makes one run",
    "wrap": "the script is the kit's",
    "parsable": "the kit reads what sbatch answers",
    "chdir": "the script says where it runs",
}
"""Options that nobody else may give, and why."""


def name(option: str, text: str | None) -> str | None:
    """A partition or an account, or several, apart by commas (exit 2 for anything else)."""
    if text is not None and not _NAME.fullmatch(text):
        raise usage_error(
            f"{option} {text!r}: expected a name of letters, digits, '_', '.', '+', '-'",
            hint="sinfo --summarize; sacctmgr show associations user=$USER",
        )
    return text


def time(text: str | None) -> str | None:
    """A time limit as Slurm writes it (exit 2 for anything else)."""
    if text is not None and not _TIME.fullmatch(text):
        raise usage_error(
            f"--time {text!r}: expected minutes, [hours:]minutes:seconds, "
            "days-hours[:minutes[:seconds]] or UNLIMITED",
            hint="--time 1:30:00",
        )
    return text


def gpus(count: int | None, ranks: int) -> int | None:
    """How many GPUs of each node: as many as it has ranks at least (exit 2)."""
    if count is not None and count < ranks:
        raise usage_error(
            f"--gpus-per-node {count}: every node has {ranks} ranks, which want one GPU each",
            hint=f"--gpus-per-node {ranks}",
        )
    return count


def further(words: list[str]) -> list[str]:
    """Further options, each in one word, `--constraint=h100`; quoted for a `#SBATCH` line.

    Raises:
        KitError: no long option, one that the kit gives itself, a value that such a line cannot
            hold (exit 2).
    """
    found = []
    for word in words:
        match = _LONG.fullmatch(word)
        if match is None:
            raise usage_error(
                f"{word!r}: expected an option of sbatch in one word, such as --constraint=h100",
                hint="kit slurm --help",
            )
        option, value = match.group(1), match.group(3)
        if option in OWN:
            raise usage_error(f"--{option} for sbatch: {OWN[option]}", hint="kit slurm --help")
        found.append(f"--{option}" if value is None else f"--{option}={_quoted(option, value)}")
    return found


def _quoted(option: str, value: str) -> str:
    """As `sbatch` reads its lines: quotes as in a shell, a `#` begins a comment."""
    if _PLAIN.fullmatch(value):
        return value
    if not value.isprintable() or any(sign in value for sign in "\"'\\"):
        raise usage_error(
            f"--{option}={value!r} for sbatch: expected no line ends, quotes or backslashes"
        )
    return f'"{value}"'
