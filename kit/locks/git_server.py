"""A repository's addresses: as a lock names it, as `.gitmodules` writes it, where it answers."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from kit.errors import content_error, environment_error
from kit.locks.connection import _login, shown
from kit.locks.mirrors import rewrite

if TYPE_CHECKING:
    from kit.locks.http import Client

_SCP = re.compile(r"(?:[^/:@\s]+@)?([^/:@\s]+):(?!//)/*(\S+)")
"""`git@host:path`, which scp writes that way."""
_OVER_SSH = ("ssh", "git+ssh", "ssh+git", "git")
_ADVERTISEMENT = "application/x-git-upload-pack-advertisement"
_ADVERTISEMENT_LIMIT = 64 << 20
_SERVICE = "/info/refs"


@dataclass(frozen=True, slots=True)
class Remote:
    """Where a repository answers: its URL after all redirects, and the header that lets in."""

    url: str
    authorization: str


def canonical(url: str, where: str) -> str:
    """The address that stands in a lock: https (or http, where nothing else is said), no login.

    `git@host:path`, `ssh://` and `git://` need a key or a port that builders do not have: the same
    host is asked over https.

    Raises:
        KitError: it is none that can be asked over the web (exit 4).
    """
    if match := _SCP.fullmatch(url):
        url = f"https://{match[1]}/{match[2]}"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port, parts = "", None, urlsplit("")
    if ":" in host:
        host = f"[{host}]"
    if not host or parts.query or parts.fragment or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise content_error(f"{where}: {shown(url)!r} is no address that can be asked over https")
    if parts.scheme in _OVER_SSH:
        return urlunsplit(("https", host, "/" + parts.path.lstrip("/"), "", ""))
    if parts.scheme not in ("http", "https"):
        raise content_error(
            f"{where}: {shown(url)!r}: expected https, ssh or git, found {parts.scheme!r}"
        )
    address = f"{host}:{port}" if port else host
    return urlunsplit((parts.scheme, address, parts.path.rstrip("/"), "", ""))


def resolved(url: str, parent: str, where: str) -> str:
    """The canonical address of a submodule; `./` and `../` start at its parent's.

    Raises:
        KitError: as of `canonical`, or it climbs out of the parent's host (exit 4).
    """
    if not url.startswith(("./", "../")):
        return canonical(url, where)
    parts = urlsplit(parent)
    path = posixpath.normpath(f"{parts.path.strip('/')}/{url}")
    if path == "." or path.startswith(".."):
        raise content_error(f"{where}: {url!r} climbs out of {shown(parent)}")
    return urlunsplit((parts.scheme, parts.netloc, f"/{path}", "", ""))


def find(location: str, client: Client) -> Remote:
    """Ask where a repository answers, over mirror and redirects, and with which login.

    It is asked here, not by git, for whom a redirect may take a login along.

    Raises:
        NotFound: there is no repository, or it is hidden from this login.
        Refused: a login is missing or wrong (exit 3).
        KitError: no server, or none of git's (exit 3).
    """
    asked = rewrite(location).rstrip("/")
    if urlsplit(asked).scheme not in ("http", "https"):
        raise environment_error(
            f"{shown(location)}: KIT_MIRRORS leads to {shown(asked)}: expected http or https"
        )
    _, media, final = client.read(
        f"{asked}{_SERVICE}?service=git-upload-pack",
        {"Git-Protocol": "version=2"},
        limit=_ADVERTISEMENT_LIMIT,
    )
    found = urlsplit(final)
    if media != _ADVERTISEMENT or not found.path.endswith(_SERVICE):
        raise environment_error(
            f"{shown(asked)}: no git server answers there: expected {_ADVERTISEMENT}, "
            f"found {media or 'nothing'}"
        )
    url = urlunsplit((*found[:2], found.path.removesuffix(_SERVICE), "", ""))
    bare, login = _login(asked)
    if urlsplit(bare)[:2] != found[:2]:
        _, login = _login(url)
    return Remote(url, login.get("authorization", ""))
