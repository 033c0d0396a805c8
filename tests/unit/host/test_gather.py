from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kit.files import write_json
from kit.host import facts, gather, gpus, programs
from tests.unit.host import recordings as said

pytestmark = pytest.mark.skipif(
    Path("/dev/nvidiactl").exists(), reason="this host has a driver, which would answer as well"
)

SMI = """case "$*" in
"-q -x") /bin/cat {folder}/q;;
--query-gpu=uuid,compute_cap*) /bin/cat {folder}/cap;;
"topo -p2p r") /bin/cat {folder}/peers;;
"topo -m") /bin/cat {folder}/links;;
*) exit 2;;
esac"""


def _smi(machine, tmp_path, xml, capabilities="", peers=said.PEERS_2, links=said.LINKS_2):
    for name, text in (("q", xml), ("cap", capabilities), ("peers", peers), ("links", links)):
        (tmp_path / name).write_text(text)
    machine.program("nvidia-smi", SMI.format(folder=tmp_path))


def test_a_host_with_nothing(machine):
    found = gather.gather(machine.project)
    assert (found.gpus, found.driver, found.engines, found.slurm, found.mpi) == (
        (),
        None,
        (),
        None,
        (),
    )
    assert found.disk("home").path == "~/kit"
    assert found.reason("disks.engine")
    assert found.reason("gpus") is None


def test_two_gpus(machine, tmp_path):
    caps = f"{said.UUID.format(0)}, 9.0\n{said.UUID.format(1)}, 9.0\n"
    _smi(machine, tmp_path, said.smi_xml(said.gpu_xml(0), said.gpu_xml(1)), caps)
    found = gather.gather(machine.project)
    assert [gpu.compute_capability for gpu in found.gpus] == ["9.0", "9.0"]
    assert (found.driver.version, found.driver.cuda, found.driver.problem) == (
        "580.159.03", "13.0", None,
    )  # fmt: skip
    assert [(pair.peer, pair.link) for pair in found.pairs] == [("GNS", "PHB")]
    assert found.fabric.running is True
    assert found.reason("gpus[0].compute_capability") is None


def test_a_driver_that_cannot_say_the_capability(machine, tmp_path):
    _smi(machine, tmp_path, said.smi_xml(said.gpu_xml(memory="[N/A]")), said.NO_FIELD)
    found = gather.gather(machine.project)
    assert found.gpus[0].compute_capability is None
    assert found.reason("gpus[0].compute_capability")
    assert found.reason("gpus[0].memory_bytes")


@pytest.mark.parametrize(
    ("text", "code", "told"),
    [
        (said.MISMATCH, 18, "Failed to initialize NVML: Driver/library version mismatch"),
        (said.NOT_LOADED, 9, "NVIDIA-SMI has failed because"),
        (said.NO_DEVICE, 6, "No devices were found"),
        ("", 0, "not XML"),
        ("Failed to initialize NVML: Unknown Error\n", 255, "Unknown Error"),
    ],
)
def test_a_driver_that_does_not_answer(machine, text, code, told):
    machine.says("nvidia-smi", text, code)
    found = gather.gather(machine.project)
    assert found.gpus == ()
    assert told in found.driver.problem
    assert told in found.reason("gpus")
    assert told in found.reason("driver.cuda")


def test_a_driver_that_hangs(machine, monkeypatch):
    monkeypatch.setattr(programs, "SECONDS", 0.5)
    machine.program("nvidia-smi", "trap '' TERM; /bin/sleep 60")
    machine.program("podman", f"/bin/cat {machine.bin}/.podman")
    (machine.bin / ".podman").write_text(json.dumps(said.PODMAN_ROOTLESS))
    found = gather.gather(machine.project)
    assert found.gpus == ()
    assert "no answer within" in found.reason("gpus")
    assert found.engine.version == "5.4.2"


def test_a_system_call_that_hangs(machine, monkeypatch):
    """As `statvfs` of a dead file server: what it should have said is unknown, the rest is not."""
    import threading

    never = threading.Event()
    monkeypatch.setattr(gpus, "on_pci", never.wait)
    monkeypatch.setattr(gather, "PATIENCE", 2.0)
    found = gather.gather(machine.project)
    never.set()
    assert found.pci_gpus is None
    assert "no answer within" in found.reason("pci_gpus")
    assert found.disk("home") is not None


def test_podman_and_its_disk(machine, tmp_path):
    information = {
        **said.PODMAN,
        "store": {**said.PODMAN["store"], "graphRoot": str(tmp_path / "s")},
    }
    machine.says("podman", json.dumps(information))
    found = gather.gather(machine.project)
    assert found.engine.name == "podman"
    assert found.disk("engine").free_bytes > 0
    assert found.reason("disks.engine") is None


def test_podman_that_fails(machine):
    machine.program("podman", "echo 'Error: cannot open /home/ann/x' >&2; exit 125")
    found = gather.gather(machine.project)
    assert found.engine.version is None
    assert found.reason("engines.podman") == "podman: exit code 125: Error: cannot open ~/x"


def test_an_engine_that_is_none(machine, monkeypatch):
    monkeypatch.setenv("KIT_ENGINE", "lxc")
    found = gather.gather(machine.project)
    assert found.engine is None
    assert "KIT_ENGINE=lxc" in found.reason("engines.default")


def test_nobody_is_named(machine, tmp_path, monkeypatch):
    monkeypatch.setenv("LOGNAME", "annabel-lee")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    node = os.uname().nodename
    machine.program(
        "srun", f"echo 'cannot reach {node} at 10.1.2.3 for annabel-lee in {machine.home}'; exit 1"
    )
    machine.says("sinfo", "", 0)
    _smi(machine, tmp_path, said.smi_xml(said.gpu_xml(processes=3)))
    text = json.dumps(gather.gather(machine.project).to_dict())
    for secret in (
        "annabel-lee",
        "hf_secret",
        "10.1.2.3",
        str(machine.home),
        "train.py",
        "16505220",
    ):
        assert secret not in text
    assert "cannot reach <host> at <address> for <user> in ~" in text


def test_what_programs_say_of_themselves_reaches_no_terminal_and_can_be_read_back(
    machine, tmp_path
):
    version = {**said.PODMAN["version"], "Version": "4.9.\x1b[31m3\u202e"}
    store = {**said.PODMAN["store"], "graphDriverName": "over\x9blay"}
    machine.says("podman", json.dumps({**said.PODMAN, "version": version, "store": store}))
    found = gather.gather(machine.project)
    assert (found.engine.version, found.engine.storage) == ("4.9.[31m3", "overlay")
    path = tmp_path / "host.json"
    write_json(path, found.to_dict())
    assert facts.read(path) == found
