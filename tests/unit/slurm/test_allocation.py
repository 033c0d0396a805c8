from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kit.errors import ExitCode, KitError
from kit.slurm import allocation

if TYPE_CHECKING:
    from collections.abc import Iterator

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


@pytest.fixture
def sigterm() -> Iterator[None]:
    """What this process does with the signal, as it was."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("job", "sigterm")
def test_the_end_of_a_job_is_an_interruption() -> None:
    def work() -> None:
        with allocation.cancellable():
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()

    with pytest.raises(KeyboardInterrupt):
        work()
    os.kill(os.getpid(), signal.SIGTERM)  # again, while its exit code is on the way


@pytest.mark.usefixtures("sigterm")
def test_srun_may_know_of_the_end_before_the_signal_comes(
    job: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def says(text: str) -> None:
        (tmp_path / "scontrol").write_text(f'#!/bin/sh\n[ "$*" = "show job 7" ] && {text}\n')

    here = allocation.Allocation("7", ("n2",))

    def work() -> None:
        with allocation.cancellable():
            here.wait_if_ending()
            pytest.fail("the step would have failed")

    says("echo JobId=7 JobState=COMPLETING Reason=None")
    soon = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    soon.start()
    with pytest.raises(KeyboardInterrupt):
        work()
    soon.join()
    job.setattr(allocation, "_SIGNAL_SECONDS", -1)  # refused where somebody would wait
    for text in ("echo JobId=7 JobState=RUNNING", "false", "echo JobState=CANCELLED; false"):
        says(text)
        here.wait_if_ending()


def test_outside_a_job_sigterm_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    before = signal.getsignal(signal.SIGTERM)
    with allocation.cancellable():
        assert signal.getsignal(signal.SIGTERM) is before
