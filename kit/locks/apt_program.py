"""The host's apt, asked what it would install: with its own root, sources, keys and state."""

from __future__ import annotations

import contextlib
import netrc
import os
import posixpath
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from kit.digest import Digest
from kit.errors import content_error, environment_error, usage_error
from kit.files import safe_member
from kit.images import process
from kit.locks.connection import shown

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kit.errors import KitError

_CHANGE = re.compile(
    r"^(?P<what>Inst|Remv|Purg) (?P<name>\S+?)(?: \[(?P<old>[^\]]+)\])?(?: \((?P<new>\S+) .*)?$",
    re.MULTILINE,
)
_ARCHIVE = re.compile(
    r"^'(?P<url>[^']+)' (?P<file>\S+) (?P<size>\d+)(?: SHA256:(?P<sha256>[0-9a-f]{64}))?",
    re.MULTILINE,
)
_FILE = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9+.-]*)_(?P<version>[^_]+)_(?P<architecture>[a-z0-9-]+)\.deb"
)
"""What apt calls a package file on this host."""
_ABSENT = re.compile(
    r"^\s*E: (?:Unable to locate package (?P<unknown>\S+)"
    r"|Version '(?P<version>[^']+)' for '(?P<pinned>[^']+)' was not found"
    r"|Package '(?P<void>[^']+)' has no installation candidate)",
    re.MULTILINE,
)
_KEPT_SETTING = re.compile(r'Acquire::https?::\S*(?:Proxy|CAInfo|CAPath)\S* "', re.IGNORECASE)
_BAD_SIGNATURE = re.compile(r"NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|invalid signature")
_EXPIRED = re.compile(r"is expired \(invalid since")
_NO_COMPONENT = re.compile(
    r"as repository '(\S+ \S+) InRelease' doesn't have the component '(\S+)'"
)
_FAULTY = re.compile(r"Hash Sum mismatch|unexpected size|File has unexpected size")
_OVERRIDE = ("--allow-downgrades", "--allow-change-held-packages")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository, and the part of it that counts.

    Attributes:
        title: for messages: `the Debian mirror`, `repository cuda`.
        address: where it is asked for here, no slash at its end; may hold a login.
        suites: one or several; `./` for a flat repository.
        components: none for a flat repository.
        keys: files with the keys that may sign it.
        signers: the keys for messages.
        hints: what to type if it cannot be reached, is signed by others, has expired.
        may_expire: False for a snapshot, whose dates have long gone by.
    """

    title: str
    address: str
    suites: tuple[str, ...]
    components: tuple[str, ...]
    keys: tuple[Path, ...]
    signers: str
    hints: tuple[str | None, str | None, str | None] = (None, None, None)
    may_expire: bool = True

    @property
    def bare_address(self) -> str:
        """The address without its login, in the form in which apt repeats it."""
        return re.sub(r"^file:/+", "file:/", _split_login(self.address)[0])

    @property
    def login(self) -> str:
        """The login as a line of apt's auth.conf; empty without one."""
        return _split_login(self.address)[1]

    def path_of(self, url: str) -> str | None:
        """A file's path below the repository, such as `pool/main/…`; None if it is of another.

        Raises:
            KitError: its index says that it lies outside of it (exit 4).
        """
        base = f"{self.bare_address}/"
        if not url.startswith(base):
            return None
        path = posixpath.normpath(unquote(url.removeprefix(base)))
        safe_member(path, shown(self.address))
        return path

    def lines(self, architecture: str) -> Iterable[str]:
        """The lines of apt's sources.list."""
        keys = ",".join(map(str, self.keys))
        options = f"arch={architecture} signed-by={keys}"
        if not self.may_expire:
            options += " check-valid-until=no"
        for suite in self.suites:
            place = "/" if suite == "./" else suite  # the same, without `/./` in every request
            words = [f"deb [{options}]", self.bare_address, place, *self.components]
            yield " ".join(words) + "\n"


@dataclass(frozen=True, slots=True)
class Archive:
    """One package file that apt would download."""

    name: str
    version: str
    url: str
    sha256: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What apt would do.

    Attributes:
        archives: what it would install, in its order.
        removed: name and version of what it would take away.
    """

    archives: tuple[Archive, ...]
    removed: tuple[tuple[str, str], ...]


class UnmetError(Exception):
    """Packages that do not go together: apt's own words."""


class AbsentError(Exception):
    """A package, or a version of it, that no repository has."""

    def __init__(self, package: str, version: str | None) -> None:
        super().__init__(package)
        self.package = package
        self.version = version


def require_apt(stack: str, what: str = "packages") -> None:
    """Make sure that this host has apt.

    Raises:
        KitError: it has none (exit 3).
    """
    if shutil.which("apt-get") is None:
        raise environment_error(
            f"the {what} of {stack} are resolved by apt, which this host does not have: "
            "lock on a Debian or Ubuntu host or in a container of one, the lock is the same"
        )


class Apt:
    """An apt whose files all lie below `root`, an empty folder; the host's own is left alone.

    Args:
        root: where everything goes.
        repositories: the only ones that it knows.
        architectures: Debian's names, the one that packages are taken for first.
        status: dpkg's list of what is installed.
    """

    def __init__(
        self,
        root: Path,
        repositories: Sequence[Repository],
        architectures: Sequence[str],
        status: bytes = b"",
    ) -> None:
        self._root = root
        self._repositories = repositories
        self._architectures = architectures
        for name in ("etc/parts", "state/lists/partial", "cache/archives/partial"):
            (root / name).mkdir(parents=True)
        (root / "status").write_bytes(status)
        lines = [line for item in repositories for line in item.lines(architectures[0])]
        self._write("etc/sources.list", "".join(lines))
        self._write("etc/auth.conf", "".join(item.login for item in repositories))
        self._write("etc/apt.conf", "\n".join([*_host_settings(), *self._settings()]) + "\n")

    def update(self) -> None:
        """Fetch the indexes of all repositories and check their signatures.

        Raises:
            KitError: one lacks a component (exit 2); cannot be reached (exit 3); is not signed by
                its keys, has expired, or says something else than its index has (exit 4).
        """
        done = self._run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
        if done.returncode != 0:
            raise self._unusable(_complaints(done))
        if match := _NO_COMPONENT.search(done.stderr):
            raise usage_error(f"repository {match[1]}: it has no component {match[2]!r}")

    def plan(self, packages: Sequence[str]) -> Plan:
        """What installing `packages`, each pinned or not, would bring and take away.

        Raises:
            AbsentError: no repository has one of them.
            UnmetError: they do not go together.
            KitError: the index has no digest of one, or a name that no package has (exit 4).
        """
        simulated = self._install("--simulate", "-q", "--", *packages)
        changes = {
            match["name"]: match["new"]
            for match in _CHANGE.finditer(simulated)
            if match["what"] == "Inst"
        }
        uris = self._install("--print-uris", "-qq", "-y", "--", *packages)
        archives = tuple(self._archives(uris))
        found = {item.name: item.version for item in archives}
        if found != changes:
            differing = sorted(found.items() ^ changes.items())
            raise content_error(f"apt contradicts itself about {differing[0][0]}")
        removed = tuple(
            (match["name"], match["old"] or "")
            for match in _CHANGE.finditer(simulated)
            if match["what"] != "Inst"
        )
        return Plan(archives, removed)

    def versions(self, package: str) -> tuple[str, ...]:
        """The versions of a package that the repositories have, newest first."""
        done = self._run("apt-cache", "madison", package)
        rows = [line.split("|") for line in done.stdout.splitlines()]
        return tuple(dict.fromkeys(row[1].strip() for row in rows if len(row) == 3))

    def _install(self, *arguments: str) -> str:
        done = self._run("apt-get", "install", *_OVERRIDE, *arguments)
        if done.returncode == 0:
            return done.stdout
        if match := _ABSENT.search(done.stdout + done.stderr):
            package = match["unknown"] or match["pinned"] or match["void"]
            raise AbsentError(package, match["version"])
        raise UnmetError(_complaints(done))

    def _archives(self, text: str) -> Iterable[Archive]:
        for match in _ARCHIVE.finditer(text):
            if (file := _FILE.fullmatch(match["file"])) is None:
                raise content_error(
                    f"{shown(match['url'])}: {match['file']}: not how a package is named"
                )
            name, version, architecture = file.groups()
            if match["sha256"] is None:
                raise content_error(f"{shown(match['url'])}: the index has no SHA256 of it")
            if architecture not in (self._architectures[0], "all"):
                name = f"{name}:{architecture}"
            yield Archive(
                name=name,
                version=unquote(version),
                url=match["url"],
                sha256=Digest(match["sha256"]),
                size=int(match["size"]),
            )

    def _unusable(self, said: str) -> KitError:
        """Why the indexes cannot be had, in terms of the repository that apt complains of."""
        errors = [word for word in said.split("; ") if word.startswith("E:")]
        blamed = " ".join(errors) or said
        named = [item for item in self._repositories if item.bare_address in blamed]
        item = max(named or self._repositories, key=lambda item: len(item.address))
        unreachable, unsigned, expired = item.hints
        if _EXPIRED.search(said):
            return content_error(f"{item.title} is out of date: {said}", hint=expired)
        if _FAULTY.search(said):
            return content_error(
                f"{item.title}: its index is not what its Release file says: {said}"
            )
        if _BAD_SIGNATURE.search(said) or ("not signed" in said and "Failed to fetch" not in said):
            return content_error(
                f"{item.title} is not signed by the keys in {item.signers}: {said}", hint=unsigned
            )
        return environment_error(
            f"the index of {' '.join(item.suites)} cannot be had from {shown(item.address)}: "
            f"{said}",
            hint=unreachable,
        )

    def _settings(self) -> Iterable[str]:
        root = self._root
        values = {
            "Dir": f"{root}/",
            "Dir::State": "state",
            "Dir::State::lists": "lists",
            "Dir::State::status": f"{root}/status",
            "Dir::State::extended_states": f"{root}/extended_states",
            "Dir::Cache": "cache",
            "Dir::Cache::archives": "archives",
            "Dir::Etc": "etc",
            "Dir::Etc::sourcelist": f"{root}/etc/sources.list",
            "Dir::Etc::sourceparts": f"{root}/etc/parts",
            "Dir::Etc::parts": f"{root}/etc/parts",
            "Dir::Etc::main": f"{root}/etc/none",
            "Dir::Etc::preferences": f"{root}/etc/none",
            "Dir::Etc::preferencesparts": f"{root}/etc/parts",
            "Dir::Etc::trusted": f"{root}/etc/none",
            "Dir::Etc::trustedparts": f"{root}/etc/parts",
            "Dir::Etc::netrc": f"{root}/etc/auth.conf",
            "Dir::Etc::netrcparts": f"{root}/etc/parts",
            "Dir::Log": f"{root}/state",
            "APT::Architecture": self._architectures[0],
            "APT::Cmd::Pattern-Only": "true",  # a name with a dot in it is no regular expression
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Solver": "internal",  # apt 3 has another one by default: one answer everywhere
            "APT::Sandbox::User": "root",
            "Acquire::ForceHash": "SHA256",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
        }
        known = " ".join(f'"{name}";' for name in dict.fromkeys(self._architectures))
        yield '#clear "APT::Architectures";'
        yield f"APT::Architectures {{ {known} }};"
        certificates = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
        if certificates and Path(certificates).is_file():
            yield f'Acquire::https::CAInfo "{certificates}";'
        for key, value in values.items():
            yield f'{key} "{value}";'

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {
            "APT_CONFIG": str(self._root / "etc" / "apt.conf"),
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        with process.child(command, environment, separate_errors=True) as child:
            out, err = (text.decode("utf-8", "replace") for text in child.communicate())
        return subprocess.CompletedProcess(command, child.returncode, out, err)

    def _write(self, name: str, text: str) -> None:
        path = self._root / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")


def _complaints(done: subprocess.CompletedProcess[str]) -> str:
    """What apt complained of, on one line, free of logins."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines()]
    marked = [line for line in lines if line.startswith(("E:", "W:"))]
    unmet = [line for line in lines if " : " in line]
    said = "; ".join(dict.fromkeys([*unmet, *marked])) or f"exit status {done.returncode}"
    return re.sub(r"//[^@/\s]*@", "//", said)


def _host_settings() -> Iterable[str]:
    """What the host's apt knows of proxies and certificates; none of its other settings."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if _KEPT_SETTING.match(line)]


def _split_login(address: str) -> tuple[str, str]:
    """The address without its login, and the login, else ~/.netrc's, as a line of auth.conf."""
    parts = urlsplit(address)
    login, _, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, host, parts.path, "", ""))
    if login:
        user, _, password = (unquote(word) for word in login.partition(":"))
    elif (known := _known_login(parts.hostname)) is not None:
        user, password = known
    else:
        return bare, ""
    machine = f"{parts.scheme}://{host}{parts.path}"
    return bare, f"machine {machine} login {user} password {password}\n"


def _known_login(host: str | None) -> tuple[str, str] | None:
    """What ~/.netrc has for a host, as for every other download; None if it cannot be read."""
    with contextlib.suppress(OSError, RuntimeError, netrc.NetrcParseError):
        place = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
        if host and (known := netrc.netrc(place).authenticators(host)) and known[2]:
            return known[0] or known[1] or "", known[2]
    return None
