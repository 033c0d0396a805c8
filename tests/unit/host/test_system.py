from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from kit.host import limits, system
from kit.host.facts import UNLIMITED


def _tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_host():
    here = system.system()
    assert here.kernel == os.uname().release
    assert here.architecture == os.uname().machine
    assert system.processor().usable_cores <= system.processor().cores
    memory = system.memory()
    assert 0 < (memory.available_bytes or 1) <= memory.total_bytes


def test_os_release(tmp_path):
    text = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n'
    found = system.system(_tree(tmp_path, {"etc/os-release": text}))
    assert (found.name, found.id, found.version) == (
        "Debian GNU/Linux 12 (bookworm)", "debian", "12",
    )  # fmt: skip
    _tree(tmp_path, {"etc/os-release": "ID='rocky'\nNAME='Rocky Linux'\n"})
    assert system.system(tmp_path).name == "Rocky Linux"


def test_a_host_without_os_release(tmp_path):
    found = system.system(tmp_path)
    assert (found.name, found.id, found.version) == (os.uname().sysname, None, None)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({".dockerenv": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"proc/1/environ": "PATH=/bin\0container=lxc\0"}, "lxc"),
        ({"proc/1/environ": "PATH=/bin\0mycontainer=lxc\0"}, None),
    ],
)
def test_container(tmp_path, monkeypatch, files, expected):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert system.container(_tree(tmp_path, files)) == expected


def test_processors_without_a_name():
    assert system.cpu_model("processor\t: 0\nBogoMIPS\t: 50.00\n") is None
    grace = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\nCPU revision\t: 0\n"
    assert system.cpu_model(grace) == "Arm implementer 0x41, part 0xd4f, revision 0"
    assert system.cpu_model("processor\t: 0\nmodel name\t: AMD EPYC 9654\n") == "AMD EPYC 9654"


V2 = {"sys/fs/cgroup/cgroup.controllers": "cpu memory\n", "proc/self/cgroup": "0::/a.slice/b\n"}
V1 = {
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "proc/self/cgroup": "8:memory:/docker/abc\n1:cpu,cpuacct:/docker/abc\n0::/\n",
}


@pytest.mark.parametrize(
    ("files", "version", "limit"),
    [
        ({}, None, None),
        (V2, 2, None),
        ({**V2, "sys/fs/cgroup/a.slice/b/memory.max": "max\n"}, 2, None),
        (
            {
                **V2,
                "sys/fs/cgroup/a.slice/b/memory.max": "max\n",
                "sys/fs/cgroup/a.slice/memory.max": "4096\n",
            },
            2,
            4096,
        ),
        # Inside a container the folder of /proc/self/cgroup is not there, and the top is its own.
        ({**V2, "sys/fs/cgroup/memory.max": "8192\n"}, 2, 8192),
        (V1, 1, None),
        ({**V1, "sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "4096\n"}, 1, 4096),
    ],
)
def test_memory_limits(tmp_path, files, version, limit):
    _tree(tmp_path, files)
    assert system.cgroup_version(tmp_path) == version
    assert system.memory_limit(tmp_path) == limit


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({**V2, "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({**V2, "sys/fs/cgroup/a.slice/cpu.max": "250000 100000\n"}, 2.5),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                **V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({**V2, "sys/fs/cgroup/cpu.max": "1 0\n"}, None),
    ],
)
def test_quota(tmp_path, files, expected):
    assert system.quota(_tree(tmp_path, files)) == expected


def test_a_cgroup_path_cannot_climb(tmp_path):
    files = {**V2, "proc/self/cgroup": "0::/../../../secret\n", "secret/memory.max": "1\n"}
    assert system.memory_limit(_tree(tmp_path, files)) is None


def test_meminfo():
    text = "MemTotal:       24684096 kB\nHugePages_Total:       0\nSwapTotal:  1 kB\n"
    assert system.meminfo(text) == {"MemTotal": 24684096 << 10, "SwapTotal": 1024}


def test_disk_of_a_folder_that_is_not_there_yet(tmp_path):
    found = limits.disk("home", tmp_path / "a" / "b")
    assert found.name == "home"
    assert 0 < found.free_bytes <= found.total_bytes
    assert found.total_bytes == limits.disk("x", tmp_path).total_bytes


def test_home_is_not_named(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert limits.disk("home", tmp_path / ".cache").path == "~/.cache"


def test_limits_are_those_of_this_process():
    found = {limit.name: limit for limit in limits.limits()}
    assert set(found) == {"memlock", "stack", "nofile", "nproc"}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert (found["nofile"].soft, found["nofile"].hard) == (soft, hard)
    unlimited = resource.getrlimit(resource.RLIMIT_STACK)[1] == resource.RLIM_INFINITY
    assert (found["stack"].hard == UNLIMITED) == unlimited


def test_device_file_systems_count_no_inodes():
    found = limits.disk("proc", Path("/proc"))
    assert found.free_inodes is None
