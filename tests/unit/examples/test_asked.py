"""What one host can do, what needs a job, and how many GPUs that takes."""

from __future__ import annotations

import pytest

from kit.errors import ExitCode, KitError
from kit.examples import recipe
from kit.examples.asked import refuse_impossible
from kit.examples.plan import plan
from kit.images.engine import Gpus

STEPS = plan(recipe.find("gpt-530b-dummy"), "0.16.0").steps
AGAIN, SUBMIT = "kit run x --gpus GPU-0a1b2c3d", "kit slurm x --submit"


def refuse(gpus: str, present: int | None = None) -> None:
    refuse_impossible(STEPS, Gpus.parse(gpus), present, AGAIN, SUBMIT)


@pytest.fixture
def _job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")


def test_several_hosts_outside_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(KitError, match="16 ranks on 2 hosts, 8 on each") as caught:
        refuse("none")
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.USAGE, SUBMIT)


@pytest.mark.usefixtures("_job")
@pytest.mark.parametrize(
    ("gpus", "present"), [("none", None), ("all", 8), ("all", None), ("0,1,2,3,4,5,6,7", None)]
)
def test_in_a_job_every_host_gives_its_own_gpus(gpus: str, present: int | None) -> None:
    refuse(gpus, present)


@pytest.mark.usefixtures("_job")
def test_too_few_gpus_on_a_host() -> None:
    with pytest.raises(KitError, match="4 GPUs for 8 ranks"):
        refuse("all", 4)


@pytest.mark.usefixtures("_job")
def test_uuids_are_of_one_host() -> None:
    with pytest.raises(KitError, match="each of which has other UUIDs") as caught:
        refuse("GPU-0a1b2c3d")
    assert caught.value.hint == "kit run x --gpus 0,1,2,3,4,5,6,7"
