"""Mirrors of a site: which prefix of an address stands for which other one here.

`KIT_MIRRORS` holds pairs `prefix=prefix`, apart by blanks or line ends:

    nvcr.io/=registry.site.example/ngc/ https://github.com/=https://git.site.example/

The longest prefix that fits decides. Locks never name a mirror, and there is no way back to the
origin if a mirror fails: a site that names one may not want to be asked elsewhere.
"""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass

from kit.errors import KitError, usage_error

VARIABLE = "KIT_MIRRORS"


@dataclass(frozen=True, slots=True)
class Mirror:
    """One pair; without a `scheme` it stands for addresses of any, and keeps theirs.

    Attributes:
        scheme: `https`, or empty.
        prefix: host and path of the origin, `nvcr.io/`.
        target: what stands there instead; may hold a scheme and a login.
    """

    scheme: str
    prefix: str
    target: str

    def apply(self, url: str) -> str | None:
        """The address at the mirror; None if the pair does not fit. A login is never taken along.

        A prefix ends at a `/`: `nvcr.io` does not stand for `nvcr.io.example`. An image's name has
        no scheme and fits all.
        """
        scheme, address = _bare(url)
        if (self.scheme and scheme not in ("", self.scheme)) or not address.startswith(self.prefix):
            return None
        rest = address[len(self.prefix) :]
        if rest and not self.prefix.endswith("/") and rest[0] not in "/?#":
            return None
        kept = f"{scheme}://" if scheme and "://" not in self.target else ""
        return f"{kept}{self.target}{rest}"


def load() -> tuple[Mirror, ...]:
    """The pairs of the environment, longest prefix first.

    Raises:
        KitError: a word is no pair (exit 2).
    """
    return _read(os.environ.get(VARIABLE, ""))


def rewrite(url: str) -> str:
    """Where this site wants `url` to be asked for; the same where no mirror stands for it.

    Whoever sends a login chooses it for the host that this returns, not for the one it was given.

    Raises:
        KitError: `KIT_MIRRORS` cannot be read (exit 2).
    """
    if not os.environ.get(VARIABLE):
        return url
    for mirror in load():
        if (found := mirror.apply(url)) is not None:
            return found
    return url


@functools.lru_cache(maxsize=4)
def _read(text: str) -> tuple[Mirror, ...]:
    found = [_pair(number, word) for number, word in enumerate(text.split(), 1)]
    return tuple(sorted(found, key=lambda pair: (len(pair.prefix), pair.scheme), reverse=True))


def _pair(number: int, word: str) -> Mirror:
    prefix, equals, target = word.partition("=")
    scheme, address = _bare(prefix)
    if not (equals and address.strip("/") and _bare(target)[1].strip("/")):
        raise _unreadable(number)
    if address.endswith("/") != target.endswith("/"):
        raise usage_error(
            f"{VARIABLE}: pair {number}, for {address}: both sides end with '/', or none does"
        )
    return Mirror(scheme, address, target)


def _unreadable(number: int) -> KitError:
    # The word itself may hold a login: only its place is told.
    return usage_error(
        f"{VARIABLE}: pair {number}: expected prefix=prefix",
        hint=f"export {VARIABLE}='nvcr.io/=<your registry>/<folder>/'",
    )


def _bare(url: str) -> tuple[str, str]:
    """Scheme, and the rest without a login; hosts in small letters, as they are compared."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    host, slash, path = rest.partition("/")
    if "@" in host and scheme in ("http", "https"):
        host = host.rpartition("@")[2]
    return scheme.lower(), f"{host.lower()}{slash}{path}"
