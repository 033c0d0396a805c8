from __future__ import annotations

import random

import pytest

from kit.host import gpus
from kit.host.facts import Slice
from tests.unit.host import recordings as said

FIELDS = ("uuid", "compute_cap")


def test_a_whole_gpu():
    version, cuda, (gpu,) = gpus.parse_xml(said.smi_xml(said.gpu_xml(processes=2)))
    assert (version, cuda) == ("580.159.03", "13.0")
    assert (gpu.index, gpu.uuid, gpu.name) == (0, said.UUID.format(0), "NVIDIA H200")
    assert gpu.memory_bytes == 143771 << 20
    assert (gpu.mig, gpu.ecc, gpu.persistence) == (False, True, True)
    assert (gpu.virtualisation, gpu.fabric, gpu.processes) == ("none", "completed", 2)
    assert gpu.compute_capability is None


def test_slices():
    cut = [(3, 0, "19968 MiB"), (4, 0, "[N/A]"), ("N/A", 0, "1 MiB")]
    text = said.smi_xml(said.gpu_xml(mig="Enabled", slices=cut), driver="535.54.03", schema=12)
    _, _, (gpu,) = gpus.parse_xml(text)
    assert gpu.mig is True
    assert gpu.slices == (Slice(3, 0, 19968 << 20), Slice(4, 0, None))
    assert gpu.memory_bytes == 143771 << 20


@pytest.mark.parametrize("nothing", ["N/A", "[N/A]", "", "Unknown Error", "Not Supported"])
def test_what_a_virtual_or_small_gpu_does_not_say(nothing):
    text = said.gpu_xml(
        name="GRID A100-20C", memory=nothing, mig=nothing, ecc=nothing, fabric=nothing,
        virtualisation="VGPU",
    )  # fmt: skip
    _, _, (gpu,) = gpus.parse_xml(said.smi_xml(text))
    assert (gpu.memory_bytes, gpu.mig, gpu.ecc, gpu.fabric) == (None, None, None, None)
    assert gpu.virtualisation == "vgpu"


def test_old_drivers_say_less():
    text = said.smi_xml(said.gpu_xml(fabric=None), driver="450.80.02", cuda="11.0", schema=11)
    version, cuda, (gpu,) = gpus.parse_xml(text.replace("<processes></processes>", ""))
    assert (version, cuda, gpu.fabric, gpu.processes) == ("450.80.02", "11.0", None, None)


def test_no_gpu_but_a_driver():
    assert gpus.parse_xml(said.smi_xml()) == ("580.159.03", "13.0", [])


@pytest.mark.parametrize(
    "text", ["", said.MISMATCH, said.NO_DEVICE, "<html/>", said.smi_xml()[:200]]
)
def test_what_is_no_answer(text):
    with pytest.raises(ValueError, match="nvidia-smi -q -x"):
        gpus.parse_xml(text)


def test_any_cut_and_any_changed_letter_is_read_or_refused():
    whole = said.smi_xml(said.gpu_xml(mig="Enabled", slices=[(1, 0, "9 MiB")]))
    source = random.Random(7)
    for _ in range(400):
        at = source.randrange(len(whole))
        broken = whole[:at] + chr(source.randrange(1, 0x250)) + whole[at + source.randrange(2) :]
        try:
            _, _, found = gpus.parse_xml(broken)
        except ValueError:
            continue
        assert len(found) <= 1


def test_capabilities_join_by_uuid():
    _, _, found = gpus.parse_xml(said.smi_xml(said.gpu_xml(0), said.gpu_xml(1)))
    rows = gpus.parse_query(f"{said.UUID.format(1)}, 9.0\n{said.UUID.format(0)}, 8.0\n", FIELDS)
    known = {row["uuid"]: row["compute_cap"] for row in rows}
    joined = gpus.with_capabilities(found, known)
    assert [gpu.compute_capability for gpu in joined] == ["8.0", "9.0"]
    (new,) = gpus.parse_xml(said.smi_xml(said.gpu_xml(capability="10.3")))[2]
    assert gpus.with_capabilities([new], {})[0].compute_capability == "10.3"


@pytest.mark.parametrize("text", [said.NO_FIELD, said.NOT_LOADED, "", "a, b, c\n"])
def test_queries_that_were_not_answered(text):
    assert gpus.parse_query(text, FIELDS) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8.0", "8.0"), ("12.1", "12.1"), ("[N/A]", None), (None, None), ("9", None), ("9.0\n", None)],
)
def test_capability(text, expected):
    assert gpus.capability(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("81920 MiB", 81920 << 20), ("81920", 81920 << 20), ("[Insufficient Permissions]", None),
     ("N/A", None), (None, None), ("-1", None), ("9" * 400, None), ("²", None)],
)  # fmt: skip
def test_mebibytes(text, expected):
    assert gpus.mebibytes(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (said.MODULE, ("535.129.03", False)),
        (said.OPEN_MODULE, ("580.159.03", True)),
        ("", (None, None)),
        ("NVRM version: something else\n", (None, None)),
    ],
)
def test_kernel_module(text, expected):
    assert gpus.parse_module(text) == expected


def _file(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_driver_from_files(tmp_path):
    assert gpus.driver(tmp_path) is None
    _file(tmp_path / "proc/driver/nvidia/version", said.OPEN_MODULE)
    real = _file(tmp_path / "usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06")
    (real.parent / "libcuda.so.1").symlink_to(real.name)
    found = gpus.driver(tmp_path)
    assert found is not None
    assert (found.version, found.kernel_module, found.open_module) == (
        "580.159.03", "580.159.03", True,
    )  # fmt: skip
    assert found.library == "580.65.06"
    assert not found.uvm
    _file(tmp_path / "dev/nvidia-uvm")
    assert gpus.driver(tmp_path).uvm


def test_nouveau_is_a_trace(tmp_path):
    _file(tmp_path / "sys/module/nouveau/refcnt", "0")
    found = gpus.driver(tmp_path)
    assert found is not None
    assert found.nouveau
    assert found.version is None


def test_gpus_from_proc(tmp_path):
    for bus, uuid in (("0000:01:00.0", said.UUID.format(1)), ("0000:02:00.0", "GPU-????????-????")):
        text = f"Model: \t\t NVIDIA H200\nIRQ:   \t\t 16\nGPU UUID: \t {uuid}\nDevice Minor: \t 0\n"
        _file(tmp_path / "proc/driver/nvidia/gpus" / bus / "information", text)
    found = gpus.from_proc(tmp_path)
    assert [(gpu.index, gpu.name, gpu.uuid) for gpu in found] == [
        (0, "NVIDIA H200", said.UUID.format(1)),
        (1, "NVIDIA H200", None),
    ]


def test_pci_bus(tmp_path):
    assert gpus.on_pci(tmp_path) is None
    devices = {
        "0": ("0x10de", "0x030200"),
        "1": ("0x10de", "0x040300"),
        "2": ("0x8086", "0x030000"),
    }
    for name, (vendor, kind) in devices.items():
        _file(tmp_path / "sys/bus/pci/devices" / name / "vendor", f"{vendor}\n")
        _file(tmp_path / "sys/bus/pci/devices" / name / "class", f"{kind}\n")
    assert gpus.on_pci(tmp_path) == 1


def test_more_gpus_than_any_host_has():
    with pytest.raises(ValueError, match="300 GPUs"):
        gpus.parse_xml("<nvidia_smi_log>" + "<gpu/>" * 300 + "</nvidia_smi_log>")
