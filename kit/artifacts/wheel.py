"""What a wheel says of itself, and whether there is anything in it; nothing is unpacked."""

from __future__ import annotations

import errno
import re
import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kit.artifacts import bounded
from kit.artifacts.layers import Region, Unpacked
from kit.artifacts.software import canonical
from kit.artifacts.tar import Limit, clean, members
from kit.errors import content_error, usage_error
from kit.files import disk_errors
from kit.observation import Observation

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator
    from pathlib import Path

_METADATA_LIMIT = 4 << 20
_DIRECTORY_LIMIT = 32 << 20
_FILES_LIMIT = 100_000
_NAMES_LIMIT = 2000
_END = b"PK\x05\x06"
_END64 = b"PK\x06\x06"
_ENTRY = b"PK\x01\x02"
_TAIL = 22 + 0xFFFF
_LIBRARY = re.compile(r"[^/]+\.(?:so(?:\.\d+)*|pyd|dll|dylib)")
_NATIVE = re.compile(
    r"tensorrt(_cu\d+)?(_libs|_bindings|_lean\w*|_dispatch\w*)?|tensorrt_llm|torch|nvidia_"
    r"(cublas|cuda_\w+|cudnn|cufft|curand|cusolver|cusparse|cusparselt|nccl|nvjitlink|nvshmem)(_cu\d+)?"
)
"""Distributions that are nothing without libraries: a wheel of them that has none is a stub."""
_TENSORRT = re.compile(r"tensorrt(_cu\d+)?(_libs|_bindings)?")
_SDIST = re.compile(r"(?P<name>.+)-(?P<version>[^-]+)\.tar\.gz")
_FILE = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(?:-(?P<build>\d[^-]*))?"
    r"-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
_GLIBC = re.compile(r"manylinux_(\d+)_(\d+)_")
_OLD_GLIBC = {"manylinux2014": "2.17", "manylinux2010": "2.12", "manylinux1": "2.5"}
"""PEP 599, 571 and 513."""


@dataclass(frozen=True, slots=True)
class WheelContents:
    """A wheel, or a source distribution that stands where a wheel is wanted.

    Attributes:
        path: the file.
        kind: a source distribution is built at install time and may download what it likes.
        name: as METADATA spells it.
        version: with its local label.
        local: the local label, `32f93b1` of `2.1.0a0+32f93b1`.
        build: the build tag of the file name.
        python: python tags, `cp310`.
        abi: ABI tags.
        platform: platform tags, `linux_x86_64`.
        glibc: the oldest C library that the platform tags ask for; None without such a tag.
        requires_python: as METADATA says it.
        requires_dist: every requirement, markers too.
        tensorrt: the requirement of TensorRT, if there is one.
        torch: the requirement of PyTorch.
        libraries: paths of shared libraries in it.
        is_stub: it is named like a package of libraries and has none.
        size: bytes of the file.
    """

    path: str
    kind: Literal["wheel", "source distribution"]
    name: str
    version: str
    local: str | None
    build: str | None
    python: tuple[str, ...]
    abi: tuple[str, ...]
    platform: tuple[str, ...]
    glibc: str | None
    requires_python: str | None
    requires_dist: tuple[str, ...]
    tensorrt: str | None
    torch: str | None
    libraries: tuple[str, ...]
    is_stub: bool
    size: int

    @property
    def observations(self) -> tuple[Observation, ...]:
        """The distribution itself, and what it requires under `requires:<component>`."""
        how = "METADATA" if self.kind == "wheel" else "PKG-INFO"
        found = [Observation(canonical(self.name), self.version, self.path, how)]
        found += [
            Observation(f"requires:{component}", requirement, self.path, how)
            for component, requirement in (("tensorrt", self.tensorrt), ("torch", self.torch))
            if requirement is not None
        ]
        return tuple(found)


def look(path: Path) -> WheelContents:
    """Read a wheel's metadata and its list of files.

    Raises:
        KitError: there is no such file, or it is called neither `….whl` nor `….tar.gz` (exit 2);
            damaged, hostile, or named otherwise than its METADATA says (exit 4).
    """
    size = bounded.head(path, 0)[1]
    if path.name.endswith(".tar.gz"):
        return _source(path, size)
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise usage_error(
            f"{path}: expected NAME-VERSION-PYTHON-ABI-PLATFORM.whl or NAME-VERSION.tar.gz"
        )
    metadata, libraries = _wheel(path)
    fields = _fields(metadata, str(path))
    _check_name(path, match, fields)
    platforms = tuple(match["platform"].split("."))
    return _contents(
        path,
        size,
        fields,
        build=match["build"],
        tags=(tuple(match["python"].split(".")), tuple(match["abi"].split(".")), platforms),
        libraries=libraries,
    )


def _contents(
    path: Path,
    size: int,
    fields: dict[str, list[str]],
    *,
    build: str | None,
    tags: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] | None,
    libraries: tuple[str, ...],
) -> WheelContents:
    name, version = fields["Name"][0], fields["Version"][0]
    required = tuple(fields.get("Requires-Dist", ()))
    python, abi, platforms = tags or ((), (), ())
    return WheelContents(
        path=str(path),
        kind="wheel" if tags else "source distribution",
        name=name,
        version=version,
        local=version.partition("+")[2] or None,
        build=build,
        python=python,
        abi=abi,
        platform=platforms,
        glibc=_glibc(platforms),
        requires_python=next(iter(fields.get("Requires-Python", ())), None),
        requires_dist=required,
        tensorrt=_requirement(required, _TENSORRT),
        torch=_requirement(required, re.compile("torch")),
        libraries=libraries,
        is_stub=bool(_NATIVE.fullmatch(canonical(name))) and not libraries,
        size=size,
    )


def _wheel(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """METADATA, and the paths of the libraries."""
    import zipfile

    _check_directory(path)
    try:
        with bounded.opened(path) as stream, zipfile.ZipFile(stream) as archive:
            rows = archive.infolist()
            _check_names(path, rows)
            metadata = [
                row for row in rows if re.fullmatch(r"[^/]+\.dist-info/METADATA", row.filename)
            ]
            if len(metadata) != 1:
                raise content_error(f"{path}: {len(metadata)} METADATA files, expected one")
            if metadata[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise content_error(
                    f"{path}: METADATA is compressed by method {metadata[0].compress_type}: "
                    "expected deflate or none, as package indexes do"
                )
            with archive.open(metadata[0]) as member:
                content = member.read(_METADATA_LIMIT + 1)
    except (
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        struct.error,
        EOFError,
        IndexError,
        NotImplementedError,
        OverflowError,
        RuntimeError,
        ValueError,
    ) as error:
        raise content_error(f"{path}: not a wheel, or damaged: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # an offset before the beginning
            raise
        raise content_error(f"{path}: damaged: its list of files leads nowhere") from error
    if len(content) > _METADATA_LIMIT:
        raise content_error(f"{path}: METADATA of more than {_METADATA_LIMIT} bytes")
    found = (row.filename for row in rows if _LIBRARY.fullmatch(row.filename.rpartition("/")[2]))
    return content, tuple(sorted(found)[:_NAMES_LIMIT])


def _check_directory(path: Path) -> None:
    """Refuse a list of files that would fill the memory: `zipfile` reads it whole, twice."""
    with bounded.opened(path) as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _TAIL))
        tail = stream.read(_TAIL)
        place = tail.rfind(_END)
        if place < 0 or len(tail) < place + 22:
            raise content_error(f"{path}: not a wheel, or cut short: its list of files is missing")
        length = int.from_bytes(tail[place + 12 : place + 16], "little")
        if (large := tail.rfind(_END64, 0, place)) >= 0:
            length = max(
                length % 0xFFFFFFFF, int.from_bytes(tail[large + 40 : large + 48], "little")
            )
        if length > _DIRECTORY_LIMIT:
            raise content_error(f"{path}: a list of files of {length} bytes: not a real wheel")
        stream.seek(max(0, size - length - _TAIL))
        if stream.read(length + _TAIL).count(_ENTRY) > _FILES_LIMIT:
            raise content_error(f"{path}: more than {_FILES_LIMIT} files: not a real wheel")


def _check_names(path: Path, rows: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for row in rows:
        name = row.filename
        if name.startswith(("/", "\\")) or clean(name, str(path)) != name.strip("/"):
            raise content_error(f"{path}: refused member {name!r}: outside of the wheel")
        if name in seen:
            raise content_error(f"{path}: member {name!r} stands twice: which one counts is open")
        seen.add(name)


def _source(path: Path, size: int) -> WheelContents:
    """Name and version from PKG-INFO in the first folder, else from the file's name."""
    match = _SDIST.fullmatch(path.name)
    if match is None:
        raise usage_error(f"{path}: expected NAME-VERSION.tar.gz")
    fields = {"Name": [match["name"]], "Version": [match["version"]]}
    libraries: list[str] = []
    with disk_errors(path), bounded.opened(path) as stream:
        source = Unpacked(stream.fileno(), Region(path, 0, size), str(path))
        for member in members(source, str(path), Limit()):
            if member.kind == "file" and re.fullmatch(r"[^/]+/PKG-INFO", member.path):
                fields = _fields(member.content(_METADATA_LIMIT), str(path))
            elif _LIBRARY.fullmatch(member.path.rpartition("/")[2]):
                libraries.append(member.path)
                if len(libraries) > _NAMES_LIMIT:
                    break
    found = tuple(sorted(libraries))
    return _contents(path, size, fields, build=None, tags=None, libraries=found)


def _fields(metadata: bytes, where: str) -> dict[str, list[str]]:
    """The header of METADATA; a line that begins with a blank goes on with the one before."""
    found: dict[str, list[str]] = {}
    for line in _header(metadata.decode("utf-8", "replace")):
        key, colon, value = line.partition(":")
        if colon:
            found.setdefault(key, []).append(value.strip())
    for key in ("Name", "Version"):
        told = found.get(key, [])
        if len(told) != 1 or not re.fullmatch(r"[\w.+!-]{1,200}", told[0]):
            raise content_error(f"{where}: METADATA: expected one {key}, found {told[:3]}")
    return found


def _header(text: str) -> Iterator[str]:
    whole = ""
    for line in text.splitlines():
        if not line.strip():
            break
        if line[0] in " \t":
            whole += line
            continue
        yield whole
        whole = line
    yield whole


def _check_name(path: Path, match: re.Match[str], fields: dict[str, list[str]]) -> None:
    from packaging.version import InvalidVersion, Version

    name, version = fields["Name"][0], fields["Version"][0]
    try:
        same = Version(match["version"].replace("_", "+", 1)) == Version(version)
    except InvalidVersion:
        same = match["version"] == version
    if not same or canonical(match["name"]) != canonical(name):
        raise content_error(
            f"{path}: its name says {match['name']} {match['version']}, METADATA {name} {version}"
        )


def _glibc(platforms: tuple[str, ...]) -> str | None:
    """The oldest of them: a wheel with several tags works from the oldest on."""
    told = []
    for tag in platforms:
        if match := _GLIBC.match(tag):
            told.append((int(match[1]), int(match[2])))
        elif old := _OLD_GLIBC.get(tag.partition("_")[0]):
            major, minor = old.split(".")
            told.append((int(major), int(minor)))
    return ".".join(map(str, min(told))) if told else None


def _requirement(required: tuple[str, ...], pattern: re.Pattern[str]) -> str | None:
    for line in required:
        name = re.match(r"[\w.-]+", line)
        if name and pattern.fullmatch(canonical(name[0])):
            return line
    return None
