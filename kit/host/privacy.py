"""What must not leave the host: its name, its users, its addresses, its folders."""

from __future__ import annotations

import getpass
import os
import re
from pathlib import Path

from kit.host.reading import CONTROLS

_ADDRESS = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b(?!\.\d)|\b(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{0,4}"
)
_LONGEST = 300
_COMMON = {"root", "user", "nobody"}
"""Users whose names say nothing and are words of many messages."""


def message(text: str) -> str:
    """What a program said, in one line, with host, user, addresses and home taken out."""
    line = " ".join(CONTROLS.sub(" ", text).split())
    line = line.replace(_home(), "~") if _home() else line
    for name, stand_in in _names():
        line = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", stand_in, line)
    return _ADDRESS.sub("<address>", line)[:_LONGEST]


def path(place: Path | str) -> str:
    """A path with the home folder as `~`; one inside somebody's home by its last part only."""
    text = CONTROLS.sub("", str(place))
    home = _home()
    if home and (text == home or text.startswith(f"{home}/")):
        return f"~{text[len(home) :]}"
    inside = re.match(r"/home/[^/]+(?=/|$)", text)
    return f"~{text[inside.end() :]}" if inside else text


def _home() -> str:
    try:
        home = str(Path.home())
    except RuntimeError:  # a user id that nobody has
        return ""
    return home if home.count("/") >= 1 and home != "/" else ""


def _names() -> list[tuple[str, str]]:
    host = os.uname().nodename
    names = [(host, "<host>"), (host.partition(".")[0], "<host>")]
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    if user not in _COMMON:
        names.append((user, "<user>"))
    return [(name, stand_in) for name, stand_in in names if name]
