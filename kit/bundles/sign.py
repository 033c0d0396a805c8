"""Signatures: made by `ssh-keygen`, so that keys may be encrypted, in an agent or in hardware.

Checking one needs nothing but `verifier`. The keys that a site trusts lie in its home.
"""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kit.bundles import verifier
from kit.errors import ExitCode, environment_error, usage_error

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from kit.project import Project

TRUSTED = "trusted-keys"
_MAKE = "ssh-keygen -t ed25519 -f KEY"
_SECONDS = 120


def pinned(project: Project, given: Sequence[Path]) -> list[bytes]:
    """The keys of the command line, else those in `trusted-keys/` of the home.

    Raises:
        KitError: a file without an Ed25519 public key, a folder without files of keys (exit 2); a
            file or folder that cannot be read (exit 3): without keys, anybody's bundle would do.
    """
    paths = list(given) or _trusted(project.home / TRUSTED)
    return [key for path in paths for key in _keys(path)]


def _trusted(folder: Path) -> list[Path]:
    """The files with keys in a folder; none only where there is no such folder."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(Path(entry.path) for entry in entries if entry.name.endswith(".pub"))
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not folder.is_symlink():
            return []
        raise environment_error(
            f"{folder}: cannot be read: {error.strerror}: nobody knows which keys are trusted",
            hint=f"ls -ld {shlex.quote(str(folder))}",
        ) from error
    if not found:
        raise usage_error(
            f"{folder}: no keys in it: expected files called *.pub; without this folder, every "
            "signature would do",
            hint=f"cp SENDER.pub {shlex.quote(str(folder))}/",
        )
    return found


def public_key(private: Path) -> bytes:
    """The public key of a private one: that of the .pub beside it, else what ssh-keygen says.

    Raises:
        KitError: not there or no Ed25519 key (exit 2), no ssh-keygen (exit 3).
    """
    if not private.is_file():
        raise usage_error(
            f"{private}: no key to sign with: there is no such file",
            hint=f"ssh-keygen -t ed25519 -f {shlex.quote(str(private))}",
        )
    beside = private.with_name(f"{private.name}.pub")
    if private.suffix == ".pub":
        return _only(_keys(private), private)
    if beside.is_file():
        return _only(_keys(beside), beside)
    done = _ssh_keygen("-y", "-f", str(private))
    if done.returncode != 0:
        raise usage_error(f"{private}: {_reason(done)}")
    try:
        return verifier.public_key(done.stdout.decode("utf-8", "replace"), str(private))
    except verifier.Refused as error:
        raise usage_error(str(error), hint=_MAKE) from error


def require_able(private: Path) -> None:
    """Sign for nothing, before long work at whose end it would be too late.

    Raises:
        KitError: as of `public_key` and `sign`.
    """
    sign(private, public_key(private), b"")


def sign(private: Path, public: bytes, message: bytes) -> bytes:
    """The armoured signature of a message.

    Raises:
        KitError: ssh-keygen cannot sign with that key (exit 3), or signed with another (exit 2).
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "message"
        path.write_bytes(message)
        done = _ssh_keygen("-Y", "sign", "-n", verifier.NAMESPACE, "-f", str(private), str(path))
        if done.returncode != 0:
            raise environment_error(f"cannot sign with {private}: {_reason(done)}")
        signature = path.with_name("message.sig").read_bytes()
    try:
        found = verifier.signed_by(signature, message)
    except ValueError as error:
        raise usage_error(
            f"{private}: made no Ed25519 signature: {error}",
            hint=_MAKE,
        ) from error
    if found != public:
        raise usage_error(f"{private}: does not belong to the .pub beside it")
    return signature


def _keys(path: Path) -> list[bytes]:
    try:
        return verifier.keys_in(path)
    except verifier.Refused as error:
        if error.code == ExitCode.ENVIRONMENT:
            raise environment_error(str(error)) from error
        raise usage_error(str(error), hint=_MAKE) from error


def _only(found: list[bytes], path: Path) -> bytes:
    if len(found) > 1:
        raise usage_error(f"{path}: expected one public key, found {len(found)}")
    return found[0]


def _ssh_keygen(*words: str) -> subprocess.CompletedProcess[bytes]:
    import subprocess

    if shutil.which("ssh-keygen") is None:
        raise environment_error(
            "signing needs ssh-keygen, which is not installed",
            hint="apt-get install openssh-client",
        )
    try:
        # A passphrase is asked for on the terminal itself; without one, nobody is there to answer.
        return subprocess.run(
            ["ssh-keygen", *words], capture_output=True, check=False, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise environment_error(f"ssh-keygen has not answered for {_SECONDS} s") from error


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else f"ssh-keygen ended with {done.returncode}"
