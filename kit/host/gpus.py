"""NVIDIA's GPUs and driver: what `nvidia-smi`, NVML, /proc and /sys say, in this order.

`nvidia-smi -q -x` gives nearly everything in one answer, but drivers before 530 leave the compute
capability out of every answer that is not asked for by `--query-gpu=compute_cap` (driver 470 on).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING

from kit.host.facts import Driver, Gpu, Slice
from kit.host.system import ROOT

if TYPE_CHECKING:
    from pathlib import Path

SMI_FOLDER = "/usr/local/nvidia/bin"
"""Where drivers of containers put `nvidia-smi`."""
LIBRARY_FOLDERS = (
    "usr/local/nvidia/lib64",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/lib/wsl/lib",
    "run/nvidia/driver/usr/lib/x86_64-linux-gnu",
)
_NO_VALUE = {"", "n/a", "[n/a]", "none", "not supported", "[not supported]", "unknown error"}
_MOST = 256
"""GPUs of one host; the largest have 16."""
_NVIDIA = "0x10de"
_DISPLAY = ("0x0300", "0x0302")
"""PCI classes of GPUs: with display, without."""


def parse_xml(text: str) -> tuple[str | None, str | None, list[Gpu]]:
    """Driver version, CUDA version and GPUs of `nvidia-smi -q -x`.

    Compute capabilities are None: the document has none before driver 530.

    Raises:
        ValueError: that is no such document.
    """
    try:
        # The driver's own program wrote it, bounded in size; entities are not expanded from files.
        tree = ET.fromstring(text)  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f"nvidia-smi -q -x: not XML: {error}") from error
    if tree.tag != "nvidia_smi_log":
        raise ValueError(f"nvidia-smi -q -x: expected nvidia_smi_log, found {tree.tag:.40}")
    elements = tree.findall("gpu")
    if len(elements) > _MOST:
        raise ValueError(f"nvidia-smi -q -x: {len(elements)} GPUs, expected at most {_MOST}")
    gpus = [_gpu(index, element) for index, element in enumerate(elements)]
    return _value(tree, "driver_version"), _value(tree, "cuda_version"), gpus


def parse_query(text: str, fields: tuple[str, ...]) -> list[dict[str, str]]:
    """The rows of `nvidia-smi --query-gpu=… --format=csv,noheader,nounits` that are complete."""
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [dict(zip(fields, row, strict=True)) for row in rows if len(row) == len(fields)]


def query_command(program: str, fields: tuple[str, ...]) -> list[str]:
    """The command whose answer `parse_query` reads."""
    return [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]


def with_capabilities(gpus: list[Gpu], capabilities: dict[str, str]) -> list[Gpu]:
    """The GPUs with the compute capabilities that are known by their UUIDs."""
    return [
        replace(gpu, compute_capability=gpu.compute_capability or capabilities.get(gpu.uuid or ""))
        for gpu in gpus
    ]


def capability(text: str | None) -> str | None:
    """`9.0` as it is; None for what is no compute capability, as `[N/A]`."""
    return text if text and re.fullmatch(r"\d{1,2}\.\d", text) else None


def mebibytes(text: str | None) -> int | None:
    """`81920 MiB` or `81920` in bytes; None for `[N/A]`, `[Insufficient Permissions]` and so on."""
    found = re.fullmatch(r"(\d{1,12})(?: MiB)?", (text or "").strip())
    return int(found.group(1)) << 20 if found else None


def kernel_module(root: Path = ROOT) -> tuple[str | None, bool | None]:
    """Version of the module that runs, and whether it is the open one; (None, None) without one."""
    return parse_module(_text(root / "proc/driver/nvidia/version"))


def parse_module(text: str) -> tuple[str | None, bool | None]:
    """Read /proc/driver/nvidia/version; the proprietary and the open module differ in words."""
    found = re.search(
        r"^NVRM version: .*?(Open )?Kernel Module(?: for \S+)?\s+(\d+(?:\.\d+)+)",
        text,
        re.MULTILINE,
    )
    return (found.group(2), found.group(1) is not None) if found else (None, None)


def library(root: Path = ROOT) -> Path | None:
    """The file behind `libcuda.so.1`, in the folders where drivers are installed."""
    for folder in LIBRARY_FOLDERS:
        if (found := root / folder / "libcuda.so.1").exists():
            return found.resolve()
    return None


def library_version(path: Path | None) -> str | None:
    """`580.82.07` of `libcuda.so.580.82.07`; None where the name does not say."""
    found = re.search(r"\.so\.(\d{3,}(?:\.\d+)+)$", path.name if path else "")
    return found.group(1) if found else None


def from_proc(root: Path = ROOT) -> list[Gpu]:
    """The GPUs that the kernel module lists, where nothing else answers: name and UUID only."""
    folders = sorted((root / "proc/driver/nvidia/gpus").glob("*"))
    rows = [dict(_pairs(_text(folder / "information"))) for folder in folders]
    return [
        _bare(index, row["Model"], row.get("GPU UUID"))
        for index, row in enumerate(row for row in rows if "Model" in row)
    ]


def from_nvml(rows: list[dict[str, object]]) -> list[Gpu]:
    """The GPUs that NVML lists (`driver_library`), where there is no `nvidia-smi`."""
    return [
        replace(
            _bare(index, str(row["name"]), str(row["uuid"])),
            compute_capability=capability(str(row["compute_capability"])),
            memory_bytes=row["memory_bytes"] if isinstance(row["memory_bytes"], int) else None,
        )
        for index, row in enumerate(rows)
    ]


def on_pci(root: Path = ROOT) -> int | None:
    """How many NVIDIA GPUs the PCI bus has, with a driver or without; None without a PCI bus."""
    folder = root / "sys/bus/pci/devices"
    if not folder.is_dir():
        return None
    return sum(
        _text(device / "vendor").strip() == _NVIDIA and _text(device / "class").startswith(_DISPLAY)
        for device in folder.iterdir()
    )


def driver(root: Path = ROOT) -> Driver | None:
    """What files say about the driver: everything but `version`, `cuda` and `problem`."""
    module, is_open = kernel_module(root)
    nouveau = (root / "sys/module/nouveau").exists()
    found = library(root)
    if module is None and found is None and not nouveau:
        return None
    return Driver(
        version=module,
        library=library_version(found),
        kernel_module=module,
        open_module=is_open,
        cuda=None,
        uvm=any((root / name).exists() for name in ("sys/module/nvidia_uvm", "dev/nvidia-uvm")),
        nouveau=nouveau,
        problem=None,
    )


def _gpu(index: int, element: ET.Element) -> Gpu:
    processes = element.find("processes")
    fabric = _value(element, "fabric/state")
    slices = element.findall("mig_devices/mig_device")
    virtualisation = (
        (element.findtext("gpu_virtualization_mode/virtualization_mode") or "").strip().lower()
    )
    return Gpu(
        index=index,
        uuid=_value(element, "uuid"),
        name=_value(element, "product_name") or "unnamed",
        compute_capability=capability(_value(element, "compute_cap")),
        memory_bytes=mebibytes(_value(element, "fb_memory_usage/total")),
        mig=_switch(element, "mig_mode/current_mig"),
        slices=tuple(found for item in slices if (found := _slice(item)) is not None),
        virtualisation=virtualisation if virtualisation not in _NO_VALUE - {"none"} else None,
        ecc=_switch(element, "ecc_mode/current_ecc"),
        persistence=_switch(element, "persistence_mode"),
        fabric=fabric.lower() if fabric else None,
        processes=None if processes is None else len(processes.findall("process_info")),
    )


def _slice(element: ET.Element) -> Slice | None:
    numbers = [_value(element, name) for name in ("gpu_instance_id", "compute_instance_id")]
    if not all(number and number.isdecimal() for number in numbers):
        return None
    first, second = (int(number or 0) for number in numbers)
    return Slice(first, second, mebibytes(_value(element, "fb_memory_usage/total")))


def _bare(index: int, name: str, uuid: str | None) -> Gpu:
    return Gpu(
        index=index,
        # The kernel module has `GPU-????????-…` until a program has opened the GPU.
        uuid=uuid if uuid and "?" not in uuid else None,
        name=name,
        compute_capability=None,
        memory_bytes=None,
        mig=None,
        slices=(),
        virtualisation=None,
        ecc=None,
        persistence=None,
        fabric=None,
        processes=None,
    )


def _value(element: ET.Element, path: str) -> str | None:
    text = " ".join((element.findtext(path) or "").split())
    return None if text.lower() in _NO_VALUE else text


def _switch(element: ET.Element, path: str) -> bool | None:
    return {"Enabled": True, "Disabled": False}.get(_value(element, path) or "")


def _pairs(text: str) -> list[tuple[str, str]]:
    rows = (line.partition(":") for line in text.splitlines())
    return [(key.strip(), value.strip()) for key, _, value in rows]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
