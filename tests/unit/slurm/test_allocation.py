from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from kit.errors import ExitCode, KitError
from kit.slurm import allocation

HINT = "kit slurm x --submit"


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A job on three nodes; this is the second of them."""
    for name in ("srun", "scontrol"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\n[ \"$3\" = 'n[1-3]' ] && printf 'n1\\nn2\\nn3\\n'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_JOB_NODELIST", "n[1-3]")
    monkeypatch.setenv("SLURMD_NODENAME", "n2")
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    return monkeypatch


@pytest.mark.usefixtures("job")
def test_this_node_comes_first_and_no_more_than_wanted() -> None:
    assert allocation.current(2, HINT) == allocation.Allocation("7", ("n2", "n1"))
    assert allocation.current(3, HINT).nodes == ("n2", "n1", "n3")


@pytest.mark.parametrize(
    ("variables", "nodes", "why", "code"),
    [
        ({"SLURM_JOB_ID": ""}, 2, "2 hosts are a job of Slurm's", ExitCode.USAGE),
        ({"SLURM_STEP_NUM_TASKS": "2"}, 2, "srun has started kit 2 times", ExitCode.USAGE),
        ({"SLURMD_NODENAME": ""}, 2, "not on a host outside", ExitCode.USAGE),
        ({"SLURMD_NODENAME": "login"}, 2, "not on login", ExitCode.USAGE),
        ({}, 4, "expected 4, found 3", ExitCode.ENVIRONMENT),
        ({"SLURM_JOB_NODELIST": "?"}, 2, "cannot read the nodes '?'", ExitCode.ENVIRONMENT),
        ({"PATH": "/nowhere"}, 2, "srun is not on PATH", ExitCode.ENVIRONMENT),
    ],
)
def test_what_is_refused(
    job: pytest.MonkeyPatch, variables: dict[str, str], nodes: int, why: str, code: ExitCode
) -> None:
    for name, value in variables.items():
        job.setenv(name, value)
    with pytest.raises(KitError, match=why) as caught:
        allocation.current(nodes, HINT)
    assert caught.value.exit_code is code


def test_every_node_keeps_to_itself(job: pytest.MonkeyPatch) -> None:
    home = Path("/home/kit")
    assert allocation.node_home(home) == home / "nodes" / "n2"
    for name in ("..", "a/b", ""):
        job.setenv("SLURMD_NODENAME", name)
        assert allocation.node_home(home) == home
    job.setenv("SLURMD_NODENAME", "n2")
    job.delenv("SLURM_JOB_ID")
    assert allocation.node_home(home) == home


@pytest.mark.usefixtures("job")
def test_the_end_of_a_job_is_an_interruption() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def work() -> None:
        with allocation.cancellable():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_a_job_sigterm_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with allocation.cancellable():
        assert signal.getsignal(signal.SIGTERM) is before
