"""The intent: what a stack is to be made of, as a person writes it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from kit import document
from kit.digest import Digest
from kit.errors import nearest
from kit.locks import checks, closures
from kit.locks.arguments import arguments
from kit.locks.closures import (
    Apt,
    AptRepository,
    DebianGroup,
    RequirementGroup,
    Requirements,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Apt", "AptRepository", "DebianGroup", "RequirementGroup", "Requirements"]

SCHEMA = "kit.intent/1"
_LATER = (
    *("images", "sources", "release", "arguments", "licences"),
    *("apt", "requirements", "gaps"),
)
PLATFORMS = {"linux/amd64": "amd64", "linux/arm64": "arm64"}
"""Platform of an image → Debian's name of the architecture."""

_LAST_EPOCH = 0o77777777777
"""The last second that a tar header has digits for, in 2242."""
_PIN = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)==([0-9A-Za-z][0-9A-Za-z.!+_-]*)")
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
    """A plain file at a URL; without a digest, locking trusts what it finds there."""

    name: str
    url: str
    sha256: Digest | None
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
class Licence:
    """Terms that have to be accepted before the stack is fetched or built."""

    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Gap:
    """An input that upstream's build needs and no table can name: the lock stays unresolved.

    Whoever has the file names it under `files` and takes the gap out.
    """

    name: str
    group: str
    reason: str


@dataclass(frozen=True, slots=True)
class Intent:
    """What one stack is to be made of.

    Attributes:
        stack: its name, the same as the file's.
        family: the folder below `dockerfiles/` that builds it.
        platform: `linux/amd64` or `linux/arm64`.
        epoch: the time stamp of everything that is built, in seconds (`SOURCE_DATE_EPOCH`).
        release: the TensorRT-LLM release that it is of, if it is of one.
        arguments: build arguments of the Dockerfile, name and value, sorted.
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
    release: str | None = None
    arguments: tuple[tuple[str, str], ...] = ()
    licences: tuple[Licence, ...] = ()
    apt: Apt | None = None
    requirements: Requirements | None = None
    gaps: tuple[Gap, ...] = ()

    @property
    def digest(self) -> Digest:
        """Identity of what is asked for: comments, layout and order of keys do not matter."""
        asked = asdict(self)
        for later in _LATER:
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
    if not 0 <= epoch <= _LAST_EPOCH:
        found = epoch if epoch < 0 else "a time after 2242"
        raise top.error(f"epoch: expected seconds since 1970, found {found}", "epoch")
    debian = top.optional_section("debian")
    python = top.optional_section("python")
    apt = top.optional_section("apt")
    requirements = top.optional_section("requirements")
    intent = Intent(
        stack=stack,
        family=checks.matched(top, "family", checks.NAME),
        platform=platform,
        epoch=epoch,
        debian=_debian(debian) if debian else None,
        python=_python(python) if python else None,
        files=tuple(_file(section) for section in top.sections("files")),
        models=tuple(_model(section) for section in top.sections("models")),
        images=tuple(_image(section) for section in top.sections("images")),
        sources=tuple(_source(section) for section in top.sections("sources")),
        release=top.optional_text("release"),
        arguments=arguments(top),
        licences=tuple(_licence(section) for section in top.sections("licences")),
        apt=closures.apt(apt) if apt else None,
        requirements=closures.requirements(requirements) if requirements else None,
        gaps=tuple(_gap(section) for section in top.sections("gaps")),
    )
    paths = (str(PurePosixPath(item.group, item.name)) for item in intent.files)
    checks.refuse_repeated(top, "files", paths)
    checks.refuse_repeated(top, "models", (item.name for item in intent.models))
    checks.refuse_repeated(top, "images", (item.name for item in intent.images))
    checks.refuse_repeated(top, "sources", (item.name for item in intent.sources))
    checks.refuse_repeated(top, "licences", (item.name for item in intent.licences))
    _refuse_unnamed(top, intent)
    top.close()
    return intent


def _refuse_unnamed(top: document.Section, intent: Intent) -> None:
    """What stands on an image or a file names one that is there."""
    images = [image.name for image in intent.images]
    for key, part in (("apt", intent.apt), ("requirements", intent.requirements)):
        if part is not None and part.base not in images:
            raise top.error(f"{key}: base: no image {part.base!r}; {nearest(part.base, images)}")
    files = [file.name for file in intent.files]
    for repository in intent.apt.repositories if intent.apt else ():
        name = repository.keyring.partition("file:")[2]
        if name and name not in files:
            raise top.error(f"apt: keyring: no file {name!r}; {nearest(name, files)}")
    groups = intent.requirements.groups if intent.requirements else ()
    sources = [source.name for source in intent.sources]
    known = [f"{file.group}/{file.name}" for file in intent.files]
    for group in groups:
        for text in group.files:
            if (name := text.partition("/")[0]) not in sources:
                raise top.error(f"requirements: no source {name!r}; {nearest(name, sources)}")
        for text in group.archives:
            if (name := text.partition("!")[0]) not in known:
                raise top.error(f"requirements: no file {name!r}; {nearest(name, known)}")


def _licence(section: document.Section) -> Licence:
    found = Licence(
        checks.name(section, section.text("name"), "name"), checks.address(section, "url")
    )
    section.close()
    return found


def _gap(section: document.Section) -> Gap:
    found = Gap(
        checks.name(section, section.text("name"), "name"),
        checks.name(section, section.text("group"), "group"),
        section.text("reason"),
    )
    section.close()
    return found


def _debian(section: document.Section) -> Debian:
    suite = checks.matched(section, "suite", _SUITE)
    components = closures.components(section) or ("main",)
    groups = closures.debian_groups(section.section("groups"), pinned=False)
    section.close()
    return Debian(suite, components, groups)


def _python(section: document.Section) -> Python:
    version = checks.matched(section, "version", _PYTHON)
    glibc = section.optional_text("glibc")
    if glibc is not None and not re.fullmatch(r"2\.[0-9]+", glibc):
        raise section.error(f"glibc: expected a version such as 2.36, found {glibc!r}", "glibc")
    groups = section.section("groups")
    found = []
    for name in groups.keys():  # noqa: SIM118 (a Section is no mapping)
        group = groups.section(checks.name(groups, name))
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
    checks.refuse_repeated(section, key, (re.sub(r"[-_.]+", "-", pin.name).lower() for pin in pins))
    return tuple(pins)


def _file(section: document.Section) -> File:
    name, group = section.text("name"), section.text("group")
    checks.name(section, group, "group")
    checks.stays_inside(section, "name", name)
    url = checks.address(section)
    sha256 = section.optional_text("sha256")
    try:
        digest = None if sha256 is None else Digest.parse(sha256)
    except ValueError:
        raise section.error(
            f"sha256: expected 64 hexadecimal digits, found {sha256!r}", "sha256"
        ) from None
    section.close()
    return File(name, url, digest, group)


def _model(section: document.Section) -> Model:
    name = checks.name(section, section.text("name"), "name")
    directory, repo = section.optional_text("directory"), section.optional_text("repo")
    if (directory is None) == (repo is None):
        raise section.error(f"model {name}: expected either a directory or a repo with a revision")
    revision: str | None = None
    allow: tuple[str, ...] = ()
    if directory is not None:
        checks.stays_inside(section, "directory", directory)
    else:
        repo = checks.matched(section, "repo", _REPOSITORY)
        revision = checks.matched(section, "revision", _COMMIT_OR_NAME)
        allow = section.texts("allow")
        checks.refuse_repeated(section, "allow", allow)
    section.close()
    return Model(name, directory, repo, revision, allow)


def _image(section: document.Section) -> ImageReference:
    name = checks.name(section, section.text("name"), "name")
    reference = section.text("reference")
    if not _IMAGE.fullmatch(reference):
        raise section.error(
            f"reference: expected registry/repository:tag or …@sha256:…, found {reference!r}",
            "reference",
        )
    section.close()
    return ImageReference(name, reference)


def _source(section: document.Section) -> SourceTree:
    name = checks.name(section, section.text("name"), "name")
    url = checks.address(section)
    commit = checks.matched(section, "commit", _COMMIT)
    submodules = section.boolean("submodules", default=True)
    lfs = section.texts("lfs")
    checks.refuse_repeated(section, "lfs", lfs)
    section.close()
    return SourceTree(name, url, commit, submodules, lfs)
