"""One side of a comparison: a manifest, and those of its files that are here and whole."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kit.artifacts import bounded
from kit.digest import Digest
from kit.errors import KitError
from kit.reproduce.ladder import Difference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kit.manifests.record import Artifact, File, Manifest, Role


@dataclass(frozen=True, slots=True)
class Side:
    """A run as it is recorded, with what of it can be looked into.

    Attributes:
        manifest: the record.
        whole: files below the run's folder that are here with the recorded digest, by path.
        altered: files that are here and are something else.
        missing: paths of those that are not here: only their digests can be compared.
    """

    manifest: Manifest
    whole: Mapping[str, Path]
    altered: tuple[Difference, ...]
    missing: tuple[str, ...]

    def select(self, role: Role) -> dict[str, Artifact]:
        """The recorded files of one role, by path."""
        return {item.path: item for item in self.manifest.select(role)}


def of_run(manifest: Manifest, folder: Path) -> Side:
    """The run in a folder; each file that is there is hashed."""
    wanted = manifest.files()
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        found = list(pool.map(lambda file: _look(folder / file.path, file), wanted))
    whole = {file.path: folder / file.path for file, seen in zip(wanted, found, strict=True)
             if seen == file.sha256}  # fmt: skip
    altered = tuple(
        Difference(file.path, f"sha256 {file.sha256}", seen)
        for file, seen in zip(wanted, found, strict=True)
        if seen not in (None, file.sha256)
    )
    missing = tuple(file.path for file, seen in zip(wanted, found, strict=True) if seen is None)
    return Side(manifest, whole, altered, missing)


def digest(file: Artifact | None) -> str | None:
    """A recorded file as a value of a difference."""
    return None if file is None else f"sha256 {file.sha256}"


def _look(path: Path, file: Artifact | File) -> str | None:
    """The digest of a file, or what else is there; None if nothing is."""
    if not path.is_symlink() and not path.exists():
        return None
    if path.is_symlink():
        return "a link"
    try:
        with bounded.opened(path) as stream:
            size = os.fstat(stream.fileno()).st_size
    except KitError:
        return "no regular file"
    if size != file.size:
        return f"{size} bytes instead of {file.size}"
    return Digest.of_file(path).hex
