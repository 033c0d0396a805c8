"""What the facts about the driver and the GPUs mean: can engines be built and run here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kit.host.check import Check

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kit.host.check import Status
    from kit.host.facts import HostFacts


def checks(facts: HostFacts, serious: Status) -> list[Check]:
    """Driver, GPUs, links, and their way into containers; `serious` is what a lack counts as."""
    return [_driver(facts, serious), *_gpus(facts, serious), *_passing(facts, serious)]


def _driver(facts: HostFacts, serious: Status) -> Check:
    driver = facts.driver
    if driver is None or (driver.version is None and driver.problem is None):
        on_bus = facts.pci_gpus or 0
        why = facts.reason("driver") or facts.reason("driver.version")
        found = f"none, and {on_bus} NVIDIA GPUs on the PCI bus" if on_bus else "none"
        if driver is not None and driver.nouveau:
            found = "nouveau has the GPUs"
        advice = (
            "install NVIDIA's driver (blacklist nouveau), reboot"
            if on_bus or driver is not None
            else "without a GPU only the rehearsal runs here: kit run gpt2-tiny --stack rehearsal"
        )
        return Check(
            "driver",
            serious if not why else "unknown",
            why or found,
            "NVIDIA's driver, for real engines",
            advice,
        )
    mismatch = driver.library and driver.kernel_module and driver.library != driver.kernel_module
    found = f"{driver.version}, CUDA up to {driver.cuda or 'unknown'}"
    if mismatch:
        return Check(
            "driver",
            serious,
            f"kernel module {driver.kernel_module}, libraries {driver.library}",
            "the same version",
            "reboot, or unload the old module: rmmod nvidia_uvm nvidia_drm nvidia_modeset nvidia",
        )
    if driver.problem is not None:
        return Check("driver", serious, driver.problem, "an answer", "nvidia-smi; dmesg | tail")
    if not driver.uvm:
        return Check(
            "driver",
            serious,
            f"{found}; nvidia_uvm is not loaded, CUDA cannot start",
            "/dev/nvidia-uvm",
            "sudo nvidia-modprobe -u -c=0",
        )
    if driver.cuda is None:
        return Check("driver", "unknown", found, "the newest CUDA that it speaks", "nvidia-smi")
    return Check("driver", "ok", found)


def _gpus(facts: HostFacts, serious: Status) -> Iterator[Check]:
    if not facts.gpus:
        why = facts.reason("gpus")
        yield Check(
            "gpus",
            "unknown" if why and serious != "problem" else serious,
            why or "none",
            "an NVIDIA GPU, for real engines",
            "nvidia-smi -L" if why else "the rehearsal needs none: --stack rehearsal",
        )
        return
    names = dict.fromkeys(
        f"{gpu.name} ({gpu.compute_capability or 'compute capability unknown'})"
        for gpu in facts.gpus
    )
    whole = all(gpu.compute_capability and gpu.memory_bytes for gpu in facts.gpus)
    yield Check(
        "gpus",
        "ok" if whole else "unknown",
        f"{len(facts.gpus)} x {', '.join(names)}",
        None,
        None if whole else "nvidia-smi -q",
    )
    sliced = [gpu for gpu in facts.gpus if gpu.mig]
    if sliced:
        yield Check(
            "mig",
            "warning",
            f"on for {len(sliced)} of {len(facts.gpus)} GPUs, "
            f"{sum(len(gpu.slices) for gpu in sliced)} slices",
            "off for engines of a whole GPU",
            "sudo nvidia-smi -mig 0, or --gpus MIG-<uuid> (nvidia-smi -L lists them)",
        )
    busy = [gpu for gpu in facts.gpus if gpu.processes]
    if busy:
        yield Check(
            "gpu load",
            "warning",
            f"{sum(gpu.processes or 0 for gpu in busy)} processes on {len(busy)} GPUs",
            "none: times and memory of a build depend on it",
            "nvidia-smi --query-compute-apps=pid,used_memory --format=csv",
        )
    yield from _links(facts, serious)


def _links(facts: HostFacts, serious: Status) -> Iterator[Check]:
    closed = [pair for pair in facts.pairs if pair.peer not in ("OK", None)]
    if len(facts.gpus) > 1:
        why = facts.reason("pairs")
        words = sorted({pair.link for pair in facts.pairs if pair.link})
        reasons = sorted({pair.peer for pair in closed if pair.peer})
        status: Status = "unknown" if why or not facts.pairs else "warning" if closed else "ok"
        advice = {
            "warning": "export NCCL_P2P_DISABLE=1, and build without custom all-reduce",
            "unknown": "nvidia-smi topo -p2p r",
        }
        yield Check(
            "peer access",
            status,
            f"{len(closed)} of {len(facts.pairs)} pairs without ({', '.join(reasons)})"
            if closed
            else why
            or (
                f"all {len(facts.pairs)} pairs, over {', '.join(words) or 'unknown'}"
                if facts.pairs
                else "not asked"
            ),
            "between all GPUs, for custom all-reduce",
            advice.get(status),
        )
    fabric, driver = facts.fabric, facts.driver
    if fabric is None:
        return
    other = (
        fabric.version is not None
        and driver is not None
        and driver.version is not None
        and fabric.version != driver.version
    )
    remedy = f"install nvidia-fabricmanager {driver.version if driver else ''}, then: sudo "
    remedy += "systemctl enable --now nvidia-fabricmanager"
    states = sorted({gpu.fabric for gpu in facts.gpus if gpu.fabric})
    running = {True: "running", False: "not running", None: "not to be seen from here"}
    good = fabric.running and not other
    yield Check(
        "fabric manager",
        "ok" if good else "unknown" if fabric.running is None and not other else serious,
        f"{running[fabric.running]}, version {fabric.version or 'unknown'}, "
        f"{fabric.switches} switches, state {', '.join(states) or 'unknown'}",
        "running, of the driver's version (else CUDA error 802)",
        None if good else remedy,
    )


def _passing(facts: HostFacts, serious: Status) -> Iterator[Check]:
    """How GPUs get into containers: the engine's NVIDIA runtime, CDI, or the kit's own way."""
    engine = facts.engine
    if not facts.gpus or engine is None:
        return
    generate = "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml"
    files = facts.toolkit.cdi if facts.toolkit else ()
    ours = [file for file in files if file.problem or file.kind == "nvidia.com/gpu"]
    stale = [file for file in ours if file.missing or file.problem]
    version = (facts.toolkit.version if facts.toolkit else None) or "none"
    if "nvidia" in engine.runtimes:
        yield Check("gpus in containers", "ok", f"the runtime nvidia, toolkit {version}")
        if engine.cgroup_driver == "systemd":
            yield Check(
                "cgroup driver",
                "warning",
                "systemd: a running container loses its GPUs at systemctl daemon-reload "
                "(nvidia-docker#1618)",
                "cgroupfs, or GPUs by CDI",
                '"exec-opts": ["native.cgroupdriver=cgroupfs"] in /etc/docker/daemon.json',
            )
    elif stale and engine.cdi is not False:
        gone = stale[0].problem or f"names {stale[0].missing[0]}, which is not there"
        found = f"{stale[0].name} {gone}"
        yield Check("gpus in containers", serious, found, "a CDI file of this driver", generate)
    elif ours and engine.cdi:
        listed = f"{ours[0].name}: {', '.join(ours[0].devices)}"
        yield Check("gpus in containers", "ok", f"CDI, {listed}")
    else:
        yield Check(
            "gpus in containers",
            "ok",
            "the kit's own way: device nodes and libraries one by one; no toolkit is needed",
        )
