from __future__ import annotations

import pytest

from kit.host import engines
from kit.host.facts import (
    CdiFile,
    Disk,
    Driver,
    Engine,
    Fabric,
    Gpu,
    HostFacts,
    Kit,
    Limit,
    Memory,
    Mpi,
    Pair,
    Processor,
    Slice,
    Slurm,
    System,
    Toolkit,
    Unknown,
    Variable,
)
from kit.project import Project
from tests.conftest import ROOT

GIB = 1 << 30


def gpu(index=0, **other):
    known = {
        "index": index,
        "uuid": f"GPU-00000000-0000-0000-0000-00000000000{index}",
        "name": "NVIDIA H200",
        "compute_capability": "9.0",
        "memory_bytes": 140 * GIB,
        "mig": False,
        "slices": (),
        "virtualisation": "none",
        "ecc": True,
        "persistence": True,
        "fabric": "completed",
        "processes": 0,
    }
    return Gpu(**{**known, **other})


def podman(**other):
    known = {
        "name": "podman",
        "is_default": True,
        "version": "5.4.2",
        "builder": "buildah 1.39",
        "rootless": False,
        "storage": "overlay",
        "cgroup_driver": "systemd",
        "cgroup_version": 2,
        "runtimes": ("crun",),
        "cdi": True,
        "snap": False,
    }
    return Engine(**{**known, **other})


def driver(**other):
    known = {
        "version": "580.159.03",
        "library": "580.159.03",
        "kernel_module": "580.159.03",
        "open_module": True,
        "cuda": "13.0",
        "uvm": True,
        "nouveau": False,
        "problem": None,
    }
    return Driver(**{**known, **other})


def host(**other):
    """A host with two GPUs that lacks nothing, and one of everything."""
    known = {
        "schema": "kit.host/1",
        "created": "2026-11-20T12:00:00Z",
        "kit": Kit("0.1.0"),
        "system": System("Debian GNU/Linux 12", "debian", "12", "6.1", "x86_64", "2.36", None),
        "processor": Processor("AMD EPYC", 64, 64, 32.5),
        "memory": Memory(512 * GIB, 500 * GIB, 0, None, 2),
        "disks": (
            Disk("home", "~/.cache/trtllm-kit", 900 * GIB, 500 * GIB, 10**7),
            Disk("engine", "/var/lib/containers/storage", 900 * GIB, 500 * GIB, 10**7),
            Disk("tmp", "/tmp", 900 * GIB, 500 * GIB, None),
            Disk("shm", "/dev/shm", 256 * GIB, 256 * GIB, 10**7),
        ),
        "limits": (Limit("memlock", -1, -1), Limit("stack", 8 << 20, -1)),
        "pci_gpus": 2,
        "driver": driver(),
        "gpus": (gpu(0, slices=(Slice(1, 0, GIB),)), gpu(1)),
        "pairs": (Pair(0, 1, "OK", "NV18"),),
        "fabric": Fabric(4, True, True, "580.159.03"),
        "engines": (podman(),),
        "toolkit": Toolkit(
            "1.17.3",
            True,
            (CdiFile("/etc/cdi/nvidia.yaml", "nvidia.com/gpu", ("0", "1", "all"), (), None),),
            None,
        ),
        "mpi": (Mpi("Open MPI", "/usr/bin/mpirun", "4.1.4"),),
        "slurm": Slurm("23.11.4", ("none", "pmix", "pmix_v5"), True, False),
        "environment": (Variable("LANG", "C.UTF-8"), Variable("HF_TOKEN", None)),
        "unknown": (Unknown("tpm", "nobody asked"),),
    }
    return HostFacts(**{**known, **other})


class Machine:
    """A host of stand-in programs and nothing else: PATH, home, engines."""

    def __init__(self, folder, monkeypatch):
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.home = folder / "home"
        self.project = Project(ROOT, self.home / "kit")
        monkeypatch.setenv("PATH", str(self.bin))
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("KIT_HOME", str(self.project.home))
        monkeypatch.setenv("KIT_ENGINE", "podman")
        monkeypatch.delenv("DOCKER_HOST", raising=False)
        monkeypatch.setattr(engines, "DOCKER_SOCKET", folder / "none.sock")

    def program(self, name, text):
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def says(self, name, text, code=0):
        """A program that says one thing whatever it is asked."""
        (self.bin / f".{name}").write_text(text)
        self.program(name, f"/bin/cat {self.bin}/.{name}; exit {code}")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)
