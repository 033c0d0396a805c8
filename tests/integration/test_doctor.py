"""`kit doctor` on this host: its engines, its Slurm client, what crosses to the connected side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

from kit.host import facts
from tests.integration.conftest import kit


def _doctor(home, *arguments, **environment):
    return kit("doctor", "--json", *arguments, env={"KIT_HOME": str(home), **environment})


def test_the_engine_that_the_kit_takes(selected, scratch):
    done = _doctor(scratch / "doctor", **selected)
    answer = json.loads(done.stdout)
    engine = next(item for item in answer["host"]["engines"] if item["is_default"])
    assert engine["name"] == selected["KIT_ENGINE"]
    assert engine["version"]
    assert engine["storage"]
    assert engine["builder"]
    disk = next(item for item in answer["host"]["disks"] if item["name"] == "engine")
    assert disk["path"].startswith(str(scratch / f"storage-{engine['name']}"))
    assert next(check for check in answer["checks"] if check["name"] == "engine")["status"] == "ok"
    assert answer["ok"] is (done.returncode == 0)


def test_facts_cross_to_the_connected_side(selected, scratch):
    path = scratch / "host.json"
    _doctor(scratch / "doctor", "--export", str(path), **selected)
    found = facts.read(path)
    assert found.engine is not None
    assert os.uname().nodename not in json.dumps(found.to_dict()["unknown"])
    done = kit("verify-compat", "--host-facts", str(path), "--release", "0.16.0", "--json")
    assert json.loads(done.stdout)["schema"] == "kit.verify-compat/1", done.stderr


def test_no_engine_in_reach(scratch):
    done = _doctor(scratch / "doctor", KIT_ENGINE="docker", DOCKER_HOST=f"unix://{scratch}/none")
    assert done.returncode == 3, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["engine"]["status"] == "problem"


def test_a_real_slurm_client(scratch, missing):
    if shutil.which("srun") is None:
        missing("Slurm's client is not installed: apt-get install slurm-client")
    configuration = scratch / "slurm.conf"
    configuration.write_text(
        "ClusterName=test\nSlurmctldHost=localhost\nAuthType=auth/none\nMessageTimeout=2\n"
        f"StateSaveLocation={scratch}\nSlurmdSpoolDir={scratch}\n"
        "NodeName=localhost CPUs=1\nPartitionName=test Nodes=ALL\n"
    )
    done = _doctor(scratch / "doctor", SLURM_CONF=str(configuration))
    slurm = json.loads(done.stdout)["host"]["slurm"]
    listed = subprocess.run(
        ["srun", "--mpi=list"],
        env={**os.environ, "SLURM_CONF": str(configuration)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert slurm["version"]
    assert slurm["plugins"]
    assert all(name in listed.stdout + listed.stderr for name in slurm["plugins"])
    assert slurm["is_reachable"] is False
