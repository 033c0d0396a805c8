"""The intent: what a stack is to be made of, as a person writes it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from kit import document
from kit.digest import Digest
from kit.errors import KitError, nearest, usage_error
from kit.files import safe_member

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

SCHEMA = "kit.intent/1"
PLATFORMS = {"linux/amd64": "amd64", "linux/arm64": "arm64"}
"""Platform of an image → Debian's name of the architecture."""

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([0-9A-Za-z][0-9A-Za-z.!+_-]*)")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PYTHON = re.compile(r"3\.[0-9]+")
_SUITE = re.compile(r"[a-z][a-z0-9./-]*")
_COMMIT_OR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_IMAGE = re.compile(
    r"[a-z0-9][a-z0-9.-]*(?::[0-9]+)?/[a-z0-9][a-z0-9._/-]*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class DebianGroup:
    """Packages that are asked for by name; what they depend on comes with them."""

    name: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Debian:
    """A Debian suite and the groups taken from it, each on top of those before it."""

    suite: str
    components: tuple[str, ...]
    groups: tuple[DebianGroup, ...]


@dataclass(frozen=True, slots=True)
class Pin:
    """One distribution of the Python package index at one exact version."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


@dataclass(frozen=True, slots=True)
class PythonGroup:
    """Distributions taken as they are, without what they depend on: the list states all."""

    name: str
    wheels: tuple[Pin, ...]
    sdists: tuple[Pin, ...]


@dataclass(frozen=True, slots=True)
class Python:
    """The interpreter that wheels must fit, and their groups.

    `glibc` is the C library of the image, such as `2.36`; None reads it off the locked `libc6`.
    """

    version: str
    glibc: str | None
    groups: tuple[PythonGroup, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A plain file at a URL, whose digest the intent must know."""

    name: str
    url: str
    sha256: Digest
    group: str


@dataclass(frozen=True, slots=True)
class Model:
    """A model from a folder of the project, or files of a Hugging Face repository."""

    name: str
    directory: str | None
    repo: str | None
    revision: str | None
    allow: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageReference:
    """An image of a registry, by tag or by manifest digest, for the intent's platform."""

    name: str
    reference: str


@dataclass(frozen=True, slots=True)
class SourceTree:
    """One commit of a git repository.

    Attributes:
        name: the group that its parts get in the lock.
        url: where it is cloned from.
        commit: in full.
        submodules: whether the commits of its submodules come with it, all levels.
        lfs: patterns of the LFS objects that are needed, such as `cpp/**`; none without any.
    """

    name: str
    url: str
    commit: str
    submodules: bool
    lfs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intent:
    """What one stack is to be made of.

    Attributes:
        stack: its name, the same as the file's.
        family: the folder below `dockerfiles/` that builds it.
        platform: `linux/amd64` or `linux/arm64`.
        epoch: the time stamp of everything that is built, in seconds (`SOURCE_DATE_EPOCH`).
    """

    stack: str
    family: str
    platform: str
    epoch: int
    debian: Debian | None
    python: Python | None
    files: tuple[File, ...]
    models: tuple[Model, ...]
    images: tuple[ImageReference, ...] = ()
    sources: tuple[SourceTree, ...] = ()

    @property
    def digest(self) -> Digest:
        """Identity of what is asked for: comments, layout and order of keys do not matter."""
        asked = asdict(self)
        for later in ("images", "sources"):
            # Locks that were made before there were any stay good.
            if not asked[later]:
                del asked[later]
        return Digest.of_document({"schema": SCHEMA, **asked})

    @property
    def architecture(self) -> str:
        """Debian's name of the platform, `amd64` or `arm64`."""
        return PLATFORMS[self.platform]


def load(path: Path) -> Intent:
    """Read an intent.

    Raises:
        KitError: malformed, an unknown key, a repeated entry; with file, line, column (exit 2).
    """
    top = document.load(path)
    schema = top.text("schema")
    if schema != SCHEMA:
        raise top.error(f"expected schema {SCHEMA}, found {schema}", "schema")
    stack = top.text("stack")
    expected = path.name.removesuffix(".yaml")
    if stack != expected:
        raise top.error(
            f"stack: expected {expected!r}, as the file is named, found {stack!r}", "stack"
        )
    platform = top.text("platform")
    if platform not in PLATFORMS:
        raise top.error(
            f"unknown platform {platform!r}; {nearest(platform, PLATFORMS)}", "platform"
        )
    epoch = top.integer("epoch")
    if epoch < 0:
        raise top.error(f"epoch: expected seconds since 1970, found {epoch}", "epoch")
    debian = top.optional_section("debian")
    python = top.optional_section("python")
    intent = Intent(
        stack=stack,
        family=_matched(top, "family", _GROUP),
        platform=platform,
        epoch=epoch,
        debian=_debian(debian) if debian else None,
        python=_python(python) if python else None,
        files=tuple(_file(section) for section in top.sections("files")),
        models=tuple(_model(section) for section in top.sections("models")),
        images=tuple(_image(section) for section in top.sections("images")),
        sources=tuple(_source(section) for section in top.sections("sources")),
    )
    _refuse_repeated(top, "files", (f"{item.group}/{item.name}" for item in intent.files))
    _refuse_repeated(top, "models", (item.name for item in intent.models))
    _refuse_repeated(top, "images", (item.name for item in intent.images))
    _refuse_repeated(top, "sources", (item.name for item in intent.sources))
    top.close()
    return intent


def _debian(section: document.Section) -> Debian:
    suite = _matched(section, "suite", _SUITE)
    components = section.texts("components") or ("main",)
    groups = section.section("groups")
    found = []
    for name in groups.keys():  # noqa: SIM118 (a Section is no mapping)
        packages = groups.texts(_group_name(groups, name))
        for package in packages:
            if not _PACKAGE.fullmatch(package):
                raise groups.error(f"{name}: not a Debian package name: {package!r}", name)
        _refuse_repeated(groups, name, packages)
        found.append(DebianGroup(name, packages))
    section.close()
    return Debian(suite, components, tuple(found))


def _python(section: document.Section) -> Python:
    version = _matched(section, "version", _PYTHON)
    glibc = section.optional_text("glibc")
    if glibc is not None and not re.fullmatch(r"2\.[0-9]+", glibc):
        raise section.error(f"glibc: expected a version such as 2.36, found {glibc!r}", "glibc")
    groups = section.section("groups")
    found = []
    for name in groups.keys():  # noqa: SIM118 (a Section is no mapping)
        group = groups.section(_group_name(groups, name))
        found.append(PythonGroup(name, _pins(group, "wheels"), _pins(group, "sdists")))
        group.close()
    section.close()
    return Python(version, glibc, tuple(found))


def _pins(section: document.Section, key: str) -> tuple[Pin, ...]:
    pins = []
    for text in section.texts(key):
        match = _PIN.fullmatch(text)
        if match is None:
            raise section.error(f"{key}: expected an exact pin, name==version, found {text!r}", key)
        pins.append(Pin(match[1], match[2]))
    _refuse_repeated(section, key, (re.sub(r"[-_.]+", "-", pin.name).lower() for pin in pins))
    return tuple(pins)


def _file(section: document.Section) -> File:
    name, group = section.text("name"), section.text("group")
    _group_name(section, group, "group")
    _stays_inside(section, "name", name)
    url = section.text("url")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise section.error(f"url: expected http(s)://…, found {url!r}", "url")
    if parts.username is not None or parts.password is not None:
        raise section.error(
            f"url: holds a login; a lock is no place for secrets, ~/.netrc is (host "
            f"{parts.hostname})",
            "url",
        )
    sha256 = section.text("sha256")
    try:
        digest = Digest.parse(sha256)
    except ValueError:
        raise section.error(
            f"sha256: expected 64 hexadecimal digits, found {sha256!r}", "sha256"
        ) from None
    section.close()
    return File(name, url, digest, group)


def _model(section: document.Section) -> Model:
    name = _group_name(section, section.text("name"), "name")
    directory, repo = section.optional_text("directory"), section.optional_text("repo")
    if (directory is None) == (repo is None):
        raise section.error(f"model {name}: expected either a directory or a repo with a revision")
    revision: str | None = None
    allow: tuple[str, ...] = ()
    if directory is not None:
        _stays_inside(section, "directory", directory)
    else:
        repo = _matched(section, "repo", _REPOSITORY)
        revision = _matched(section, "revision", _COMMIT_OR_NAME)
        allow = section.texts("allow")
        _refuse_repeated(section, "allow", allow)
    section.close()
    return Model(name, directory, repo, revision, allow)


def _image(section: document.Section) -> ImageReference:
    name = _group_name(section, section.text("name"), "name")
    reference = section.text("reference")
    if not _IMAGE.fullmatch(reference):
        raise section.error(
            f"reference: expected registry/repository:tag or …@sha256:…, found {reference!r}",
            "reference",
        )
    section.close()
    return ImageReference(name, reference)


def _source(section: document.Section) -> SourceTree:
    name = _group_name(section, section.text("name"), "name")
    url = section.text("url")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise section.error(f"url: expected http(s)://… without a login, found {url!r}", "url")
    commit = _matched(section, "commit", _COMMIT)
    submodules = section.boolean("submodules", default=True)
    lfs = section.texts("lfs")
    _refuse_repeated(section, "lfs", lfs)
    section.close()
    return SourceTree(name, url, commit, submodules, lfs)


def _matched(section: document.Section, key: str, pattern: re.Pattern[str]) -> str:
    text = section.text(key)
    if not pattern.fullmatch(text):
        raise section.error(f"{key}: not a valid {key}: {text!r}", key)
    return text


def _group_name(section: document.Section, name: str, key: str | None = None) -> str:
    if not _GROUP.fullmatch(name):
        raise section.error(f"not a valid name: {name!r}", key or name)
    return name


def _stays_inside(section: document.Section, key: str, name: str) -> None:
    try:
        safe_member(name, section.where(key))
    except KitError as error:
        raise usage_error(str(error)) from error


def _refuse_repeated(section: document.Section, key: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise section.error(f"{key}: {name!r} stands twice", key)
        seen.add(name)
