"""Build arguments: what a Dockerfile's `ARG`s are filled in with, in an intent and in its lock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.locks import checks

if TYPE_CHECKING:
    from kit.document import Section

NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_VALUE = re.compile(r"[^\x00-\x1f\x7f]*")


def arguments(section: Section) -> tuple[tuple[str, str], ...]:
    """Read the mapping `arguments`: names of build arguments and their values, sorted.

    Raises:
        KitError: a name that no `ARG` can have, a value of more than one line (exit 2).
    """
    given = section.optional_section("arguments")
    if given is None:
        return ()
    found = []
    for name in given.keys():  # noqa: SIM118 (a Section is no mapping)
        if not NAME.fullmatch(name):
            raise given.error(f"not the name of a build argument: {name!r}", name)
        found.append((name, checks.matched(given, name, _VALUE)))
    return tuple(sorted(found))
