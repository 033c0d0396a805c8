"""Whether what a manifest vouches for is still so: files, logs, lock, image."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kit.digest import Digest
from kit.images.oci import Layout
from kit.locks import lock as locks
from kit.manifests import record

if TYPE_CHECKING:
    from kit.manifests.record import Artifact, File, Manifest
    from kit.project import Project

Kind = Literal["missing", "altered", "extra"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is not as the manifest says; `what` is a file's path, `lock` or `image`."""

    kind: Kind
    what: str
    expected: str | None
    found: str | None

    def to_dict(self) -> dict[str, Any]:
        """A row of the JSON envelope."""
        return {"name": self.what, **asdict(self)}

    def __str__(self) -> str:
        details = [
            f"{label} {value}"
            for label, value in (("expected", self.expected), ("found", self.found))
            if value is not None
        ]
        return f"{self.kind}: {self.what}" + (f": {', '.join(details)}" if details else "")


@dataclass(frozen=True, slots=True)
class Verification:
    """The result: every problem, what was checked, and what could not be and why."""

    manifest: str
    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Nothing is missing, altered or extra."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The content of the JSON envelope."""
        return {**asdict(self), "problems": [item.to_dict() for item in self.problems]}

    def text(self) -> str:
        """For people: the verdict first, one problem a line."""
        lines = [f"{self.manifest}: {'verified' if self.ok else 'NOT verified'}"]
        lines += [f"  {problem}" for problem in self.problems]
        lines += [f"  checked: {name}" for name in self.checked]
        lines += [f"  not checked: {name}" for name in self.unchecked]
        return "\n".join(lines)


def verify(project: Project, path: Path) -> Verification:
    """Compare the folder around a manifest, the project's lock and its images with the manifest.

    Raises:
        KitError: there is no manifest (exit 2), or it is none (exit 4).
    """
    path = record.locate(path)
    manifest = record.read(path)
    problems = _files(path.parent, manifest)
    checked = [f"{len(manifest.files())} files by size and sha256"]
    unchecked: list[str] = []
    for what, expected, found in (
        ("lock", manifest.lock, _current_lock(project, manifest.stack)),
        ("image", manifest.image.manifest_digest, _stored_image(project, manifest)),
    ):
        if found is None:
            unchecked.append(f"{what} {expected}: not on this host")
        elif found == expected:
            checked.append(f"{what} {expected}")
        else:
            problems.append(Problem("altered", what, expected, found))
    return Verification(str(path), tuple(checked), tuple(unchecked), tuple(problems))


def _files(folder: Path, manifest: Manifest) -> list[Problem]:
    wanted = {file.path: file for file in manifest.files()}
    present = {name: mode for name, mode in _walk(folder) if name != record.FILE}
    problems = [Problem("missing", name, None, None) for name in wanted if name not in present]
    problems += [Problem("extra", name, None, None) for name in present if name not in wanted]
    both = [file for name, file in wanted.items() if name in present]
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        compared = pool.map(lambda file: _compare(folder, file, present[file.path]), both)
        problems += [problem for problem in compared if problem is not None]
    return sorted(problems, key=lambda problem: problem.what)


def _compare(folder: Path, file: File | Artifact, mode: int) -> Problem | None:
    path = folder / file.path
    expected = f"sha256 {file.sha256}, {file.size} bytes"
    if not stat.S_ISREG(mode):
        return Problem("altered", file.path, expected, "no regular file")
    size = path.stat().st_size
    if size != file.size:
        return Problem("altered", file.path, expected, f"{size} bytes")
    digest = Digest.of_file(path)
    if digest.hex != file.sha256:
        return Problem("altered", file.path, expected, f"sha256 {digest.hex}")
    return None


def _walk(folder: Path) -> list[tuple[str, int]]:
    """Everything below `folder` that is not a real folder, with its mode."""
    found = []
    for base, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(base) / name
            mode = path.lstat().st_mode
            if not stat.S_ISDIR(mode):
                found.append((path.relative_to(folder).as_posix(), mode))
    return found


def _current_lock(project: Project, stack: str) -> str | None:
    if stack not in project.stacks or not project.lock_path(stack).exists():
        return None
    return str(locks.load(project.lock_path(stack)).digest)


def _stored_image(project: Project, manifest: Manifest) -> str | None:
    """Digest of the stored image manifest, of its configuration if only that differs, or None."""
    layout = Layout(project.images)
    digest = Digest.parse(manifest.image.manifest_digest)
    if not layout.blob(digest).exists():
        return None
    found = Digest.of_file(layout.blob(digest))
    if found != digest:
        return str(found)
    image_id = str(layout.image(digest).image_id)
    return str(digest) if image_id == manifest.image.image_id else f"image id {image_id}"
