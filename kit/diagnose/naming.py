"""Numbers of a message and what they are: tags, versions, capabilities, error codes, sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST_NAMES = 4


def named(kind: str, value: str) -> str | None:
    """What a number of a message stands for; None where no table knows it.

    Args:
        kind: as `numbers` of a symptom says: `serialization_tag`, `tensorrt`, `tensorrt_major`,
            `compute_capability`, `sm`, `driver`, `cuda`, `cuda_error`, `xid`, `bytes`.
        value: as it stands in the log.
    """
    return _KINDS[kind](value)


def _serialization_tag(value: str) -> str | None:
    from kit.data.tensorrt import serialization_tag

    versions = serialization_tag(int(value))
    return f"TensorRT {_or(versions)}" if versions else None


def _tensorrt(value: str) -> str | None:
    """The releases of TensorRT-LLM that pin this TensorRT."""
    from kit.data.releases import order
    from kit.data.releases import value as field
    from kit.data.tensorrt import parts, same

    releases = [
        release
        for release in order()
        if parts(value)
        and (tensorrt := field(release, "tensorrt"))
        and same(tensorrt, value) is not False
    ]
    return f"TensorRT of TensorRT-LLM {_or(releases)}" if releases else None


def _tensorrt_major(value: str) -> str | None:
    from kit.data.releases import order
    from kit.data.releases import value as field

    releases = [
        release for release in order() if str(field(release, "tensorrt")).partition(".")[0] == value
    ]
    return f"TensorRT {value}, of TensorRT-LLM {_span(releases)}" if releases else None


def _compute_capability(value: str) -> str | None:
    from kit.data.gpus import named as gpus

    names = gpus(value)
    return _or(names) if names else None


def _sm(value: str) -> str | None:
    from kit.data.gpus import capability

    found = capability(value)
    names = _compute_capability(found) if found else None
    return f"compute capability {found}: {names}" if names else None


def _driver(value: str) -> str | None:
    """The newest CUDA toolkit that comes with no newer driver than this."""
    from kit.data.drivers import numbers, table

    have = numbers(value)
    best = None
    for row in table()["toolkit"]:
        fits = numbers(row["driver"])[: len(have)] <= have
        if fits and (best is None or numbers(row["cuda"]) > numbers(best)):
            best = row["cuda"]
    return f"driver enough for CUDA {best}" if best else None


def _cuda(value: str) -> str | None:
    from kit.data.drivers import of_toolkit

    found = of_toolkit(value)
    return f"CUDA {value} comes with driver {found[0]}" if found else None


def _cuda_error(value: str) -> str | None:
    return CUDA_ERRORS.get(int(value))


def _xid(value: str) -> str | None:
    return XIDS.get(int(value))


def _bytes(value: str) -> str:
    from kit.console import size

    return size(int(value))


def _or(names: tuple[str, ...] | list[str]) -> str:
    shown = list(names[:_MOST_NAMES])
    if len(names) > _MOST_NAMES:
        return f"{', '.join(shown)} and {len(names) - _MOST_NAMES} more"
    return " or ".join(shown)


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


_KINDS: dict[str, Callable[[str], str | None]] = {
    "serialization_tag": _serialization_tag,
    "tensorrt": _tensorrt,
    "tensorrt_major": _tensorrt_major,
    "compute_capability": _compute_capability,
    "sm": _sm,
    "driver": _driver,
    "cuda": _cuda,
    "cuda_error": _cuda_error,
    "xid": _xid,
    "bytes": _bytes,
}

CUDA_ERRORS = {
    2: "out of memory",
    3: "initialization error",
    35: "the driver is older than the CUDA runtime",
    46: "devices busy or unavailable",
    100: "no device",
    101: "no such device number",
    209: "no kernel for this GPU",
    214: "uncorrectable ECC error",
    218: "PTX that the driver cannot compile",
    222: "PTX of a newer CUDA than the driver's",
    304: "the operating system refused a call",
    700: "illegal memory access",
    719: "launch failure",
    802: "system not yet initialised: fabric manager",
    803: "driver and libcuda do not fit",
    804: "forward compatibility on a GPU that does not have it",
    999: "unknown error",
}
"""Numbers of `cudaError_t` and `CUresult` (NVIDIA CUDA documentation)."""

XIDS = {
    13: "graphics engine exception, mostly a fault of the program",
    31: "memory page fault, mostly a fault of the program",
    48: "double-bit ECC error",
    63: "row remapping or page retirement recorded",
    64: "row remapping or page retirement failed",
    74: "NVLink error",
    79: "the GPU fell off the bus",
    94: "contained ECC error",
    95: "uncontained ECC error",
    119: "the GPU's system processor (GSP) timed out",
}
"""NVIDIA driver messages (NVIDIA Xid errors documentation)."""
