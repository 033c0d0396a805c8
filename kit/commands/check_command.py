"""`kit check-command`: would a release accept this line, and if not, what it became."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kit import data
from kit.commandlines.check import check
from kit.console import envelope, result
from kit.errors import ExitCode, nearest, usage_error

if TYPE_CHECKING:
    import argparse

    from kit.commandlines.verdict import Verdict

_CODES: dict[Verdict, ExitCode] = {
    "accepted": ExitCode.OK,
    "rejected": ExitCode.CONTENT,
    "undecidable": ExitCode.ENVIRONMENT,
}
_USAGE = "kit check-command --release 0.16.0 -- trtllm-build --checkpoint_dir ckpt"


def run(options: argparse.Namespace) -> int:
    """Print the verdict on every command of the text; exit 0, 4 (rejected) or 3 (undecidable)."""
    text = _text(options.command)
    named = getattr(options, "script", None)
    if options.any:
        return _any(text, named, as_json=options.json)
    if options.release is None:
        raise usage_error("no release: name one with --release, or all with --any", hint=_USAGE)
    answers = check(text, _known(options.release), named=named)
    if options.json:
        envelope("check-command", ok=answers.verdict == "accepted", **answers.to_dict())
    else:
        result("\n".join(answer.text() for answer in answers.commands))
    return _CODES[answers.verdict]


def _any(text: str, named: str | None, *, as_json: bool) -> int:
    """Print the releases that accept the text; exit 0 if one does, 4 if all reject, else 3."""
    verdicts = {
        release: check(text, release, named=named, explain=False).verdict
        for release in data.release_order()
    }
    found: set[Verdict] = set(verdicts.values())
    verdict: Verdict = "undecidable"
    if "accepted" in found or found == {"rejected"}:
        verdict = "accepted" if "accepted" in found else "rejected"
    if as_json:
        rows = [{"name": release, "verdict": said} for release, said in verdicts.items()]
        envelope("check-command", ok=verdict == "accepted", verdict=verdict, releases=rows)
        return _CODES[verdict]
    for kind in ("accepted", "undecidable", "rejected"):
        names = [release for release, said in verdicts.items() if said == kind]
        result(f"{kind}: {', '.join(names) or 'none'}")
    return _CODES[verdict]


def _text(command: list[str]) -> str:
    """One argument is shell text; several are the words that a shell has split already."""
    words = command[1:] if command[:1] == ["--"] else command
    if not words or not any(word.strip() for word in words):
        raise usage_error("no command to check", hint=_USAGE)
    return words[0] if len(words) == 1 else shlex.join(words)


def _known(release: str) -> str:
    bare = release.strip().removeprefix("v")
    if bare not in data.release_order():
        raise usage_error(f"unknown release {release!r}; {nearest(bare, data.release_order())}")
    return bare
