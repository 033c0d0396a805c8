"""Logins of container registries: where engines keep them, and what a registry wants of them."""

from __future__ import annotations

import base64
import binascii
import json
import netrc
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode, urlsplit

from kit.artifacts import bounded
from kit.console import note
from kit.errors import KitError, environment_error
from kit.locks.connection import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.locks.http import Client

DOCKER_HUB = "docker.io"
_DOCKER_HUB_KEY = "https://index.docker.io/v1/"
"""The name under which engines keep the login of Docker Hub."""
_NGC = "nvcr.io"
_NGC_USER = "$oauthtoken"
"""The user of every API key at NVIDIA's registry."""
_IDENTITY_USER = "<token>"
"""The user by which a credential helper says that the secret is an identity token."""
_HELPER_SECONDS = 30
_ANSWER_LIMIT = 1 << 20
_CHALLENGE_WORD = re.compile(r'([A-Za-z_]+)\s*=\s*(?:"([^"]*)"|([^\s,]+))|([A-Za-z][A-Za-z0-9]*)')
_TOKEN = re.compile(r"[\x21-\x7e]{1,65536}")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are for one registry.

    Attributes:
        user: empty for an identity token.
        secret: a password, an API key, or the identity token.
        origin: where it was found, for messages.
    """

    user: str
    secret: str = field(repr=False)
    origin: str

    @property
    def basic(self) -> str:
        """The login as the value of an `Authorization` header."""
        pair = f"{self.user}:{self.secret}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"


def find_login(host: str) -> Login | None:
    """The login that this user has for a registry, None without any.

    Looked for where `podman login`, `docker login` and their credential helpers put it (as
    containers-auth.json(5) says), then in `NGC_API_KEY` for nvcr.io, then in ~/.netrc.

    Args:
        host: the registry's name, with its port if it has one; `docker.io` for Docker Hub.
    """
    host = _host(host)
    for path in _files():
        if path.is_file() and (found := _of_file(path, host)) is not None:
            return found
    if host == _NGC and (key := os.environ.get("NGC_API_KEY")):
        return Login(_NGC_USER, key, "NGC_API_KEY")
    return _of_netrc(host)


def hint(host: str) -> str:
    """The command that stores a login for the registry."""
    user = f" --username '{_NGC_USER}'" if host == _NGC else ""
    return f"docker login {host}{user}"


def authorization(challenge: str, url: str, path: str, login: Login | None, client: Client) -> str:
    """What to send as `Authorization` to a registry that asked who we are.

    A token is had from the service that the registry names, over https only.

    Args:
        challenge: the registry's `WWW-Authenticate`.
        url: where it was sent from.
        path: the repository, without its registry.
        login: None asks for a token as anybody.
        client: what a token is asked through.

    Raises:
        Refused: the token service does not take the login (exit 3).
        KitError: no way to log in that we know, or none without a login (exit 3).
    """
    wanted = _parse(challenge)
    if "bearer" in wanted and "realm" in wanted["bearer"]:
        return f"Bearer {_token(wanted['bearer'], url, path, login, client)}"
    host = urlsplit(url).netloc
    if "basic" in wanted and login is not None and login.user:
        return login.basic
    if "basic" in wanted:
        raise environment_error(f"{host}/{path}: the registry wants a login", hint=hint(host))
    ways = ", ".join(sorted(wanted)) or "none"
    raise environment_error(
        f"{host}/{path}: the registry wants a login in a way not known here: {ways}"
    )


def is_loopback(host: str) -> bool:
    """Whether a host is this machine; only there a registry may do without https."""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _token(wanted: dict[str, str], url: str, path: str, login: Login | None, client: Client) -> str:
    """Ask the token service (Docker's token and OAuth 2 authentication for registries)."""
    realm = wanted["realm"]
    try:
        parts = urlsplit(realm)
    except ValueError:
        host = urlsplit(url).netloc
        raise environment_error(f"the registry {host} sends logins to what is no URL") from None
    ours = is_loopback(parts.hostname or "") and is_loopback(urlsplit(url).hostname or "")
    if not parts.hostname or parts.scheme not in ("https", "http" if ours else "https"):
        host = urlsplit(url).netloc
        raise environment_error(
            f"the registry {host} sends logins to {shown(realm)}: refused: not https"
        )
    asked = {"scope": wanted.get("scope") or f"repository:{path}:pull"}
    if "service" in wanted:
        asked["service"] = wanted["service"]
    if login is not None and not login.user:
        form = {
            **asked,
            "grant_type": "refresh_token",
            "refresh_token": login.secret,
            "client_id": "trtllm-kit",
        }
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        content, _, _ = client.read(
            realm, headers, body=urlencode(form).encode(), limit=_ANSWER_LIMIT
        )
    else:
        headers = {"Authorization": login.basic} if login is not None else {}
        sign = "&" if parts.query else "?"
        content, _, _ = client.read(
            f"{realm}{sign}{urlencode(asked)}", headers, limit=_ANSWER_LIMIT
        )
    answer = bounded.loads(content, shown(realm))
    token = answer.get("token") or answer.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise environment_error(f"{shown(realm)}: the answer holds no token")
    return token


def _parse(challenge: str) -> dict[str, dict[str, str]]:
    """`Bearer realm="…",scope="…"` → way to log in → its parameters (RFC 9110, 11.6.1)."""
    found: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for key, quoted, bare, way in _CHALLENGE_WORD.findall(challenge):
        if way:
            current = found.setdefault(way.lower(), {})
        else:
            current.setdefault(key.lower(), quoted or bare)
    return found


def _files() -> Iterator[Path]:
    home = Path.home()
    if given := os.environ.get("REGISTRY_AUTH_FILE"):
        yield Path(given)
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    yield Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"
    yield Path(os.environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _of_file(path: Path, host: str) -> Login | None:
    try:
        config = bounded.json_object(path)
    except KitError as error:
        note(f"logins passed over: {error}")
        return None
    keys = _keys(host)
    helpers = bounded.mapping(config, "credHelpers")
    chosen = [helpers[key] for key in keys if isinstance(helpers.get(key), str)]
    if store := bounded.text(config, "credsStore"):
        chosen.append(store)
    for name in chosen:
        if (found := _of_helper(name, keys[0], path)) is not None:
            return found
    known = {_host(key): value for key, value in bounded.mapping(config, "auths").items()}
    return _of_entry(known.get(host), path)


def _keys(host: str) -> tuple[str, ...]:
    return (_DOCKER_HUB_KEY, host) if host == DOCKER_HUB else (host,)


def _host(key: str) -> str:
    """The registry that an entry is for: keys of old are URLs."""
    host = key.partition("://")[2] or key
    host = host.partition("/")[0] if "://" in key else host.rstrip("/")
    return DOCKER_HUB if host in ("index.docker.io", "registry-1.docker.io") else host


def _of_entry(entry: Any, path: Path) -> Login | None:
    if token := _secret(entry, "identitytoken"):
        return Login("", token, str(path))
    if pair := _secret(entry, "auth"):
        try:
            user, _, secret = base64.b64decode(pair, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            note(f"{path}: a login passed over that cannot be read")
            return None
        # Docker pads old entries with zero bytes.
        secret = secret.strip("\0")
    else:
        user, secret = _secret(entry, "username"), _secret(entry, "password")
    return Login(user, secret, str(path)) if user and secret else None


def _secret(entry: Any, key: str) -> str:
    value = entry.get(key) if isinstance(entry, dict) else None
    return value if isinstance(value, str) else ""


def _of_helper(name: str, server: str, path: Path) -> Login | None:
    """Ask `docker-credential-NAME`; what it prints is never repeated."""
    program = f"docker-credential-{name}"
    found = shutil.which(program) if _HELPER.fullmatch(name) else None
    if found is None:
        note(f"{path} names {program}, which is not installed: no login from there")
        return None
    try:
        done = subprocess.run(
            [found, "get"],
            input=server,
            capture_output=True,
            text=True,
            check=False,
            timeout=_HELPER_SECONDS,
        )
    except (subprocess.TimeoutExpired, OSError, UnicodeDecodeError):
        note(f"{program} does not answer: no login from there")
        return None
    if done.returncode != 0:  # also what it answers for a registry that it does not know
        return None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        note(f"{program} answers nonsense: no login from there")
        return None
    user, secret = _secret(answer, "Username"), _secret(answer, "Secret")
    if not secret:
        return None
    return Login("" if user == _IDENTITY_USER else user, secret, program)


def _of_netrc(host: str) -> Login | None:
    place = Path(os.environ.get("NETRC") or "~/.netrc")
    try:
        known = netrc.netrc(place.expanduser()).hosts.get(urlsplit(f"//{host}").hostname or "")
    except (OSError, RuntimeError, netrc.NetrcParseError):
        return None
    if known is None or not known[2]:
        return None
    return Login(known[0] or known[1] or "", known[2], str(place))
