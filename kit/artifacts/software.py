"""Which paths of an image name a version, and what they say.

Names of libraries and of `*.dist-info` folders are enough for most; a few small files are read.
Links are not counted: what stands in two places is installed twice only if both are real files.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from kit.artifacts import bounded, packages
from kit.errors import KitError
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kit.artifacts.tree import Entry

_SMALL, _HEAD, _DPKG = 64 << 10, 16 << 10, 8 << 20

LIBRARY = "library name"
"""`Observation.how` of a library that is there as a real file: each folder of one is an install."""

_LIBRARIES = {
    "nvinfer": "tensorrt",
    "nvinfer_plugin": "tensorrt_plugin",
    "tensorrt_llm": "libtensorrt_llm",
    "cudart": "cudart",
    "cublas": "cublas",
    "cudnn": "cudnn",
    "nccl": "nccl",
    "mpi": "libmpi",
    "cuda": "driver",
    "nvidia-ml": "driver",
    "stdc++": "libstdc++",
}
_LIBRARY = re.compile(rf"lib({'|'.join(map(re.escape, _LIBRARIES))})\.so(?:\.(\d+(?:\.\d+)*))?")
_PYTHON = re.compile(r"(?:.*/)?(?:bin/python(3\.\d+)|libpython(3\.\d+)\.so\.1\.0)")
_GLIBC = re.compile(r"(?:.*/)?(?:ld|libc)-(2\.\d+)\.so")
_WHEEL_OF = {
    "tensorrt": re.compile(r"tensorrt(_cu\d+)?_libs"),
    "tensorrt_plugin": re.compile(r"tensorrt(_cu\d+)?_libs"),
    "cudart": re.compile(r"nvidia_cuda_runtime(_cu\d+)?"),
    "cublas": re.compile(r"nvidia_cublas(_cu\d+)?"),
    "cudnn": re.compile(r"nvidia_cudnn(_cu\d+)?"),
    "nccl": re.compile(r"nvidia_nccl(_cu\d+)?"),
    "libtensorrt_llm": re.compile(r"tensorrt_llm"),
}
"""Libraries that wheels carry under a name with no full version: the wheel's own says it."""

_DIST = re.compile(r"((?:.*/)?[^/]+\.(?:dist|egg)-info)(?:/(METADATA|PKG-INFO))?(?:/.*)?")
_DIST_NAME = re.compile(r"(.+?)-([^-]+)(?:-py[\d.]+)?(?:-[^-]+)?\.(?:dist|egg)-info")
_SITE = re.compile(r"(.*/(?:site|dist)-packages)/")
_COPIES = re.compile(r"(^|/)(_vendor|(mini|ana)?(conda|forge|mamba)\w*/pkgs)/")
"""Distributions that are not importable: vendored ones, conda's cache of packages."""
_CONDA = re.compile(r"((?:.*/)?conda-meta)(?:/.*)?")
_BACKENDS = "opt/tritonserver/backends/"
_BACKEND = re.compile(rf"({_BACKENDS}[^/]+)(?:/.*)?")

_TEXT = r"[\w.+~:!-]{1,128}"
_QUOTED = rf"""["']({_TEXT})["']"""
_FILES: dict[str, tuple[re.Pattern[str], int]] = {
    "os-release": (re.compile(r"(etc|usr/lib)/os-release"), _SMALL),
    "status": (re.compile(r"var/lib/dpkg/status"), _DPKG),
    "version.json": (re.compile(r"usr/local/cuda[^/]*/version\.json"), _SMALL),
    "NvInferVersion.h": (re.compile(r".*"), _SMALL),
    "version.py": (re.compile(r"(?:.*/)?(torch|tensorrt_llm)/version\.py"), _SMALL),
    "TorchConfig.cmake": (re.compile(r"(?:.*/)?torch/share/cmake/Torch/[^/]*"), _SMALL),
    "TRITON_VERSION": (re.compile(r"opt/tritonserver/TRITON_VERSION"), 256),
}
_STATUS_FOLDER = "var/lib/dpkg/status.d/"


def wanted(path: str) -> tuple[str, int] | None:
    """What to keep because of `path`: itself or a folder above it, and how much to read of it."""
    name = path.rpartition("/")[2]
    if path.startswith(_BACKENDS) and (match := _BACKEND.fullmatch(path)):
        return match[1], 0
    if ".so" in name:
        is_known = _LIBRARY.fullmatch(name) or _PYTHON.fullmatch(path) or _GLIBC.fullmatch(path)
        return (path, 0) if is_known else None
    if "-info" in path and (match := _DIST.fullmatch(path)):
        is_needed = match[2] and not _DIST_NAME.fullmatch(match[1].rpartition("/")[2])
        return (path, _HEAD) if is_needed else (match[1], 0)
    if (row := _FILES.get(name)) and row[0].fullmatch(path):
        return path, row[1]
    if path.startswith(_STATUS_FOLDER) and not name.endswith(".md5sums"):
        return path, _SMALL
    if "conda-meta" in path and (match := _CONDA.fullmatch(path)):
        return match[1], 0
    return (path, 0) if name.startswith("python3.") and _PYTHON.fullmatch(path) else None


def observations(entries: Iterable[tuple[str, Entry | None]]) -> Iterator[Observation]:
    """What the kept paths of a tree say, in the order of the paths."""
    kept = dict(entries)
    distributions = [item for path, entry in kept.items() for item in _distribution(path, entry)]
    wheels = {
        (match[1], component): item.version
        for item in distributions
        if (match := _SITE.match(item.where))
        for component, pattern in _WHEEL_OF.items()
        if pattern.fullmatch(item.component)
    }
    yield from distributions
    for path, entry in kept.items():
        if entry is None:
            yield from _known_folder(path)
        else:
            yield from _known_file(path, entry, kept, wheels)


def cxx11_abi(cmake: str) -> str | None:
    """The flag with which a PyTorch was built, from its TorchConfig.cmake: `0` or `1`."""
    match = re.search(r"_GLIBCXX_USE_CXX11_ABI=([01])", cmake)
    return match[1] if match else None


def assigned(text: str, name: str) -> str | None:
    """The text that a Python file gives a name at the start of a line, with or without a type."""
    match = re.search(rf"^{name}\s*(?::[^=\n]+)?=\s*{_QUOTED}", text, re.MULTILINE)
    return match[1] if match else None


def canonical(name: str) -> str:
    """A distribution's name in small letters, with underscores."""
    return re.sub(r"[-_.]+", "_", name).lower()


def _known_folder(path: str) -> Iterator[Observation]:
    if path.endswith("conda-meta"):
        where = "/" + path.rpartition("/")[0]
        yield Observation("conda", None, where, "folder name")
    elif _BACKEND.fullmatch(path):
        name = path.rpartition("/")[2]
        yield Observation(f"triton_backend:{name}", None, f"/{path}", "folder name")


def _known_file(
    path: str,
    entry: Entry,
    kept: dict[str, Entry | None],
    wheels: dict[tuple[str, str], str | None],
) -> Iterator[Observation]:
    name = path.rpartition("/")[2]
    if entry.content is not None:
        text = entry.content.decode("utf-8", "replace")
        reader = _READERS.get(name)
        if reader is not None:
            yield from reader(text, f"/{path}")
        elif path.startswith(_STATUS_FOLDER):
            yield from packages.observations(text, f"/{path}")
    elif entry.kind == "file" or (entry.kind == "hardlink" and not _is_second(entry, kept)):
        if match := _LIBRARY.fullmatch(name):
            yield from _library(path, entry, _LIBRARIES[match[1]], match[2], wheels)
        elif match := _PYTHON.fullmatch(path):
            yield Observation("python", match[1] or match[2], f"/{path}", "file name")
        elif match := _GLIBC.fullmatch(path):
            yield Observation("glibc", match[1], f"/{path}", LIBRARY)


def _is_second(entry: Entry, kept: dict[str, Entry | None]) -> bool:
    first = kept.get(entry.link)
    return first is not None and first.kind == "file"


def _library(
    path: str,
    entry: Entry,
    component: str,
    version: str | None,
    wheels: dict[tuple[str, str], str | None],
) -> Iterator[Observation]:
    folders = path.split("/")[:-1]
    if component == "driver":
        if "stubs" in folders:
            return
        component = "cuda_compat" if "compat" in folders else component
        version = version if version and "." in version else None
        how = LIBRARY if entry.size else f"{LIBRARY}, an empty file"
        yield Observation(component, version, f"/{path}", how)
        return
    if version is None or "." not in version:
        site = _SITE.match(f"/{path}")
        version = wheels.get((site[1], component), version) if site else version
    yield Observation(component, version, f"/{path}", LIBRARY)


def _distribution(path: str, entry: Entry | None) -> Iterator[Observation]:
    if _COPIES.search(path) or not (match := _DIST.fullmatch(path)):
        return
    if entry is not None and entry.content is not None:
        text = entry.content.decode("utf-8", "replace")
        name = re.search(rf"^Name: *({_TEXT})\s*$", text, re.MULTILINE)
        version = re.search(rf"^Version: *({_TEXT})\s*$", text, re.MULTILINE)
        if name and version:
            yield Observation(canonical(name[1]), version[1], f"/{path}", match[2] or "PKG-INFO")
    elif (entry is None or entry.kind == "file") and (
        named := _DIST_NAME.fullmatch(path.rpartition("/")[2])
    ):
        how = "dist-info" if path.endswith("dist-info") else "egg-info"
        yield Observation(canonical(named[1]), named[2].replace("_", "-"), f"/{path}", how)


def _os(text: str, where: str) -> Iterator[Observation]:
    match = re.search(r'^PRETTY_NAME="?([^"\n]{1,128})', text, re.MULTILINE)
    yield Observation("os", match[1].strip() if match else None, where, "os-release")


def _cuda(text: str, where: str) -> Iterator[Observation]:
    version = None
    with contextlib.suppress(KitError):
        version = bounded.text(bounded.loads(text.encode(), where), "cuda", "version")
    yield Observation("cuda", version, where, "version.json")


def _tensorrt(text: str, where: str) -> Iterator[Observation]:
    """From TensorRT 10.11 or so on the numbers stand in macros that these ones point to."""
    numbers = []
    for part in ("MAJOR", "MINOR", "PATCH", "BUILD"):
        match = re.search(
            rf"^#define (?:NV_TENSORRT_{part}|TRT_{part}_ENTERPRISE)\s+(\d{{1,6}})\b",
            text,
            re.MULTILINE,
        )
        numbers.append(match[1] if match else None)
    version = ".".join(number for number in numbers if number) if numbers[0] else None
    yield Observation("tensorrt", version, where, "header")


def _python_version(text: str, where: str) -> Iterator[Observation]:
    component = where.split("/")[-2]
    yield Observation(component, assigned(text, "__version__"), where, "version.py")
    if component == "torch" and (cuda := assigned(text, "cuda")):
        yield Observation("torch_cuda", cuda, where, "version.py")


def _torch(text: str, where: str) -> Iterator[Observation]:
    yield Observation("torch_cxx11_abi", cxx11_abi(text), where, "TorchConfig.cmake")


def _triton(text: str, where: str) -> Iterator[Observation]:
    match = re.match(rf"\s*({_TEXT})\s*$", text)
    yield Observation("tritonserver", match[1] if match else None, where, "TRITON_VERSION")


_READERS: dict[str, Callable[[str, str], Iterable[Observation]]] = {
    "os-release": _os,
    "status": packages.observations,
    "version.json": _cuda,
    "NvInferVersion.h": _tensorrt,
    "version.py": _python_version,
    "TorchConfig.cmake": _torch,
    "TRITON_VERSION": _triton,
}
