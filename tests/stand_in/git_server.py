"""Git repositories over HTTP on loopback: git's own `http-backend`, which fails on demand."""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.stand_in.file_server import Fault, Seen

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

    from tests.stand_in.lfs_server import LfsServer

_WHO = b"Nobody <nobody@example> 1700000000 +0000"
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "LC_ALL": "C",
    "PATH": os.environ.get("PATH", os.defpath),
}


@dataclass
class Repository:
    """A bare repository; `commit` makes the same commit from the same content everywhere."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", ".")
        self.git("symbolic-ref", "HEAD", "refs/heads/main")

    def git(self, *arguments: str, content: bytes = b"") -> bytes:
        return subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            input=content,
            check=True,
            capture_output=True,
            env=_ENVIRONMENT,
        ).stdout

    def commit(
        self,
        files: Mapping[str, bytes],
        *,
        programs: Mapping[str, bytes] | None = None,
        links: Mapping[str, str] | None = None,
        submodules: Mapping[str, str] | None = None,
        parent: str | None = None,
        branch: str = "main",
    ) -> str:
        """Make a commit of exactly this content; submodules are path → commit."""
        stream = [b"commit refs/heads/%s\ncommitter %s\ndata 0\n" % (branch.encode(), _WHO)]
        if parent:
            stream.append(b"from %s\n" % parent.encode())
        stream.append(b"deleteall\n")
        rows = [(b"100644", path, content) for path, content in files.items()]
        rows += [(b"100755", path, content) for path, content in (programs or {}).items()]
        rows += [(b"120000", path, target.encode()) for path, target in (links or {}).items()]
        for mode, path, content in rows:
            stream.append(b'M %s inline "%s"\n' % (mode, path.encode("utf-8", "surrogateescape")))
            stream.append(b"data %d\n%s\n" % (len(content), content))
        for path, commit in (submodules or {}).items():
            stream.append(b"M 160000 %s %s\n" % (commit.encode(), path.encode()))
        self.git("fast-import", "--quiet", "--force", content=b"".join(stream))
        return self.git("rev-parse", f"refs/heads/{branch}").decode().strip()

    def tree(self, *rows: tuple[str, str, str]) -> str:
        """Write a tree of rows (mode, object, name) as they are, however wrong."""
        content = b"".join(
            f"{mode} {name}".encode() + b"\0" + bytes.fromhex(oid) for mode, oid, name in rows
        )
        return self._object("tree", content)

    def blob(self, content: bytes) -> str:
        return self._object("blob", content)

    def commit_tree(self, tree: str) -> str:
        content = b"tree %s\nauthor %s\ncommitter %s\n\n" % (tree.encode(), _WHO, _WHO)
        commit = self._object("commit", content)
        self.git("update-ref", "refs/heads/main", commit)
        return commit

    def _object(self, kind: str, content: bytes) -> str:
        arguments = ("hash-object", "--literally", "-w", "-t", kind, "--stdin")
        return self.git(*arguments, content=content).decode().strip()


@dataclass
class GitServer:
    """Serves the repositories below `root`; `with GitServer(…) as server` starts and stops it.

    `faults[path]` is used up answer by answer, `forever[path]` holds for all that follow; of the
    requests for a pack only those that really ask for objects count.
    """

    root: Path
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    forever: dict[str, Fault] = field(default_factory=dict)
    login: str | None = None
    """Answer 401 without this `Authorization`."""
    is_old: bool = False
    """Speak protocol 0, in which a server may hand out nothing but branches and tags."""
    lfs: LfsServer | None = None
    host: str = "127.0.0.1"
    certificate: tuple[Path, Path] | None = None
    seen: list[Seen] = field(default_factory=list)

    def __enter__(self) -> Self:
        outer = self

        class Answer(_Answer):
            server_of_git = outer

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that hangs up is what some tests are about."""

        self._server = Server((self.host, 0), Answer)
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
    def url(self) -> str:
        scheme = "https" if self.certificate else "http"
        return f"{scheme}://{self.host}:{self._server.server_address[1]}"

    def repository(self, name: str) -> Repository:
        """A new repository, served as `<url>/<name>`."""
        return Repository(self.root / name)

    def packs(self, name: str) -> int:
        """How many packs of a repository have been asked for."""
        path = f"/{name}/git-upload-pack"
        return sum(seen.path == path and seen.query == "fetch" for seen in self.seen)


class _Answer(BaseHTTPRequestHandler):
    server_of_git: GitServer
    protocol_version = "HTTP/1.1"
    wbufsize = 0

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self._body())

    def plain(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """A short answer."""
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, body: bytes) -> None:
        outer = self.server_of_git
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        text = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
        asks_for_objects = b"command=fetch" in text or b"0032want" in text or b"want " in text
        what = "fetch" if path.endswith("/git-upload-pack") and asks_for_objects else parts.query
        headers = {key.lower(): value for key, value in self.headers.items()}
        outer.seen.append(Seen(self.command, path, what, None, headers, len(text)))
        fault = outer.forever.get(path, Fault())
        if outer.faults.get(path) and (what == "fetch" or not path.endswith("upload-pack")):
            fault = outer.faults[path].pop(0)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if fault.redirect:
                query = f"?{parts.query}" if parts.query else ""
                self.plain(302, b"", {"Location": fault.redirect + query})
            elif fault.status:
                rest = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
                self.plain(fault.status, b"no", rest)
            elif outer.login and self.headers.get("Authorization") != outer.login:
                self.plain(401, b"", {"WWW-Authenticate": 'Basic realm="git"'})
            elif outer.lfs and "/info/lfs/" in path:
                outer.lfs.answer(self, path, body)
            else:
                self._git(path, parts.query, body, fault)

    def _git(self, path: str, query: str, body: bytes, fault: Fault) -> None:
        outer = self.server_of_git
        environment = {
            **_ENVIRONMENT,
            "GIT_PROJECT_ROOT": str(outer.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
            "REMOTE_ADDR": "127.0.0.1",
        }
        if not outer.is_old:
            environment["GIT_PROTOCOL"] = self.headers.get("Git-Protocol", "")
        process = subprocess.Popen(
            ["git", "http-backend"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(body)
                process.stdin.close()
            status = 200
            rows = []
            while line := process.stdout.readline().strip():
                key, _, value = line.decode().partition(": ")
                if key == "Status":
                    status = int(value.split()[0])
                else:
                    rows.append((key, value))
            self.send_response(status)
            for key, value in rows:
                self.send_header(key, value)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            try:
                self._copy(process.stdout, fault)
            finally:
                process.kill()

    def _copy(self, stream: Any, fault: Fault) -> None:
        sent = 0
        step = max(1, fault.bytes_per_second // 20) if fault.bytes_per_second else 1 << 16
        while chunk := stream.read1(step):
            if fault.cut_after is not None:
                chunk = chunk[: fault.cut_after - sent]
                if not chunk:
                    self.close_connection = True
                    return
            if fault.flip is not None and sent <= fault.flip < sent + len(chunk):
                place = fault.flip - sent
                chunk = chunk[:place] + bytes([chunk[place] ^ 1]) + chunk[place + 1 :]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            sent += len(chunk)
            if fault.bytes_per_second:
                time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")
