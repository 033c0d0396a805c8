"""What a request for GPUs means, and how this host's way of running is found."""

from __future__ import annotations

import csv
import socket
import subprocess
import sys
import tarfile

import pytest

from kit.errors import ExitCode, KitError
from kit.images import cdi, confinement, docker, podman
from kit.images.confinement import Way, working
from kit.images.engine import Gpus, Mount
from kit.images.ledger import Ledger
from kit.images.oci import Layout


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("none", Gpus()),
        ("", Gpus()),
        ("all", Gpus(all=True)),
        ("0", Gpus(devices=("0",))),
        ("0, 3", Gpus(devices=("0", "3"))),
        ("GPU-0a1b2c3d-aaaa-bbbb", Gpus(devices=("GPU-0a1b2c3d-aaaa-bbbb",))),
    ],
)
def test_gpus(text, expected):
    assert Gpus.parse(text) == expected
    assert bool(expected) == (text not in ("none", ""))


@pytest.mark.parametrize("text", ["first", "0;1", "-1", "GPU-", "all,0"])
def test_gpus_that_make_no_sense(text):
    with pytest.raises(KitError, match="neither an index nor a UUID") as caught:
        Gpus.parse(text)
    assert caught.value.exit_code is ExitCode.USAGE


def test_probe_program_runs_and_ends_with_zero(tmp_path):
    image = confinement._probe_image(Layout(tmp_path / "layout"))
    with tarfile.open(image.layout.blob(image.layers[0].digest)) as archive:
        (tmp_path / "true").write_bytes(archive.extractfile("true").read())
    (tmp_path / "true").chmod(0o755)
    assert subprocess.run([tmp_path / "true"], check=False).returncode == 0


def test_first_way_that_works_is_kept_and_not_tried_again(tmp_path):
    tried = []

    def attempt(_image, way):
        tried.append(way)
        return None if way.runtime == "runc" else "no"

    memory = tmp_path / "memory.json"
    found = working(memory, "engine 1", Layout(tmp_path / "l"), attempt)
    assert found == Way("runc", ())
    assert tried == [Way("", ()), Way("crun", ()), Way("runc", ())]
    assert working(memory, "engine 1", Layout(tmp_path / "l"), attempt) == found
    assert len(tried) == 3
    working(memory, "engine 2", Layout(tmp_path / "l"), attempt)
    assert len(tried) == 6


def test_damaged_memory_is_replaced(tmp_path):
    memory = tmp_path / "memory.json"
    memory.write_text("{")
    assert working(memory, "e", Layout(tmp_path / "l"), lambda *_: None) == Way("", ())
    assert working(memory, "e", Layout(tmp_path / "l"), lambda *_: "no") == Way("", ())


def test_no_way_at_all_lists_what_was_tried(tmp_path):
    with pytest.raises(KitError, match=r"runtime runc, limits .*: refused") as caught:
        working(tmp_path / "m", "podman 9", Layout(tmp_path / "l"), lambda *_: "refused")
    assert caught.value.exit_code is ExitCode.ENVIRONMENT


def test_cdi_document_names_each_gpu_and_all(monkeypatch, tmp_path):
    driver = "580.1"
    for name in ("libcuda.so.580.1", "libnvidia-ml.so.580.1", "libcuda.so.570.0"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "libcuda.so.1").symlink_to("libcuda.so.580.1")
    monkeypatch.setattr(cdi, "_LIBRARY_FOLDERS", (str(tmp_path),))
    devices = [cdi.Gpu(0, "GPU-aa", 3, "H200"), cdi.Gpu(1, "GPU-bb", 0, "H200")]
    document = cdi.specification(driver, devices)
    nodes = {
        row["name"]: [node["path"] for node in row["containerEdits"]["deviceNodes"]]
        for row in document["devices"]
    }
    assert nodes == {
        "0": ["/dev/nvidia3"],
        "GPU-aa": ["/dev/nvidia3"],
        "1": ["/dev/nvidia0"],
        "GPU-bb": ["/dev/nvidia0"],
        "all": ["/dev/nvidia3", "/dev/nvidia0"],
    }
    mounts = {row["containerPath"]: row["hostPath"] for row in document["containerEdits"]["mounts"]}
    assert mounts[f"{cdi.TARGET}/libcuda.so.1"] == str(tmp_path / "libcuda.so.580.1")
    assert f"{cdi.TARGET}/libcuda.so.570.0" not in mounts


def test_no_driver_is_said_plainly(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cdi, "smi", lambda: None)
    with pytest.raises(KitError, match="no NVIDIA driver") as caught:
        cdi.check(["0"])
    assert caught.value.exit_code is ExitCode.ENVIRONMENT


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    devices = [cdi.Gpu(0, "GPU-aa", 3, "H200"), cdi.Gpu(1, "GPU-bb", 0, "H200")]
    monkeypatch.setattr(cdi, "gpus", lambda: ("580.1", devices))
    monkeypatch.setattr(cdi, "FOLDERS", (tmp_path,))
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_gpus_that_this_host_lacks_are_named(two_gpus):
    cdi.check(["0", "GPU-bb"])
    with pytest.raises(KitError, match=r"no GPU '2' on this host; it has 0 \(GPU-aa\), 1"):
        cdi.check(["2"])
    with pytest.raises(KitError, match="slice MIG-aa: needs NVIDIA's container toolkit"):
        cdi.check(["MIG-aa"])


def test_podman_gets_parts_where_there_is_no_specification(two_gpus):
    devices = podman._devices(Gpus(devices=("GPU-bb",)))
    assert "--device=/dev/nvidia0" in devices
    assert "--device=/dev/nvidia3" not in devices
    (two_gpus / "nvidia.yaml").write_text("kind: nvidia.com/gpu\n")
    assert podman._devices(Gpus(all=True)) == ["--device=nvidia.com/gpu=all"]
    assert podman._devices(Gpus()) == []


def test_mount_of_a_path_with_comma_and_quote(tmp_path):
    mount = Mount(tmp_path / 'a,"b', "/kit/model")
    fields = next(csv.reader([podman._mount(mount)]))
    assert fields == ["type=bind", f'src={tmp_path}/a,"b', "dst=/kit/model", "ro"]


def test_ledger_removes_what_a_killed_kit_left(tmp_path):
    removed = []
    ledger = Ledger(tmp_path)
    left = "import os, sys; from pathlib import Path; from kit.images.ledger import Ledger\n"
    left += "with Ledger(Path(sys.argv[1])).container(print) as name: print(name, flush=True);"
    left += " os.kill(os.getpid(), 9)"
    done = subprocess.run(
        [sys.executable, "-c", left, tmp_path], capture_output=True, text=True, check=False
    )
    abandoned = done.stdout.strip()
    with ledger.container(removed.append) as first:
        assert removed == [abandoned]
        with ledger.container(removed.append) as second:
            assert first != second
    assert removed == [abandoned]
    assert list(tmp_path.glob("kit-*")) == []


def test_silent_socket_is_no_daemon(tmp_path, monkeypatch):
    monkeypatch.setattr(docker, "_PATIENCE", 0.5)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        assert docker.Docker.reach_at(f"unix://{tmp_path}/s", tmp_path) is None
