"""`kit verify-compat`: do the parts fit together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kit import project
from kit.compat.verdict import verify
from kit.console import envelope, result

if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Print findings and one sentence; exit 4 when something does not fit."""
    verdict = verify(
        project.find(),
        release=options.release,
        stack=options.stack,
        engine_dir=Path(options.engine) if options.engine else None,
        manifest=Path(options.manifest) if options.manifest else None,
        lock=Path(options.lock) if options.lock else None,
    )
    code = verdict.exit_code(strict=options.strict)
    if options.json:
        envelope("verify-compat", ok=code == 0, **verdict.to_dict())
    else:
        result(verdict.table())
        result(verdict.sentence())
    return code
