"""What an intent wants on top of a base image: packages whose closure the image decides.

Which packages have to come depends on those that the base image has. So apt starts from the
image's own package list, and Python's requirements are resolved by the image's own pip.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.locks import checks

if TYPE_CHECKING:
    from kit.document import Section

PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]*[a-z0-9+.]")
"""A Debian package name; apt would take one that ends with `-` for what has to go."""

_PINNED = re.compile(rf"{PACKAGE.pattern}(?:=[0-9A-Za-z.+~:-]+)?")
_SUITE = re.compile(r"(?:[a-z][a-z0-9./-]*|(?:[A-Za-z0-9._-]+/)*\./|/)")
_COMPONENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]*")
_KEYRING = re.compile(r"(?:file:)?[A-Za-z0-9][A-Za-z0-9._+/-]*")
_TREE_FILE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)/(.+)")
_ARCHIVED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)/([^!]+)!(.+)")


@dataclass(frozen=True, slots=True)
class DebianGroup:
    """Packages that are asked for by name; what they depend on comes with them.

    On a base image a package may be pinned, `libnccl2=2.23.4-1+cuda12.6`.
    """

    name: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AptRepository:
    """One repository and what of it counts.

    Attributes:
        name: for messages.
        url: what `dists/` stands below, or the folder of a flat repository.
        suites: `noble noble-updates`; a flat repository's is `./`.
        components: empty for a flat repository.
        keyring: who may sign it: a file of the base image, or `file:<name>` for one of the
            intent's files (a keyring, or a package that holds one).
    """

    name: str
    url: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    keyring: str


@dataclass(frozen=True, slots=True)
class Apt:
    """Packages on top of those of the image that `base` names."""

    base: str
    repositories: tuple[AptRepository, ...]
    groups: tuple[DebianGroup, ...]


@dataclass(frozen=True, slots=True)
class RequirementGroup:
    """What pip is asked to install in one stage of the build.

    Attributes:
        name: the stage.
        packages: requirement specifiers (PEP 508).
        files: requirement files of source trees, `<source>/<path>`.
        archives: wheels inside locked archives that are installed first,
            `<group>/<file>!<pattern of members>`; `{python}` stands for `312`.
    """

    name: str
    packages: tuple[str, ...]
    files: tuple[str, ...]
    archives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Requirements:
    """Python packages on top of those of the image that `base` names.

    `indexes` are those that the release's own files name, beside pip's configuration.
    """

    base: str
    indexes: tuple[str, ...]
    groups: tuple[RequirementGroup, ...]


def debian_groups(groups: Section, *, pinned: bool) -> tuple[DebianGroup, ...]:
    """Read groups of package names; `pinned` ones may say a version."""
    found = []
    for name in groups.keys():  # noqa: SIM118 (a Section is no mapping)
        packages = groups.texts(checks.name(groups, name))
        for package in packages:
            if not (_PINNED if pinned else PACKAGE).fullmatch(package):
                raise groups.error(f"{name}: not a Debian package name: {package!r}", name)
        checks.refuse_repeated(groups, name, (word.partition("=")[0] for word in packages))
        found.append(DebianGroup(name, packages))
    return tuple(found)


def components(section: Section) -> tuple[str, ...]:
    """The components of a suite, each a word for apt."""
    found = section.texts("components")
    for component in found:
        if not _COMPONENT.fullmatch(component):
            raise section.error(f"components: not a component: {component!r}", "components")
    return found


def apt(section: Section) -> Apt:
    """Read the `apt` section of an intent."""
    found = Apt(
        base=checks.name(section, section.text("base"), "base"),
        repositories=tuple(map(_repository, section.sections("repositories"))),
        groups=debian_groups(section.section("groups"), pinned=True),
    )
    names = (repository.name for repository in found.repositories)
    checks.refuse_repeated(section, "repositories", names)
    if not found.repositories:
        raise section.error("repositories: expected at least one")
    section.close()
    return found


def requirements(section: Section) -> Requirements:
    """Read the `requirements` section of an intent."""
    base = checks.name(section, section.text("base"), "base")
    indexes = section.texts("indexes")
    for index in indexes:
        if not checks.is_address(index):
            raise section.error("indexes: expected http(s)://… without a login or query")
    checks.refuse_repeated(section, "indexes", indexes)
    groups = section.section("groups")
    found = tuple(
        _group(groups.section(checks.name(groups, name)), name)
        for name in groups.keys()  # noqa: SIM118 (a Section is no mapping)
    )
    section.close()
    return Requirements(base, indexes, found)


def _repository(section: Section) -> AptRepository:
    name = checks.name(section, section.text("name"), "name")
    url = checks.address(section).rstrip("/")
    suites, parts = section.texts("suites"), components(section)
    for suite in suites:
        if not _SUITE.fullmatch(suite):
            raise section.error(f"suites: not a suite: {suite!r}", "suites")
    flat = [suite.endswith("/") for suite in suites]
    if not suites or any(flat) != all(flat) or any(flat) == bool(parts):
        raise section.error(
            "suites: expected suites with components, or `./` without any (a flat repository)",
            "suites",
        )
    keyring = checks.matched(section, "keyring", _KEYRING)
    if not keyring.startswith("file:"):
        checks.stays_inside(section, "keyring", keyring)
    section.close()
    return AptRepository(name, url, suites, parts, keyring)


def _group(section: Section, name: str) -> RequirementGroup:
    packages = section.texts("packages")
    files, archives = section.texts("files"), section.texts("archives")
    for package in packages:
        _refuse_malformed(section, package)
    for text in files:
        if not (match := _TREE_FILE.fullmatch(text)):
            raise section.error(f"files: expected <source>/<path>, found {text!r}", "files")
        checks.stays_inside(section, "files", match[2])
    for text in archives:
        if not (match := _ARCHIVED.fullmatch(text)):
            raise section.error(
                f"archives: expected <group>/<file>!<pattern>, found {text!r}", "archives"
            )
        checks.stays_inside(section, "archives", match[2])
    section.close()
    return RequirementGroup(name, packages, files, archives)


def _refuse_malformed(section: Section, package: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(package)
    except InvalidRequirement as error:
        problem = str(error).splitlines()[0]
        raise section.error(f"packages: {package!r}: {problem}", "packages") from None
    if requirement.url is not None:
        raise section.error(f"packages: {package!r}: an index decides where from", "packages")
