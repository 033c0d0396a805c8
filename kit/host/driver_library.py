"""Asks NVIDIA's libraries in a process of its own, for they may hang; standard library only.

Prints one JSON object: `cuda` (cuDriverGetVersion needs no GPU), `driver`, `gpus`, `problem`. The
arguments are folders where the libraries may be, after what the loader finds by itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import sys
from typing import Any

_TEXT = 96
"""NVML's longest name or UUID (nvml.h: NVML_DEVICE_UUID_V2_BUFFER_SIZE)."""


class _Memory(ctypes.Structure):
    """nvmlMemory_t, in bytes."""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


def main(folders: list[str]) -> None:
    """Print the object."""
    answer: dict[str, Any] = {"cuda": None, "driver": None, "gpus": [], "problem": None}
    cuda = load("libcuda.so.1", folders)
    number = ctypes.c_int()
    if cuda is not None and cuda.cuDriverGetVersion(ctypes.byref(number)) == 0:
        answer["cuda"] = f"{number.value // 1000}.{number.value % 1000 // 10}"
    nvml = load("libnvidia-ml.so.1", folders)
    if nvml is None:
        answer["problem"] = "libnvidia-ml.so.1 was not found"
    else:
        nvml.nvmlErrorString.restype = ctypes.c_char_p
        code = nvml.nvmlInit_v2()
        if code == 0:
            answer["driver"] = _text(nvml.nvmlSystemGetDriverVersion)
            answer["gpus"] = gpus(nvml)
        else:
            answer["problem"] = f"NVML: {nvml.nvmlErrorString(code).decode(errors='replace')}"
    print(json.dumps(answer), flush=True)


def load(name: str, folders: list[str]) -> Any:
    """The library as the loader finds it, else from one of the folders; None without one."""
    for path in [name, *(f"{folder}/{name}" for folder in folders)]:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(path)
    return None


def gpus(nvml: Any) -> list[dict[str, Any]]:
    """Every GPU that NVML lists: name, uuid, compute_capability, memory_bytes."""
    count = ctypes.c_uint()
    nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
    found = []
    for index in range(count.value):
        device = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) != 0:
            continue
        major, minor, memory = ctypes.c_int(), ctypes.c_int(), _Memory()
        pair = (ctypes.byref(major), ctypes.byref(minor))
        knows = nvml.nvmlDeviceGetCudaComputeCapability(device, *pair) == 0
        sized = nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) == 0
        found.append(
            {
                "name": _text(nvml.nvmlDeviceGetName, device) or "unnamed",
                "uuid": _text(nvml.nvmlDeviceGetUUID, device),
                "compute_capability": f"{major.value}.{minor.value}" if knows else None,
                "memory_bytes": memory.total if sized else None,
            }
        )
    return found


def _text(function: Any, *arguments: Any) -> str | None:
    buffer = ctypes.create_string_buffer(_TEXT)
    if function(*arguments, buffer, _TEXT) != 0:
        return None
    return buffer.value.decode(errors="replace")


if __name__ == "__main__":
    main(sys.argv[1:])
