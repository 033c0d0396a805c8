"""A package index behind a Unix socket that writes down what it hands out.

Who asks has no network and no login: pages are put together here from the indexes that pip is
configured for on this host and those that the intent names; a file goes into the store, is checked
against what its index says, and only then goes on to who asked.
"""

from __future__ import annotations

import hashlib
import html
import os
import re
import socketserver
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

from kit import console
from kit.digest import CHUNK
from kit.errors import KitError, content_error, environment_error, usage_error
from kit.locks import mirrors, pip_settings, pypi
from kit.locks.connection import NotFound, shown
from kit.locks.pip_settings import PipSettings
from kit.reception import Cancelled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from typing_extensions import Self

    from kit.digest import Digest
    from kit.locks.http import Client
    from kit.locks.pypi import Link, PythonIndex
    from kit.store import Store

_PAGE = re.compile(r"/([\w.+-]+)/simple/([A-Za-z0-9._-]+)/?")
_FILE = re.compile(r"/([\w.+-]+)/files/(\d+)/[^/]+?(\.metadata)?")
_METADATA_LIMIT = 16 << 20
_WORTH_A_NOTE = 16 << 20
"""Bytes of a file whose download is announced."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A file that some index has.

    Attributes:
        number: its place among all that were offered.
        link: what the index says of it.
        location: its address upstream, where the intent names the index; empty where pip's
            configuration does.
    """

    number: int
    link: Link
    location: str


@dataclass(slots=True)
class Session:
    """What one run of pip sees and takes.

    Attributes:
        name: stands in its paths.
        indexes: further ones, by their addresses upstream.
        delivered: what was handed out, in order, once each.
        problem: the first upstream that failed; whatever pip made of it counts for nothing.
    """

    name: str
    indexes: tuple[str, ...]
    delivered: dict[int, Offer] = field(default_factory=dict)
    problem: Exception | None = None


class RecordingIndex:
    """Serves sessions on a socket; `with RecordingIndex(…) as index` starts and stops it."""

    def __init__(self, client: Client, store: Store, folder: Path) -> None:
        self._client = client
        self._store = store
        self._folder = folder
        self._settings = pip_settings.load()
        self._configured = pypi.PythonIndex(client, self._settings)
        self._named: dict[str, PythonIndex] = {}
        self._offers: list[Offer] = []
        self._numbers: dict[tuple[str, str], int] = {}
        self._identities: dict[int, tuple[Digest, int]] = {}
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        # A socket's path may have 107 bytes, and a folder's own has more: the open folder stands
        # in for it.
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._server = _Server(f"/proc/self/fd/{folder}/socket", _Answer)
        finally:
            os.close(folder)
        self._server.index = self
        (self._folder / "socket").chmod(0o666)  # the container's user is another one
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def places(self) -> str:
        """Where is looked by pip's configuration, for messages."""
        return self._configured.places

    def session(self, name: str, indexes: Iterable[str] = ()) -> Session:
        """Start to write down what is asked for below `/<name>`."""
        session = Session(name, tuple(dict.fromkeys(url.rstrip("/") for url in indexes)))
        self._sessions[name] = session
        return session

    def offer(self, url: str) -> Offer:
        """The offer behind the address of a file here."""
        match = _FILE.fullmatch(urlsplit(url).path)
        if match is None or int(match[2]) >= len(self._offers):
            raise content_error(f"pip took a package from {shown(url)}, which no index offers")
        return self._offers[int(match[2])]

    def identity(self, offer: Offer) -> tuple[Digest, int]:
        """Digest and size of an offered file.

        Raises:
            KitError: it cannot be had (exit 3), or is not what the index says (exit 4).
        """
        if offer.number not in self._identities:
            self._identities[offer.number] = pypi.identity(offer.link, self._client)
        return self._identities[offer.number]

    def bring(self, offer: Offer) -> Path:
        """The file, whole and checked, in the store.

        Raises:
            NotFound: the page names it, and it is not there.
            KitError: it cannot be had (exit 3), or is not what the index says (exit 4).
        """
        digest, size = self.identity(offer)
        if not self._store.has(digest, size):
            if size >= _WORTH_A_NOTE:
                console.note(f"  {offer.link.filename} ({console.size(size)})")
            self._store.require_space({digest: size})
            with self._store.receive(digest, size, cancelled=self._client.cancelled) as reception:
                self._client.download(offer.link.url, reception)
        return self._store.path(digest, offer.link.filename)

    def page(self, session: Session, project: str) -> bytes | None:
        """The page of a project, as every pip reads it (PEP 503); None if no index has any."""
        rows = []
        for offer in self._of_project(session, project):
            link = offer.link
            fragment = f"#sha256={link.sha256.hex}" if link.sha256 else ""
            attributes = {
                "href": f"../../files/{offer.number}/{quote(link.filename)}{fragment}",
                "data-requires-python": link.requires_python,
                "data-yanked": link.yanked,
                "data-dist-info-metadata": link.metadata or None,
                "data-core-metadata": link.metadata or None,
            }
            words = [
                f'{name}="{html.escape(value)}"'
                for name, value in attributes.items()
                if value is not None
            ]
            rows.append(f"<a {' '.join(words)}>{html.escape(link.filename)}</a><br>\n")
        if not rows:
            return None
        return f"<!DOCTYPE html><html><body>\n{''.join(rows)}</body></html>\n".encode()

    def metadata(self, offer: Offer) -> bytes:
        """A wheel's METADATA, checked.

        Raises:
            KitError: it cannot be had (exit 3), or is not what the index says (exit 4).
        """
        url = f"{offer.link.url}.metadata"
        content = self._client.read(url, limit=_METADATA_LIMIT)[0]
        expected = offer.link.metadata.partition("sha256=")[2]
        found = hashlib.sha256(content).hexdigest()
        if expected not in ("", found):
            raise content_error(
                f"{shown(url)}: wrong content: the index says sha256:{expected}, found {found}"
            )
        return content

    def _of_project(self, session: Session, project: str) -> Iterator[Offer]:
        seen: set[tuple[str, Digest | None]] = set()
        for index, upstream in [(self._configured, ""), *self._further(session)]:
            for link in index.links(project):
                # What several indexes have is taken from the first, as pip does with equals.
                if (key := (link.filename, link.sha256)) not in seen:
                    seen.add(key)
                    yield self._offered(link, upstream)

    def _further(self, session: Session) -> Iterator[tuple[PythonIndex, str]]:
        for upstream in session.indexes:
            if upstream not in self._named:
                address = mirrors.rewrite(f"{upstream}/").rstrip("/")
                settings = PipSettings((address,), (), self._settings.certificates)
                self._named[upstream] = pypi.PythonIndex(self._client, settings)
            yield self._named[upstream], upstream

    def _offered(self, link: Link, upstream: str) -> Offer:
        location = _upstream(link.url, upstream) if upstream else ""
        with self._lock:
            key = (link.url, location)
            number = self._numbers.setdefault(key, len(self._offers))
            if number == len(self._offers):
                self._offers.append(Offer(number, link, location))
            return self._offers[number]

    def answer(self, path: str) -> tuple[Session, Offer | None, bytes | Path | None]:
        """What stands at a path: the session, the file's offer, and the content, if any.

        Raises:
            KeyError: nothing does.
            UpstreamFailed: it should, and could not be had.
        """
        if match := _PAGE.fullmatch(path):
            session = self._sessions[match[1]]
            return session, None, self._guarded(session, lambda: self.page(session, match[2]))
        match = _FILE.fullmatch(path)
        if match is None or int(match[2]) >= len(self._offers):
            raise KeyError(path)
        session, offer = self._sessions[match[1]], self._offers[int(match[2])]
        if match[3] and not offer.link.filename.endswith(".metadata"):
            return session, None, self._guarded(session, lambda: self.metadata(offer))
        return session, offer, self._guarded(session, lambda: self.bring(offer))

    def _guarded(self, session: Session, work: Any) -> Any:
        """Keep what went wrong upstream: pip would go on without, or tell another story."""
        try:
            return work()
        except NotFound as error:
            problem: Exception = environment_error(
                f"{error}, though the page of its index names it"
            )
        except (KitError, Cancelled, OSError) as error:
            problem = error
        with self._lock:
            session.problem = session.problem or problem
        raise UpstreamFailed from None


class UpstreamFailed(Exception):  # noqa: N818 (the session knows why)
    """The upstream failed."""


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 64
    index: RecordingIndex

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A pip that hangs up has its reasons."""


class _Answer(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        """Who asks."""
        return "socket"

    def log_message(self, *_: Any) -> None:
        """Nothing: what matters is in the session."""

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self._answer(with_body=False)

    def do_GET(self) -> None:
        """Answer."""
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        try:
            session, offer, content = self.server.index.answer(unquote(urlsplit(self.path).path))
        except KeyError:
            self._head(404, 0)
            return
        except UpstreamFailed:
            # A status that no pip takes for "there is none".
            self._head(502, 0)
            return
        if content is None:
            self._head(404, 0)
        elif isinstance(content, bytes):
            self._head(200, len(content))
            if with_body:
                self.wfile.write(content)
        else:
            if offer is not None:
                session.delivered.setdefault(offer.number, offer)
            self._send(content, with_body=with_body)

    def _send(self, path: Path, *, with_body: bool) -> None:
        with path.open("rb") as stream:
            self._head(200, os.fstat(stream.fileno()).st_size, "application/octet-stream")
            while with_body and (piece := stream.read(CHUNK)):
                self.wfile.write(piece)

    def _head(self, status: int, size: int, media: str = "text/html; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(size))
        self.end_headers()


def _upstream(url: str, index: str) -> str:
    """The address that a file has at the origin of its index, wherever this host found it.

    Raises:
        KitError: it lies at a mirror, outside of what `KIT_MIRRORS` says of it (exit 2).
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    address = f"{host}{parts.path}"
    for mirror in mirrors.load():
        target = _bare(mirror.target)
        if address.startswith(target):
            scheme = mirror.scheme or urlsplit(index).scheme
            origin = f"{scheme}://{mirror.prefix}{address[len(target) :]}"
            if _bare(mirrors.rewrite(origin)) == address:
                return origin
    here = mirrors.rewrite(f"{index}/")
    if here != f"{index}/" and _bare(here).partition("/")[0] == host:
        raise usage_error(
            f"{mirrors.VARIABLE}: the pages of {index} lead to {shown(url)}, which no pair stands "
            "for, and a lock names no mirror: add a pair for it, or widen the one of the index"
        )
    return f"{parts.scheme}://{address}"


def _bare(address: str) -> str:
    """Host and path, without scheme and login."""
    rest = address.partition("://")[2] or address
    host, slash, path = rest.partition("/")
    return f"{host.rpartition('@')[2]}{slash}{path}"
