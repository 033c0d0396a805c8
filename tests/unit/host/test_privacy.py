from __future__ import annotations

import os
import pwd
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


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("dial [fe80::1%eth0]:2375", "dial [<address>]:2375"),
        ("at 2001:db8::7 now", "at <address> now"),
        ("at ::1", "at <address>"),
        ("ssh://core@build7.example.com:22/run", "ssh://<host>/run"),
        ("git@build7.example.com: denied", "<user>@<host>: denied"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("cannot open /home/bob/x", "cannot open ~/x"),
        ("at 12:34:56 std::bad_alloc, x::y", "at 12:34:56 std::bad_alloc, x::y"),
    ],
)
def test_other_hosts_and_users_are_not_named_either(said, told):
    assert privacy.message(said) == told


def test_every_name_of_this_user_is_taken_out(monkeypatch):
    monkeypatch.setenv("LOGNAME", "root")
    monkeypatch.setenv("USER", "ann")
    monkeypatch.setenv("SUDO_USER", "bob")
    assert privacy.message("ann and bob") == "<user> and <user>"
    assert privacy.path("/scratch/ann/kit") == "/scratch/<user>/kit"
    assert privacy.path("/scratch/annabel/kit") == "/scratch/annabel/kit"


def test_another_home_in_the_environment_hides_the_real_one_too(monkeypatch):
    home = pwd.getpwuid(os.geteuid()).pw_dir
    monkeypatch.setenv("HOME", "/tmp/elsewhere")
    assert privacy.path(f"{home}/x") == "~/x"
    assert privacy.message(f"open {home}/x") == "open ~/x"
