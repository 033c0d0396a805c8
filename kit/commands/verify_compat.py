"""`kit verify-compat`: do the parts fit together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit import project
from kit.compat.gather import Request
from kit.compat.verdict import verify
from kit.console import envelope, note, result
from kit.errors import usage_error

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Print findings and one sentence; exit 4 when something does not fit."""
    if options.explain is not None:
        return _explain(options)
    request = Request(
        release=options.release,
        triton=options.triton,
        stack=options.stack,
        image=options.image,
        engine=_path(options, "engine"),
        checkpoint=_path(options, "checkpoint"),
        model_repository=_path(options, "model_repository"),
        source=_path(options, "source"),
        wheel=_path(options, "wheel"),
        manifest=_path(options, "manifest"),
        lock=_path(options, "lock"),
        bundle=_path(options, "bundle"),
        host=options.host,
        host_facts=_path(options, "host_facts"),
        gpu=options.gpu,
    )
    verdict = verify(project.find(), request)
    code = verdict.exit_code(strict=options.strict)
    if options.json:
        envelope("verify-compat", ok=code == 0, **verdict.to_dict())
        return code
    result(verdict.table() if verdict.findings else verdict.seen())
    for line in verdict.notes():
        result(line)
    result(verdict.sentence())
    hint = next((item.hint for item in verdict.findings if item.status == "mismatch"), None)
    if hint:
        note(f"  try: {hint}")
    return code


def _path(options: argparse.Namespace, name: str) -> Path | None:
    text = getattr(options, name)
    if text == "":
        # An unset variable names nothing, while Path("") is the folder that the command runs in.
        raise usage_error(
            f"--{name.replace('_', '-')}: expected a path, found nothing",
            hint="kit verify-compat --help",
        )
    return None if text is None else Path(text)


def _explain(options: argparse.Namespace) -> int:
    """What a rule holds and where that comes from; without a name, all of them."""
    from kit.compat.rules import every
    from kit.data import releases
    from kit.errors import nearest

    rules = every()
    chosen = [rule for rule in rules if options.explain in ("", rule.name)]
    if not chosen:
        names = [rule.name for rule in rules]
        raise usage_error(
            f"unknown rule {options.explain!r}; {nearest(options.explain, names)}",
            hint="kit verify-compat --explain",
        )
    read = releases.table()["read"]
    if options.json:
        rows = [
            {"name": rule.name, "about": rule.about, "sources": list(rule.sources), "read": read}
            for rule in chosen
        ]
        envelope("verify-compat", ok=True, rules=rows)
    elif options.explain:
        rule = chosen[0]
        sources = "\n".join(f"  {source}" for source in rule.sources)
        result(f"{rule.name}\n\n{rule.about}\n\nSources, read {read}:\n{sources}")
    else:
        width = max(len(rule.name) for rule in chosen)
        for rule in chosen:
            result(f"{rule.name:{width}}  {rule.about.partition('. ')[0].rstrip('.')}")
    return 0
