"""Which Debian mirror to use, and the keyring that its signatures are checked with."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from kit.errors import environment_error
from kit.locks import snapshots
from kit.locks.mirrors import rewrite

_KEYRINGS = (
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
)
_DEFAULTS = {
    "debootstrap": re.compile(r'^\s*DEF_MIRROR="?(https?://[^"\s]+)', re.MULTILINE),
    "mmdebstrap": re.compile(r"""["'](https?://[^"'\s]+/debian)/?["']"""),
}
_TARGET = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(CREATED_BY)|$(ORIGIN)"
_RELEASE_FILE = re.compile(r"'(?P<mirror>\S+?)/dists/(?P<release>[^'/]+)/InRelease'")
_SCHEMES = ("http", "https", "file")


def debian_mirror(suite: str | None = None) -> str:
    """The URL that `dists/` and `pool/` stand below, no slash at its end; may hold a login.

    `KIT_DEBIAN_MIRROR` decides, then `KIT_SNAPSHOT`, then what this host's tools know.

    Raises:
        KitError: `KIT_SNAPSHOT` cannot be read (exit 2); no mirror is known on this host (exit 3).
    """
    if given := os.environ.get("KIT_DEBIAN_MIRROR"):
        if urlsplit(given).scheme not in _SCHEMES:
            raise environment_error(
                "KIT_DEBIAN_MIRROR: expected a URL that starts with http:, https: or file:"
            )
        return given.rstrip("/")
    if (past := snapshots.debian()) is not None:
        return rewrite(f"{past}/").rstrip("/")
    found = _of_apt(suite) or _of_bootstrap()
    if found is None:
        raise environment_error(
            "no Debian mirror is known: KIT_DEBIAN_MIRROR is not set, apt on this host "
            "has no Debian source, neither debootstrap nor mmdebstrap is installed",
            hint="export KIT_DEBIAN_MIRROR=<URL of a Debian mirror>",
        )
    return found.rstrip("/")


def debian_keyring() -> Path:
    """The keys of the Debian archive: `KIT_DEBIAN_KEYRING`, else those installed on this host.

    Raises:
        KitError: there are none (exit 3).
    """
    given = os.environ.get("KIT_DEBIAN_KEYRING")
    for name in [given] if given else _KEYRINGS:
        if Path(name).is_file():
            return Path(name).absolute()
    if given:
        raise environment_error(
            f"no keys to check Debian's signatures with: KIT_DEBIAN_KEYRING names {given}",
            hint="unset KIT_DEBIAN_KEYRING",
        )
    raise environment_error(
        "no keys to check Debian's signatures with: KIT_DEBIAN_KEYRING is not set, and there is "
        f"no {' or '.join(_KEYRINGS)}",
        hint="apt-get install debian-archive-keyring",
    )


def _of_apt(suite: str | None) -> str | None:
    """The Debian mirror in the host's apt sources, deb822 or classic; it carries every suite."""
    if shutil.which("apt-get") is None:
        return None
    rows = [row.split("|") for row in _asked("indextargets", "--format", _TARGET)]
    if not rows:  # apt 3 lists nothing before the first `apt-get update`, only what that would get
        wanted = _asked("update", "--print-uris", "-o", "Debug::NoLocking=1")
        targets = filter(None, map(_RELEASE_FILE.match, wanted))
        rows = [[*uri.group("mirror", "release"), "main", "Packages", "$"] for uri in targets]
    trusted_releases = {suite, _host_codename()}
    found: list[tuple[bool, str]] = []
    for repository, release, component, created_by, origin in (
        row for row in rows if len(row) == 5
    ):
        parts = urlsplit(repository)
        if (created_by, component) != ("Packages", "main") or parts.scheme not in _SCHEMES:
            continue
        if "-" in release or "/" in release:  # updates, security, backports, third parties
            continue
        is_named_debian = parts.path.rstrip("/").endswith("/debian")
        # Before the first `apt-get update` apt does not know the origin and prints the variable.
        if origin.startswith("$"):
            is_debian = release in trusted_releases or is_named_debian
        else:
            is_debian = origin == "Debian"
        if is_debian:
            found.append((not is_named_debian, repository))
    return min(found)[1] if found else None


def _asked(*arguments: str) -> list[str]:
    """What `apt-get` answers, line by line; nothing if it does not know the question."""
    answer = subprocess.run(
        ["apt-get", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    return answer.stdout.splitlines()


def _host_codename() -> str | None:
    """`bookworm` on a Debian host, None elsewhere."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return None
    return release.get("VERSION_CODENAME") if release["ID"] == "debian" else None


def _of_bootstrap() -> str | None:
    """The mirror that an installed debootstrap or mmdebstrap would take."""
    for tool, pattern in _DEFAULTS.items():
        if (program := shutil.which(tool)) is not None:
            text = Path(program).read_text(encoding="utf-8", errors="replace")
            if match := pattern.search(text):
                return match[1]
    return None
