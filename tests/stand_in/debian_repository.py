"""A signed apt repository of tiny packages, made with Debian's own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from typing_extensions import Self

TOOLS = ("apt-get", "apt-ftparchive", "dpkg-deb", "gpg", "gpgconf", "gpgv")
_PROGRAM_HEADS = (b"#!", b"\x7fELF")


def missing_tools() -> list[str]:
    """The tools that this host lacks to make or use such a repository."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


@dataclass
class DebianRepository:
    """`add` packages, `publish`, then serve `folder` or use it as `file:`; `keyring` checks it.

    `with DebianRepository(…) as repository` ends the agent that gpg starts for its keys.

    Attributes:
        folder: what is served; keys and unpacked packages lie beside it.
        suite: where packages go that name no other.
        flat: no `dists/` and `pool/`: all files lie in `folder`, as in NVIDIA's repositories, and
            its suite is `./`.
        origin: what its Release file says of itself.
        keyring: the public key, for `signed-by`.
    """

    folder: Path
    suite: str = "bookworm"
    flat: bool = False
    origin: str = "Debian"
    architecture: str = "amd64"
    keyring: Path = field(init=False)
    _suites: dict[str, set[tuple[str, str]]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        # Its agent listens at a socket in there, whose path may have 107 characters.
        self._gnupg = tempfile.TemporaryDirectory(prefix="gpg-")
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.keyring = self.folder.parent / f"{self.folder.name}.gpg"
        self._gpg("--passphrase", "", "--quick-gen-key", "throw-away@example", "rsa2048")
        self.keyring.write_bytes(self._gpg("--export"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["gpgconf", "--homedir", self._gnupg.name, "--kill", "all"], check=True)
        self._gnupg.cleanup()

    @property
    def armored_keyring(self) -> bytes:
        """The public key as text, as `.asc` files hold it."""
        return self._gpg("--export", "--armor")

    def add(
        self,
        name: str,
        version: str,
        depends: str = "",
        *,
        size: int = 0,
        files: Mapping[str, bytes] | None = None,
        links: Mapping[str, str] | None = None,
        scripts: Mapping[str, str] | None = None,
        suite: str | None = None,
        component: str = "main",
        architecture: str | None = None,
        compression: str = "none",
        **more: str,
    ) -> Path:
        """Build a package and put it into the pool.

        Args:
            name: of the package.
            version: may hold an epoch, `~` and `+`.
            depends: as in a control file.
            size: bytes of the one random file of a package without `files`.
            files: path in the image → content; scripts and ELF files can be executed.
            links: path in the image → what the symbolic link says.
            scripts: `postinst` and the like → text.
            suite: the one that has it; the repository's own without it.
            component: of the suite.
            architecture: the repository's own without it; `all` for any.
            compression: as dpkg-deb's `-Z` takes it.
            more: further fields of the control file, `_` for `-`.
        """
        architecture = architecture or self.architecture
        root = self.folder.parent / f"{self.folder.name}-packages" / f"{name}_{version}"
        shutil.rmtree(root, ignore_errors=True)
        (root / "DEBIAN").mkdir(parents=True)
        fields = {
            "Package": name,
            "Version": version,
            "Architecture": architecture,
            "Maintainer": "nobody <nobody@example>",
            "Depends": depends,
            "Description": "a stand-in",
            **{key.replace("_", "-"): value for key, value in more.items()},
        }
        text = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
        (root / "DEBIAN" / "control").write_text(text)
        for script, text in (scripts or {}).items():
            (root / "DEBIAN" / script).write_text(text)
            (root / "DEBIAN" / script).chmod(0o755)
        if files is None and links is None:
            files = {f"usr/share/{name}/file": os.urandom(size)}
        for path, content in (files or {}).items():
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            place.chmod(0o755 if content.startswith(_PROGRAM_HEADS) else 0o644)
        for path, target in (links or {}).items():
            place = root / path.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(target)
        place = self.folder if self.flat else self.folder / "pool" / component / name[0] / name
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{name}_{version.partition(':')[2] or version}_{architecture}.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", f"-Z{compression}", "--build", root, file],
            check=True,
            capture_output=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        )
        found = f"./{file.name}" if self.flat else file.relative_to(self.folder).as_posix()
        self._suites.setdefault(suite or self.suite, set()).add((component, found))
        return file

    def add_keyring(
        self,
        name: str = "cuda-keyring",
        version: str = "1.0-1",
        path: str = "usr/share/keyrings/cuda-archive-keyring.gpg",
        **options: str,
    ) -> Path:
        """Add a package that brings this repository's public key, as NVIDIA's does."""
        files = {path: self.keyring.read_bytes()}
        return self.add(name, version, files=files, architecture="all", **options)

    def publish(self, *, signed: bool = True, valid_until: str = "") -> None:
        """Write and sign the index of what is in the pool now, one for each suite.

        Args:
            signed: whether to sign.
            valid_until: a date as Release files have it; never without it.
        """
        self.folder.mkdir(exist_ok=True)
        packages = self._packages()
        listed = [row for rows in self._suites.values() for row in rows]
        components = sorted({component for component, _ in listed} | {"main"})
        for suite, held in {self.suite: set[tuple[str, str]](), **self._suites}.items():
            lists = self.folder if self.flat else self.folder / "dists" / suite
            if self.flat:
                for name in ("Packages", "Release", "InRelease"):
                    (lists / name).unlink(missing_ok=True)
                chosen = [stanza for file, stanza in packages.items() if ("main", file) in held]
                (lists / "Packages").write_bytes(b"".join(chosen))
            else:
                shutil.rmtree(lists, ignore_errors=True)
                for component in components:
                    binary = lists / component / f"binary-{self.architecture}"
                    binary.mkdir(parents=True)
                    chosen = [
                        stanza for file, stanza in packages.items() if (component, file) in held
                    ]
                    (binary / "Packages").write_bytes(b"".join(chosen))
            self._release(lists, suite, components, signed=signed, valid_until=valid_until)

    def _packages(self) -> dict[str, bytes]:
        """File name → stanza, of everything in the pool."""
        pool = self.folder if self.flat else self.folder / "pool"
        if not pool.exists():
            return {}
        text = self._run("apt-ftparchive", "packages", "." if self.flat else "pool")
        found = {}
        for stanza in text.split(b"\n\n"):
            for line in stanza.splitlines():
                if line.startswith(b"Filename: "):
                    found[line.partition(b": ")[2].decode()] = stanza + b"\n\n"
        return found

    def _release(
        self,
        lists: Path,
        suite: str,
        components: list[str],
        *,
        signed: bool,
        valid_until: str,
    ) -> None:
        told = {
            "Suite": suite,
            "Codename": suite,
            "Origin": self.origin,
            "Components": " ".join(components),
            "Architectures": self.architecture,
        }
        if self.flat:
            told = {"Origin": self.origin, "Architectures": self.architecture}
        settings = [f"APT::FTPArchive::Release::{key}={value}" for key, value in told.items()]
        if self.flat:
            settings += ["APT::FTPArchive::Release::Patterns::=Packages"]
        options = [part for setting in settings for part in ("-o", setting)]
        place = lists.relative_to(self.folder).as_posix()
        release = self._run("apt-ftparchive", *options, "release", place)
        expiry = f"Valid-Until: {valid_until}\n" if valid_until else ""
        (lists / "Release").write_bytes(expiry.encode() + release)
        if signed:
            self._gpg("--clearsign", "-o", str(lists / "InRelease"), str(lists / "Release"))

    def _run(self, *command: str) -> bytes:
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True).stdout

    def _gpg(self, *arguments: str) -> bytes:
        home = self._gnupg.name
        return subprocess.run(
            ["gpg", "--homedir", home, "--batch", "--pinentry-mode", "loopback", *arguments],
            check=True,
            capture_output=True,
        ).stdout
