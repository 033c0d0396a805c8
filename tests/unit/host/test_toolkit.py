from __future__ import annotations

import json
import os

import pytest

from kit.host import toolkit

YAML = """cdiVersion: "0.5.0"
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
- name: all
  containerEdits:
    deviceNodes:
    - path: /dev/nvidia0
      hostPath: /dev/nvidia0
containerEdits:
  deviceNodes:
  - path: /dev/nvidiactl
  mounts:
  - containerPath: /usr/lib/libcuda.so.535.129.03
    hostPath: /usr/lib/libcuda.so.535.129.03
    options: [ro, bind]
"""


@pytest.fixture
def root(tmp_path):
    for name in ("etc/cdi", "var/run/cdi", "dev", "usr/lib"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("dev/nvidia0", "dev/nvidiactl", "usr/lib/libcuda.so.535.129.03"):
        (tmp_path / name).touch()
    return tmp_path


def _spec(root, text, name="etc/cdi/nvidia.yaml"):
    path = root / name
    path.write_text(text)
    return toolkit.cdi_file(path, root)


def test_a_specification_of_this_driver(root):
    found = _spec(root, YAML)
    assert (found.name, found.kind) == ("/etc/cdi/nvidia.yaml", "nvidia.com/gpu")
    assert found.devices == ("0", "all")
    assert (found.missing, found.problem) == ((), None)


def test_a_specification_that_outlived_its_driver(root):
    (root / "usr/lib/libcuda.so.535.129.03").unlink()
    (root / "dev/nvidia0").unlink()
    assert _spec(root, YAML).missing == ("/usr/lib/libcuda.so.535.129.03", "/dev/nvidia0")


def test_json_and_other_kinds(root):
    document = {"cdiVersion": "0.6.0", "kind": "example.com/foo", "devices": [{"name": "foo"}]}
    found = _spec(root, json.dumps(document), "var/run/cdi/foo.json")
    assert (found.kind, found.devices, found.missing) == ("example.com/foo", ("foo",), ())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1\n",
        "kind: [1]\n",
        "kind: a\nkind: b\n",
        "{" * 100,
        "a: &a [*a]",
        "kind: \x00",
        "!!python/object:os.system {}",
    ],
)
def test_damaged_specifications_are_told(root, text):
    found = _spec(root, text)
    assert found.problem
    assert found.devices == ()


@pytest.mark.parametrize(
    "text",
    ["kind: nvidia.com/gpu\ndevices: 3\n", "kind: x\ndevices: [1, {name: [2]}]\ncontainerEdits: {mounts: 3}\n",
     "kind: x\ncontainerEdits: {mounts: [7, {hostPath: relative}], deviceNodes: [{path: 3}]}\n"],
)  # fmt: skip
def test_odd_specifications_name_nothing(root, text):
    assert _spec(root, text).missing == ()


def test_a_large_file_is_not_read(root):
    with (root / "etc/cdi/big.json").open("wb") as stream:
        stream.truncate(5 << 20)
    assert "larger" in (toolkit.cdi_file(root / "etc/cdi/big.json", root).problem or "")


def test_no_toolkit_and_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert toolkit.toolkit(tmp_path) is None


def test_files_without_the_toolkit(root, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    _spec(root, YAML)
    (root / "etc/cdi/README").write_text("no specification")
    found = toolkit.toolkit(root)
    assert found is not None
    assert (found.version, found.runtime) == (None, False)
    assert [file.name for file in found.cdi] == ["/etc/cdi/nvidia.yaml"]


def test_the_toolkit_says_its_version(root, monkeypatch):
    program = root / "nvidia-ctk"
    program.write_text(
        "#!/bin/sh\necho NVIDIA Container Toolkit CLI version 1.17.3\necho commit: cb82e29\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(root))
    found = toolkit.toolkit(root)
    assert found is not None
    assert found.version == "1.17.3"


def test_subordinate_ids(root, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert toolkit.subordinate_ids(root) is None
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    monkeypatch.setenv("LOGNAME", "ann")
    assert toolkit.subordinate_ids(root) is False
    (root / "etc/subuid").write_text("annabel:100000:65536\n")
    assert toolkit.subordinate_ids(root) is False
    (root / "etc/subuid").write_text("bob:1:1\nann:100000:65536\n")
    assert toolkit.subordinate_ids(root) is True
    (root / "etc/subuid").write_text("4711:100000:65536\n")
    assert toolkit.subordinate_ids(root) is True
