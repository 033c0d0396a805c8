from __future__ import annotations

import random

import pytest

from kit.host import gpus, links
from kit.host.facts import Pair
from tests.unit.host import recordings as said


def test_one_gpu_has_no_pair():
    assert links.pairs(said.PEERS_1, said.LINKS_1) == ()


def test_two_gpus_without_peer_access():
    assert links.pairs(said.PEERS_2, said.LINKS_2) == (Pair(0, 1, "GNS", "PHB"),)


def test_eight_gpus_behind_switches():
    peers = said.matrix(8, "OK")
    over = said.matrix(8, "NV18", cards=2, tail="\t0-55,112-167\t0\t\tN/A")
    found = links.pairs(peers, over)
    assert len(found) == 28
    assert {(pair.peer, pair.link) for pair in found} == {("OK", "NV18")}
    assert (found[0].first, found[0].second, found[-1].first, found[-1].second) == (0, 1, 6, 7)


def test_the_direction_that_does_not_work_counts():
    text = said.PEERS_2.replace("GPU0\tX\tGNS", "GPU0\tX\tOK")
    assert links.matrix(text) == {(0, 1): "GNS"}
    assert links.matrix(said.PEERS_2.replace("GNS\tX", "OK\tX")) == {(0, 1): "GNS"}


@pytest.mark.parametrize("text", ["", said.MISMATCH, said.NOT_LOADED, said.LEGEND, "GPU0\n"])
def test_errors_are_no_matrix(text):
    assert links.matrix(text) == {}


def test_damaged_matrices_name_no_gpu_that_is_not_there():
    whole = said.matrix(4, "OK", cards=1, tail="\t0-7\t0")
    source = random.Random(3)
    for _ in range(300):
        at = source.randrange(len(whole))
        found = links.matrix(whole[:at] + source.choice("\n\t X9GPU\x1b") + whole[at + 1 :])
        assert all(0 <= first < second for first, second in found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Fabric Manager version is : 450.102.04\n", "450.102.04"),
        ("\n\n\tFabric Manager version is : 535.161.08\n\n", "535.161.08"),
        ("usage: nv-fabricmanager", None),
    ],
)
def test_manager_version(text, expected):
    assert links.manager_version(text) == expected


def _gpus(*states):
    return gpus.parse_xml(said.smi_xml(*[said.gpu_xml(fabric=state) for state in states]))[2]


def _machine(tmp_path, switches, programs):
    (tmp_path / "dev").mkdir()
    for at in range(switches):
        (tmp_path / "dev" / f"nvidia-nvswitch{at}").touch()
    (tmp_path / "dev" / "nvidia-nvswitchctl").touch()
    for number, name in enumerate(programs, 100):
        (tmp_path / "proc" / str(number)).mkdir(parents=True)
        (tmp_path / "proc" / str(number) / "comm").write_text(f"{name}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("states", "switches", "programs", "expected"),
    [
        (["N/A"], 0, [], None),  # PCIe
        (["Completed"] * 2, 0, [], True),  # a guest on a host whose manager did its work
        (["In Progress"], 0, [], None),  # a guest, its manager out of sight
        (["N/A"] * 8, 6, ["bash"], False),  # A100: the switches alone tell
        (["N/A"] * 8, 6, ["bash", "nv-fabricmanage"], True),
        (["In Progress"] * 8, 4, ["systemd"], False),
    ],
)
def test_fabric(tmp_path, states, switches, programs, expected):
    found = links.fabric(_gpus(*states), "580.159.03", _machine(tmp_path, switches, programs))
    if states == ["N/A"]:
        assert found is None
        return
    assert found is not None
    assert (found.switches, found.running, found.version) == (switches, expected, "580.159.03")
