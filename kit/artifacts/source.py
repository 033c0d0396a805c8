"""A TensorRT-LLM source tree: which release it is, and what of it is missing or of another place.

Submodules that are absent, LFS objects that are still pointers, and static libraries for another
machine make a build fail after an hour; all three can be seen beforehand.
"""

from __future__ import annotations

import fnmatch
import os
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kit.artifacts import bounded, elf, git, pointer
from kit.artifacts.software import assigned
from kit.errors import content_error, usage_error
from kit.files import safe_member
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_FILES_LIMIT = 300_000
_FOUND_LIMIT = 20_000
_TEXT_LIMIT = 1 << 20
_PINS_LIMIT = 500
_FALLBACK = ("*.a", "*.lib", "*.so", "*.dll")
"""What upstream keeps in LFS (0.5.0 to 1.2.1), for a tree without its .gitattributes."""
_SECTION = re.compile(r'\s*\[submodule "([^"\n]{1,256})"\]\s*')
_SETTING = re.compile(r"\s*(path|url)\s*=\s*(\S{1,1024})\s*")
_PIN = re.compile(r"tensorrt[_-]llm\s*((?:[=~<>!]=|[<>])[^;#]{1,128})", re.IGNORECASE)
_SETUP_VERSION = re.compile(r"""^\s*version\s*=\s*["']([\w.+!-]{1,64})["']""", re.MULTILINE)
_USER = re.compile(r"(?<=://)[^/@]*@|^[^/:@]*:[^/@]*@")
_PRIVATE_HOST = re.compile(
    r"localhost|[^.]*|.*\.(local|internal|intranet|corp|lan)|gitlab[\w-]*\.nvidia\.com"
    r"|(10|127|192\.168|172\.(1[6-9]|2\d|3[01]))(\.\d+)+"
)

UrlKind = Literal["public", "ssh", "internal", "relative"]


@dataclass(frozen=True, slots=True)
class Submodule:
    """One submodule.

    Attributes:
        path: below the tree.
        url: as .gitmodules says it, without a user's name and password.
        url_kind: `ssh` needs a key, `internal` a network that others do not have; `relative` is
            beside the tree's own origin.
        recorded: the commit that the tree wants; None where there is no git index.
        state: `unknown` is content without git data, as an unpacked archive has it.
        commit: the one that is checked out, where that is known.
    """

    path: str
    url: str
    url_kind: UrlKind
    recorded: str | None
    state: Literal["absent", "present", "unknown"]
    commit: str | None

    @property
    def is_at_recorded(self) -> bool | None:
        """Whether it is at the commit that the tree wants; None where either is not known."""
        known = self.recorded is not None and self.commit is not None
        return self.commit == self.recorded if known else None


@dataclass(frozen=True, slots=True)
class MissingObject:
    """A file that is still its LFS pointer; SHA-256 in hexadecimal, bytes."""

    path: str
    oid: str | None
    size: int | None


@dataclass(frozen=True, slots=True)
class Library:
    """A library in the tree and the machine it is for; None for what is no ELF."""

    path: str
    machine: str | None
    size: int


@dataclass(frozen=True, slots=True)
class ExamplePin:
    """Which tensorrt_llm the requirements of an example ask for: `==0.16.0`."""

    path: str
    requirement: str


@dataclass(frozen=True, slots=True)
class SourceTree:
    """What was found in a folder.

    Attributes:
        folder: where it is.
        version: the release; None if only examples are there.
        version_where: the file that says so. 0.6.0's setup.py still says 0.5.0: where the version
            comes from setup.py the commit is the better witness.
        commit: of HEAD; None without git data.
        tags: that lead to this commit.
        submodules: of .gitmodules.
        missing: LFS objects that were not fetched.
        libraries: prebuilt ones that are there.
        pins: of the examples' requirements.
    """

    folder: str
    version: str | None
    version_where: str | None
    commit: str | None
    tags: tuple[str, ...]
    submodules: tuple[Submodule, ...]
    missing: tuple[MissingObject, ...]
    libraries: tuple[Library, ...]
    pins: tuple[ExamplePin, ...]

    @property
    def observations(self) -> tuple[Observation, ...]:
        """Release, commit, submodules under `submodule:<path>`, pins under `requires:…`."""
        found = [
            Observation(
                "tensorrt_llm",
                self.version,
                self.version_where or self.folder,
                (self.version_where or "/no file").rpartition("/")[2],
            ),
            Observation("commit", self.commit, self.folder, "git"),
        ]
        found += [
            Observation(f"submodule:{one.path}", one.commit, f"{self.folder}/{one.path}", one.state)
            for one in self.submodules
        ]
        found += [
            Observation("requires:tensorrt_llm", pin.requirement, pin.path, "requirements")
            for pin in self.pins
        ]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class _Seen:
    missing: list[MissingObject]
    libraries: list[Library]
    requirements: list[str]


def look(folder: Path) -> SourceTree:
    """Look into a source tree; nothing of it is executed, git is not started.

    Raises:
        KitError: no such folder, or not TensorRT-LLM's (exit 2); damaged or hostile (exit 4).
    """
    with bounded.reading(folder):
        return _look(folder)


def _look(folder: Path) -> SourceTree:
    if not folder.is_dir():
        raise usage_error(f"{folder}: there is no such folder")
    version, where = _version(folder)
    found = git.repository(folder)
    commit = git.head(found) if found else None
    submodules = tuple(_submodules(folder, found))
    seen = _walk(folder, frozenset(one.path for one in submodules))
    pins = tuple(_pins(folder, seen.requirements))
    if where is None and not pins:
        raise usage_error(
            f"{folder}: not a source tree of TensorRT-LLM: no tensorrt_llm/version.py, no "
            "setup.py of it, no examples that ask for it"
        )
    return SourceTree(
        folder=str(folder),
        version=version,
        version_where=where,
        commit=commit,
        tags=git.tags(found, commit) if found and commit else (),
        submodules=submodules,
        missing=tuple(sorted(seen.missing, key=lambda item: item.path)),
        libraries=tuple(sorted(seen.libraries, key=lambda item: item.path)),
        pins=pins,
    )


def _version(folder: Path) -> tuple[str | None, str | None]:
    """The version and the file that says it; the file alone if it says none."""
    package = folder / "tensorrt_llm"
    where = None
    for path in (package / "version.py", package / "__init__.py"):
        if path.is_file():
            where = str(path)
            if found := assigned(_text(path), "__version__"):
                return found, where
    setup = folder / "setup.py"
    if setup.is_file() and re.search(r"tensorrt[_-]llm", text := _text(setup)):
        match = _SETUP_VERSION.search(text)
        return (match[1] if match else None), str(setup)
    return None, where


def _submodules(folder: Path, found: git.Repository | None) -> Iterator[Submodule]:
    settings = folder / ".gitmodules"
    if not settings.is_file():
        return
    recorded = (git.submodules(found) if found else None) or {}
    for path, url in _declared(settings):
        place = folder / path
        if place.is_symlink():
            raise content_error(f"{settings}: refused submodule {path!r}: a link stands there")
        below = git.repository(place)
        commit = git.head(below) if below else None
        # A file alone, as `.git` of a submodule that was never filled, is no content.
        has_content = place.is_dir() and any(name != ".git" for name in bounded.names(place))
        state: Literal["absent", "present", "unknown"] = "absent"
        if has_content:
            state = "present" if commit else "unknown"
        yield Submodule(
            path=path,
            url=_USER.sub("", url),
            url_kind=_url_kind(url),
            recorded=recorded.get(path),
            state=state,
            commit=commit if has_content else None,
        )


def _declared(settings: Path) -> list[tuple[str, str]]:
    sections: dict[str, dict[str, str]] = {}
    current: dict[str, str] = {}
    for line in _text(settings).splitlines():
        if match := _SECTION.fullmatch(line):
            current = sections.setdefault(match[1], {})
        elif match := _SETTING.fullmatch(line):
            current[match[1]] = match[2]
    rows = ((one["path"], one.get("url", "")) for one in sections.values() if "path" in one)
    return sorted((str(safe_member(path, str(settings))), url) for path, url in rows)


def _url_kind(url: str) -> UrlKind:
    if url.startswith(("./", "../")):
        return "relative"
    match = re.match(r"([a-z+]+)://(?:[^/@]*@)?([^/:]+)", url)
    if match is None or "ssh" in match[1]:
        return "ssh" if match or re.match(r"(?:[^/@]*@)?[^/:]+:", url) else "internal"
    return "internal" if _PRIVATE_HOST.fullmatch(match[2].lower()) else "public"


def _walk(folder: Path, without: frozenset[str]) -> _Seen:
    """One pass over the tree, submodules and git's own data left out, links not followed."""
    seen = _Seen([], [], [])
    patterns = _lfs_patterns(folder)
    count = 0
    for place, folders, names in os.walk(folder):
        here = place[len(str(folder)) :].lstrip("/")
        folders[:] = [
            name for name in folders if name != ".git" and _joined(here, name) not in without
        ]
        for name in names:
            count += 1
            if count > _FILES_LIMIT:
                raise content_error(f"{folder}: more than {_FILES_LIMIT} files: not a source tree")
            path = _joined(here, name)
            if path.startswith("examples/") and re.fullmatch(r"requirements\S*\.txt", name):
                seen.requirements.append(path)
            if _is_in_lfs(path, name, patterns) or name.endswith(".a"):
                _see(folder, path, seen)
    return seen


def _see(folder: Path, path: str, seen: _Seen) -> None:
    """Note a file that should come from LFS: its pointer, or the machine it is for."""
    place = folder / path
    try:
        mode = place.lstat().st_mode
    except FileNotFoundError:  # gone since it was listed
        return
    if not stat.S_ISREG(mode):
        return
    head, size = bounded.head(place, pointer.LARGEST)
    if (found := pointer.of(head)) is not None:
        seen.missing.append(MissingObject(path, found.oid, found.size))
    elif path.endswith((".a", ".so")):
        seen.libraries.append(Library(path, elf.machine(place), size))
    if len(seen.missing) + len(seen.libraries) > _FOUND_LIMIT:
        raise content_error(f"{folder}: more than {_FOUND_LIMIT} files of Git LFS")


def _lfs_patterns(folder: Path) -> tuple[str, ...]:
    path = folder / ".gitattributes"
    if not path.is_file():
        return _FALLBACK
    words = (line.split() for line in _text(path).splitlines() if not line.startswith("#"))
    return tuple(row[0] for row in words if "filter=lfs" in row[1:])[:_PINS_LIMIT]


def _is_in_lfs(path: str, name: str, patterns: tuple[str, ...]) -> bool:
    """As git matches: a pattern without `/` fits a name in any folder, others the whole path."""
    for pattern in patterns:
        if "/" not in pattern:
            if fnmatch.fnmatchcase(name, pattern):
                return True
        elif fnmatch.fnmatchcase(path, pattern.strip("/").replace("**/", "*")):
            return True
    return False


def _pins(folder: Path, paths: list[str]) -> Iterator[ExamplePin]:
    for path in sorted(paths)[:_PINS_LIMIT]:
        if (folder / path).is_symlink():
            continue
        for line in _text(folder / path).splitlines():
            if match := _PIN.match(line.strip()):
                yield ExamplePin(f"{folder}/{path}", match[1].strip())


def _joined(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _text(path: Path) -> str:
    try:
        return bounded.content(path, _TEXT_LIMIT).decode("utf-8", "replace")
    except OSError as error:
        raise content_error(f"{path}: cannot be read: {error.strerror}") from error
