"""What must not leave the host: its name, its users, its addresses, its folders."""

from __future__ import annotations

import os
import pwd
import re
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from kit.host.reading import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ADDRESS = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b(?!\.\d)"
    r"|(?<![\w:])(?:(?:[0-9a-fA-F]{1,4}:){1,7}|:)"
    r"(?::[0-9a-fA-F]{1,4}){1,7}(?:%\w+)?(?![\w:])"
    r"|\b(?:[0-9a-fA-F]{1,4}:){3,7}[0-9a-fA-F]{0,4}"
)
"""Four numbers; groups of hexadecimal digits with one gap of zeros, then without."""
_AUTHORITY = re.compile(r"(?<=://)[^/\s'\"]+")
_ACCOUNT = re.compile(r"[\w.+-]+@(?=[A-Za-z])[\w.-]+")
_ANY_HOME = re.compile(r"(?<![\w.~/-])/home/[^/\s:'\"]+")
_LONGEST = 300
_T = TypeVar("_T")
_COMMON = {"root", "user", "nobody"}
"""Users whose names say nothing and are words of many messages."""


def message(text: str) -> str:
    """What a program said, in one line, with host, user, addresses and home taken out."""
    line = " ".join(CONTROLS.sub(" ", text).split())
    for home in _homes():
        line = line.replace(home, "~")
    line = _ANY_HOME.sub("~", line)
    line = _AUTHORITY.sub("<host>", line)
    line = _ACCOUNT.sub("<user>@<host>", line)
    for name, stand_in in _names():
        line = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", stand_in, line)
    return _ADDRESS.sub("<address>", line)[:_LONGEST]


def path(place: Path | str) -> str:
    """A path with a home folder as `~`, and folders that are called as host or user without."""
    text = CONTROLS.sub("", str(place))
    for home in _homes():
        if text == home or text.startswith(f"{home}/"):
            text = f"~{text[len(home) :]}"
    inside = re.match(r"/home/[^/]+(?=/|$)", text)
    text = f"~{text[inside.end() :]}" if inside else text
    for name, stand_in in _names():
        text = re.sub(rf"(?<=/){re.escape(name)}(?=/|$)", stand_in, text)
    return text


def shown(found: _T) -> _T:
    """Facts without what no terminal should get; what programs said of themselves is in them."""
    cleaned: Any = _shown(found)
    return cleaned  # type: ignore[no-any-return]


def _shown(found: Any) -> Any:
    if isinstance(found, str):
        return "".join(sign for sign in found if sign.isprintable())
    if isinstance(found, tuple):
        return tuple(_shown(item) for item in found)
    if is_dataclass(found) and not isinstance(found, type):
        every = {field.name: _shown(getattr(found, field.name)) for field in fields(found)}
        return replace(found, **every)
    return found


def _homes() -> list[str]:
    """The home that the environment names and the one that the system has on record."""
    found = [os.environ.get("HOME", ""), *(row.pw_dir for row in _accounts())]
    homes = dict.fromkeys(home.rstrip("/") for home in found if home.startswith("/"))
    return [home for home in homes if home and home != "/nonexistent"]


def _accounts() -> Iterator[pwd.struct_passwd]:
    try:
        yield pwd.getpwuid(os.geteuid())
    except KeyError:  # a user id that nobody has
        return


def _names() -> list[tuple[str, str]]:
    host = os.uname().nodename
    users = [os.environ.get(name, "") for name in ("LOGNAME", "USER", "SUDO_USER")]
    users += [row.pw_name for row in _accounts()]
    names = [(host, "<host>"), (host.partition(".")[0], "<host>")]
    names += [(user, "<user>") for user in users if user not in _COMMON]
    return [(name, stand_in) for name, stand_in in dict.fromkeys(names) if name]
