"""Objects of Git LFS, through the batch API: asked for by SHA-256, fetched from where it says.

Batch API, transfer adapter `basic`: git-lfs, docs/api/batch.md and docs/api/basic-transfers.md.
"""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from kit.artifacts import bounded
from kit.errors import KitError, content_error, environment_error
from kit.locks import git_server
from kit.locks.connection import NotFound, Refused, shown
from kit.locks.mirrors import rewrite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kit.locks.http import Client
    from kit.locks.lock import Input
    from kit.reception import Reception

_BATCH = 100
"""Objects asked for at a time, as many as git-lfs does; servers may take fewer."""
_MEDIA_TYPE = "application/vnd.git-lfs+json"
_ANSWER_LIMIT = 8 << 20
_MARGIN = 30.0
"""Seconds before its end that a link to an object counts as expired."""
_FOREVER = float("inf")
_ANSWERED = re.compile(r"the server answers (\d{3})")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
_OURS = frozenset(
    {"accept-encoding", "connection", "content-length", "host", "range", "transfer-encoding"}
)
"""Headers that say what is asked for; a server that hands out links has no say in them."""
_MEANINGS = {
    404: "the server does not have it: it was never pushed, or is kept in another repository",
    403: "the server does not give it out to this login",
    409: "the server keeps objects under another hash than sha256",
    410: "its owner has removed it",
    422: "the server says that the request is wrong",
    507: "the server has no room",
    509: "the bandwidth that its owner pays for is used up: wait, or use a mirror",
}
"""Batch API, "Response Errors" and "Successful Responses"."""


@dataclass(frozen=True, slots=True)
class _Link:
    """Where one object is right now; headers are for the host of `url` alone."""

    url: str
    headers: dict[str, str]
    expires: float
    """Of this host's clock, in seconds."""


class LfsSource:
    """Brings locked objects of Git LFS; they are asked for in batches, and again when links expire.

    Args:
        client: what everything is asked through.
        stack: for the hint.
        items: what else will be asked for; without it each object is asked for on its own.
    """

    def __init__(self, client: Client, stack: str, items: Sequence[Input] = ()) -> None:
        self._client = client
        self._stack = stack
        self._items = items
        self._links: dict[str, _Link] = {}
        self._lock = threading.Lock()

    def bring(self, item: Input, reception: Reception) -> None:
        """Download one object into the store, from where it stopped.

        Raises:
            KitError: it cannot be had (exit 3); it is not the locked one (exit 4).
            Cancelled: the work was called off.
        """
        link, is_new = self._link(item)
        try:
            self._client.download(link.url, reception, link.headers)
        except (NotFound, Refused) as error:
            if is_new:
                raise self._vanished(item, error) from None
            # A link may expire earlier than was said, and while an object is on its way.
            with self._lock:
                self._links.pop(item.sha256.hex, None)
            link, _ = self._link(item)
            try:
                self._client.download(link.url, reception, link.headers)
            except NotFound as again:
                raise self._vanished(item, again) from None

    def _vanished(self, item: Input, error: KitError) -> KitError:
        if isinstance(error, Refused):
            return error
        return environment_error(f"{item} has vanished: {error}", hint=f"kit lock {self._stack}")

    def _link(self, item: Input) -> tuple[_Link, bool]:
        """Where the object is; whether that was asked just now."""
        with self._lock:
            known = self._links.get(item.sha256.hex)
            if known is not None and known.expires > time.monotonic():
                return known, False
            others = [
                other
                for other in self._items
                if other.location == item.location
                and other.sha256 != item.sha256
                and other.sha256.hex not in self._links
            ]
            for asked, answer in _ask([item, *others[: _BATCH - 1]], self._client):
                if isinstance(answer, _Link):
                    self._links[asked.sha256.hex] = answer
                elif asked is item:
                    answer.hint = answer.hint or f"kit lock {self._stack}"
                    raise answer
            return self._links[item.sha256.hex], True


def require_served(items: Sequence[Input], client: Client) -> None:
    """Make sure that the servers have the objects, with the sizes that their pointers say.

    Raises:
        KitError: one does not, or cannot be asked (exit 3); another size (exit 4).
    """
    by_location: dict[str, list[Input]] = {}
    for item in items:
        by_location.setdefault(item.location, []).append(item)
    for group in by_location.values():
        for start in range(0, len(group), _BATCH):
            for _, answer in _ask(group[start : start + _BATCH], client):
                if isinstance(answer, KitError):
                    raise answer


def _ask(items: Sequence[Input], client: Client) -> Iterator[tuple[Input, _Link | KitError]]:
    """Ask one repository's server for objects: for each a link, or why there is none."""
    location = items[0].location
    try:
        document, endpoint = _batch(items, client)
    except NotFound as error:
        raise environment_error(
            f"{error}: {shown(location)} has no server of Git LFS, or hides it from this login; "
            "the place of a login is ~/.netrc"
        ) from None
    except KitError as error:
        match = _ANSWERED.search(str(error))
        status = int(match[1]) if match else 0
        if status == 413 and len(items) > 1:  # fewer at a time, it says
            middle = len(items) // 2
            yield from _ask(items[:middle], client)
            yield from _ask(items[middle:], client)
            return
        if status in _MEANINGS:
            raise environment_error(f"{error}: {_MEANINGS[status]}", error.hint) from None
        raise
    if document.get("transfer", "basic") != "basic":
        raise environment_error(f"{endpoint}: the server offers no download that is plain HTTP")
    if document.get("hash_algo", "sha256") != "sha256":
        raise environment_error(f"{endpoint}: {_MEANINGS[409]}")
    answers = {
        str(row.get("oid")): row for row in document.get("objects") or () if isinstance(row, dict)
    }
    for item in items:
        yield item, _answer(item, answers.get(item.sha256.hex), endpoint)


def _batch(items: Sequence[Input], client: Client) -> tuple[dict[str, Any], str]:
    location = items[0].location
    if git_server.canonical(location, str(items[0])) != location:
        raise content_error(f"{items[0]}: {shown(location)!r} is no address that a lock has")
    base = rewrite(location).rstrip("/")
    endpoint = f"{base if base.endswith('.git') else base + '.git'}/info/lfs/objects/batch"
    question = {
        "operation": "download",
        "transfers": ["basic"],
        "hash_algo": "sha256",
        "objects": [{"oid": item.sha256.hex, "size": item.size} for item in items],
    }
    headers = {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE}
    body = json.dumps(question).encode()
    content, _, _ = client.read(endpoint, headers, body=body, limit=_ANSWER_LIMIT)
    return bounded.loads(content, shown(endpoint)), shown(endpoint)


def _answer(item: Input, row: dict[str, Any] | None, endpoint: str) -> _Link | KitError:
    """What a server says of one object."""
    if row is None:
        return environment_error(f"{item}: {endpoint} does not say where it is")
    if failure := bounded.mapping(row, "error"):
        code = bounded.count(failure, "code") or 0
        said = re.sub(r"[^ -~]+", " ", bounded.text(failure, "message") or "")[:200]
        meaning = _MEANINGS.get(code, f"the server says {said!r}")
        return environment_error(f"{item}: {endpoint}: {code}: {meaning}")
    if (size := bounded.count(row, "size")) not in (None, item.size):
        return content_error(
            f"{item}: {endpoint}: wrong size: expected {item.size} bytes, the server has {size}"
        )
    action = bounded.mapping(row, "actions", "download")
    said_url = bounded.text(action, "href")
    if said_url is None:
        return environment_error(f"{item}: {endpoint} does not say where it is")
    url = rewrite(said_url)
    origin = urlsplit(endpoint)
    if urlsplit(url).scheme not in ("http", "https") or (
        origin.scheme == "https" and urlsplit(url).scheme != "https"
    ):
        return environment_error(
            f"{item}: {endpoint}: refused to be sent to {shown(url)}: not https"
        )
    # A mirror that stands for the host has logins of its own.
    is_meant = urlsplit(url)[:2] == urlsplit(said_url)[:2]
    headers = _headers(bounded.mapping(action, "header")) if is_meant else {}
    return _Link(url, headers, _expires(action))


def _headers(said: dict[str, Any]) -> dict[str, str]:
    return {
        name: value
        for name, value in said.items()
        if isinstance(value, str)
        and _HEADER.fullmatch(name)
        and name.lower() not in _OURS
        and value.isprintable()
        and value.isascii()
    }


def _expires(action: dict[str, Any]) -> float:
    """When a link ends, by this host's clock; `expires_in` goes before `expires_at`."""
    left = bounded.count(action, "expires_in")
    if left:
        return time.monotonic() + left - _MARGIN
    text = bounded.text(action, "expires_at")
    if text is None:
        return _FOREVER
    try:
        moment = datetime.fromisoformat(re.sub(r"\.\d+", "", text).replace("Z", "+00:00"))
    except ValueError:
        return _FOREVER
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    if moment.year < 2000:  # Go's zero time stands for none
        return _FOREVER
    return time.monotonic() + moment.timestamp() - time.time() - _MARGIN
