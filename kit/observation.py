"""What was seen of a component: plain data that readers of artifacts, hosts and images return."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Observation:
    """One fact: which component has which version, where that was seen, and how.

    Attributes:
        component: its usual name in small letters: `tensorrt_llm`, `tensorrt`, `cuda`, `cudnn`,
            `nccl`, `python`, `torch`, `numpy`, `mpi4py`, `openmpi`, `driver`, `os` …
        version: what it says; None where the thing was looked at and does not say.
        where: a path, a path inside an image, a command.
        how: `header`, `config.json`, `dist-info`, `library name`, `environment`, `label`, `probe` …
    """

    component: str
    version: str | None
    where: str
    how: str
