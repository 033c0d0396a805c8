"""Packages on top of a base image: apt resolves them from what the image has installed."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

from kit import console
from kit.errors import content_error, nearest, usage_error
from kit.files import disk_errors, locked, make_folder
from kit.locks import snapshots
from kit.locks.apt_program import AbsentError, Apt, Plan, Repository, UnmetError, require_apt
from kit.locks.base_image import BaseImage
from kit.locks.connection import shown
from kit.locks.deb import deb_input
from kit.locks.mirrors import rewrite
from kit.store import Store

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from kit.errors import KitError
    from kit.locks.apt_program import Archive
    from kit.locks.http import Client
    from kit.locks.intent import Apt as Wanted
    from kit.locks.intent import AptRepository, DebianGroup
    from kit.locks.lock import Input
    from kit.project import Project

_FILE = "file:"
_KEY_FOLDERS = ("usr/share/keyrings/", "etc/apt/keyrings/", "etc/apt/trusted.gpg.d/")
_KEY_LIMIT = 4 << 20
_ARMOR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_PACKAGE = b"!<arch>\n"
_PACKET = 0x80
"""The bit that every OpenPGP packet begins with (RFC 9580, 4.2)."""
_HELD = re.compile(rb"^Status: hold ok ", re.MULTILINE)
_DEVELOPMENT = re.compile(r"-dev(?:-|$)")
_IDENTITY = re.compile(rb"^(Package|Version): *(\S+)", re.MULTILINE)
_PLAIN = re.compile(r"[A-Za-z0-9/._+~@=-]+")
_NAMED = 12


def resolve_apt(
    apt: Wanted,
    project: Project,
    inputs: Sequence[Input],
    architecture: str,
    stack: str,
    client: Client,  # noqa: ARG001 - apt asks the repositories itself
) -> list[Input]:
    """All packages that the groups need beyond those of the base image, no Recommends.

    Packages come from the named repositories only, whose signatures are checked, at the pinned
    version or the newest; older than the image's, too. What the image has already at that version
    is no input, but for development files at a pinned version: images are made smaller by taking
    static libraries out of installed packages. Groups build on each other in the order of the
    intent.

    The image's holds do not count, as upstream's own installation overrides them. What apt takes
    away from the image is told on stderr.

    Args:
        apt: the section of the intent.
        project: whose store has the base image and the keyrings that are `file:`.
        inputs: what is locked so far, the blobs of the base image and the files among it.
        architecture: Debian's name, `amd64`.
        stack: for messages.
        client: the same for all sources.

    Raises:
        KitError: a package, a version, a keyring that is not there, an image without packages
            (exit 2); no apt, a repository that cannot be reached, a blob that is not in the store
            (exit 3); a bad signature, an index that has expired or is wrong, dependencies that
            cannot be met (exit 4).
    """
    require_apt(stack)
    from_image = [item.keyring for item in apt.repositories if not item.keyring.startswith(_FILE)]
    base = BaseImage(project, inputs, apt.base, stack=stack, also=from_image)
    status = _without(_HELD.sub(b"Status: install ok ", base.status), set(_anew(apt.groups)))
    with _scratch(project, stack) as folder:
        keys = _Keys(folder / "keys", base, Store(project.store), inputs, stack)
        repositories = {
            item.name: _repository(item, keys.files(item), stack) for item in apt.repositories
        }
        program = Apt(
            folder / "apt",
            list(repositories.values()),
            [architecture, *base.foreign_architectures],
            status,
        )
        program.update()
        upstream = {item.name: item.url.rstrip("/") for item in apt.repositories}
        return list(_resolved(apt.groups, program, repositories, upstream))


def _anew(groups: Sequence[DebianGroup]) -> Iterator[tuple[bytes, bytes]]:
    """Name and version of what is taken anew although the image may have it."""
    for group in groups:
        for word in group.packages:
            name, _, version = word.partition("=")
            if version and _DEVELOPMENT.search(name):
                yield name.encode(), version.encode()


def _without(status: bytes, packages: Collection[tuple[bytes, bytes]]) -> bytes:
    """The list of dpkg as if it did not have these packages in these versions."""
    entries = (entry for entry in status.split(b"\n\n") if _identity(entry) not in packages)
    return b"\n\n".join(entries)


def _identity(entry: bytes) -> tuple[bytes, bytes]:
    found = dict(_IDENTITY.findall(entry))
    return found.get(b"Package", b""), found.get(b"Version", b"")


def _resolved(
    groups: Sequence[DebianGroup],
    program: Apt,
    repositories: Mapping[str, Repository],
    upstream: Mapping[str, str],
) -> Iterator[Input]:
    known: dict[str, str] = {}
    told: set[tuple[str, str]] = set()
    for group in groups:
        asked = {word.partition("=")[0] for word in group.packages}
        kept = [f"{name}={version}" for name, version in known.items() if name not in asked]
        plan = _plan(program, [*kept, *group.packages], group.name, repositories)
        removed = [item for item in plan.removed if item not in told]
        told.update(removed)
        if removed:
            names = ", ".join(" ".join(item).strip() for item in removed)
            console.note(f"apt group {group.name}: takes out of the base image: {names}")
        for archive in plan.archives:
            if known.get(archive.name) != archive.version:
                location = _location(archive, repositories, upstream)
                yield deb_input(archive, group.name, location)
                known[archive.name] = archive.version


def _plan(
    program: Apt, packages: Sequence[str], group: str, repositories: Mapping[str, Repository]
) -> Plan:
    try:
        return program.plan(packages)
    except AbsentError as error:
        raise _absent(program, error, group, repositories) from None
    except UnmetError as error:
        raise content_error(
            f"apt group {group}: it does not go together on this base image: {error}"
        ) from None


def _absent(
    program: Apt, error: AbsentError, group: str, repositories: Mapping[str, Repository]
) -> KitError:
    names = ", ".join(repositories)
    there = program.versions(error.package)
    if error.version is None or not there:
        return usage_error(f"apt group {group}: no package {error.package!r} in {names}")
    shown_versions = ", ".join(there[:_NAMED]) + (", …" if len(there) > _NAMED else "")
    # A version that the live archive had once is in its snapshots still.
    has_past = snapshots.stamp() is None and any(
        item.hints[2] is not None for item in repositories.values()
    )
    return usage_error(
        f"apt group {group}: no version {error.version} of {error.package} in {names}; "
        f"there are: {shown_versions}",
        hint=snapshots.hint() if has_past else None,
    )


def _location(
    archive: Archive, repositories: Mapping[str, Repository], upstream: Mapping[str, str]
) -> str:
    """Where upstream has the file: the repository's own URL, never the mirror's."""
    # A repository may lie below another one: the longer address is the nearer.
    for name, item in sorted(repositories.items(), key=lambda row: -len(row[1].address)):
        if (path := item.path_of(archive.url)) is not None:
            return f"{upstream[name]}/{path}"
    raise content_error(f"package {archive.name}: {shown(archive.url)} is in no repository")


def _repository(item: AptRepository, keys: tuple[Path, ...], stack: str) -> Repository:
    upstream = f"{item.url.rstrip('/')}/"  # a mirror's prefix may end at this very slash
    address = rewrite(snapshots.snapshot(upstream)).rstrip("/")
    has_past = snapshots.has_service(upstream)
    return Repository(
        title=f"repository {item.name}, {shown(address)},",
        address=address,
        suites=item.suites,
        components=item.components,
        keys=keys,
        signers=item.keyring,
        hints=(
            f"export KIT_MIRRORS='{upstream}=<a mirror>/'",
            f"correct the keyring of repository {item.name} in lockfiles/{stack}.yaml",
            snapshots.hint() if has_past else None,
        ),
        may_expire=not (has_past and snapshots.stamp()),
    )


class _Keys:
    """Keyrings as files for apt, from the base image and from files of the intent."""

    def __init__(
        self, folder: Path, base: BaseImage, store: Store, inputs: Sequence[Input], stack: str
    ) -> None:
        self._folder = folder
        self._base = base
        self._store = store
        self._files = {item.name: item for item in inputs if item.kind == "file"}
        self._stack = stack
        make_folder(folder)

    def files(self, repository: AptRepository) -> tuple[Path, ...]:
        """The keys of a repository, written for apt under names that it knows the form by."""
        where = f"repository {repository.name}: keyring {repository.keyring}"
        content = self._content(repository.keyring, where)
        found = _packed(content, where) if content.startswith(_PACKAGE) else [content]
        written = []
        for number, key in enumerate(found):
            if _ARMOR in key[:4096]:
                suffix = "asc"
            elif key and key[0] & _PACKET:
                suffix = "gpg"
            else:
                raise content_error(f"{where}: expected OpenPGP keys, found something else")
            path = self._folder / f"{repository.name}-{number}.{suffix}"
            path.write_bytes(key)
            written.append(path)
        return tuple(written)

    def _content(self, keyring: str, where: str) -> bytes:
        if keyring.startswith(_FILE):
            name = keyring.removeprefix(_FILE)
            if (item := self._files.get(name)) is None:
                raise usage_error(f"{where}: no such file; {nearest(name, self._files)}")
            path = self._store.checked(item.sha256, str(item), self._stack)
            if item.size > _KEY_LIMIT:
                raise content_error(f"{where}: {console.size(item.size)}: no keyring is so large")
            return path.read_bytes()
        content = self._base.read(keyring)
        if content is None:
            there = [name for folder in _KEY_FOLDERS for name in self._base.names(folder)]
            raise usage_error(
                f"{where}: image {self._base.group} has no such file; {nearest(keyring, there)}"
            )
        return content


def _packed(package: bytes, where: str) -> list[bytes]:
    """The keyrings in a package, such as NVIDIA's `cuda-keyring`."""
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(package)
        given.seek(0)
        with subprocess.Popen(
            ["dpkg-deb", "--fsys-tarfile", "-"], stdin=given, stdout=subprocess.PIPE, stderr=said
        ) as process:
            assert process.stdout is not None
            found = []
            with contextlib.suppress(tarfile.TarError):
                found = _keys_in(process.stdout, where)
            while process.stdout.read(1 << 20):  # padding: it ends well only if it is read
                pass
        said.seek(0)
        problem = said.read(4096).decode("utf-8", "replace").strip()
    if process.returncode != 0 or not found:
        raise content_error(
            f"{where}: a package without a keyring in {' or '.join(_KEY_FOLDERS)}"
            + (f": {problem}" if process.returncode else "")
        )
    return found


def _keys_in(stream: IO[bytes], where: str) -> list[bytes]:
    """The keyrings among what a package holds, which may be far more than its size tells."""
    found: list[bytes] = []
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.isreg() and member.name.removeprefix("./").startswith(_KEY_FOLDERS):
                if member.size + sum(map(len, found)) > _KEY_LIMIT:
                    raise content_error(f"{where}: no keyring is so large")
                content = archive.extractfile(member)
                assert content is not None
                found.append(content.read())
    return found


@contextlib.contextmanager
def _scratch(project: Project, stack: str) -> Iterator[Path]:
    """An empty folder below the project's home; what a killed run has left in it goes away."""
    place = project.home / "apt" / stack
    with locked(place.with_name(f"{stack}.lock")), disk_errors(place):
        shutil.rmtree(place, ignore_errors=True)
        make_folder(place)
        try:
            with _named_plainly(place) as name:
                yield name
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def _named_plainly(folder: Path) -> Iterator[Path]:
    """The folder under a name that apt can read: blanks and commas end one in its settings."""
    if _PLAIN.fullmatch(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="kit-apt-") as above:
        link = Path(above) / "apt"
        link.symlink_to(folder)
        yield link
