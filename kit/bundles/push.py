"""From a bundle into a registry at the site (OCI Distribution 1.1), images and everything else."""

from __future__ import annotations

import contextlib
import io
import json
import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

from kit.bundles import verifier
from kit.bundles.documents import EMPTY, artifact
from kit.console import visible
from kit.digest import Digest
from kit.errors import content_error, environment_error, usage_error
from kit.images.media_types import MANIFEST
from kit.locks import registry_login
from kit.locks.http import Client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import urllib3

    from kit.bundles.verifier import Content, Index, Item
    from kit.errors import KitError

_MANIFEST_LIMIT = 4 << 20
"""Bytes that registries take as a manifest."""
_TARGET = re.compile(r"([a-z0-9][a-z0-9.-]*(?::[0-9]+)?)((?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*)/?")
_TIMEOUT = 300.0
_OTHER = re.compile(r"[^a-z0-9._-]+")
_SEPARATORS = re.compile(r"[._-]+")
_REDIRECTS = (301, 302, 303, 307, 308)


def push(folder: Path, index: Index, target: str, *, jobs: int = 1) -> list[dict[str, str]]:
    """Send every content of a verified bundle; blobs that the registry has are passed over.

    Args:
        folder: of the bundle.
        index: of it, verified.
        target: `registry.site:5000/prefix`.
        jobs: blobs at a time.

    Returns:
        Rows with `name`, `kind`, `reference` (by tag) and `digest`.

    Raises:
        KitError: no such target (exit 2), no access or no connection (exit 3), a delta whose other
            objects are not in the registry, two contents of one name (exit 4).
    """
    match = _TARGET.fullmatch(target)
    if match is None:
        # Before an @ stands what somebody takes for the place of a login.
        _, login, place = target.rpartition("@")
        raise usage_error(
            f"{'…@' if login else ''}{place}: expected registry.site:5000/prefix",
            hint=f"docker login {place.partition('/')[0]}" if login else None,
        )
    host, prefix = match.group(1), match.group(2).strip("/")
    names = _repositories(prefix, index.contents)
    items = {item.sha256: item for item in index.items}
    rows = []
    with verifier.Stream(folder, index) as stream, ThreadPoolExecutor(jobs) as pool:
        for content, name in zip(index.contents, names, strict=True):
            repository = _Repository(host, name, stream, jobs)
            blobs = {file.sha256 for file in content.files}
            manifest = _manifest(stream, index, content)
            tasks = [
                pool.submit(repository.send, digest, items.get(digest)) for digest in sorted(blobs)
            ]
            if content.kind != "image":
                repository.send_bytes(EMPTY)
            try:
                for task in tasks:
                    task.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            tag = str(index.sequence)
            repository.name(content, manifest, tag)
            rows.append(
                {
                    "name": content.name,
                    "kind": content.kind,
                    "reference": f"{host}/{name}:{tag}",
                    "digest": f"sha256:{content.manifest}",
                }
            )
    return rows


def component(name: str) -> str:
    """A name as OCI spells one component of a repository's; another may be spelled the same."""
    kept = _OTHER.sub("-", name.lower())
    return _SEPARATORS.sub(_separator, kept).strip("._-") or "content"


def _separator(found: re.Match[str]) -> str:
    """What may stand between letters and digits: `.`, `_`, `__`, any number of `-`."""
    kept = found.group()
    return kept if kept in (".", "_", "__") or not kept.strip("-") else "-"


def _repositories(prefix: str, contents: Sequence[Content]) -> list[str]:
    """`prefix/kind/name` of each content.

    Of those that would be spelled the same, each that is not called so gets its digest behind it.

    Raises:
        KitError: two are still the same (exit 4).
    """
    spelled = Counter((content.kind, component(content.name)) for content in contents)
    found: dict[str, str] = {}
    for content in contents:
        kept = component(content.name)
        if spelled[content.kind, kept] > 1 and kept != content.name:
            kept = f"{kept}-{Digest.of_bytes(content.name.encode()).short}"
        name = "/".join(part for part in (prefix, content.kind, kept) if part)
        if name in found:
            raise content_error(
                f"{content.kind}/{content.name} and {content.kind}/{found[name]} would both be "
                f"called {name}; nothing was sent"
            )
        found[name] = content.name
    return list(found)


def _manifest(stream: verifier.Stream, index: Index, content: Content) -> bytes | None:
    """The manifest's bytes; None where a delta requires that of an image."""
    sizes = {**index.requires, **{item.sha256: item.size for item in index.items}}
    if content.kind == "image":
        item = next((item for item in index.items if item.sha256 == content.manifest), None)
        return stream.read(item.offset, item.size) if item else None
    rows = [(file.title, file.role, file.sha256, sizes[file.sha256]) for file in content.files]
    made = artifact(content, rows)
    if Digest.of_bytes(made).hex != content.manifest:
        raise content_error(f"{content.kind}/{content.name}: its manifest says something else")
    if len(made) > _MANIFEST_LIMIT:
        raise content_error(
            f"{content.kind}/{content.name}: a manifest of {len(made)} bytes for its "
            f"{len(content.files)} files, registries take {_MANIFEST_LIMIT}",
            hint="kit bundle load, and serve the files",
        )
    return made


class _Source(io.RawIOBase):
    """One object of the stream as a file that is read once."""

    def __init__(self, stream: verifier.Stream, item: Item) -> None:
        super().__init__()
        self._stream = stream
        self._offset = item.offset
        self._left = item.size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        count = self._left if size < 0 else min(size, self._left)
        found = self._stream.read(self._offset, count) if count else b""
        self._offset += count
        self._left -= count
        return found


class _Repository:
    """One repository that is written to."""

    def __init__(self, host: str, name: str, stream: verifier.Stream, jobs: int) -> None:
        import urllib3

        bare = host.partition(":")[0]
        scheme = "http" if registry_login.is_loopback(bare) else "https"
        self._registry = host
        self._name = name
        self._url = f"{scheme}://{host}/v2/{name}"
        self._stream = stream
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=False, maxsize=jobs)
        self._login: str | None = None
        self._lock = threading.Lock()

    def send(self, digest: str, item: Item | None) -> None:
        """Upload one blob, unless it is there."""
        if self._has(digest):
            return
        if item is None:
            raise content_error(
                f"{self._registry}/{self._name}: lacks sha256:{digest}, which this delta needs",
                hint="kit bundle push THE-BUNDLE-BEFORE first",
            )
        self._upload(digest, item.size, lambda: _Source(self._stream, item))

    def send_bytes(self, content: bytes) -> None:
        """Upload a blob that is at hand."""
        digest = Digest.of_bytes(content).hex
        if not self._has(digest):
            self._upload(digest, len(content), lambda: io.BytesIO(content))

    def _has(self, digest: str) -> bool:
        with self._asked("HEAD", f"{self._url}/blobs/sha256:{digest}") as found:
            # In front of an object store, a registry that has a blob says where it is. Nobody
            # goes there: that would be the place to leave the login behind.
            if found.status == 200 or found.status in _REDIRECTS:
                return True
            if found.status == 404:
                return False
            raise self._failed(found, f"does not say whether it has sha256:{digest}")

    def _upload(self, digest: str, size: int, source: Callable[[], io.IOBase]) -> None:
        with self._asked("POST", f"{self._url}/blobs/uploads/") as begun:
            self._require(begun, 202, "an upload")
            place = self._place(begun.headers.get("Location", ""))
        own = urlsplit(place)[:2] == urlsplit(self._url)[:2]
        sign = "&" if urlsplit(place).query else "?"
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        with self._asked(
            "PUT",
            f"{place}{sign}digest=sha256:{digest}",
            headers,
            source,
            own=own,
        ) as done:
            self._require(done, 201, f"sha256:{digest}")

    def _place(self, location: str) -> str:
        """Where the registry wants an upload."""
        try:
            place = urljoin(f"{self._url}/", location)
            parts = urlsplit(place)
            _ = parts.port  # complains of one that is none
            good = bool(location and parts.hostname) and parts.scheme in ("http", "https")
        except ValueError:
            good = False
        if not good:
            told = location.partition("?")[0]
            raise environment_error(
                f"{self._registry}/{self._name}: sends uploads to what is no URL: {told[:200]!r}"
            )
        return place

    def name(self, content: Content, manifest: bytes | None, tag: str) -> None:
        """Send the manifest under a tag; its digest is what the bundle says."""
        digest = f"sha256:{content.manifest}"
        if manifest is None:
            manifest = self._present(digest)
        media_type = json.loads(manifest).get("mediaType", MANIFEST)
        headers = {"Content-Type": media_type, "Content-Length": str(len(manifest))}
        place = f"{self._url}/manifests/{tag}"
        body = manifest
        with self._asked("PUT", place, headers, lambda: io.BytesIO(body)) as done:
            self._require(done, 201, f"the manifest of {content.kind}/{content.name}")
            told = done.headers.get("Docker-Content-Digest", digest)
        if told != digest:
            raise content_error(f"{place}: expected {digest}, the registry says {told}")

    def _present(self, digest: str) -> bytes:
        accept = {"Accept": f"{MANIFEST}, application/vnd.docker.distribution.manifest.v2+json"}
        with self._asked("GET", f"{self._url}/manifests/{digest}", accept) as found:
            if found.status not in (200, 404):
                raise self._failed(found, f"does not say whether it has the manifest {digest}")
            content = found.read(_MANIFEST_LIMIT + 1)
            if found.status == 404 or str(Digest.of_bytes(content)) != digest:
                raise content_error(
                    f"{self._registry}/{self._name}: lacks the manifest {digest}, which this "
                    "delta needs",
                    hint="kit bundle push THE-BUNDLE-BEFORE first",
                )
        return content

    @contextlib.contextmanager
    def _asked(
        self,
        method: str,
        url: str,
        headers: dict[str, str] | None = None,
        body: Any = None,
        *,
        own: bool = True,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Send a request; once more with a login, if the registry wants one."""
        import urllib3

        for attempt in (1, 2):
            sent = dict(headers or {})
            used = self._login
            if used and own:  # where uploads go to elsewhere, the login does not
                sent["Authorization"] = used
            try:
                found = self._pool.request(
                    method,
                    url,
                    headers=sent,
                    body=body() if body else None,
                    preload_content=False,
                    redirect=False,
                )
            except urllib3.exceptions.HTTPError as error:
                raise environment_error(
                    f"{self._registry}: cannot be reached: {error}",
                    hint=f"curl -v {self._url.partition('/v2/')[0]}/v2/",
                ) from error
            if found.status == 401 and attempt == 1 and own:
                challenge = found.headers.get("WWW-Authenticate", "")
                found.drain_conn()
                self._renew(used, challenge, url)
                continue
            try:
                yield found
            except urllib3.exceptions.HTTPError as error:
                raise environment_error(
                    f"{self._registry}/{self._name}: the answer broke off: {error}",
                    hint="the same command again: what the registry has is passed over",
                ) from error
            finally:
                found.drain_conn()
                found.release_conn()
            return

    def _renew(self, used: str | None, challenge: str, url: str) -> None:
        with self._lock:
            if self._login != used:  # another thread was first
                return
            login = registry_login.find_login(self._registry)
            self._login = registry_login.authorization(challenge, url, self._name, login, Client())

    def _require(self, found: urllib3.BaseHTTPResponse, status: int, what: str) -> None:
        if found.status != status:
            raise self._failed(found, f"did not take {what}")

    def _failed(self, found: urllib3.BaseHTTPResponse, problem: str) -> KitError:
        """What the registry refused, and in which words."""
        said = visible(found.read(2000).decode("utf-8", "replace"))
        refused = found.status in (401, 403)
        return environment_error(
            f"{self._registry}/{self._name}: {problem}: {found.status} {said}".strip(),
            hint=registry_login.hint(self._registry) if refused else None,
        )
