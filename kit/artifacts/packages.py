"""Debian packages that hold what TensorRT-LLM stands on, from dpkg's status."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator

_COMPONENTS = (
    ("tensorrt", re.compile(r"libnvinfer\d+|tensorrt")),
    ("tensorrt_plugin", re.compile(r"libnvinfer-plugin\d+")),
    ("nccl", re.compile(r"libnccl2")),
    ("cudnn", re.compile(r"libcudnn\d+(-cuda-\d+)?")),
    ("cublas", re.compile(r"libcublas-\d+-\d+")),
    ("cudart", re.compile(r"cuda-cudart-\d+-\d+")),
    ("cuda", re.compile(r"cuda-toolkit-\d+-\d+|cuda-\d+-\d+")),
    ("cuda_compat", re.compile(r"cuda-compat-\d+-\d+")),
    ("driver", re.compile(r"(libnvidia-compute|libcuda1|nvidia-driver)(-\d+)?(-server)?")),
    ("openmpi", re.compile(r"openmpi-bin|libopenmpi\d+\w*")),
    ("mpich", re.compile(r"libmpich\d+\w*|mpich")),
    ("hpcx", re.compile(r"hpcx")),
    ("glibc", re.compile(r"libc6")),
    ("python", re.compile(r"python3\.\d+")),
    ("numpy", re.compile(r"python3-numpy")),
    ("mpi4py", re.compile(r"python3-mpi4py")),
)
_FIELD = re.compile(r"^(Package|Status|Version): *([\w.+~:-]+(?: [\w-]+)*)\s*$", re.MULTILINE)


def observations(status: str, where: str) -> Iterator[Observation]:
    """The installed ones of the packages above, versions as upstream counts.

    Args:
        status: dpkg's status, or one stanza of it (`status.d` of images without a dpkg).
        where: the file it stands in.
    """
    for stanza in status.split("\n\n"):
        fields = dict(_FIELD.findall(stanza))
        if fields.get("Status", "installed").split()[-1] != "installed":
            continue
        package, version = fields.get("Package", ""), fields.get("Version")
        for component, pattern in _COMPONENTS:
            if version and pattern.fullmatch(package):
                yield Observation(component, upstream(version), f"{where}: {package}", "dpkg")


def upstream(version: str) -> str:
    """`1:10.7.0.23-1+cuda12.6` is upstream's `10.7.0.23`: no epoch, no revision of Debian's."""
    bare = version.partition(":")[2] or version
    return bare.rpartition("-")[0] or bare
