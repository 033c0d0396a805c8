"""`kit manifest`: read, check, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit import project
from kit.console import envelope, result
from kit.errors import ExitCode, usage_error
from kit.manifests import diff, record, verify

if TYPE_CHECKING:
    import argparse

_COUNTS = {"show": 1, "verify": 1, "diff": 2}


def run(options: argparse.Namespace) -> int:
    """Dispatch to show, verify (exit 4 when not verified) or diff (exit 4 when they differ)."""
    paths = [Path(path) for path in options.paths]
    expected = _COUNTS[options.action]
    if len(paths) != expected:
        raise usage_error(
            f"kit manifest {options.action}: expected {expected} manifest, found {len(paths)}",
            hint="kit manifest --help",
        )
    if options.action == "show":
        manifest = record.read(record.locate(paths[0]))
        if options.json:
            envelope("manifest", ok=True, manifest=manifest.to_dict())
        else:
            result(diff.show(manifest))
        return ExitCode.OK
    if options.action == "verify":
        answer: verify.Verification | diff.Diff = verify.verify(project.find(), paths[0])
    else:
        first, second = (record.read(record.locate(path)) for path in paths)
        answer = diff.diff(first, second)
    if options.json:
        envelope("manifest", ok=answer.ok, **answer.to_dict())
    else:
        result(answer.text())
    return ExitCode.OK if answer.ok else ExitCode.CONTENT
