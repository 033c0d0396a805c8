"""One repository of a container registry, as this site reaches it (OCI Distribution 1.1, pull)."""

from __future__ import annotations

import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from kit.digest import Digest
from kit.errors import content_error, environment_error, usage_error
from kit.images.media_types import DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST
from kit.locks import mirrors
from kit.locks.connection import NotFound, Refused
from kit.locks.registry_login import (
    DOCKER_HUB,
    Login,
    authorization,
    find_login,
    hint,
    is_loopback,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.errors import KitError
    from kit.locks.http import Client
    from kit.reception import Reception

_Result = TypeVar("_Result")

DOCUMENT_LIMIT = 4 << 20
"""Bytes of the largest manifest, which registries limit to that too, and of a configuration."""
_HUB_HOST = "registry-1.docker.io"
_ACCEPT = {"Accept": f"{INDEX}, {MANIFEST}, {DOCKER_INDEX}, {DOCKER_MANIFEST}"}
"""Every form that the kit reads: a registry may answer in an older one that is not asked for."""
_NAME = re.compile(r"([a-z0-9][a-z0-9.-]*(?::[0-9]+)?)/([a-z0-9]+(?:(?:[._]|__|-+|/)[a-z0-9]+)*)")
_NEW_TOKENS = 1
"""How often a token that nothing ever came for is replaced by the next; a token may end before its
first use."""


class Registry:
    """What several threads ask one repository through; the token is had once, and again if it ends.

    A login is sent once the registry asks for it, to the registry and to the token service that it
    names, nowhere else; only ~/.netrc's of this very host goes along unasked, as for every URL.
    """

    def __init__(self, name: str, client: Client) -> None:
        """Find out where the repository is here.

        Args:
            name: `<registry>/<repository>`, as in the lock.
            client: what to ask through.

        Raises:
            KitError: no such name, or `KIT_MIRRORS` leads nowhere (exit 2).
        """
        self.name = name
        self._client = client
        self._place = _place(name)
        self._authorization: str | None = None
        self._accepted: set[str | None] = {None}
        self._login: Login | None = None
        self._lock = threading.Lock()

    def manifest(self, reference: str) -> bytes:
        """A manifest or an index by tag or digest, byte for byte.

        Raises:
            NotFound: there is none.
            KitError: no access (exit 3); too large, or not of that digest (exit 4).
        """
        return self._document(f"manifests/{reference}", reference.partition(":")[2], _ACCEPT)

    def blob(self, digest: Digest) -> bytes:
        """A small blob; errors as for `manifest`."""
        return self._document(f"blobs/{digest}", digest.hex, {})

    def has_blob(self, digest: Digest) -> bool:
        """Whether the registry itself keeps the blob.

        Raises:
            KitError: it does not say (exit 3).
        """
        url = f"{self._place.url}/blobs/{digest}"
        try:
            self._asked(lambda login: self._client.length(url, login))
        except NotFound:
            return False
        return True

    def download(self, digest: Digest, reception: Reception, *, manifest: bool) -> None:
        """Bring a blob or a manifest into the store, as `Client.download` does.

        A token that ends in the middle is replaced, and the download goes on where it was.
        """
        part, accept = ("manifests", _ACCEPT) if manifest else ("blobs", {})
        url = f"{self._place.url}/{part}/{digest}"
        self._asked(
            lambda login: self._client.download(url, reception, {**accept, **login}),
            lambda: reception.offset,
        )

    def _document(self, path: str, expected: str, headers: dict[str, str]) -> bytes:
        url = f"{self._place.url}/{path}"
        content, _, _ = self._asked(
            lambda login: self._client.read(url, {**headers, **login}, limit=DOCUMENT_LIMIT)
        )
        found = Digest.of_bytes(content)
        if expected and found.hex != expected:
            raise content_error(f"{url}: wrong content: expected sha256:{expected}, found {found}")
        return content

    def _asked(
        self, ask: Callable[[dict[str, str]], _Result], came: Callable[[], int] = lambda: 0
    ) -> _Result:
        """Ask with the login of the moment; a refusal is an occasion to get another one."""
        refused, furthest = 0, came()
        while True:
            used = self._authorization
            try:
                found = ask({"Authorization": used} if used else {})
            except Refused as refusal:
                if came() > furthest:
                    furthest = came()
                    self._accepted.add(used)
                refused += used not in self._accepted
                if refusal.status != 401 or not self._is_own(refusal.url) or refused > _NEW_TOKENS:
                    raise self._no_access(refusal) from None
                self._renew(used, refusal)
                if self._authorization == used:  # the same password is no better the second time
                    raise self._no_access(refusal) from None
            else:
                self._accepted.add(used)
                return found

    def _renew(self, used: str | None, refusal: Refused) -> None:
        with self._lock:
            if self._authorization != used:  # another thread was first
                return
            self._login = self._place.login or find_login(self._place.registry)
            try:
                self._authorization = authorization(
                    refusal.challenge, refusal.url, self._place.path, self._login, self._client
                )
            except Refused as deeper:
                raise self._no_access(deeper) from None

    def _is_own(self, url: str) -> bool:
        """Whether the registry itself answered: what it redirects to gets no say in logins."""
        return urlsplit(url)[:2] == urlsplit(self._place.url)[:2]

    def _no_access(self, refusal: Refused) -> KitError:
        host = urlsplit(refusal.url).netloc
        tried = f"the login of {self._login.origin}" if self._login else "no login"
        return environment_error(
            f"{self.name}: {host} refuses with {refusal.status}, asked with {tried}: there is no "
            "such repository, or no access to it",
            hint=hint(self._place.registry),
        )


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a repository is asked for.

    Attributes:
        registry: the name that logins are kept under.
        url: `https://<host>/v2/<path>`.
        path: the repository there.
        login: of the mirror's own, None to look it up.
    """

    registry: str
    url: str
    path: str
    login: Login | None


def _place(name: str) -> _Place:
    if not is_name(name):
        raise usage_error(f"expected <registry>/<repository>, found {name!r}")
    address = mirrors.rewrite(name)
    if "://" not in address:
        loopback = is_loopback(address.partition("/")[0].partition(":")[0])
        address = f"{'http' if loopback else 'https'}://{address}"
    try:
        parts = urlsplit(address)
    except ValueError:
        raise usage_error(f"{mirrors.VARIABLE} leads {name} to no URL") from None
    user, _, host = parts.netloc.rpartition("@")
    host = host.lower()
    path = parts.path.strip("/")
    if not is_name(f"{host}/{path}") or not (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    ):
        raise usage_error(
            f"{mirrors.VARIABLE} leads {name} to {parts.scheme}://{host}/{path}: expected "
            "https://<registry>/<repository>; without https only on this machine"
        )
    login = None
    if user:
        login = Login(
            unquote(parts.username or ""), unquote(parts.password or ""), mirrors.VARIABLE
        )
    asked = _HUB_HOST if host == DOCKER_HUB else host
    return _Place(host, f"{parts.scheme}://{asked}/v2/{path}", path, login)


def is_name(text: str) -> bool:
    """Whether `text` is `<registry>/<repository>`; without a dot or a port it is no registry's."""
    match = _NAME.fullmatch(text)
    return match is not None and ("." in match[1] or ":" in match[1] or match[1] == "localhost")
