"""What an image's configuration says: versions in its environment and in its labels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kit.artifacts import bounded
from kit.console import visible
from kit.observation import Observation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_VARIABLES = {
    "TRT_VERSION": "tensorrt",
    "TENSORRT_VERSION": "tensorrt",
    "CUDA_VERSION": "cuda",
    "CUDA_DRIVER_VERSION": "cuda_driver",
    "CUDNN_VERSION": "cudnn",
    "NCCL_VERSION": "nccl",
    "CUBLAS_VERSION": "cublas",
    "OPENMPI_VERSION": "openmpi",
    "HPCX_VERSION": "hpcx",
    "PYTHON_VERSION": "python",
    "PYTORCH_VERSION": "torch",
    "PYTORCH_BUILD_VERSION": "torch",
    "NVIDIA_PYTORCH_VERSION": "pytorch_container",
    "TRITON_SERVER_VERSION": "tritonserver",
    "NVIDIA_TRITON_SERVER_VERSION": "triton_container",
    "TRT_LLM_VER": "tensorrt_llm",
    "TRT_LLM_VERSION": "tensorrt_llm",
    "TRTLLM_VERSION": "tensorrt_llm",
}
"""Variables of NVIDIA's images; `cuda_driver` is the driver that came with that CUDA."""

_LABELS = {
    "com.nvidia.tensorrt.version": "tensorrt",
    "com.nvidia.tensorrtllm.version": "tensorrt_llm",
    "com.nvidia.cuda.version": "cuda",
    "com.nvidia.cudnn.version": "cudnn",
    "com.nvidia.nccl.version": "nccl",
    "com.nvidia.cublas.version": "cublas",
    "com.nvidia.pytorch.version": "torch",
}
_KIT = "org.trtllm-kit."
_SHOWN_LABELS = ("com.nvidia.", "org.opencontainers.image.", _KIT)
_SHOWN = re.compile(
    r"PATH|\w+_PATH|PYTHONPATH|\w+_VERSION|\w+_VER|LANG"
    r"|(NVIDIA|CUDA|TRT|TRTLLM|TLLM|OMPI|OPAL|PMIX|UCX|NCCL|CONDA|TORCH|NPY|OPENBLAS)_\w+"
)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH|LOGIN", re.IGNORECASE)
_VERSION = re.compile(r"[\w.+~:-]{1,128}")


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """The variables that steer what runs in the image; others may hold secrets and are left out."""
    pairs = (text.partition("=") for text in bounded.texts(config, "config", "Env"))
    return {
        name: visible(value)
        for name, _, value in pairs
        if _SHOWN.fullmatch(name) and not _SECRET.search(name)
    }


def labels(config: Mapping[str, Any]) -> dict[str, str]:
    """The labels of NVIDIA, of the OCI and of the kit."""
    found = bounded.mapping(config, "config", "Labels")
    return {
        visible(name): visible(value)
        for name, value in found.items()
        if name.startswith(_SHOWN_LABELS) and isinstance(value, str) and not _SECRET.search(name)
    }


def observations(config: Mapping[str, Any]) -> Iterator[Observation]:
    """The versions in both."""
    shown = environment(config)
    for name, component in _VARIABLES.items():
        if _VERSION.fullmatch(version := shown.get(name, "")):
            yield Observation(component, version, f"variable {name}", "environment")
    told = labels(config)
    for name, component in _LABELS.items():
        if _VERSION.fullmatch(version := told.get(name, "")):
            yield Observation(component, version, f"label {name}", "label")
    backend = told.get(f"{_KIT}backend")
    local = f"+{backend}" if backend == "rehearsal" else ""
    for release in told.get(f"{_KIT}releases", "").split():
        yield Observation("tensorrt_llm", release + local, f"label {_KIT}releases", "label")
    if backend:
        yield Observation("backend", backend, f"label {_KIT}backend", "label")
