"""Debian packages: apt decides which, in an empty root of its own; the mirror brings them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from kit.digest import Digest
from kit.errors import content_error, environment_error, usage_error
from kit.locks.connection import NotFound, shown
from kit.locks.lock import Input
from kit.locks.mirror import debian_keyring, debian_mirror

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kit.locks.http import Client
    from kit.locks.intent import Debian
    from kit.store import Reception

_INSTALL = re.compile(r"^Inst (\S+) \((\S+) ", re.MULTILINE)
_KEPT_SETTING = re.compile(r'Acquire::https?::\S*(?:Proxy|CAInfo|CAPath)\S* "', re.IGNORECASE)
_BAD_SIGNATURE = re.compile(r"NO_PUBKEY|BADSIG|EXPKEYSIG|REVKEYSIG|invalid signature|Hash Sum")
_NO_PACKAGE = re.compile(
    r"^E: (?:Unable to locate package |Package '|Version '.*' for ')([^'\s]+)", re.MULTILINE
)


def resolve_debian(debian: Debian, architecture: str, stack: str) -> list[Input]:
    """All packages that the groups need, no Recommends, each in the first group to need it.

    Packages come from the one suite and the named components only; the mirror's signature is
    checked. Groups build on each other: what an earlier group has is not in a later one.

    Raises:
        KitError: no apt, no mirror, no network (exit 3); a name that the suite does not have
            (exit 2); bad signature, dependencies that cannot be met (exit 4).
    """
    if shutil.which("apt-get") is None:
        raise environment_error(
            f"the Debian packages of {stack} are resolved by apt, which this host does not have: "
            "lock on a Debian or Ubuntu host or in a container of one, the lock is the same"
        )
    with tempfile.TemporaryDirectory(prefix="kit-apt-") as folder:
        apt = _Apt(Path(folder), debian, architecture, debian_mirror(debian.suite))
        apt.update()
        known: dict[str, str] = {}
        inputs: list[Input] = []
        for group in debian.groups:
            kept = [f"{name}={version}" for name, version in known.items()]
            closure = apt.closure([*kept, *group.packages], group.name)
            fresh = {name: version for name, version in closure.items() if name not in known}
            inputs += apt.records(fresh, group.name)
            known |= fresh
    return inputs


@dataclass(frozen=True, slots=True)
class _Apt:
    """An apt with its own configuration, sources, keys, state and cache below `root`."""

    root: Path
    debian: Debian
    architecture: str
    mirror: str

    def __post_init__(self) -> None:
        for name in ("etc/parts", "state/lists/partial", "cache/archives/partial"):
            (self.root / name).mkdir(parents=True)
        (self.root / "status").touch()
        bare, login = _split_login(self.mirror)
        keyring = debian_keyring()
        components = " ".join(self.debian.components)
        self._write(
            "etc/sources.list",
            f"deb [arch={self.architecture} signed-by={keyring}] {bare} "
            f"{self.debian.suite} {components}\n",
        )
        self._write("etc/auth.conf", login)
        self._write("etc/apt.conf", "\n".join([*_host_settings(), *self._settings()]) + "\n")

    def update(self) -> None:
        """Fetch the index of the suite and check its signature."""
        done = self._run("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
        if done.returncode == 0:
            return
        said = _complaints(done)
        if _BAD_SIGNATURE.search(said) or ("not signed" in said and "Failed to fetch" not in said):
            raise content_error(
                f"the Debian mirror {shown(self.mirror)} is not signed by the keys in "
                f"{debian_keyring()}: {said}",
                hint="export KIT_DEBIAN_KEYRING=<the keys of that mirror, if you trust it>",
            )
        raise environment_error(
            f"the index of {self.debian.suite} cannot be had from {shown(self.mirror)}: {said}",
            hint="export KIT_DEBIAN_MIRROR=<URL of a Debian mirror>",
        )

    def closure(self, packages: Sequence[str], group: str) -> dict[str, str]:
        """Name → version of all that installing `packages` into an empty root would bring."""
        done = self._run("apt-get", "install", "--simulate", "-q", *packages)
        if done.returncode != 0:
            said = done.stdout + done.stderr
            suite = self.debian.suite
            if match := _NO_PACKAGE.search(said):
                raise usage_error(f"debian group {group}: {suite} has no package {match[1]!r}")
            raise content_error(
                f"debian group {group}: {suite} cannot satisfy it: {_complaints(done)}"
            )
        return dict(_INSTALL.findall(done.stdout))

    def records(self, packages: dict[str, str], group: str) -> list[Input]:
        """Where each package lies below the mirror, with digest and size."""
        if not packages:
            return []
        asked = [f"{name}={version}" for name, version in packages.items()]
        done = self._run("apt-cache", "show", *asked)
        found: dict[str, Input] = {}
        for stanza in _stanzas(done.stdout):
            name = stanza["Package"]
            if packages.get(name) != stanza["Version"]:
                continue
            found[name] = Input(
                kind="deb",
                group=group,
                name=name,
                version=stanza["Version"],
                file=stanza["Filename"].rpartition("/")[2],
                location=stanza["Filename"],
                sha256=Digest.parse(stanza["SHA256"]),
                size=int(stanza["Size"]),
            )
        if absent := packages.keys() - found.keys():
            raise content_error(
                f"debian group {group}: the index of {self.debian.suite} has no record of "
                f"{', '.join(sorted(absent))}"
            )
        return list(found.values())

    def _settings(self) -> Iterable[str]:
        values = {
            "Dir": f"{self.root}/",
            "Dir::State": "state",
            "Dir::State::lists": "lists",
            "Dir::State::status": f"{self.root}/status",
            "Dir::State::extended_states": f"{self.root}/extended_states",
            "Dir::Cache": "cache",
            "Dir::Cache::archives": "archives",
            "Dir::Etc": "etc",
            "Dir::Etc::sourcelist": f"{self.root}/etc/sources.list",
            "Dir::Etc::sourceparts": f"{self.root}/etc/parts",
            "Dir::Etc::parts": f"{self.root}/etc/parts",
            "Dir::Etc::main": f"{self.root}/etc/none",
            "Dir::Etc::preferences": f"{self.root}/etc/none",
            "Dir::Etc::preferencesparts": f"{self.root}/etc/parts",
            "Dir::Etc::trusted": f"{self.root}/etc/none",
            "Dir::Etc::trustedparts": f"{self.root}/etc/parts",
            "Dir::Etc::netrc": f"{self.root}/etc/auth.conf",
            "Dir::Etc::netrcparts": f"{self.root}/etc/parts",
            "Dir::Log": f"{self.root}/state",
            "APT::Architecture": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Install-Suggests": "false",
            "APT::Get::AllowUnauthenticated": "false",
            "APT::Solver": "internal",  # apt 3 has another one by default: one answer everywhere
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
            "Debug::NoLocking": "true",
        }
        yield '#clear "APT::Architectures";'
        yield f'APT::Architectures {{ "{self.architecture}"; }};'
        certificates = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE")
        if certificates and Path(certificates).is_file():
            yield f'Acquire::https::CAInfo "{certificates}";'
        for key, value in values.items():
            yield f'{key} "{value}";'

    def _run(self, *command: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "APT_CONFIG": str(self.root / "etc" / "apt.conf"),
            "LC_ALL": "C.UTF-8",
            "DEBIAN_FRONTEND": "noninteractive",
        }
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            stdin=subprocess.DEVNULL,
        )

    def _write(self, name: str, text: str) -> None:
        path = self.root / name
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")


class DebianSource:
    """Brings locked packages from the mirror of this host."""

    def __init__(self, client: Client, stack: str) -> None:
        self._client = client
        self._stack = stack

    @cached_property
    def _mirror(self) -> str:
        return debian_mirror()

    def bring(self, item: Input, reception: Reception) -> None:
        """Download one package into the store."""
        url = f"{self._mirror}/{quote(item.location, safe='/+~:')}"
        try:
            self._client.download(url, reception)
        except NotFound:
            raise environment_error(
                f"package {item.name} version {item.version} has vanished from the mirror "
                f"{shown(self._mirror)}: no {item.location} there",
                hint=f"kit lock {self._stack}",
            ) from None


def _host_settings() -> Iterable[str]:
    """What the host's apt knows of proxies and certificates; none of its other settings."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    return [line for line in done.stdout.splitlines() if _KEPT_SETTING.match(line)]


def _split_login(mirror: str) -> tuple[str, str]:
    """The mirror without its login, and the login as a line of apt's auth.conf."""
    parts = urlsplit(mirror)
    login, _, host = parts.netloc.rpartition("@")
    bare = urlunsplit((parts.scheme, host, parts.path, "", ""))
    if not login:
        return bare, ""
    user, _, password = login.partition(":")
    machine = f"{parts.scheme}://{host}{parts.path}"
    return bare, f"machine {machine} login {unquote(user)} password {unquote(password)}\n"


def _complaints(done: subprocess.CompletedProcess[str]) -> str:
    """What apt complained of, on one line, free of logins."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines()]
    marked = [line for line in lines if line.startswith(("E:", "W:"))]
    unmet = [line for line in lines if " : " in line]
    said = "; ".join(dict.fromkeys([*unmet, *marked])) or f"exit status {done.returncode}"
    return re.sub(r"//[^@/\s]*@", "//", said)


def _stanzas(text: str) -> Iterable[dict[str, str]]:
    for block in text.split("\n\n"):
        stanza = {
            key: value.strip()
            for key, separator, value in (line.partition(":") for line in block.splitlines())
            if separator and not key.startswith(" ")
        }
        if stanza:
            yield stanza
