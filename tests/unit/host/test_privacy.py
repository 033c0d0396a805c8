from __future__ import annotations

import os
from pathlib import Path

import pytest

from kit.host import privacy
from kit.host.variables import variables


def test_messages_name_nobody(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("LOGNAME", "ann")
    host = os.uname().nodename
    said = f"slurmctld at {host} (10.1.2.3:6817, fe80:0:0:1::2) is DOWN\n\tsee /home/ann/log, ann"
    told = privacy.message(said)
    for secret in ("10.1.2.3", "fe80", "/home/ann", "ann"):
        assert secret not in told
    assert host not in told.split()
    assert told.startswith("slurmctld at <host> (<address>:6817")


def test_versions_and_words_stay(monkeypatch):
    monkeypatch.setenv("LOGNAME", "ann")
    text = "NVML library version: 570.124.06, an annex, --mpi=list"
    assert privacy.message(text) == text


def test_messages_are_one_short_line():
    told = privacy.message("a\x1b[31mb\r\n" + "c" * 5000)
    assert told.startswith("a [31mb ccc")
    assert len(told) <= 300


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/home/ann", "~"),
        ("/home/ann/x", "~/x"),
        ("/home/annabel/x", "~/x"),
        ("/var/lib/x", "/var/lib/x"),
        (Path("/tmp"), "/tmp"),
    ],
)
def test_paths_name_nobody(monkeypatch, path, expected):
    monkeypatch.setenv("HOME", "/home/ann")
    assert privacy.path(path) == expected


def test_variables_keep_their_secrets():
    environment = {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "NCCL_P2P_DISABLE": "1",
        "NCCL_HOSTID": "gpu-node-17",
        "NCCL_COMM_ID": "10.1.2.3:9999",
        "NCCL_DEBUG": "INFO; rm",
        "HF_TOKEN": "hf_secret",
        "https_proxy": "http://ann:secret@proxy:3128",
        "LD_LIBRARY_PATH": "/home/ann/lib",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "PATH": "/bin",
        "MY_NCCL_DEBUG": "x",
    }
    found = {item.name: item.value for item in variables(environment)}
    assert found == {
        "CUDA_VISIBLE_DEVICES": "0,1",
        "NCCL_P2P_DISABLE": "1",
        "NCCL_HOSTID": None,
        "NCCL_COMM_ID": None,
        "NCCL_DEBUG": None,
        "HF_TOKEN": None,
        "https_proxy": None,
        "LD_LIBRARY_PATH": None,
    }
