"""TensorRT's archive in its true shape, with a library that knows its version and nothing else."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.stand_in.distributions import wheel

_EPOCH = 1_700_000_000
_VERSION_HEADER = """\
#pragma once
#define NV_TENSORRT_MAJOR {major}
#define NV_TENSORRT_MINOR {minor}
#define NV_TENSORRT_PATCH {patch}
#define NV_TENSORRT_BUILD {build}
"""
_RUNTIME_HEADER = """\
#pragma once
#include "NvInferVersion.h"

#include <cstdint>

namespace nvinfer1
{
using AsciiChar = char;

class ILogger
{
public:
    enum class Severity : int32_t
    {
        kINTERNAL_ERROR = 0,
        kERROR = 1,
        kWARNING = 2,
        kINFO = 3,
        kVERBOSE = 4,
    };

    virtual void log(Severity severity, AsciiChar const* message) noexcept = 0;

    ILogger() = default;
    virtual ~ILogger() = default;
};
} // namespace nvinfer1

extern "C" int32_t getInferLibVersion() noexcept;
"""


def python_version(version: str) -> str:
    """Version of the wheel in the archive, as NVIDIA names it, without a local part."""
    known = {"9.1.0.4": "9.1.0.post12.dev4", "9.3.0.1": "9.3.0.post12.dev1"}
    return known.get(version, ".".join(version.split(".")[:3]))


def archive(version: str, python: str) -> bytes:
    """`TensorRT-<version>…tar.gz`: lib, include and the wheel for an interpreter (`311`)."""
    major, minor, patch, build = version.split(".")
    top = f"TensorRT-{version}"
    name = f"libnvinfer.so.{major}"
    number = int(major) * 10000 + int(minor) * 100 + int(patch)
    file, content = wheel(
        "tensorrt",
        f"{python_version(version)}+standin",
        f'__version__ = "{version}+standin"\n'.encode(),
        f"cp{python}-none-linux_x86_64",
    )
    header = _VERSION_HEADER.format(major=major, minor=minor, patch=patch, build=build)
    files = {
        "include/NvInferVersion.h": header.encode(),
        "include/NvInferRuntime.h": _RUNTIME_HEADER.encode(),
        "include/NvInfer.h": b'#pragma once\n#include "NvInferRuntime.h"\n',
        f"lib/libnvinfer.so.{major}.{minor}.{patch}": _shared_object(
            name, f"int getInferLibVersion(void) {{ return {number}; }}\n"
        ),
        f"python/{file}": content,
        "doc/README": b"a stand-in\n",
    }
    links = {f"lib/{name}": f"libnvinfer.so.{major}.{minor}.{patch}", "lib/libnvinfer.so": name}
    return packed(top, files, links)


def packed(
    top: str, files: dict[str, bytes], links: dict[str, str] | None = None, programs: str = "bin/"
) -> bytes:
    """A tar.gz with one top folder; what lies below `programs` can be executed."""
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folders = {str(p) for path in (*files, *(links or {})) for p in Path(top, path).parents}
        for folder in sorted(folders - {"."}):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode, entry.mtime = tarfile.DIRTYPE, 0o755, _EPOCH
            tar.addfile(entry)
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.size, entry.mtime = len(content), _EPOCH
            entry.mode = 0o755 if path.startswith(programs) or ".so" in path else 0o644
            tar.addfile(entry, io.BytesIO(content))
        for path, target in sorted((links or {}).items()):
            entry = tarfile.TarInfo(f"{top}/{path}")
            entry.type, entry.linkname, entry.mtime = tarfile.SYMTYPE, target, _EPOCH
            tar.addfile(entry)
    return gzip.compress(inner.getvalue(), 1, mtime=0)


def _shared_object(name: str, source: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / name
        subprocess.run(
            [
                *("cc", "-x", "c", "-", "-shared", "-fPIC", "-O1", "-nostdlib", "-s"),
                *("-Wl,--build-id=none", f"-Wl,-soname,{name}", "-o", output),
            ],
            input=source.encode(),
            check=True,
        )
        return output.read_bytes()
