"""Says which versions are in an image; mounted there and run once, standard library only.

Prints one line, `KIT-VERSIONS ` and a JSON object. What is not there is null, nothing is guessed.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import re
import subprocess

MARK = "KIT-VERSIONS "


def main() -> None:
    """Print the line."""
    print(MARK + json.dumps(versions(), sort_keys=True), flush=True)


def versions() -> dict:  # type: ignore[type-arg] # Python 3.8 inside old images
    """All versions: `python`, `os`, `openmpi`, `cuda`, `tensorrt`, `nccl`, `distributions`."""
    return {
        "python": platform.python_version(),
        "os": operating_system(),
        "openmpi": openmpi(),
        "cuda": cuda(),
        "tensorrt": tensorrt(),
        "nccl": nccl(),
        "distributions": distributions(),
    }


def operating_system() -> str | None:
    """`Debian GNU/Linux 12 (bookworm)`, from os-release."""
    try:
        with open("/etc/os-release", encoding="utf-8") as stream:  # noqa: PTH123
            found = re.search(r'^PRETTY_NAME="?([^"\n]*)', stream.read(), re.MULTILINE)
    except OSError:
        return None
    return found.group(1) if found else None


def openmpi() -> str | None:
    """The version that `mpirun` says."""
    try:
        done = subprocess.run(
            ["mpirun", "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"Open MPI\) (\S+)", done.stdout)
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


def nccl() -> str | None:
    """The version of libnccl: 22304 is 2.23.4."""
    number = ctypes.c_int()
    if call("libnccl.so.2", "ncclGetVersion", ctypes.byref(number)) is None:
        return None
    value = number.value
    base = 10000 if value >= 10000 else 1000
    return f"{value // base}.{value % base // 100}.{value % 100}"


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
        if name:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), distribution.version)
    return found


if __name__ == "__main__":
    os.chdir("/")
    main()
