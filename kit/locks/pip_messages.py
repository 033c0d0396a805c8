"""What pip says when it gives up, in few words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.errors import environment_error, usage_error
from kit.files import free_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kit.errors import KitError

_SHOWN = 15
"""Lines of pip's own words that are shown."""
_ABSENT = re.compile(
    r"ERROR: Could not find a version that satisfies the requirement (.+?) "
    r"\(from versions: (.*)\)(.*)"
)
_CAUSE = "The conflict is caused by:"
_CONFLICT = re.compile(r"ERROR: (Cannot install .+)")
_NOISE = re.compile(r"^(\[notice\]|WARNING: |ERROR: ResolutionImpossible|\s*$)")


def explained(lines: Sequence[str], group: str, image: str, places: str, scratch: Path) -> KitError:
    """The error that pip's output means.

    Args:
        lines: all that pip has said.
        group: of requirements, for the message.
        image: whose pip it is.
        places: where it has looked.
        scratch: the folder that it wrote to.
    """
    where = f"requirements: {group}: the pip of image {image}"
    text = "\n".join(lines)
    if "No space left on device" in text:
        return environment_error(
            f"{where}: disk full while writing {scratch}: {free_bytes(scratch)} bytes free",
            hint="export KIT_HOME=<a folder on a larger disk>",
        )
    for line in lines:
        if match := _CONFLICT.match(line):
            return usage_error(f"{where}: {match[1]}\n{_indented(_conflict(lines))}")
        if match := _ABSENT.match(line):
            versions = match[2].split(", ")
            if versions == ["none"]:
                return usage_error(f"{where} finds nothing for {match[1]} at {places}")
            newest = ", ".join(versions[-8:])
            return usage_error(f"{where} finds no {match[1]} that fits; there are … {newest}")
    rest = [line for line in lines if not _NOISE.match(line)]
    return usage_error(f"{where} gave up:\n{_indented(rest[-_SHOWN:])}")


def _conflict(lines: Sequence[str]) -> list[str]:
    """What contradicts what, without the advice that follows.

    pip writes it to the other stream than the error, so that either may come first.
    """
    found: list[str] = []
    inside = False
    for line in lines:
        if inside and line.startswith(("To fix this", "ERROR:", "Additionally")):
            break
        inside = inside or line.startswith(_CAUSE)
        if inside and line.strip():
            found.append(line.strip())
    return found[:_SHOWN]


def _indented(lines: Sequence[str]) -> str:
    return "\n".join(f"  | {line}" for line in lines)
