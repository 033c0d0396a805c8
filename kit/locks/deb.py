"""Debian packages: apt decides which, in an empty root; mirrors and repositories bring them."""

from __future__ import annotations

import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit, urlunsplit

from kit.errors import content_error, environment_error, usage_error
from kit.locks import snapshots
from kit.locks.apt_program import AbsentError, Apt, Archive, Repository, UnmetError, require_apt
from kit.locks.connection import NotFound, shown
from kit.locks.lock import Input
from kit.locks.mirror import debian_keyring, debian_mirror
from kit.locks.mirrors import rewrite

if TYPE_CHECKING:
    from kit.locks.http import Client
    from kit.locks.intent import Debian
    from kit.reception import Reception


def resolve_debian(debian: Debian, architecture: str, stack: str) -> list[Input]:
    """All packages that the groups need, no Recommends, each in the first group to need it.

    Packages come from the one suite and the named components only; the mirror's signature is
    checked. Groups build on each other: what an earlier group has is not in a later one.

    Raises:
        KitError: no apt, no mirror, no network (exit 3); a name that the suite does not have
            (exit 2); bad signature, dependencies that cannot be met (exit 4).
    """
    require_apt(stack, "Debian packages")
    mirror = _repository(debian)
    inputs: list[Input] = []
    with tempfile.TemporaryDirectory(prefix="kit-apt-") as folder:
        apt = Apt(Path(folder), [mirror], [architecture])
        apt.update()
        known: dict[str, str] = {}
        for group in debian.groups:
            where = f"debian group {group.name}: {debian.suite}"
            kept = [f"{name}={version}" for name, version in known.items()]
            try:
                plan = apt.plan([*kept, *group.packages])
            except AbsentError as error:
                raise usage_error(f"{where} has no package {error.package!r}") from None
            except UnmetError as error:
                raise content_error(f"{where} cannot satisfy it: {error}") from None
            for archive in plan.archives:
                if archive.name not in known:
                    path = mirror.path_of(archive.url)
                    assert path is not None
                    inputs.append(deb_input(archive, group.name, path))
                    known[archive.name] = archive.version
    return inputs


def deb_input(archive: Archive, group: str, location: str) -> Input:
    """The lock's entry of a package file."""
    return Input(
        kind="deb",
        group=group,
        name=archive.name,
        version=archive.version,
        file=location.rpartition("/")[2],
        location=location,
        sha256=archive.sha256,
        size=archive.size,
    )


class DebianSource:
    """Brings locked packages: from the mirror of this host, or from the repository they name."""

    def __init__(self, client: Client, stack: str) -> None:
        self._client = client
        self._stack = stack

    @cached_property
    def _mirror(self) -> str:
        return debian_mirror()

    def bring(self, item: Input, reception: Reception) -> None:
        """Download one package into the store."""
        if "://" in item.location:
            self._from_repository(item, reception)
            return
        url = f"{self._mirror}/{quote(item.location, safe='/+~:')}"
        try:
            self._client.download(url, reception)
        except NotFound:
            raise environment_error(
                f"package {item.name} version {item.version} has vanished from the mirror "
                f"{shown(self._mirror)}: no {item.location} there",
                hint=f"kit lock {self._stack}",
            ) from None

    def _from_repository(self, item: Input, reception: Reception) -> None:
        parts = urlsplit(rewrite(snapshots.snapshot(item.location)))
        # Some servers read `+` as a blank: apt escapes it, too.
        url = urlunsplit(parts._replace(path=quote(parts.path, safe="/~:%@")))
        try:
            self._client.download(url, reception)
        except NotFound:
            again = f"kit lock {self._stack}"
            has_past = snapshots.stamp() is None and snapshots.has_service(item.location)
            raise environment_error(
                f"package {item.name} version {item.version} has vanished from its repository: "
                f"no {shown(url)}",
                hint=snapshots.hint() if has_past else again,
            ) from None


def _repository(debian: Debian) -> Repository:
    mirror, keyring = debian_mirror(debian.suite), debian_keyring()
    return Repository(
        title=f"the Debian mirror {shown(mirror)}",
        address=mirror,
        suites=(debian.suite,),
        components=debian.components,
        keys=(keyring,),
        signers=str(keyring),
        hints=(
            "export KIT_DEBIAN_MIRROR=<URL of a Debian mirror>",
            "export KIT_DEBIAN_KEYRING=<the keys of that mirror, if you trust it>",
            snapshots.hint(),
        ),
        may_expire=snapshots.stamp() is None,
    )
