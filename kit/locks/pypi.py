"""Wheels and source distributions from a simple index (PEP 691 JSON, else PEP 503 HTML)."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from kit.artifacts import bounded
from kit.digest import Digest
from kit.errors import KitError, content_error, environment_error, usage_error
from kit.locks import pip_settings
from kit.locks.connection import NotFound, shown
from kit.locks.lock import Input
from kit.locks.mirrors import rewrite

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from packaging.tags import Tag
    from packaging.version import Version

    from kit.locks.http import Client
    from kit.locks.intent import Pin, Python
    from kit.locks.pip_settings import PipSettings
    from kit.reception import Reception

_LONGEST_NAME = 255
"""Bytes of a file's name, as file systems have them."""
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.2, */*;q=0.01"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
_OLD_NAMES = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


@dataclass(frozen=True, slots=True)
class Link:
    """One file that an index offers.

    Attributes:
        filename: of the wheel or source distribution.
        url: where it is; may hold a login.
        sha256: as the index says, if it does.
        size: the same, bytes.
        requires_python: the Python that it wants.
        yanked: why its maker took it back, which may be no word; None if not (PEP 592).
        metadata: whether a wheel's METADATA lies beside it, under its URL and `.metadata`
            (PEP 658); the digest of that, `true` without one, empty if not.
    """

    filename: str
    url: str
    sha256: Digest | None
    size: int | None
    requires_python: str | None
    yanked: str | None = None
    metadata: str = ""


class PythonIndex:
    """The indexes and folders of pip's configuration, read once per project, for many threads."""

    def __init__(self, client: Client, settings: PipSettings | None = None) -> None:
        self._client = client
        self._loaded = settings
        self._pages: dict[tuple[str, str], list[Link]] = {}
        self._lock = threading.Lock()

    def links(self, project: str) -> Iterator[Link]:
        """What is offered for a project, index by index; an index that lacks it is passed over.

        Raises:
            KitError: an index cannot be asked (exit 3).
        """
        name = re.sub(r"[-_.]+", "-", project).lower()
        for index in self._settings.indexes:
            yield from self._page(index, name)
        for folder in self._settings.folders:
            for path in sorted(folder.iterdir()):
                stem = re.sub(r"[-_.]+", "-", path.name).lower()
                if path.is_file() and stem.startswith(f"{name}-"):
                    yield Link(path.name, path.as_uri(), None, None, None)

    @property
    def places(self) -> str:
        """Where is looked, for messages."""
        settings = self._settings
        return ", ".join([*map(shown, settings.indexes), *map(str, settings.folders)]) or "nowhere"

    @property
    def _settings(self) -> PipSettings:
        with self._lock:
            if self._loaded is None:
                self._loaded = pip_settings.load()
            if self._loaded.certificates:
                self._client.trust(self._loaded.certificates)
            return self._loaded

    def _page(self, index: str, name: str) -> list[Link]:
        key = (index, name)
        if key not in self._pages:
            try:
                content, media, url = self._client.read(f"{index}/{name}/", {"Accept": _ACCEPT})
            except NotFound:
                self._pages[key] = []
            else:
                parse = _json_links if media.endswith("json") else _html_links
                try:
                    links = [
                        link
                        for link in parse(content, url)
                        if _may_link(url, link.url) and _is_name(link.filename)
                    ]
                except (
                    *(ValueError, KeyError, TypeError, AttributeError),
                    RecursionError,
                ) as error:
                    raise content_error(
                        f"{shown(url)}: not the page of a package index: {type(error).__name__}"
                    ) from error
                self._pages[key] = [_with_login(link, index) for link in links]
        return self._pages[key]


def resolve_python(
    python: Python, glibc: str, architecture: str, index: PythonIndex, client: Client
) -> list[Input]:
    """The very file that each pin means for this interpreter, platform and C library.

    Raises:
        KitError: a pin that no index has, or has no fitting file of (exit 2); no network (exit 3).
    """
    tags = target_tags(python.version, glibc, architecture)
    inputs = []
    for group in python.groups:
        for pin in group.wheels:
            link, version = _best_wheel(pin, index, tags, python.version)
            inputs.append(_input("wheel", group.name, pin, version, link, client))
        for pin in group.sdists:
            link, version = _sdist(pin, index, python.version)
            inputs.append(_input("sdist", group.name, pin, version, link, client))
    return inputs


def target_tags(python: str, glibc: str, architecture: str) -> list[Tag]:
    """Tags that a wheel may have there, best first: of the target, not of this interpreter."""
    from packaging import tags

    major, minor = (int(part) for part in python.split("."))
    machine = _MACHINES[architecture]
    newest = int(glibc.split(".")[1])
    oldest = 5 if machine == "x86_64" else 17
    platforms = []
    for level in range(newest, oldest - 1, -1):
        platforms.append(f"manylinux_2_{level}_{machine}")
        if old := _OLD_NAMES.get((2, level)):
            platforms.append(f"{old}_{machine}")
    platforms.append(f"linux_{machine}")
    interpreter = f"cp{major}{minor}"
    return [
        *tags.cpython_tags((major, minor), abis=[interpreter], platforms=platforms),
        *tags.compatible_tags((major, minor), interpreter, platforms),
    ]


class PythonSource:
    """Brings locked wheels and source distributions from whatever index pip is configured for."""

    def __init__(self, client: Client, stack: str) -> None:
        self._client = client
        self._stack = stack
        self._index = PythonIndex(client)

    def bring(self, item: Input, reception: Reception) -> None:
        """Download one distribution into the store."""
        if "://" in item.location:
            self._bring_from(item, reception)
            return
        filename = item.file.rpartition("/")[2]
        others: list[Link] = []
        trouble: KitError | None = None
        links = self._index.links(item.name)
        while True:
            try:
                link = next(links, None)
            except KitError as error:
                trouble = error
                break
            if link is None:
                break
            if link.filename != filename:
                continue
            if link.sha256 not in (None, item.sha256):
                others.append(link)
                continue
            try:
                self._client.download(link.url, reception)
            except NotFound:
                continue
            return
        if trouble is not None:
            raise trouble
        if others:
            raise content_error(
                f"{item}: wrong content at {shown(others[0].url)}: expected {item.sha256}, "
                f"the index says {others[0].sha256}; locking again trusts the new file",
                hint=f"kit lock {self._stack}",
            )
        raise environment_error(
            f"{item.kind} {item.name} version {item.version} has vanished from the package index: "
            f"no {filename} at {self._index.places}",
            hint=f"kit lock {self._stack}",
        )

    def _bring_from(self, item: Input, reception: Reception) -> None:
        """Download from the index that the intent names."""
        try:
            self._client.download(rewrite(item.location), reception)
        except NotFound as error:
            raise environment_error(
                f"{item.kind} {item.name} version {item.version} has vanished: {error}",
                hint=f"kit lock {self._stack}",
            ) from None


def _best_wheel(
    pin: Pin, index: PythonIndex, tags: Sequence[Tag], python: str
) -> tuple[Link, Version]:
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    rank = {tag: place for place, tag in reversed(list(enumerate(tags)))}
    offered: list[str] = []
    best: tuple[tuple[Version, int], Link] | None = None
    for link in index.links(pin.name):
        if not link.filename.endswith(".whl"):
            continue
        try:
            _, version, _, wheel_tags = parse_wheel_filename(link.filename)
        except InvalidWheelFilename:
            continue
        if not _is_version(pin, version):
            continue
        offered.append(link.filename)
        places = [rank[tag] for tag in wheel_tags if tag in rank]
        if not places or not _accepts(link, python):
            continue
        order = (version, -min(places))
        if best is None or order > best[0]:
            best = (order, link)
    if best is None:
        raise usage_error(_nothing_fits("wheel", pin, index, offered, python))
    return best[1], best[0][0]


def _sdist(pin: Pin, index: PythonIndex, python: str) -> tuple[Link, Version]:
    from packaging.utils import InvalidSdistFilename, canonicalize_name, parse_sdist_filename

    offered: list[str] = []
    for link in index.links(pin.name):
        try:
            name, version = parse_sdist_filename(link.filename)
        except InvalidSdistFilename:
            continue
        if name == canonicalize_name(pin.name) and _is_version(pin, version):
            if _accepts(link, python):
                return link, version
            offered.append(link.filename)
    raise usage_error(_nothing_fits("sdist", pin, index, offered, python))


def _nothing_fits(kind: str, pin: Pin, index: PythonIndex, offered: list[str], python: str) -> str:
    if not offered:
        return f"{kind} {pin}: there is no such version at {index.places}"
    shown_files = ", ".join(sorted(set(offered))[:6])
    return f"{kind} {pin}: no file fits Python {python} of the target; there are {shown_files}"


def _is_version(pin: Pin, version: Version) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(f"=={pin.version}").contains(version, prereleases=True)


def _accepts(link: Link, python: str) -> bool:
    """Whether the file claims to run on this Python; an unreadable range claims nothing."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    if not link.requires_python:
        return True
    try:
        # A bound on the third number is met by the newest of the series.
        return SpecifierSet(link.requires_python).contains(f"{python}.99")
    except InvalidSpecifier:
        return True


def identity(link: Link, client: Client) -> tuple[Digest, int]:
    """Digest and size of what an index offers; what it does not say is asked or measured.

    Raises:
        NotFound: the page names it, and it is not there.
        KitError: it cannot be had (exit 3), or is not what the index says (exit 4).
    """
    sha256, size = link.sha256, link.size
    if sha256 is not None and size is None:
        size = client.length(link.url)
    if sha256 is None or size is None:
        measured, size = client.measure(link.url)
        if sha256 not in (None, measured):
            raise content_error(
                f"{shown(link.url)}: wrong content: the index says {sha256}, found {measured}"
            )
        sha256 = measured
    return sha256, size


def _input(kind: Any, group: str, pin: Pin, version: Version, link: Link, client: Client) -> Input:
    sha256, size = identity(link, client)
    return Input(
        kind=kind,
        group=group,
        name=pin.name,
        version=str(version),
        file=link.filename,
        location="",
        sha256=sha256,
        size=size,
    )


def _json_links(content: bytes, url: str) -> Iterator[Link]:
    for entry in json.loads(content)["files"]:
        sha256 = entry.get("hashes", {}).get("sha256")
        yield Link(
            filename=_text(entry["filename"]),
            url=urljoin(url, _text(entry["url"])),
            sha256=Digest(sha256) if sha256 else None,
            size=bounded.count(entry, "size"),
            requires_python=bounded.text(entry, "requires-python"),
            yanked=_yanked(entry.get("yanked", False)),
            metadata=_metadata(entry.get("core-metadata", entry.get("dist-info-metadata", False))),
        )


def _text(said: Any) -> str:
    if not isinstance(said, str):
        raise TypeError
    return said


def _html_links(content: bytes, url: str) -> Iterator[Link]:
    parser = _Anchors()
    parser.feed(content.decode("utf-8", errors="replace"))
    base = urljoin(url, parser.base) if parser.base else url
    for attributes in parser.anchors:
        address, _, fragment = urljoin(base, attributes["href"] or "").partition("#")
        sha256 = fragment.removeprefix("sha256=") if fragment.startswith("sha256=") else None
        yield Link(
            filename=unquote(urlsplit(address).path.rpartition("/")[2]),
            url=address,
            sha256=Digest(sha256.partition("&")[0]) if sha256 else None,
            size=None,
            requires_python=attributes.get("data-requires-python"),
            yanked=(attributes["data-yanked"] or "") if "data-yanked" in attributes else None,
            metadata=(
                attributes.get("data-core-metadata")
                or attributes.get("data-dist-info-metadata")
                or ""
            ),
        )


def _yanked(said: Any) -> str | None:
    """PEP 691 says whether, or why."""
    if isinstance(said, str):
        return said
    return "" if said is True else None


def _metadata(said: Any) -> str:
    """PEP 714 says whether, or the digests: given here in the form of HTML pages."""
    if isinstance(said, dict):
        return f"sha256={said['sha256']}" if "sha256" in said else "true"
    return "true" if said is True else ""


class _Anchors(HTMLParser):
    """Collects links; `base` is what they are relative to, if the page says so."""

    def __init__(self) -> None:
        super().__init__()
        self.base: str | None = None
        self.anchors: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what is a link."""
        attributes = dict(attrs)
        if tag == "base" and self.base is None:
            self.base = attributes.get("href")
        elif tag == "a" and attributes.get("href"):
            self.anchors.append(attributes)


def _may_link(page: str, url: str) -> bool:
    """A page from the network links into the network; one on this disk may link to the disk."""
    scheme = urlsplit(url).scheme
    return scheme in ("http", "https") or (scheme == "file" == urlsplit(page).scheme)


def _is_name(text: str) -> bool:
    """Whether a file can have the name: it will, in a build context."""
    return text.isprintable() and "/" not in text and len(text.encode()) <= _LONGEST_NAME


def _with_login(link: Link, index: str) -> Link:
    """A file on the host of an index that wants a login wants the same one.

    The index may be elsewhere by now, sent on by its host: nobody else gets its login, nor does
    anybody see it on the way.
    """
    asked, found = urlsplit(index), urlsplit(link.url)
    login, _, host = asked.netloc.rpartition("@")
    is_same = found.netloc == host and found.scheme in (asked.scheme, "https")
    if not (login and is_same):
        return link
    return replace(link, url=link.url.replace("://", f"://{login}@", 1))
