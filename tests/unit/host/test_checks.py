from __future__ import annotations

from dataclasses import replace

import pytest

from kit.host.checks import checks, is_able
from kit.host.facts import (
    CdiFile,
    Disk,
    Fabric,
    Limit,
    Mpi,
    Pair,
    Slice,
    Slurm,
    Toolkit,
    Unknown,
    Variable,
)
from tests.unit.host.conftest import GIB, driver, gpu, host, podman


def found(facts, *, gpu=False):
    return {check.name: check for check in checks(facts, gpu=gpu)}


def bare(**other):
    """A host without GPUs."""
    return host(
        **{
            "driver": None,
            "gpus": (),
            "pairs": (),
            "fabric": None,
            "pci_gpus": 0,
            "toolkit": None,
            **other,
        }
    )


def disks(**free):
    return tuple(
        replace(disk, free_bytes=free.get(disk.name, disk.free_bytes)) for disk in host().disks
    )


def test_a_host_that_lacks_nothing():
    listed = checks(host(), gpu=True)
    assert [check for check in listed if check.status != "ok"] == []
    assert is_able(listed)
    assert len({check.name for check in listed}) == len(listed)


def test_every_lack_has_advice_and_ok_has_none():
    for facts in (host(), bare(), bare(engines=(), disks=(), slurm=None)):
        for check in checks(facts, gpu=True):
            assert (check.advice is not None) == (check.status != "ok"), check


def test_without_a_gpu_the_rehearsal_runs():
    listed = checks(bare())
    assert {check.name for check in listed if check.status == "warning"} == {"driver", "gpus"}
    assert is_able(listed)
    assert not is_able(checks(bare(), gpu=True))


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ({"engines": ()}, "engine", "problem"),
        ({"engines": (podman(version=None),)}, "engine", "problem"),
        (
            {"engines": (), "unknown": (Unknown("engines.default", "no answer within 25 s"),)},
            "engine",
            "problem",
        ),
        ({"engines": (podman(builder=None),)}, "builder", "problem"),
        ({"engines": (podman(snap=True),)}, "snap", "warning"),
        ({"engines": (podman(storage="vfs"),)}, "storage", "warning"),
        (
            {"engines": (podman(rootless=True),), "toolkit": Toolkit(None, False, (), False)},
            "subordinate ids",
            "warning",
        ),
        ({"disks": disks(home=GIB)}, "disk of the kit", "problem"),
        ({"disks": disks(home=40 * GIB)}, "disk of the kit", "warning"),
        ({"disks": disks(home=63 * GIB)}, "disk of the kit", "ok"),
        ({"disks": disks(engine=GIB)}, "disk of the engine", "problem"),
        (
            {"disks": (Disk("home", "~", 900 * GIB, 900 * GIB, 1000),)},
            "disk of the kit",
            "warning",
        ),
        (
            {"disks": (), "unknown": (Unknown("disks.home", "no answer"),)},
            "disk of the kit",
            "unknown",
        ),
        ({"disks": disks(shm=64 << 20)}, "shared memory", "warning"),
        ({"disks": ()}, "shared memory", "unknown"),
        ({"limits": (Limit("memlock", 65536, 65536),)}, "memlock", "warning"),
        ({"limits": (Limit("stack", 8 << 20, 8 << 20),)}, "stack", "warning"),
        ({"limits": (Limit("stack", 8 << 20, 64 << 20),)}, "stack", "ok"),
        ({"memory": replace(host().memory, limit_bytes=8 * GIB)}, "memory", "warning"),
        ({"mpi": (*host().mpi, Mpi("Open MPI", "/opt/mpirun", None))}, "mpi", "warning"),
        ({"mpi": ()}, "mpi", "ok"),
        ({"slurm": None}, "slurm", "ok"),
        ({"slurm": Slurm("22.05", ("none", "pmi2"), True, False)}, "slurm", "ok"),
        ({"slurm": Slurm("22.05", ("pmix",), False, False)}, "slurm", "warning"),
        ({"slurm": Slurm(None, (), None, False)}, "slurm", "unknown"),
        ({"environment": (Variable("OPAL_PREFIX", None),)}, "environment", "warning"),
        ({"environment": (Variable("NCCL_P2P_DISABLE", "1"),)}, "environment", "warning"),
        ({"system": replace(host().system, architecture="riscv64")}, "architecture", "problem"),
    ],
)
def test_the_host(change, name, status):
    check = found(host(**change))[name]
    assert check.status == status
    assert (check.advice is None) == (status == "ok")


@pytest.mark.parametrize(
    ("change", "name", "status"),
    [
        ({"driver": None, "gpus": ()}, "driver", "serious"),
        ({"driver": driver(version=None, nouveau=True)}, "driver", "serious"),
        ({"driver": driver(library="570.124.06")}, "driver", "serious"),
        (
            {"driver": driver(problem="Failed to initialize NVML: Unknown Error")},
            "driver",
            "serious",
        ),
        ({"driver": driver(uvm=False)}, "driver", "serious"),
        ({"driver": driver(cuda=None)}, "driver", "unknown"),
        ({"gpus": (gpu(compute_capability=None),)}, "gpus", "unknown"),
        ({"gpus": (gpu(mig=True, slices=(Slice(1, 0, None),)),)}, "mig", "warning"),
        ({"gpus": (gpu(processes=2),)}, "gpu load", "warning"),
        ({"pairs": (Pair(0, 1, "CNS", "SYS"),)}, "peer access", "warning"),
        ({"pairs": ()}, "peer access", "unknown"),
        ({"fabric": Fabric(4, True, False, "580.159.03")}, "fabric manager", "serious"),
        ({"fabric": Fabric(4, True, True, "570.124.06")}, "fabric manager", "serious"),
        ({"fabric": Fabric(0, True, None, None)}, "fabric manager", "unknown"),
        ({"toolkit": None}, "gpus in containers", "ok"),
        (
            {"engines": (podman(runtimes=("nvidia",), cgroup_driver="systemd"),)},
            "cgroup driver",
            "warning",
        ),
    ],
)
@pytest.mark.parametrize("needed", [False, True])
def test_gpus(change, name, status, needed):
    check = found(host(**change), gpu=needed)[name]
    serious = "problem" if needed else "warning"
    assert check.status == (serious if status == "serious" else status)


@pytest.mark.parametrize(
    "file",
    [
        CdiFile(
            "/etc/cdi/nvidia.yaml", "nvidia.com/gpu", ("all",), ("/usr/lib/libcuda.so.1",), None
        ),
        CdiFile("/etc/cdi/nvidia.yaml", None, (), (), "not valid YAML"),
    ],
)
def test_stale_cdi(file):
    check = found(host(toolkit=Toolkit("1.17.3", False, (file,), None)))["gpus in containers"]
    assert check.status == "warning"
    assert check.advice == "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    assert (file.problem or file.missing[0]) in check.found


def test_a_gpu_on_the_bus_without_a_driver():
    check = found(bare(pci_gpus=8))["driver"]
    assert "8 NVIDIA GPUs on the PCI bus" in check.found
    assert "install" in (check.advice or "")


def test_unknown_gpus_are_not_taken_for_none():
    facts = bare(unknown=(Unknown("gpus", "nvidia-smi: no answer within 10 s"),))
    assert found(facts)["gpus"].status == "unknown"
    assert found(facts, gpu=True)["gpus"].status == "problem"
