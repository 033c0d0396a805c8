"""A web server on loopback that serves files with ranges, and fails on demand."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from typing_extensions import Self

Handler = BaseHTTPRequestHandler


@dataclass(frozen=True)
class Fault:
    """What one answer does wrong; every field alone or together with others."""

    status: int | None = None
    retry_after: int | None = None
    cut_after: int | None = None
    """Send this many bytes of the body, then drop the connection."""
    ignore_range: bool = False
    wrong_range: bool = False
    wrong_length: int = 0
    """Say that the body is so many bytes longer than it is (shorter if negative)."""
    flip: int | None = None
    """Change the byte at this place of the file."""
    extra: bytes = b""
    """More bytes at the end, the length says so."""
    bytes_per_second: int | None = None
    hide_length: bool = False
    redirect: str | None = None
    refuse_head: bool = False


@dataclass(frozen=True)
class Seen:
    """One request, and how many bytes of body went out."""

    method: str
    path: str
    query: str
    range: str | None
    headers: Mapping[str, str]
    sent: int


@dataclass
class FileServer:
    """Serves what `put` was given; `with FileServer() as server` starts and stops it.

    `faults[path]` is used up answer by answer; `forever[path]` holds for all that follow.
    """

    files: dict[str, bytes | Path] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    forever: dict[str, Fault] = field(default_factory=dict)
    required_header: tuple[str, str] | None = None
    """Answer 401 without this header."""
    guard: Callable[[Any], bool] | None = None
    """Asked before anything else; whoever says False has answered."""
    routes: list[tuple[re.Pattern[str], Callable[[Any, re.Match[str]], None]]] = field(
        default_factory=list
    )
    certificate: tuple[Path, Path] | None = None
    seen: list[Seen] = field(default_factory=list)
    idle: threading.Condition = field(default_factory=threading.Condition)
    running: int = 0

    def __enter__(self) -> Self:
        outer = self

        class Answer(_Answer):
            server_of_files = outer

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that hangs up is what some tests are about."""

        self._server = Server(("127.0.0.1", 0), Answer)
        if self.certificate:
            import ssl

            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def requests(self) -> list[Seen]:
        """All requests so far; answers still under way are waited for."""
        with self.idle:
            self.idle.wait_for(lambda: self.running == 0, timeout=5)
        return self.seen

    @property
    def url(self) -> str:
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://127.0.0.1:{self._server.server_address[1]}"

    def put(self, path: str, content: bytes | Path, media: str = "") -> str:
        """Serve `content` under `path`; returns its URL."""
        self.files[path] = content
        if media:
            self.types[path] = media
        return self.url + path

    def put_folder(self, prefix: str, folder: Path) -> None:
        """Serve every file of a folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path)

    def asked(self, path: str, method: str = "GET") -> list[Seen]:
        """The requests for one path, in order."""
        return [seen for seen in self.requests if (seen.path, seen.method) == (path, method)]


class _Answer(BaseHTTPRequestHandler):
    server_of_files: FileServer
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        outer = self.server_of_files
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.sent = 0
        with outer.idle:
            outer.running += 1
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self._send(path, with_body=with_body)
        finally:
            seen = Seen(
                self.command,
                path,
                parts.query,
                self.headers.get("Range"),
                {key.lower(): value for key, value in self.headers.items()},
                self.sent,
            )
            with outer.idle:
                outer.seen.append(seen)
                outer.running -= 1
                outer.idle.notify_all()

    def plain(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A short answer."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
            self.sent += len(body)

    def _send(self, path: str, *, with_body: bool) -> None:
        outer = self.server_of_files
        if outer.guard is not None and not outer.guard(self):
            return
        fault = outer.forever.get(path, Fault())
        if outer.faults.get(path) and with_body:
            fault = outer.faults[path].pop(0)
        if outer.required_header:
            name, value = outer.required_header
            if self.headers.get(name) != value:
                self.plain(401, b"who are you?")
                return
        if fault.redirect:
            self.plain(302, b"", {"Location": fault.redirect})
            return
        if fault.status:
            rest = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
            self.plain(fault.status, b"no", rest)
            return
        if fault.refuse_head and not with_body:
            self.plain(405, b"")
            return
        for pattern, route in outer.routes:
            if match := pattern.fullmatch(path):
                route(self, match)
                return
        content = outer.files.get(path)
        if content is None:
            self.plain(404, b"not here")
            return
        if isinstance(content, Path) and fault == Fault() and with_body:
            self._send_path(path, content)
            return
        body = content.read_bytes() if isinstance(content, Path) else content
        body += fault.extra
        if fault.flip is not None:
            body = body[: fault.flip] + bytes([body[fault.flip] ^ 1]) + body[fault.flip + 1 :]
        self._send_bytes(path, body, fault, with_body=with_body)

    def _first(self, size: int) -> int | None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match and int(match[1]) < size else None

    def _head(
        self,
        path: str,
        size: int,
        first: int | None,
        *,
        hide_length: bool = False,
        wrong_length: int = 0,
    ) -> None:
        self.send_response(200 if first is None else 206)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Type", self.server_of_files.types.get(path, "application/x"))
        if first is not None:
            self.send_header("Content-Range", f"bytes {first}-{size - 1}/{size}")
        if hide_length:
            self.send_header("Connection", "close")
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(size - (first or 0) + wrong_length))
            self.close_connection = self.close_connection or wrong_length != 0
        self.end_headers()

    def _send_path(self, path: str, file: Path) -> None:
        size = file.stat().st_size
        first = self._first(size)
        if first is None and self.headers.get("Range"):
            self.plain(416, b"")
            return
        self._head(path, size, first)
        with file.open("rb") as stream:
            self.sent += self.connection.sendfile(stream, first or 0)

    def _send_bytes(self, path: str, body: bytes, fault: Fault, *, with_body: bool) -> None:
        first = None if fault.ignore_range else self._first(len(body))
        if fault.wrong_range and first is not None:
            first = max(0, first - 1)
        self._head(
            path,
            len(body),
            first,
            hide_length=fault.hide_length,
            wrong_length=fault.wrong_length,
        )
        if not with_body:
            return
        rest = memoryview(body)[first or 0 :]
        step = len(rest) or 1
        if fault.bytes_per_second:
            step = max(1, fault.bytes_per_second // 20)
        if fault.cut_after is not None:
            rest = rest[: fault.cut_after]
        for start in range(0, len(rest), step):
            chunk = rest[start : start + step]
            self.wfile.write(chunk)
            self.sent += len(chunk)
            if fault.bytes_per_second:
                time.sleep(0.05)
        if fault.cut_after is not None:
            self.close_connection = True
