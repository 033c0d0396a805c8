"""What programs answer, in the shapes of several versions, shortened to what is read and more."""

from __future__ import annotations

UUID = "GPU-6a1f0b52-3c4d-4e5f-8a9b-00000000000{}"


def gpu_xml(index=0, *, name="NVIDIA H200", capability=None, memory="143771 MiB", mig="Disabled",
            slices=(), virtualisation="None", ecc="Enabled", fabric="Completed", processes=0):  # fmt: skip
    """One <gpu> of `nvidia-smi -q -x`; drivers from 530 on put no capability in it either."""
    devices = "".join(
        f"<mig_device><index>{at}</index><gpu_instance_id>{first}</gpu_instance_id>"
        f"<compute_instance_id>{second}</compute_instance_id><fb_memory_usage>"
        f"<total>{size}</total></fb_memory_usage></mig_device>"
        for at, (first, second, size) in enumerate(slices)
    )
    running = "".join(
        f"<process_info><pid>{4000 + at}</pid><process_name>/home/ann/train.py</process_name></process_info>"
        for at in range(processes)
    )
    cap = f"<compute_cap>{capability}</compute_cap>" if capability else ""
    state = f"<fabric><state>{fabric}</state><status>Success</status></fabric>" if fabric else ""
    return f"""
    <gpu id="00000000:0{index}:00.0">
        <product_name>{name}</product_name>{cap}
        <persistence_mode>Enabled</persistence_mode>
        <mig_mode>
            <current_mig>{mig}</current_mig>
            <pending_mig>{mig}</pending_mig>
        </mig_mode>
        <mig_devices>{devices or "None"}</mig_devices>
        <serial>1650522003820</serial>
        <uuid>{UUID.format(index)}</uuid>
        <minor_number>{index}</minor_number>
        <gpu_virtualization_mode>
            <virtualization_mode>{virtualisation}</virtualization_mode>
        </gpu_virtualization_mode>
        <fb_memory_usage>
            <total>{memory}</total>
            <used>50 MiB</used>
        </fb_memory_usage>
        <ecc_mode>
            <current_ecc>{ecc}</current_ecc>
        </ecc_mode>
        {state}
        <processes>{running}</processes>
    </gpu>"""


def smi_xml(*gpus, driver="580.159.03", cuda="13.0", schema=13):
    return f"""<?xml version="1.0" ?>
<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v{schema}.dtd">
<nvidia_smi_log>
    <timestamp>Fri Nov 20 12:00:00 2026</timestamp>
    <driver_version>{driver}</driver_version>
    <cuda_version>{cuda}</cuda_version>
    <attached_gpus>{len(gpus)}</attached_gpus>{"".join(gpus)}
</nvidia_smi_log>
"""


MISMATCH = """Failed to initialize NVML: Driver/library version mismatch
NVML library version: 570.124
"""
NO_DEVICE = "No devices were found\n"
NOT_LOADED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running.\n\n"
)
NO_FIELD = 'Field "compute_cap" is not a valid field to query.\n\n'

MODULE = """NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023
GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)
"""
OPEN_MODULE = """NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.03  Release Build  (root@build)  Tue Jun 25 01:26:03 UTC 2026
GCC version:  gcc version 13.3.0
"""

LEGEND = """
Legend:

  X    = Self
  OK   = Status Ok
  CNS  = Chipset not supported
  GNS  = GPU not supported
  TNS  = Topology not supported
  NS   = Not supported
  U    = Unknown
"""
PEERS_1 = " \tGPU0\t\n GPU0\tX\t\n" + LEGEND
PEERS_2 = " \tGPU0\tGPU1\t\n GPU0\tX\tGNS\t\n GPU1\tGNS\tX\t\n" + LEGEND
LINKS_1 = (
    "\t\x1b[4mGPU0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\n"
    "GPU0\t X \t0-15\t0\t\tN/A\n" + LEGEND
)
LINKS_2 = (
    "        GPU0    GPU1    CPU Affinity    NUMA Affinity\n"
    "GPU0     X      PHB     0-11            N/A\n"
    "GPU1    PHB      X      0-11            N/A\n" + LEGEND
)


def matrix(count, cell, *, cards=0, tail=""):
    """`topo` of many GPUs that are all alike, with network cards as `topo -m` lists them."""
    names = [f"GPU{at}" for at in range(count)] + [f"NIC{at}" for at in range(cards)]
    lines = ["\t\x1b[4m" + "\t".join(names) + ("\tCPU Affinity\x1b[0m" if tail else "\x1b[0m")]
    for row, name in enumerate(names):
        cells = [
            " X " if row == column else cell if max(row, column) < count else "PIX"
            for column in range(len(names))
        ]
        lines.append("\t".join([name, *cells]) + (tail if row < count else ""))
    return "\n".join(lines) + "\n" + LEGEND + "\nNIC Legend:\n\n  NIC0: mlx5_0\n  NIC1: mlx5_1\n"


DOCKER = {
    "ID": "7GY4:WYBW:FDCB:4JQS",
    "Driver": "overlay2",
    "DriverStatus": [["Backing Filesystem", "extfs"], ["Supports d_type", "true"]],
    "CgroupDriver": "cgroupfs",
    "CgroupVersion": "1",
    "KernelVersion": "6.1.0-18-amd64",
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "NCPU": 2,
    "MemTotal": 25276514304,
    "DockerRootDir": "/var/lib/docker",
    "HttpProxy": "http://ann:secret@proxy.example:3128",
    "Name": "gpu-node-17",
    "ServerVersion": "20.10.24+dfsg1",
    "Runtimes": {
        "io.containerd.runc.v2": {"path": "runc"},
        "io.containerd.runtime.v1.linux": {"path": "runc"},
        "runc": {"path": "runc"},
    },
    "DefaultRuntime": "runc",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "Warnings": None,
}
DOCKER_WITH_GPUS = {
    **DOCKER,
    "CgroupDriver": "systemd",
    "CgroupVersion": "2",
    "ServerVersion": "28.2.2",
    "Runtimes": {"nvidia": {"path": "nvidia-container-runtime"}, "runc": {"path": "runc"}},
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=builtin", "name=rootless"],
    "CDISpecDirs": ["/etc/cdi", "/var/run/cdi"],
}
DOCKER_SNAP = {**DOCKER, "DockerRootDir": "/var/snap/docker/common/var-lib-docker"}

PODMAN = {
    "host": {
        "arch": "amd64",
        "buildahVersion": "1.28.2",
        "cgroupManager": "cgroupfs",
        "cgroupVersion": "v1",
        "hostname": "gpu-node-17",
        "ociRuntime": {"name": "crun", "path": "/usr/bin/crun", "version": "crun version 1.8.1"},
        "security": {"rootless": False, "selinuxEnabled": False},
    },
    "store": {
        "graphDriverName": "overlay",
        "graphRoot": "/var/lib/containers/storage",
        "runRoot": "/run/containers/storage",
    },
    "version": {"APIVersion": "4.3.1", "Version": "4.3.1", "OsArch": "linux/amd64"},
}
PODMAN_ROOTLESS = {
    "host": {
        **PODMAN["host"],
        "cgroupManager": "systemd",
        "cgroupVersion": "v2",
        "security": {"rootless": True},
    },
    "store": {**PODMAN["store"], "graphRoot": "/home/ann/.local/share/containers/storage"},
    "version": {"APIVersion": "5.4.2", "Version": "5.4.2"},
}

PLUGINS_20 = (
    "srun: MPI types are...\nsrun: pmi2\nsrun: none\nsrun: openmpi\nsrun: pmix\nsrun: pmix_v3\n"
)
PLUGINS_22 = (
    "MPI plugin types are...\n\tpmix\n\tnone\n\tcray_shasta\n\tpmi2\n"
    "specific pmix plugin versions available: pmix_v4\n"
)
PLUGINS_23 = (
    "MPI plugin types are...\n\tnone\n\tcray_shasta\n\tpmi2\n\tpmix\n"
    "specific pmix plugin versions available: pmix_v4,pmix_v5\n"
)
PLUGINS_WITHOUT = "MPI plugin types are...\n        cray_shasta\n        none\n        pmi2\n"
NO_CONFIGURATION = """srun: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host
srun: error: fetch_config: DNS SRV lookup failed
srun: fatal: Could not establish a configuration source
"""
