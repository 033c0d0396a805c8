"""The `git` program, closed off: no configuration of the user or the host, no hooks, no prompts.

It talks http and https only, follows no redirect, and gets its login through the environment: what
leads where has been found out before (`git_server`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from kit.errors import content_error, environment_error
from kit.files import explained
from kit.locks.connection import Interrupted, NotFound, shown
from kit.reception import refuse_cancelled

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import NoReturn

_OLDEST = (2, 32)
"""The first that is told by the environment alone which configuration to read (2021)."""
_SETTINGS = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    # Larger files are streamed, not held in memory; of a pack only a part is mapped at a time.
    "core.bigFileThreshold=16m",
    "core.packedGitWindowSize=16m",
    "core.packedGitLimit=64m",
    "credential.helper=",
    "protocol.version=2",
    "protocol.allow=never",
    "protocol.file.allow=never",
    "protocol.ext.allow=never",
    "http.followRedirects=false",
    "fetch.fsckObjects=true",
    "fetch.recurseSubmodules=false",
    "fetch.unpackLimit=1",  # always a pack, which comes whole or not at all
    "gc.auto=0",
    "maintenance.auto=false",
    # Slips in who wrote a commit and when are nothing that a build reads, and old commits have
    # them: without this, git refuses their whole history.
    "fetch.fsck.badDate=warn",
    "fetch.fsck.badEmail=warn",
    "fetch.fsck.badName=warn",
    "fetch.fsck.badTimezone=warn",
    "fetch.fsck.missingEmail=warn",
    "fetch.fsck.missingNameBeforeEmail=warn",
    "fetch.fsck.missingSpaceBeforeDate=warn",
    "fetch.fsck.missingSpaceBeforeEmail=warn",
    "fetch.fsck.zeroPaddedDate=warn",
    "fetch.fsck.zeroPaddedFilemode=warn",
)
_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt")
"""Where Debian's and Red Hat's families keep the certificate authorities that they trust."""
_POLL = 0.1
_NEWS = 10.0
"""Seconds between two lines about a transfer."""
_TAIL = 64 << 10
_STATUS = re.compile(r"returned error: (\d{3})")
_LOGIN = re.compile(r"(?<=://)[^\s/@']*@|\?[^\s']*")
_UNPRINTABLE = re.compile(r"[^ -~]+")
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})
_CUT = re.compile(
    r"early EOF|unexpected disconnect|hung up unexpectedly|RPC failed|transfer closed|"
    r"Could not resolve host|Failed to connect|Operation too slow|timed out",
    re.IGNORECASE,
)
_DAMAGED = re.compile(
    r"error: .*object [0-9a-f]{40}: \w+|fsck error|did not send all necessary objects|"
    r"pack is corrupted|bad object|bad pack|inflate|missing (?:blob|tree|commit)|COLLISION|"
    r"unresolved delta|object corrupt",
    re.IGNORECASE,
)
_REFUSES_COMMITS = re.compile(r"unadvertised object|does not allow request", re.IGNORECASE)
_UNKNOWN_COMMIT = re.compile(r"not our ref|couldn't find remote ref", re.IGNORECASE)


class UnknownCommit(Exception):  # noqa: N818 (the caller knows whose commit it is)
    """The server does not have the commit."""


class Unadvertised(Exception):  # noqa: N818 (the caller has another way)
    """The server gives out only what a branch or a tag stands for."""


@dataclass(frozen=True, slots=True)
class Git:
    """git in one bare repository.

    Attributes:
        program: the path of git.
        repository: the folder; also git's home, which holds no configuration.
        kept_open: a file descriptor that git and what it starts inherit, so that a lock on it lasts
            as long as the last of them.
    """

    program: str
    repository: Path
    kept_open: int

    def start(
        self,
        arguments: Sequence[str],
        *,
        stdin: IO[bytes] | int = subprocess.DEVNULL,
        stdout: int = subprocess.DEVNULL,
        stderr: int = subprocess.DEVNULL,
        settings: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start git with these arguments, in a session of its own."""
        options = [part for setting in (*_SETTINGS, *settings) for part in ("-c", setting)]
        kept = {
            name: os.environ[name]
            for name in ("PATH", "TMPDIR", "LD_LIBRARY_PATH")
            if name in os.environ
        }
        closed = {
            "HOME": str(self.repository),
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "GIT_NO_REPLACE_OBJECTS": "1",
        }
        return subprocess.Popen(
            [self.program, f"--git-dir={self.repository}", *options, *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env={**kept, **closed, **(environment or {})},
            cwd=self.repository,
            pass_fds=(self.kept_open,),
            start_new_session=True,
        )

    def run(self, arguments: Sequence[str], content: bytes = b"") -> bytes:
        """What git answers to a small question about `content`.

        Raises:
            KitError: it cannot write here (exit 3), or cannot read the content (exit 4).
        """
        process = self.start(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        with stopped(process):
            answer, said = process.communicate(content)
        if process.returncode != 0:
            text = said.decode("utf-8", "replace")
            _refuse_full_disk(text, self.repository)
            raise content_error(f"git {arguments[0]} in {self.repository}: {_last(text)}")
        return answer

    def fetch(
        self,
        url: str,
        wanted: Sequence[str],
        *,
        depth: int,
        authorization: str,
        silence: float,
        cancelled: threading.Event,
        on_news: Callable[[str], object],
    ) -> None:
        """Bring commits into the repository; git checks every object on the way.

        Args:
            url: http or https, without a login.
            wanted: commits in full, or refspecs.
            depth: how many commits of each history.
            authorization: the header to send to this host; may be empty.
            silence: seconds without a byte after which the connection counts as broken.
            cancelled: once set, git is ended.
            on_news: told from time to time how far it is.

        Raises:
            UnknownCommit, Unadvertised: the server does not give out the commit.
            Interrupted: it may go better the next time.
            KitError: no access, full disk (exit 3); wrong objects (exit 4).
        """
        parts = urlsplit(url)
        environment = _proxy(url) | _certificates(self.repository)
        if authorization:
            environment |= {
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "http.extraHeader",
                "GIT_CONFIG_VALUE_0": f"Authorization: {authorization}",
            }
        process = self.start(
            ["fetch", "--progress", "--no-tags", f"--depth={depth}", "--", url, *wanted],
            stderr=subprocess.PIPE,
            settings=(
                f"protocol.{parts.scheme}.allow=always",
                "http.lowSpeedLimit=1",
                f"http.lowSpeedTime={max(1, round(silence))}",
            ),
            environment=environment,
        )
        with stopped(process):
            said = _listen(process, cancelled, on_news)
        if process.returncode != 0:
            _explain(said, url, self.repository)


@functools.cache
def find() -> str:
    """The path of git.

    Raises:
        KitError: there is none, or it is too old (exit 3).
    """
    program = shutil.which("git")
    if program is None:
        raise environment_error(
            "git is needed to bring source trees, and is not installed", hint="apt-get install git"
        )
    answer = subprocess.run([program, "version"], capture_output=True, text=True, check=False)
    match = re.search(r"(\d+)\.(\d+)", answer.stdout)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST:
        raise environment_error(
            f"{program}: expected git {_OLDEST[0]}.{_OLDEST[1]} or newer, found "
            f"{answer.stdout.strip()[:80] or 'no version'}: older ones cannot be kept from reading "
            "the user's configuration",
            hint="apt-get install git",
        )
    return program


@contextlib.contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """At the end nothing is left of the process, nor of what it started."""
    try:
        yield
    except BaseException:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(1)
        raise
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _listen(
    process: subprocess.Popen[bytes], cancelled: threading.Event, on_news: Callable[[str], object]
) -> str:
    """What git says until it ends, the last of it; progress is passed on."""
    import selectors

    assert process.stderr is not None
    said, next_news = b"", time.monotonic() + _NEWS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while True:
            refuse_cancelled(cancelled)
            if selector.select(_POLL):
                chunk = os.read(process.stderr.fileno(), 1 << 16)
                if not chunk:
                    break
                said = (said + chunk)[-_TAIL:]
            elif process.poll() is not None:  # what it started may hold the pipe open
                break
            if time.monotonic() >= next_news:
                next_news = time.monotonic() + _NEWS
                on_news(_last(said.decode("utf-8", "replace")))
    # Without a pipe that tells of it, its end may be a moment away.
    while process.poll() is None:
        refuse_cancelled(cancelled)
        time.sleep(_POLL / 10)
    return said.decode("utf-8", "replace")


def _explain(said: str, url: str, repository: Path) -> NoReturn:
    """Raise what git's words mean (in English, by `LC_ALL=C`)."""
    _refuse_full_disk(said, repository)
    if _REFUSES_COMMITS.search(said):
        raise Unadvertised
    if _UNKNOWN_COMMIT.search(said):
        raise UnknownCommit
    if "could not read Username" in said or "Authentication failed" in said:
        raise _no_access(url, 401)
    if match := _STATUS.search(said):
        status = int(match[1])
        if status in _RETRIED:
            raise Interrupted(f"the server answers {status}")
        if status in (404, 410):
            raise NotFound(shown(url))
        if status in (401, 403, 407):
            raise _no_access(url, status)
        raise environment_error(f"{shown(url)}: the server answers {status}, expected 200")
    if re.search(r"repository '.*' not found", said):
        raise NotFound(shown(url))
    if not _CUT.search(said) and (match := _DAMAGED.search(said)):
        raise content_error(
            f"{shown(url)}: the server sent objects that git refuses: "
            f"{_line(said, match.start())}; nothing of them was kept"
        )
    raise Interrupted(_line(said, match.start()) if (match := _CUT.search(said)) else _last(said))


def _refuse_full_disk(said: str, repository: Path) -> None:
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        if os.strerror(number).lower() in said.lower():
            error = explained(OSError(number, os.strerror(number)), repository)
            assert error is not None
            raise error


def _no_access(url: str, status: int) -> Exception:
    return environment_error(
        f"{shown(url)}: the server refuses with {status}: a login is missing or wrong; its place "
        "is ~/.netrc"
    )


def _line(said: str, place: int) -> str:
    start = max(said.rfind("\n", 0, place), said.rfind("\r", 0, place)) + 1
    return _printable(re.split(r"[\r\n]", said[start:], maxsplit=1)[0])


def _last(said: str) -> str:
    lines = [line for line in re.split(r"[\r\n]+", said) if line.strip()]
    return _printable(lines[-1]) if lines else "git says nothing"


def _printable(line: str) -> str:
    """For people: no login, nothing that a terminal obeys; a server may have written it."""
    return _LOGIN.sub("", _UNPRINTABLE.sub(" ", line)).strip()[:200]


def _proxy(url: str) -> dict[str, str]:
    """The proxy that all other downloads of this address take."""
    import urllib.request

    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return {}
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return {"all_proxy": proxy} if proxy else {}


def _certificates(folder: Path) -> dict[str, str]:
    """The certificate authorities that the environment names besides the system's.

    git takes one file in place of the system's: both are put into one.
    """
    named = [
        Path(given)
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO")
        if (given := os.environ.get(name))
    ]
    if not named:
        return {}
    found: dict[str, str] = {}
    content = b""
    for path in dict.fromkeys([*filter(Path.is_file, map(Path, _BUNDLES)), *named]):
        if path.is_dir():
            found["GIT_SSL_CAPATH"] = str(path)
        else:
            try:
                content += path.read_bytes() + b"\n"
            except OSError as error:
                raise environment_error(
                    f"{path}: cannot be read as certificate authorities; SSL_CERT_FILE, "
                    "REQUESTS_CA_BUNDLE or GIT_SSL_CAINFO names it"
                ) from error
    bundle = folder / "certificates.pem"
    bundle.write_bytes(content)
    return found | {"GIT_SSL_CAINFO": str(bundle)}
