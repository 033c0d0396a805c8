"""Package URLs: one name for a package that every scanner reads (ECMA-427)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

if TYPE_CHECKING:
    from kit.locks.lock import Input

_DEB = re.compile(r".*_([a-z0-9]+)\.u?deb")
_HUB = re.compile(r"hf:([^@]+)@(.+)")
_GITHUB = re.compile(r"/([^/]+)/([^/]+?)(?:\.git)?/?")
DEBIAN = "debian"
"""Whose packages stand at a path below a configured mirror."""


def of_input(item: Input) -> str | None:
    """The package URL of one input of a lock; None for what is no package of any kind.

    Blobs of an image have that of the image.
    """
    if item.kind == "deb":
        vendor = _vendor(item.location) if "://" in item.location else DEBIAN
        match = _DEB.fullmatch(item.file)
        return deb(vendor, item.name, item.version, match[1] if match else None)
    if item.kind in ("wheel", "sdist"):
        return pypi(item.name, item.version, item.file)
    if item.kind == "git":
        return git(item.location, item.version)
    if item.kind == "oci":
        return oci(item.location.removeprefix("oci:"), item.version)
    if item.kind == "model" and (match := _HUB.fullmatch(item.location)):
        return f"pkg:huggingface/{quote(match[1])}@{quote(match[2])}"
    return None


def deb(vendor: str, name: str, version: str, architecture: str | None) -> str:
    """Of a Debian package."""
    tail = f"?arch={architecture}" if architecture else ""
    return f"pkg:deb/{_quoted(vendor)}/{_quoted(name)}@{_quoted(version)}{tail}"


def pypi(name: str, version: str, file: str | None = None) -> str:
    """Of a Python distribution, as its index spells the name."""
    plain = re.sub(r"[-_.]+", "-", name).lower()
    tail = f"?file_name={_quoted(file)}" if file else ""
    return f"pkg:pypi/{_quoted(plain)}@{_quoted(version)}{tail}"


def git(url: str, commit: str) -> str:
    """Of a commit of a repository."""
    place = urlsplit(url)
    if place.hostname == "github.com" and (match := _GITHUB.fullmatch(place.path)):
        owner, name = (_quoted(part.lower()) for part in match.groups())
        return f"pkg:github/{owner}/{name}@{_quoted(commit)}"
    name = place.path.rstrip("/").rpartition("/")[2].removesuffix(".git") or "source"
    address = quote(f"git+{url}@{commit}", safe=":/")
    return f"pkg:generic/{_quoted(name)}@{_quoted(commit)}?vcs_url={address}"


def oci(repository: str, manifest_digest: str) -> str:
    """Of an image by its manifest digest; `repository` begins with the registry."""
    name = repository.rpartition("/")[2].lower()
    address = quote(repository, safe="/:")
    return f"pkg:oci/{_quoted(name)}@{_quoted(manifest_digest)}?repository_url={address}"


def _vendor(url: str) -> str:
    """`ubuntu` for archive.ubuntu.com: who runs the repository."""
    parts = (urlsplit(url).hostname or "").split(".")
    return parts[-2] if len(parts) > 1 else DEBIAN


def _quoted(text: str) -> str:
    return quote(text, safe=":")
