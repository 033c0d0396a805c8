"""Variables of the environment that change how GPUs, NCCL and MPI behave, without their secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kit.host.facts import Variable

if TYPE_CHECKING:
    from collections.abc import Mapping

SHOWN = (
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "HF_HUB_OFFLINE",
    "KIT_ENGINE",
    "LANG",
    "LC_ALL",
    "NCCL_ALGO",
    "NCCL_CUMEM_ENABLE",
    "NCCL_DEBUG",
    "NCCL_IB_DISABLE",
    "NCCL_NET_GDR_LEVEL",
    "NCCL_NVLS_ENABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_P2P_LEVEL",
    "NCCL_PROTO",
    "NCCL_SHM_DISABLE",
    "NVIDIA_TF32_OVERRIDE",
    "NVIDIA_VISIBLE_DEVICES",
    "TRANSFORMERS_OFFLINE",
)
"""Variables whose values can name nobody: numbers, words of the program, indices and UUIDs."""
NAMED = re.compile(
    r"(CUDA|NVIDIA|NCCL|OMPI|OPAL|PMIX|PRTE|UCX|SLURM|KIT|TRTLLM|TLLM|DOCKER|CONTAINERS)_[A-Z0-9_]+"
    r"|LD_LIBRARY_PATH|LD_PRELOAD|PYTHONPATH|HF_TOKEN|HUGGING_FACE_HUB_TOKEN|HF_HOME|NGC_API_KEY"
    r"|(http|https|all|no)_proxy|(HTTP|HTTPS|ALL|NO)_PROXY",
    re.ASCII,
)
"""Variables that are named where they are set, and no more: paths, addresses, secrets."""
_PLAIN = re.compile(r"[A-Za-z0-9_.,:^+-]{0,200}")


def variables(environment: Mapping[str, str]) -> tuple[Variable, ...]:
    """Those that are set, by name; a value only where it can tell nothing about people."""
    return tuple(
        Variable(name, value if name in SHOWN and _PLAIN.fullmatch(value) else None)
        for name, value in sorted(environment.items())
        if name in SHOWN or NAMED.fullmatch(name)
    )
