"""A signed apt repository of tiny packages, made with Debian's own tools."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Self

TOOLS = ("apt-get", "apt-ftparchive", "dpkg-deb", "gpg", "gpgconf", "gpgv")


def missing_tools() -> list[str]:
    """The tools that this host lacks to make or use such a repository."""
    return [tool for tool in TOOLS if shutil.which(tool) is None]


@dataclass
class DebianRepository:
    """`add` packages, `publish`, then serve `folder` or use it as `file:`; `keyring` checks it.

    `with DebianRepository(…) as repository` ends the agent that gpg starts for its keys.
    """

    folder: Path
    suite: str = "bookworm"
    gnupg: Path = field(init=False)
    keyring: Path = field(init=False)

    def __post_init__(self) -> None:
        self.gnupg = self.folder.parent / f"{self.folder.name}-gnupg"
        self.gnupg.mkdir(mode=0o700)
        self.keyring = self.folder.parent / f"{self.folder.name}.gpg"
        self._gpg("--passphrase", "", "--quick-gen-key", "throw-away@example", "rsa2048")
        self.keyring.write_bytes(self._gpg("--export"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["gpgconf", "--homedir", self.gnupg, "--kill", "all"], check=True)

    def add(
        self, name: str, version: str, depends: str = "", *, size: int = 0, **more: str
    ) -> Path:
        """Build a package with one file of `size` bytes."""
        root = self.folder.parent / "packages" / f"{name}_{version}"
        (root / "DEBIAN").mkdir(parents=True)
        fields = {
            "Package": name,
            "Version": version,
            "Architecture": "amd64",
            "Maintainer": "nobody <nobody@example>",
            "Depends": depends,
            "Description": "a stand-in",
            **{key.replace("_", "-"): value for key, value in more.items()},
        }
        text = "".join(f"{key}: {value}\n" for key, value in fields.items() if value)
        (root / "DEBIAN" / "control").write_text(text)
        (root / "usr/share" / name).mkdir(parents=True)
        (root / "usr/share" / name / "file").write_bytes(os.urandom(size))
        place = self.folder / "pool/main" / name[0] / name
        place.mkdir(parents=True, exist_ok=True)
        file = place / f"{name}_{version.partition(':')[2] or version}_amd64.deb"
        subprocess.run(
            ["dpkg-deb", "--root-owner-group", "-Znone", "--build", root, file],
            check=True,
            capture_output=True,
        )
        return file

    def publish(self, *, signed: bool = True) -> None:
        """Write and sign the index of what is in the pool now."""
        lists = self.folder / "dists" / self.suite
        binary = lists / "main" / "binary-amd64"
        shutil.rmtree(lists, ignore_errors=True)
        binary.mkdir(parents=True)
        packages = self._run("apt-ftparchive", "packages", "pool")
        (binary / "Packages").write_bytes(packages)
        settings = [
            f"APT::FTPArchive::Release::{key}={value}"
            for key, value in {
                "Suite": self.suite,
                "Codename": self.suite,
                "Origin": "Debian",
                "Components": "main",
                "Architectures": "amd64",
            }.items()
        ]
        options = [part for setting in settings for part in ("-o", setting)]
        release = self._run("apt-ftparchive", *options, "release", f"dists/{self.suite}")
        (lists / "Release").write_bytes(release)
        if signed:
            self._gpg("--clearsign", "-o", str(lists / "InRelease"), str(lists / "Release"))

    def _run(self, *command: str) -> bytes:
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True).stdout

    def _gpg(self, *arguments: str) -> bytes:
        return subprocess.run(
            ["gpg", "--homedir", self.gnupg, "--batch", "--pinentry-mode", "loopback", *arguments],
            check=True,
            capture_output=True,
        ).stdout
