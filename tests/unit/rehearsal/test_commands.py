"""The scripts as a user starts them, and how ranks find each other."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import kit_rehearsal
import numpy as np
import pytest
from kit_rehearsal.communicator import MpiRanks, SingleRank, connect, sum_parts
from kit_rehearsal.errors import BackendError
from kit_rehearsal.install import install, main

SOURCE = Path(kit_rehearsal.__file__).parents[1]
SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch) -> None:
    for name in SIZES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def mpi(monkeypatch):
    """A world of two ranks, this one the second, that answers with what it was given."""

    class World:
        aborted = None

        def Get_rank(self) -> int:
            return 1

        def Get_size(self) -> int:
            return 2

        def Allgather(self, part, parts) -> None:
            assert part.flags.c_contiguous
            parts[0], parts[1] = 10 * part, part

        def Send(self, values, dest) -> None:
            assert values.flags.c_contiguous
            self.sent = (dest, values)

        def Recv(self, values, source) -> None:
            values[:] = source

        def Get_group(self):
            return types.SimpleNamespace(Incl=lambda members: members)

        def Create_group(self, members):
            self.members = members
            return self

        def Abort(self, code) -> None:
            self.aborted = code

    module = types.ModuleType("mpi4py")
    module.MPI = types.SimpleNamespace(COMM_WORLD=World())
    monkeypatch.setitem(sys.modules, "mpi4py", module)
    return module.MPI.COMM_WORLD


def test_one_rank_needs_no_mpi(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert isinstance(connect(), SingleRank)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "1")
    assert isinstance(connect(), SingleRank)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(BackendError, match="mpi4py is missing"):
        connect()


@pytest.mark.parametrize("name", SIZES)
def test_several_ranks(name, monkeypatch, mpi) -> None:
    monkeypatch.setenv(name, "2")
    ranks = connect()
    assert isinstance(ranks, MpiRanks)
    assert (ranks.rank, ranks.size) == (1, 2)
    part = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(sum_parts(ranks, part), 11 * part)
    ranks.send(part, 0)
    assert mpi.sent[0] == 0
    assert np.array_equal(mpi.sent[1], part)
    received = ranks.receive((2, 3), 7)
    assert (received.dtype, received.tolist()) == (np.float32, [[7.0] * 3] * 2)
    assert isinstance(ranks.group(range(2)), MpiRanks)
    assert mpi.members == [0, 1]
    ranks.abort()
    assert mpi.aborted == 1


def test_a_single_rank_has_nobody_to_talk_to() -> None:
    alone = SingleRank()
    assert alone.group([0]) is alone
    with pytest.raises(BackendError, match="no rank 1"):
        alone.send(np.zeros(1, np.float32), 1)
    with pytest.raises(BackendError, match="no rank 1"):
        alone.receive((1,), 1)


def test_a_script_in_its_release(tmp_path) -> None:
    install(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    home = tmp_path / "0.9.0"

    def start(*argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *argv],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    done = start("bin/trtllm-build", "--max_seq_len", "8")
    assert done.returncode == 2
    assert "trtllm-build: error: unrecognized arguments: --max_seq_len 8" in done.stderr
    done = start("bin/trtllm-build", "--weight_sparsity")
    assert done.returncode == 1
    assert "sparse weights (asked for by --weight_sparsity)" in done.stderr
    assert "Traceback" not in done.stderr


def test_install_is_repeatable(tmp_path, capsys) -> None:
    assert main([str(tmp_path)]) == 0
    first = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main([str(tmp_path)]) == 0
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == first
    assert main([]) == 2
