"""Downloads that continue where they stopped, over HTTP(S) or from a disk."""

from __future__ import annotations

import hashlib
import random
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

from kit.digest import CHUNK, Digest
from kit.errors import content_error
from kit.locks.connection import (
    Connections,
    GivenUp,
    Interrupted,
    NotFound,
    require_success,
    shown,
)
from kit.reception import Cancelled, refuse_cancelled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import urllib3

    from kit.reception import Reception

_Result = TypeVar("_Result")

ATTEMPTS = 5
"""Tries in a row that may fail until a download is given up; one that brings bytes starts anew."""
_LONGEST_WAIT = 30.0
_PIECE = 1 << 16
"""Bytes read at a time: little enough to stop soon on a slow line, enough to fill a fast one."""
_PAGE_LIMIT = 256 << 20


@dataclass(slots=True)
class Client:
    """What several threads download through.

    Attributes:
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds of silence after which a connection counts as broken.
        back_off: seconds before the second try; each later one waits twice as long.
        attempts: tries in a row that may fail until something is given up.
        cancelled: once set, everything under way ends with `Cancelled`.
    """

    connect_timeout: float = 20.0
    read_timeout: float = 60.0
    back_off: float = 0.5
    cancelled: threading.Event = field(default_factory=threading.Event)
    attempts: int = ATTEMPTS
    _connections: Connections = field(init=False)

    def __post_init__(self) -> None:
        self._connections = Connections(self.connect_timeout, self.read_timeout, self.cancelled)

    def trust(self, certificates: str) -> None:
        """Accept one more file of certificate authorities, besides the environment's."""
        self._connections.trust(certificates)

    def read(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        limit: int = _PAGE_LIMIT,
    ) -> tuple[bytes, str, str]:
        """A small document: its bytes, its media type, the URL it was finally found at.

        Args:
            url: where it is.
            headers: what to send along.
            body: what to send with it, as a POST.
            limit: bytes that it may have.

        Raises:
            NotFound: it is not there.
            Refused: another login is needed (exit 3).
            KitError: it cannot be had (exit 3), or is too large (exit 4).
        """
        method = "GET" if body is None else "POST"

        def attempt() -> tuple[bytes, str, str]:
            with self._connections.open(url, dict(headers or {}), method, body) as (
                response,
                final,
            ):
                require_success(response, url, final)
                content = response.read(limit + 1, decode_content=True)
                if len(content) > limit:
                    raise content_error(f"{shown(url)}: larger than {limit} bytes")
                media = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
                return content, media, final

        if urlsplit(url).scheme == "file":
            return _local(url).read_bytes(), "text/html", url
        return self._tried(url, attempt)

    def length(self, url: str, headers: Mapping[str, str] | None = None) -> int | None:
        """How many bytes the server has under `url`; None if it does not say."""

        def attempt() -> int | None:
            asked = {**(headers or {}), "Accept-Encoding": "identity"}
            with self._connections.open(url, asked, "HEAD") as (response, final):
                if response.status in (405, 501):
                    return None
                require_success(response, url, final)
                response.drain_conn()
                return _whole(response.headers.get("Content-Length"))

        if urlsplit(url).scheme == "file":
            return _local(url).stat().st_size
        return self._tried(url, attempt)

    def measure(self, url: str, headers: Mapping[str, str] | None = None) -> tuple[Digest, int]:
        """Digest and size of what is at `url`, by reading all of it and keeping nothing."""

        def attempt() -> tuple[Digest, int]:
            hasher, size = hashlib.sha256(), 0
            asked = {**(headers or {}), "Accept-Encoding": "identity"}
            with self._connections.open(url, asked) as (response, _):
                require_success(response, url)
                for chunk in _chunks(response, self.cancelled):
                    hasher.update(chunk)
                    size += len(chunk)
            return Digest(hasher.hexdigest()), size

        if urlsplit(url).scheme == "file":
            path = _local(url)
            return Digest.of_file(path), path.stat().st_size
        return self._tried(url, attempt)

    def download(
        self, url: str, reception: Reception, headers: Mapping[str, str] | None = None
    ) -> None:
        """Bring the file at `url` into the store; only the bytes that are missing are asked for.

        Raises:
            NotFound: it is not there.
            Refused: another login is needed (exit 3); what has come is kept.
            KitError: no connection, or it broke too often (exit 3); wrong content (exit 4).
            Cancelled: the work was called off.
        """
        if reception.done:
            return
        reception.origin = shown(url)
        failures, furthest = 0, reception.offset
        while True:
            try:
                self._continue(url, reception, dict(headers or {}))
            except Interrupted as reason:
                failures = 1 if reception.offset > furthest else failures + 1
                furthest = max(furthest, reception.offset)
                if failures >= self.attempts:
                    raise GivenUp(
                        f"{shown(url)}: {reason}; {reception.offset} of {reception.size} bytes "
                        f"have come and are kept, {self.attempts} tries brought no more; "
                        "the same command goes on there",
                        reason.status,
                    ) from None
                self._rest(failures, reason.rest)
                continue
            if reception.resumed and not reception.matches:
                # What an earlier attempt left may be damaged: that is not yet the server's fault.
                reception.restart()
                continue
            reception.finish()
            return

    def _continue(self, url: str, reception: Reception, headers: dict[str, str]) -> None:
        if reception.complete:
            return
        if urlsplit(url).scheme == "file":
            _read_local(url, reception)
            return
        asked = {**headers, "Accept-Encoding": "identity"}
        if reception.offset:
            asked["Range"] = f"bytes={reception.offset}-"
        with self._connections.open(url, asked) as (response, final):
            if response.status == 416:
                reception.restart()
                raise Interrupted("the server refused to continue")
            require_success(response, url, final)
            if reception.offset and response.status != 206:
                reception.restart()
            _require_size(response, reception)
            for chunk in _chunks(response, self.cancelled):
                reception.write(chunk)
        if not reception.complete:
            raise Interrupted("the connection ended early")

    def _tried(self, url: str, attempt: Callable[[], _Result]) -> _Result:
        for failures in range(1, self.attempts + 1):
            try:
                return attempt()
            except Interrupted as reason:  # noqa: PERF203 (that is what the loop is for)
                if failures == self.attempts:
                    raise GivenUp(
                        f"{shown(url)}: {reason}; tried {_times(failures)}: "
                        "check the network and the proxy settings of this host",
                        reason.status,
                    ) from None
                self._rest(failures, reason.rest)
        raise AssertionError

    def _rest(self, failures: int, wanted: float) -> None:
        delay = self.back_off * 2 ** (failures - 1) * random.uniform(0.8, 1.2)  # noqa: S311
        if self.cancelled.wait(min(max(delay, wanted), _LONGEST_WAIT)):
            raise Cancelled


def _chunks(response: urllib3.BaseHTTPResponse, cancelled: threading.Event) -> Iterator[bytes]:
    while chunk := response.read(_PIECE, decode_content=False):
        refuse_cancelled(cancelled)
        yield chunk


def _read_local(url: str, reception: Reception) -> None:
    with _local(url).open("rb", buffering=0) as stream:
        stream.seek(reception.offset)
        buffer = memoryview(bytearray(CHUNK))
        while count := stream.readinto(buffer):
            reception.write(buffer[:count])
    if not reception.complete:
        reception.refuse()
        raise content_error(
            f"{url}: wrong size: expected {reception.size} bytes, found {reception.offset}"
        )


def _local(url: str) -> Path:
    path = Path(unquote(urlsplit(url).path))
    if path.is_dir():
        path /= "index.html"
    if not path.is_file():
        raise NotFound(url)
    return path


def _require_size(response: urllib3.BaseHTTPResponse, reception: Reception) -> None:
    """Refuse a file of another size before its first byte."""
    if response.status == 206:
        unit, _, span = response.headers.get("Content-Range", "").partition(" ")
        place, _, total = span.partition("/")
        first = place.partition("-")[0]
        if unit.lower() != "bytes" or _whole(first) != reception.offset:
            reception.restart()
            raise Interrupted(f"the server sent another part than asked for ({unit} {span})")
        found = _whole(total)
    elif response.headers.get("Content-Encoding", "identity") != "identity":
        found = None
    else:
        found = _whole(response.headers.get("Content-Length"))
    if found is not None and found != reception.size:
        reception.refuse()
        raise content_error(
            f"{reception.origin}: wrong size: expected {reception.size} bytes, "
            f"the server has {found}"
        )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None
