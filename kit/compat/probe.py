"""Says which versions are in an image; mounted there and run once, standard library only.

Prints one line, `KIT-VERSIONS ` and a JSON object. What is not there is null, nothing is guessed.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import shutil
import subprocess
import sys

MARK = "KIT-VERSIONS "
SINGLE = ("python", "os", "openmpi", "cuda", "tensorrt", "nccl", "cudnn", "glibc", "tritonserver")
"""Keys of the answer that hold one version, or null."""
NESTED = {"distributions", "torch", "libraries"}
"""Keys that hold an object; all others hold a text or null."""
KEYS = {*SINGLE, *NESTED, "tensorrt_build", "mpirun", "conda"}
LIBRARIES = ("libnvinfer", "libmpi")


def main() -> None:
    """Print the line."""
    print(MARK + json.dumps(versions(), sort_keys=True), flush=True)


def versions() -> dict:  # type: ignore[type-arg] # Python 3.8 inside old images
    """What there is, under `KEYS`.

    `tensorrt` has three numbers and `tensorrt_build` all four, `torch` has `version`, `cuda` and
    `cxx11_abi`, `libraries` the real files of each of `LIBRARIES`, `mpirun` and `conda` are the
    programs that PATH leads to.
    """
    return {
        "python": platform.python_version(),
        "os": operating_system(),
        "openmpi": openmpi(),
        "cuda": cuda(),
        "tensorrt": tensorrt(),
        "tensorrt_build": tensorrt_build(),
        "nccl": nccl(),
        "cudnn": cudnn(),
        "glibc": glibc(),
        "tritonserver": content("/opt/tritonserver/TRITON_VERSION", r"\s*([\w.+-]+)"),
        "torch": torch(),
        "libraries": libraries(),
        "mpirun": shutil.which("mpirun"),
        "conda": shutil.which("conda"),
        "distributions": distributions(),
    }


def operating_system() -> str | None:
    """`Debian GNU/Linux 12 (bookworm)`, from os-release."""
    return content("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)')


def openmpi() -> str | None:
    """The version that `mpirun` says."""
    found = re.search(r"Open MPI\) (\S+)", output("mpirun", "--version"))
    return found.group(1) if found else None


def cuda() -> str | None:
    """The version of the CUDA toolkit or of the runtime library."""
    try:
        with open("/usr/local/cuda/version.json", encoding="utf-8") as stream:  # noqa: PTH123
            return str(json.load(stream)["cuda"]["version"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    for name in ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0"):
        number = ctypes.c_int()
        if call(name, "cudaRuntimeGetVersion", ctypes.byref(number)) is not None:
            return f"{number.value // 1000}.{number.value % 1000 // 10}"
    return None


def tensorrt() -> str | None:
    """The version of libnvinfer: 8601 and 100700 are 8.6.1 and 10.7.0."""
    for name in ("libnvinfer.so", "libnvinfer.so.10", "libnvinfer.so.9", "libnvinfer.so.8"):
        number = call(name, "getInferLibVersion")
        if number:
            # From 10.0 on two digits are kept for minor and for patch.
            major, minor, patch = (
                (number // 10000, number // 100 % 100, number % 100)
                if number >= 100000
                else (number // 1000, number // 100 % 10, number % 100)
            )
            return f"{major}.{minor}.{patch}"
    return None


def tensorrt_build() -> str | None:
    """All four numbers of libnvinfer; TensorRT 10 has a function for each of them.

    Unlike `tensorrt` also of one that only Python finds, in `tensorrt_libs`.
    """
    for name in ["libnvinfer.so", "libnvinfer.so.10", *libraries()["libnvinfer"]]:
        parts = ("Major", "Minor", "Patch", "Build")
        numbers = [call(name, f"getInferLib{part}Version") for part in parts]
        if None not in numbers:
            return ".".join(map(str, numbers))
    return None


def nccl() -> str | None:
    """The version of libnccl: 22304 is 2.23.4."""
    number = ctypes.c_int()
    if call("libnccl.so.2", "ncclGetVersion", ctypes.byref(number)) is None:
        return None
    value = number.value
    base = 10000 if value >= 10000 else 1000
    return f"{value // base}.{value % base // 100}.{value % 100}"


def cudnn() -> str | None:
    """The version of libcudnn: 8907 and 90701 are 8.9.7 and 9.7.1."""
    for name in ("libcudnn.so.9", "libcudnn.so.8"):
        number = call(name, "cudnnGetVersion")
        if number:
            base = 10000 if number >= 90000 else 1000
            return f"{number // base}.{number % base // 100}.{number % 100}"
    return None


def glibc() -> str | None:
    """The version of the C library; None where it is another one, as musl."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").partition("glibc ")[2] or None
    except (OSError, ValueError):
        return None


def torch() -> dict | None:  # type: ignore[type-arg] # Python 3.8 inside old images
    """`version`, `cuda` and `cxx11_abi` of PyTorch from its files; to import it takes seconds."""
    from importlib import util

    try:
        spec = util.find_spec("torch")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    folder = os.path.dirname(spec.origin)  # noqa: PTH120 - no pathlib in a script this small
    version = os.path.join(folder, "version.py")  # noqa: PTH118
    cmake = os.path.join(folder, "share/cmake/Torch/TorchConfig.cmake")  # noqa: PTH118
    return {
        "version": content(version, r"^__version__\s*(?::.*)?=\s*[\"']([^\"']+)"),
        "cuda": content(version, r"^cuda\s*(?::.*)?=\s*[\"']([^\"']+)"),
        "cxx11_abi": content(cmake, r"_GLIBCXX_USE_CXX11_ABI=([01])"),
    }


def libraries() -> dict:  # type: ignore[type-arg] # Python 3.8 inside old images
    """The real files of each of `LIBRARIES` that a program may load, by name of the library."""
    found: dict = {name: set() for name in LIBRARIES}  # type: ignore[type-arg]
    paths = re.findall(r"=> (/\S+)", output("ldconfig", "-p") or output("/sbin/ldconfig", "-p"))
    folders = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    folders += [os.path.join(place, "tensorrt_libs") for place in sys.path]  # noqa: PTH118
    for folder in filter(os.path.isdir, folders):
        paths += [os.path.join(folder, name) for name in os.listdir(folder)]  # noqa: PTH118, PTH208
    for path in paths:
        name = path.rpartition("/")[2].partition(".so")[0]
        if name in found and ".so" in path and os.path.isfile(path):  # noqa: PTH113
            found[name].add(os.path.realpath(path))
    return {name: sorted(files) for name, files in found.items()}


def output(*command: str) -> str:
    """What a command prints; empty if it is not there or fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace")


def content(path: str, pattern: str) -> str | None:
    """The first group of a pattern in a file, None if either is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:  # noqa: PTH123
            found = re.search(pattern, stream.read(1 << 20), re.MULTILINE)
    except OSError:
        return None
    return found.group(1) if found else None


def call(library: str, function: str, *arguments: object) -> int | None:
    """Call a C function that returns an int; None when the library or the function is not there."""
    try:
        return int(getattr(ctypes.CDLL(library), function)(*arguments))
    except (OSError, AttributeError):
        return None


def distributions() -> dict:  # type: ignore[type-arg] # Python 3.8 inside old images
    """Every installed Python distribution: name in canonical spelling → version."""
    from importlib import metadata

    found: dict = {}  # type: ignore[type-arg]
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name and distribution.version:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return found


if __name__ == "__main__":
    os.chdir("/")
    main()
