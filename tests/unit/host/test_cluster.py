from __future__ import annotations

import pytest

from kit.host import cluster
from tests.unit.host import recordings as said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (said.PLUGINS_20, ("pmi2", "none", "openmpi", "pmix", "pmix_v3")),
        (said.PLUGINS_22, ("pmix", "none", "cray_shasta", "pmi2", "pmix_v4")),
        (said.PLUGINS_23, ("none", "cray_shasta", "pmi2", "pmix", "pmix_v4", "pmix_v5")),
        (said.PLUGINS_WITHOUT, ("cray_shasta", "none", "pmi2")),
        (said.NO_CONFIGURATION, ()),
        ("", ()),
    ],
)
def test_plugins(text, expected):
    assert cluster.parse_plugins(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("slurm-wlm 22.05.8\n", "22.05.8"),
        ("slurm 23.11.4\n", "23.11.4"),
        (said.NO_CONFIGURATION, None),
    ],
)
def test_slurm_version(text, expected):
    assert cluster.parse_slurm(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mpirun (Open MPI) 4.1.4\n\nReport bugs to …\n", ("Open MPI", "4.1.4")),
        ("mpirun (Open MPI) 4.1.7rc1\n", ("Open MPI", "4.1.7rc1")),
        (
            "Intel(R) MPI Library for Linux* OS, Version 2021.11 Build 20231005 (id: 74c4a23)\n",
            ("Intel MPI", "2021.11"),
        ),
        (
            "HYDRA build details:\n    Version:                                 4.0.2\n",
            ("MPICH", "4.0.2"),
        ),
        ("something else", ("mpirun", None)),
    ],
)
def test_mpi(text, expected):
    assert cluster.parse_mpi(text) == expected


def _program(folder, name, text):
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_every_launcher_on_path_once(tmp_path, monkeypatch):
    first = _program(tmp_path / "a", "mpirun", "echo 'mpirun (Open MPI) 4.1.4'")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mpirun").symlink_to(first)
    _program(tmp_path / "c", "mpirun", "echo 'mpirun (Open MPI) 4.1.7'")
    monkeypatch.setenv("PATH", ":".join(str(tmp_path / name) for name in "abc"))
    assert [item.version for item in cluster.mpi()] == ["4.1.4", "4.1.7"]


def test_no_slurm(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster.slurm() == (None, [])


def test_slurm_without_a_configuration(tmp_path, monkeypatch):
    for name in ("srun", "sinfo"):
        text = said.NO_CONFIGURATION.replace("srun", name).strip()
        _program(tmp_path, name, f"echo '{text}' >&2; exit 1")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    found, gaps = cluster.slurm()
    assert found is not None
    assert (found.version, found.plugins, found.is_reachable, found.in_job) == (
        None, (), False, False,
    )  # fmt: skip
    assert {name for name, _ in gaps} == {"slurm.version", "slurm.plugins", "slurm.is_reachable"}
    assert all("Could not establish a configuration source" in why for _, why in gaps)


def test_slurm_inside_a_job(tmp_path, monkeypatch):
    _program(
        tmp_path,
        "srun",
        f'case "$1" in --version) echo slurm 23.11.4;; *) printf "{said.PLUGINS_23}";; esac',
    )
    _program(tmp_path, "sinfo", "echo 'gpu* up infinite 1 idle node1'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    found, gaps = cluster.slurm()
    assert gaps == []
    assert found is not None
    assert (found.version, found.is_reachable, found.in_job) == ("23.11.4", True, True)
    assert "pmix_v5" in found.plugins
    assert "node1" not in repr(found)
