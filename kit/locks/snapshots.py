"""The archives of Ubuntu and Debian as they were at one moment: nothing vanishes from there.

`KIT_SNAPSHOT=20241120T000000Z` has the packages of these archives looked for in their snapshot
services. Other repositories have none, and are asked as always. Locks never name a snapshot.

The addresses are those of apt's own `Acquire::Snapshots::URI::Host` settings and of
https://snapshot.ubuntu.com, which begins on 2023-03-01; it serves the packages of all
architectures below `/ubuntu`, those of ports.ubuntu.com too.
"""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from kit.errors import usage_error

VARIABLE = "KIT_SNAPSHOT"

_DEBIAN = "https://snapshot.debian.org/archive/debian/"
_STAMP = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SERVICES = (
    (
        re.compile(r"(?:(?:[a-z]{2}\.)?archive|security)\.ubuntu\.com/ubuntu(?=/|$)"),
        "https://snapshot.ubuntu.com/ubuntu/",
    ),
    (
        re.compile(r"ports\.ubuntu\.com/ubuntu-ports(?=/|$)"),
        "https://snapshot.ubuntu.com/ubuntu/",
    ),
    (
        re.compile(r"(?:[a-z0-9-]+\.)+debian\.org/debian-security(?=/|$)"),
        "https://snapshot.debian.org/archive/debian-security/",
    ),
    (re.compile(r"(?:[a-z0-9-]+\.)+debian\.org/debian(?=/|$)"), _DEBIAN),
)


def stamp() -> str | None:
    """The moment that the environment names; None without one.

    Raises:
        KitError: it is none (exit 2).
    """
    given = os.environ.get(VARIABLE)
    if given and not _STAMP.fullmatch(given):
        raise usage_error(
            f"{VARIABLE}: expected a time in UTC such as 20241120T000000Z, found {given!r}",
            hint=f"export {VARIABLE}=<YYYYMMDD>T000000Z",
        )
    return given or None


def has_service(url: str) -> bool:
    """Whether the archive that `url` belongs to has a snapshot service."""
    return _found(url) is not None


def debian() -> str | None:
    """Debian's archive at the moment that the environment names; None without one."""
    moment = stamp()
    return None if moment is None else f"{_DEBIAN}{moment}"


def snapshot(url: str) -> str:
    """Where `url` is at the moment that the environment names; itself without one.

    Raises:
        KitError: the environment names no moment (exit 2).
    """
    moment = stamp()
    if moment is None or (found := _found(url)) is None:
        return url
    service, rest = found
    return f"{service}{moment}{rest}"


def hint(day: str = "YYYYMMDD") -> str:
    """The next command for whoever misses a package of such an archive."""
    return f"export {VARIABLE}=<{day}>T000000Z, a day on which it was there"


def _found(url: str) -> tuple[str, str] | None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return None
    address = f"{(parts.hostname or '').lower()}{parts.path}"
    for pattern, service in _SERVICES:
        if match := pattern.match(address):
            return service, address[match.end() :]
    return None
