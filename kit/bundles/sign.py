"""Signatures: made by `ssh-keygen`, so that keys may be encrypted, in an agent or in hardware.

Checking one needs nothing but `verifier`. The keys that a site trusts lie in its home.
"""

from __future__ import annotations

import shlex
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from kit.bundles import verifier
from kit.errors import environment_error, usage_error

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from kit.project import Project

TRUSTED = "trusted-keys"
_SECONDS = 120


def pinned(project: Project, given: Sequence[Path]) -> list[bytes]:
    """The keys of the command line, else those in `trusted-keys/` of the home.

    Raises:
        KitError: a file that is no Ed25519 public key (exit 2).
    """
    paths = list(given) or sorted((project.home / TRUSTED).glob("*.pub"))
    return [_key(path) for path in paths]


def public_key(private: Path) -> bytes:
    """The public key of a private one: that of the .pub beside it, else what ssh-keygen says.

    Raises:
        KitError: not there or no Ed25519 key (exit 2), no ssh-keygen (exit 3).
    """
    if not private.is_file():
        raise usage_error(
            f"--key {private}: there is no such file",
            hint=f"ssh-keygen -t ed25519 -f {shlex.quote(str(private))}",
        )
    beside = private.with_name(f"{private.name}.pub")
    if private.suffix == ".pub":
        return _key(private)
    if beside.is_file():
        return _key(beside)
    done = _ssh_keygen("-y", "-f", str(private))
    if done.returncode != 0:
        raise usage_error(f"--key {private}: {_reason(done)}")
    return _parsed(done.stdout.decode("utf-8", "replace"), str(private))


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
            f"--key {private}: made no Ed25519 signature: {error}",
            hint="ssh-keygen -t ed25519 -f KEY",
        ) from error
    if found != public:
        raise usage_error(f"{private}: does not belong to the .pub beside it")
    return signature


def _key(path: Path) -> bytes:
    try:
        text = verifier.content(path, 1 << 16).decode("utf-8", "replace")
    except verifier.Refused as error:
        raise usage_error(str(error)) from error
    return _parsed(text, str(path))


def _parsed(text: str, where: str) -> bytes:
    try:
        return verifier.public_key(text, where)
    except verifier.Refused as error:
        raise usage_error(str(error), hint="ssh-keygen -t ed25519 -f KEY") from error


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
