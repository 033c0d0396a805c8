"""Container registries on loopback: Debian's docker-registry, and one that fails on demand."""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import random
import re
import subprocess
import tarfile
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from kit.digest import Digest
from tests.stand_in.file_server import FileServer

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
OCI_TYPES = (
    f"{OCI}.manifest.v1+json",
    f"{OCI}.config.v1+json",
    f"{OCI}.layer.v1.tar+gzip",
    f"{OCI}.index.v1+json",
)
DOCKER_TYPES = (
    f"{DOCKER}.distribution.manifest.v2+json",
    f"{DOCKER}.container.image.v1+json",
    f"{DOCKER}.image.rootfs.diff.tar.gzip",
    f"{DOCKER}.distribution.manifest.list.v2+json",
)
USER, PASSWORD = "reader", "pass:word-secret"
_HTPASSWD = f"{USER}:$2y$05$PpTzDk9cMS/1T3.fZrE/GO/3MmXtxihZV2oTRf77DHr3.V3qoN9Xm\n"
BASIC = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()


@dataclass(frozen=True)
class Pushed:
    """An image or an index, with everything below it."""

    content: bytes
    media_type: str
    platform: dict[str, str]
    blobs: dict[Digest, bytes]
    manifests: tuple[Pushed, ...] = ()

    @property
    def digest(self) -> Digest:
        return Digest.of_bytes(self.content)

    @property
    def descriptor(self) -> dict[str, Any]:
        return _described(self.media_type, self.content)


def _described(media_type: str, content: bytes) -> dict[str, Any]:
    digest = str(Digest.of_bytes(content))
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def layer(size: int, seed: int = 0) -> tuple[bytes, bytes]:
    """A tar with one file of random bytes, and the same compressed."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        member = tarfile.TarInfo(f"data-{seed}")
        member.size = size
        archive.addfile(member, io.BytesIO(random.Random(seed).randbytes(size)))
    return stream.getvalue(), gzip.compress(stream.getvalue(), 1, mtime=0)


def image(
    *sizes: int,
    types: tuple[str, ...] = OCI_TYPES,
    architecture: str = "amd64",
    variant: str = "",
    odd: str = "",
) -> Pushed:
    """An image with one layer for each size; its JSON is spaced as no canonical writer would."""
    layers = [layer(size, seed) for seed, size in enumerate(sizes)]
    platform = {"os": "linux", "architecture": architecture} | (
        {"variant": variant} if variant else {}
    )
    config = json.dumps(
        {
            **platform,
            "config": {"Cmd": ["/data-0"], "Labels": {"odd": odd}},
            "rootfs": {
                "type": "layers",
                "diff_ids": [str(Digest.of_bytes(plain)) for plain, _ in layers],
            },
        }
    ).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": types[0],
        "config": _described(types[1], config),
        "layers": [_described(types[2], packed) for _, packed in layers],
    }
    blobs = {Digest.of_bytes(content): content for content in (config, *dict(layers).values())}
    return Pushed(json.dumps(manifest, indent=3).encode(), types[0], platform, blobs)


def index(*manifests: Pushed, types: tuple[str, ...] = OCI_TYPES) -> Pushed:
    """Several images under one name."""
    entries = [{**item.descriptor, "platform": item.platform} for item in manifests]
    document = {"schemaVersion": 2, "mediaType": types[3], "manifests": entries}
    return Pushed(json.dumps(document, indent=3).encode(), types[3], {}, {}, manifests)


@dataclass
class FailingRegistry(FileServer):
    """Serves what `publish` was given, with the faults of a file server, behind logins.

    Attributes:
        repository: the one that it has.
        token_uses: how many requests a token is good for; None asks for no token.
        basic: whether it wants the name and password themselves.
        tokens: another server that hands out tokens; itself by default.
        user: the `Authorization` that a token is given for; None gives one to everybody.
    """

    repository: str = "team/app"
    token_uses: int | None = None
    basic: bool = False
    tokens: FileServer | None = None
    user: str | None = None
    issued: list[str] = field(default_factory=list)
    used: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.guard = self._admit
        self.routes.append((re.compile(r"/token"), self.issue))

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    @property
    def name(self) -> str:
        """What an intent calls the repository."""
        return f"{self.host}/{self.repository}"

    def path(self, digest: Digest, part: str = "blobs") -> str:
        return f"/v2/{self.repository}/{part}/{digest}"

    def publish(self, pushed: Pushed, tag: str = "") -> Pushed:
        """Serve an image or an index, by digest and by tag."""
        for inner in pushed.manifests:
            self.publish(inner)
        for digest, content in pushed.blobs.items():
            self.put(self.path(digest), content)
        self.put(self.path(pushed.digest, "manifests"), pushed.content, pushed.media_type)
        if tag:
            place = f"/v2/{self.repository}/manifests/{tag}"
            self.put(place, pushed.content, pushed.media_type)
        return pushed

    def issue(self, answer: Any, _: re.Match[str]) -> None:
        """Hand out a token."""
        query = parse_qs(urlsplit(answer.path).query)
        login = answer.headers.get("Authorization")
        if answer.command == "POST":
            query = parse_qs(answer.rfile.read(int(answer.headers["Content-Length"])).decode())
            login = query["refresh_token"][0]
        if self.user is not None and login != self.user:
            answer.plain(401, b"{}")
            return
        assert query["scope"] == [f"repository:{self.repository}:pull"]
        assert query["service"] == ["registry.test"]
        token = f"token-secret-{len(self.issued)}"
        self.issued.append(token)
        self.used[token] = 0
        answer.plain(200, json.dumps({"token": token, "expires_in": 60}).encode())

    def _admit(self, answer: Any) -> bool:
        if not answer.path.startswith("/v2/"):
            return True
        login = answer.headers.get("Authorization", "")
        if self.basic and login != BASIC:
            answer.plain(401, b"{}", {"WWW-Authenticate": 'Basic realm="registry"'})
            return False
        if self.token_uses is None:
            return True
        token = login.removeprefix("Bearer ")
        if self.used.get(token, self.token_uses) >= self.token_uses:
            realm = f"{(self.tokens or self).url}/token"
            scope = f"repository:{self.repository}:pull"
            challenge = f'Bearer realm="{realm}",service="registry.test",scope="{scope}"'
            answer.plain(401, b"{}", {"WWW-Authenticate": challenge})
            return False
        self.used[token] += 1
        return True


class DockerRegistry:
    """Debian's docker-registry with its blobs in a folder; `start` again changes the login."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        with FileServer() as free:
            self.host = urlsplit(free.url).netloc

    def __enter__(self) -> Self:
        self.folder.mkdir(exist_ok=True)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, auth: dict[str, Any] | None = None) -> None:
        """Run it with the `auth` part of its configuration."""
        self.stop()
        configuration = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "blobs")}},
            "http": {"addr": self.host, "secret": "none"},
            **({"auth": auth} if auth else {}),
        }
        place = self.folder / "config.yml"
        place.write_text(json.dumps(configuration))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", place], stdout=log, stderr=log
            )
        limit = time.monotonic() + 20
        while self._status() is None:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < limit
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)
            self._process = None

    def htpasswd(self) -> dict[str, Any]:
        """Its own list of users: `USER` with `PASSWORD`."""
        place = self.folder / "htpasswd"
        place.write_text(_HTPASSWD)
        return {"htpasswd": {"realm": "registry", "path": str(place)}}

    def push(self, repository: str, pushed: Pushed, tag: str = "") -> Pushed:
        """Put an image or an index in, as any client does."""
        for inner in pushed.manifests:
            self.push(repository, inner)
        for digest, content in pushed.blobs.items():
            where = self._ask("POST", f"/v2/{repository}/blobs/uploads/", b"", 202)
            parts = urlsplit(where)
            self._ask("PUT", f"{parts.path}?{parts.query}&digest={digest}", content, 201)
        place = f"/v2/{repository}/manifests/{tag or pushed.digest}"
        self._ask("PUT", place, pushed.content, 201, pushed.media_type)
        return pushed

    def _status(self) -> int | None:
        connection = http.client.HTTPConnection(self.host, timeout=5)
        try:
            connection.request("GET", "/v2/")
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    def _ask(
        self, method: str, path: str, body: bytes, expected: int, media: str = "application/x"
    ) -> str:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        connection.request(method, path, body, {"Content-Type": media})
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        assert answer.status == expected, (answer.status, said)
        return answer.headers.get("Location") or ""


class TokenService(FileServer):
    """Hands out tokens that a docker-registry believes: signed by openssl, with the certificate."""

    def __init__(self, folder: Path, user: str | None) -> None:
        super().__init__()
        self._key, self.certificate_path = folder / "key.pem", folder / "certificate.pem"
        self._user = user
        self.given = 0
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
                *("-subj", "/CN=tokens", "-keyout", self._key, "-out", self.certificate_path),
            ],
            check=True,
            capture_output=True,
        )
        self.routes.append((re.compile(r"/token"), self._issue))

    @property
    def auth(self) -> dict[str, Any]:
        """The `auth` part of the registry's configuration."""
        return {
            "token": {
                "realm": f"{self.url}/token",
                "service": "registry.test",
                "issuer": "tokens",
                "rootcertbundle": str(self.certificate_path),
            }
        }

    def _issue(self, answer: Any, _: re.Match[str]) -> None:
        if self._user is not None and answer.headers.get("Authorization") != self._user:
            answer.plain(401, b"{}")
            return
        query = parse_qs(urlsplit(answer.path).query)
        kind, name, actions = query["scope"][0].split(":")
        lines = self.certificate_path.read_text().splitlines()
        header = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(lines[1:-1])]}
        now = int(time.time())
        claims = {
            "iss": "tokens",
            "sub": "",
            "aud": query["service"][0],
            "nbf": now - 10,
            "iat": now,
            "exp": now + 300,
            "jti": hashlib.sha256(str(self.given).encode()).hexdigest(),
            "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
        }
        self.given += 1
        text = ".".join(_encoded(json.dumps(part).encode()) for part in (header, claims))
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key],
            input=text.encode(),
            capture_output=True,
            check=True,
        ).stdout
        token = f"{text}.{_encoded(signature)}"
        answer.plain(200, json.dumps({"access_token": token}).encode())


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
