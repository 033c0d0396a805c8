"""One request at a time: proxies, certificates, logins, redirects, and why there was no answer."""

from __future__ import annotations

import contextlib
import email.utils
import functools
import http.client
import netrc
import os
import ssl
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from kit.errors import ExitCode, KitError, environment_error
from kit.reception import refuse_cancelled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

    import urllib3

_REDIRECTS = 10
_TRAVELLING = frozenset({"accept", "accept-encoding", "range", "user-agent"})
"""Headers that may follow a redirect to another host; any other may be a secret of the first."""
_RETRIED = frozenset({408, 425, 429, 500, 502, 503, 504})


class NotFound(KitError):  # noqa: N818 (the caller knows what it means for a package)
    """The server answers, and does not have it (404 or 410)."""

    def __init__(self, url: str) -> None:
        super().__init__(f"{url}: not found", exit_code=ExitCode.ENVIRONMENT)


class Refused(KitError):  # noqa: N818 (the caller may have another login)
    """The server wants a login, or a better one (401, 403, 407).

    Attributes:
        status: what it answers.
        url: where it does, after all redirects.
        challenge: which login it wants (`WWW-Authenticate`); may be empty.
    """

    def __init__(self, asked: str, url: str, status: int, challenge: str) -> None:
        super().__init__(
            f"{shown(asked)}: the server refuses with {status}: a login is missing or wrong; "
            "its place is ~/.netrc, for the Hugging Face hub HF_TOKEN",
            exit_code=ExitCode.ENVIRONMENT,
        )
        self.status = status
        self.url = url
        self.challenge = challenge


class Interrupted(Exception):  # noqa: N818 (never leaves the client)
    """This try has failed, the next may not.

    Attributes:
        rest: seconds that the server wants to rest.
        status: what it answers; None where there was no answer.
    """

    def __init__(self, reason: str, rest: float = 0.0, status: int | None = None) -> None:
        super().__init__(reason)
        self.rest = rest
        self.status = status


class GivenUp(KitError):  # noqa: N818 (the caller may look whether anybody answers at all)
    """Every try has failed (exit 3).

    Attributes:
        status: what the server answered last; None where there was no answer.
    """

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message, exit_code=ExitCode.ENVIRONMENT)
        self.status = status


def shown(url: str) -> str:
    """The URL for people: no login, no query, no fragment, where secrets may stand."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) + ("?…" if parts.query else "")


@dataclass(slots=True)
class Connections:
    """Connections that several threads share; proxies and certificates as the environment says.

    Attributes:
        connect_timeout: seconds to wait for a connection.
        read_timeout: seconds of silence after which a connection counts as broken.
        cancelled: once set, nothing more is asked.
    """

    connect_timeout: float
    read_timeout: float
    cancelled: threading.Event
    _certificates: str | None = None
    _pools: dict[str, Any] = field(default_factory=dict)
    _proxies: dict[tuple[str, str], str] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def open(
        self, url: str, headers: dict[str, str], method: str = "GET", body: bytes | None = None
    ) -> Iterator[tuple[urllib3.BaseHTTPResponse, str]]:
        """Ask, and follow redirects; neither a login nor a body travels on to another host."""
        import urllib3

        headers.setdefault("User-Agent", "trtllm-kit")
        for _ in range(_REDIRECTS):
            refuse_cancelled(self.cancelled)
            bare, login = _login(url)
            if login and not any(name.lower() == "authorization" for name in headers):
                headers.update(login)
            try:
                response = self._pool(bare).urlopen(
                    method,
                    bare,
                    body=body,
                    headers=headers,
                    preload_content=False,
                    redirect=False,
                    retries=False,
                )
            except urllib3.exceptions.HTTPError as error:
                _fail(bare, error)
            try:
                if target := response.get_redirect_location():
                    following = _joined(bare, target)
                    if urlsplit(following)[:2] != urlsplit(bare)[:2]:
                        if body is not None:
                            raise environment_error(
                                f"{shown(bare)}: refused to send a request with content on to "
                                f"{shown(following)}"
                            )
                        headers = {
                            name: value
                            for name, value in headers.items()
                            if name.lower() in _TRAVELLING
                        }
                    url = following
                    response.drain_conn()
                    continue
                yield response, bare
                return  # noqa: TRY300 (what the caller does with it belongs under the `try`)
            except urllib3.exceptions.HTTPError as error:
                _fail(bare, error)
            finally:
                # A connection whose answer was not read to its end is of no more use; one that
                # was has gone back to the pool by itself.
                response.close()
        raise environment_error(f"{shown(url)}: more than {_REDIRECTS} redirects")

    def trust(self, certificates: str) -> None:
        """Accept one more file of certificate authorities from now on."""
        with self._lock:
            if self._certificates != certificates:
                self._certificates = certificates
                self._pools.clear()

    def _pool(self, url: str) -> Any:
        import urllib3

        proxy = self._proxy(url)
        with self._lock:
            if proxy not in self._pools:
                options: dict[str, Any] = {
                    "maxsize": 64,
                    "timeout": urllib3.Timeout(
                        connect=self.connect_timeout, read=self.read_timeout
                    ),
                    "ssl_context": _trust(self._certificates),
                }
                if proxy:
                    address = proxy if "://" in proxy else f"http://{proxy}"
                    bare, login = _login(address)
                    via = {f"proxy-{key}".lower(): value for key, value in login.items()}
                    self._pools[proxy] = urllib3.ProxyManager(bare, proxy_headers=via, **options)
                else:
                    self._pools[""] = urllib3.PoolManager(**options)
            return self._pools[proxy]

    def _proxy(self, url: str) -> str:
        """The proxy for a host, empty without one; the environment is read once for each host."""
        parts = urlsplit(url)
        key = (parts.scheme, parts.hostname or "")
        if (known := self._proxies.get(key)) is not None:
            return known
        found = ""
        if not urllib.request.proxy_bypass(key[1]):
            proxies = urllib.request.getproxies()
            found = proxies.get(key[0]) or proxies.get("all") or ""
        self._proxies[key] = found
        return found


def require_success(response: urllib3.BaseHTTPResponse, url: str, final: str = "") -> None:
    """Go on only with an answer that carries the file.

    Args:
        response: the answer.
        url: what was asked for.
        final: where the answer came from, if redirects led elsewhere.

    Raises:
        NotFound: the server does not have it.
        Interrupted: it may have it later.
        Refused: it wants another login (exit 3).
        KitError: anything else that carries no file (exit 3).
    """
    status = response.status
    if status in (200, 206):
        return
    if status in (404, 410):
        raise NotFound(shown(url))
    if status in _RETRIED:
        rest = _seconds(response.headers.get("Retry-After", ""))
        raise Interrupted(f"the server answers {status}", rest, status)
    if status in (401, 403, 407):
        challenge = response.headers.get("WWW-Authenticate", "")
        raise Refused(url, final or url, status, challenge)
    raise environment_error(f"{shown(url)}: the server answers {status}, expected 200")


def _seconds(retry_after: str) -> float:
    """How long a server wants to rest: it says seconds or a date (RFC 9110, 10.2.3)."""
    if retry_after.isdecimal():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _joined(origin: str, location: str) -> str:
    """Where a redirect leads; never to a disk, never from https to http."""
    try:
        target = urljoin(origin, location)
        scheme = urlsplit(target).scheme
    except ValueError:
        raise environment_error(f"{shown(origin)}: sent on to what is no URL") from None
    if scheme not in ("http", "https") or (origin.startswith("https:") and scheme == "http"):
        raise environment_error(
            f"{shown(origin)}: refused to be sent on to {shown(target)}: not https"
        )
    return target


def _fail(url: str, error: urllib3.exceptions.HTTPError) -> NoReturn:
    """Say in few words, free of secrets, why there is no answer; only some causes may pass."""
    import urllib3.exceptions as causes

    host = urlsplit(url).hostname
    if isinstance(error, causes.ProxyError):
        raise Interrupted("the proxy cannot be reached or refuses") from None
    if isinstance(error, causes.SSLError):
        detail = error.args[0] if error.args else error
        reason = getattr(detail, "verify_message", "") or "the TLS handshake failed"
        raise environment_error(
            f"{shown(url)}: no trusted connection: {reason}",
            hint="export SSL_CERT_FILE=<a file with your certificate authorities>",
        ) from None
    if isinstance(error, causes.LocationValueError):
        raise environment_error(f"{shown(url)}: not a URL that can be asked") from None
    if isinstance(error, causes.NameResolutionError):
        raise Interrupted(f"the name {host} is not known here") from None
    if isinstance(error, causes.ConnectTimeoutError):
        raise Interrupted("no connection in time") from None
    if isinstance(error, causes.NewConnectionError):
        raise Interrupted("no connection") from None
    if isinstance(error, causes.ReadTimeoutError):
        raise Interrupted("the server has gone silent") from None
    if isinstance(error, causes.IncompleteRead) or any(
        isinstance(cause, http.client.IncompleteRead) for cause in error.args
    ):
        raise Interrupted("the connection ended early") from None
    raise Interrupted("the connection broke") from None


def _login(url: str) -> tuple[str, dict[str, str]]:
    """The URL without its login, and the login as a header: from the URL itself, else ~/.netrc."""
    import urllib3

    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, host, parts.path, parts.query, ""))
    if login:
        return bare, urllib3.make_headers(basic_auth=unquote(login))
    try:
        place = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        status = place.stat()
        logins = _netrc(place, status.st_ino, status.st_mtime_ns, status.st_size)
        known = logins.authenticators(parts.hostname or "")
    except (OSError, RuntimeError, netrc.NetrcParseError):
        known = None
    if known is None or not known[2]:
        return bare, {}
    return bare, urllib3.make_headers(basic_auth=f"{known[0] or known[1]}:{known[2]}")


@functools.lru_cache(maxsize=4)
def _netrc(place: Path, _inode: int, _changed: int, _size: int) -> netrc.netrc:
    """The file as it is now: read again only when it has changed."""
    return netrc.netrc(place)


def _trust(more: str | None) -> ssl.SSLContext:
    """The system's certificate authorities, or those that the environment names."""
    named = [
        path
        for path in (os.environ.get("SSL_CERT_FILE"), os.environ.get("REQUESTS_CA_BUNDLE"), more)
        if path
    ]
    context = ssl.create_default_context()
    for path in dict.fromkeys(named):
        try:
            if Path(path).is_dir():
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except OSError as error:  # noqa: PERF203 (two or three files)
            raise environment_error(
                f"{path}: cannot be read as certificate authorities; SSL_CERT_FILE, "
                "REQUESTS_CA_BUNDLE or pip's `cert` names it"
            ) from error
    return context
