"""The licence gate: terms that somebody has to accept by name before anything is downloaded."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from kit.preflight.finding import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.locks.intent import Intent

VARIABLE = "KIT_ACCEPT_LICENCES"
"""Names of accepted licences, apart by blanks or commas; nothing else counts as acceptance."""


def check(intent: Intent) -> Iterator[Finding]:
    """Whether all licences of the stack are accepted; nothing where it has none."""
    if not intent.licences:
        return
    accepted = set(re.split(r"[\s,]+", os.environ.get(VARIABLE, "")))
    missing = [licence for licence in intent.licences if licence.name not in accepted]
    names = " ".join(licence.name for licence in intent.licences)
    if not missing:
        yield Finding("licences", "ok", f"accepted by {VARIABLE}: {names}")
        return
    terms = "".join(f"\n{licence.name}: {licence.url}" for licence in missing)
    yield Finding(
        "licences",
        "failed",
        f"{intent.stack} is made of files under terms that nobody has accepted here:{terms}",
        f'read them, and if you accept them: export {VARIABLE}="{names}"',
    )
