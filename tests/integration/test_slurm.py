"""Several nodes for real: jobs of a Slurm of the test's own, a container on each of two nodes.

Both nodes are this machine. With Podman each has image storage of its own; a Docker daemon is
shared by both.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.integration.conftest import kit
from tests.stand_in import slurm

pytestmark = pytest.mark.engine

RELEASE = "0.16.0"


@pytest.fixture(scope="module")
def cluster(scratch, missing):
    if lacking := slurm.lacking():
        missing(f"not installed: {', '.join(lacking)} (slurmctld, slurmd, slurm-client, munge)")
    if os.geteuid() != 0:
        missing("a Slurm of the test's own needs root")
    found = slurm.Slurm(Path(tempfile.mkdtemp(prefix="slurm-", dir=scratch)))
    try:
        found.start()
        yield found
    finally:
        found.stop()


@pytest.fixture(scope="module")
def place(selected, home, cluster, scratch):
    """A folder for jobs, and the environment that they start with."""
    folder = scratch / f"jobs-{selected['KIT_ENGINE']}"
    folder.mkdir()
    environment = selected | {"KIT_HOME": str(home), **cluster.environment}
    done = kit("build", "rehearsal", "--quiet", env=environment)
    assert done.returncode == 0, done.stderr
    if selected["KIT_ENGINE"] == "podman":
        environment["PATH"] = f"{_programs(folder)}:{os.environ['PATH']}"
    return folder, environment


def _programs(folder):
    """A folder for PATH: a Podman whose second node has its own storage, or refuses images; an srun
    that comes too late for a step, as its job has just been cancelled.
    """
    storage = folder / "kit2"
    storage.mkdir()
    (storage / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{storage}/graph"\nrunroot = "{storage}/run"\n'
    )
    programs = folder / "bin"
    programs.mkdir()
    script = programs / "podman"
    script.write_text(
        "#!/bin/sh\n"
        'if [ "${SLURMD_NODENAME:-}" = kit2 ]; then\n'
        f"    export CONTAINERS_STORAGE_CONF='{storage}/storage.conf'\n"
        f"    if [ -e '{folder}/refuse' ]; then\n"
        '        case "$1" in image) exit 1;; pull) echo "no space left" >&2; exit 125;; esac\n'
        "    fi\n"
        "fi\n"
        f'exec {shutil.which("podman")} "$@"\n'
    )
    script.chmod(0o755)
    late = programs / "srun"
    late.write_text(
        "#!/bin/sh\n"
        f"if [ -e '{folder}/late' ]; then\n"
        '    case "$*" in *kit-run*) scancel "$SLURM_JOB_ID"; exit 1;; esac\n'
        "fi\n"
        f'exec {shutil.which("srun")} "$@"\n'
    )
    late.chmod(0o755)
    return programs


@pytest.fixture(scope="module")
def recipe_of(place):
    """The 530B example with its dimensions scaled down, as a file; sharing as asked."""

    def make(name, tp=4, nodes=2, answer=6):
        document = yaml.safe_load((ROOT / "kit/examples/catalog/gpt-530b-dummy.yaml").read_bytes())
        document["name"] = name
        document["model"]["dummy"] = {
            "vocab_size": 384,
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 16,
            "max_position_embeddings": 1024,
        }
        document["checkpoint"]["tp"] = tp
        document["build"] |= {"max_batch_size": 8, "max_output_len": answer}
        document["run"] |= {"max_output_len": answer, "nodes": nodes, "gpus_per_node": tp // nodes}
        if nodes == 1:
            del document["run"]["nodes"]
        path = place[0] / f"{name}.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return make


@pytest.fixture(scope="module")
def submit(place, cluster):
    """`kit slurm … --submit`; the number of the job, and its log."""
    folder, environment = place

    def start(config, *more, behind=()):
        arguments = ["--config", str(config), "--stack", "rehearsal", "--release", RELEASE]
        arguments += ["--runs", str(folder / "runs"), "--json", "--submit", *more]
        arguments += ["--", f"--output={folder}/%j.log", *behind]
        done = kit("slurm", *arguments, env=environment)
        assert done.returncode == 0, done.stderr
        number = json.loads(done.stdout)["job_id"]
        return number, folder / f"{number}.log"

    return start


@pytest.fixture(scope="module")
def alone(place, recipe_of):
    """What one host answers, with all ranks on it."""
    folder, environment = place
    arguments = ["--stack", "rehearsal", "--release", RELEASE, "--output", str(folder / "runs")]
    done = kit(
        "run", "--config", str(recipe_of("one-host", nodes=1)), *arguments, "--json",
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["outputs"]


def manifest_of(log):
    """What the job's run has recorded; the path stands in the last line of its log."""
    path = log.read_text().splitlines()[-1]
    return path, json.loads(Path(path).read_bytes())


def wait_for(log, *texts, seconds=60):
    limit = time.monotonic() + seconds
    while not log.exists() or not all(text in log.read_text() for text in texts):
        said = log.read_text() if log.exists() else "nothing"
        assert time.monotonic() < limit, f"{texts} never came:\n{said}"
        assert "error:" not in said, said
        time.sleep(0.1)


def ranks():
    """The processes of ranks, on whichever node."""
    done = subprocess.run(
        ["pgrep", "-f", "^python3 examples/run.py"], capture_output=True, check=False
    )
    return [int(word) for word in done.stdout.split()]


def wait_until(condition, seconds=20):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_two_nodes_answer_as_one_host(place, cluster, recipe_of, submit, alone):
    _, environment = place
    remark = "two words # no comment"
    number, log = submit(recipe_of("two-nodes"), behind=[f"--comment={remark}"])
    assert cluster.ended(number) == ("COMPLETED", "0:0"), log.read_text()
    assert remark in cluster.ask("scontrol", "show", "job", str(number)).stdout
    path, manifest = manifest_of(log)
    assert [said["token_ids"] for said in manifest["outputs"]] == [
        said["token_ids"] for said in alone
    ]
    assert all(said["token_ids"] for said in manifest["outputs"])
    found = manifest["cluster"]
    assert (found["scheduler"], found["mpi_plugin"]) == ("slurm", "none")
    assert re.fullmatch(r"\d+\.\d+\S*", found["version"])
    assert found["nodes"] == [manifest["host"]] * 2
    spread = {command["name"]: command.get("spread") for command in manifest["commands"]}
    assert spread["build"] is None
    assert (spread["run"]["nodes"], spread["run"]["ranks_per_node"]) == (2, 2)
    assert spread["run"]["network"] == "host"
    assert [file["path"] for file in spread["run"]["logs"]] == [
        f"logs/run/rank-{rank}.log" for rank in range(4)
    ]
    text = json.dumps(manifest)
    assert not [name for name in (*slurm.NODES, socket.gethostname()) if f'"{name}' in text]
    verified = kit("manifest", "verify", path, env=environment)
    assert verified.returncode == 0, verified.stdout
    said = log.read_text()
    assert "2 nodes looked at" in said
    assert "[run] on 2 nodes, 2 ranks in one container on each, whose network is the host's" in said
    if environment["KIT_ENGINE"] == "podman":
        assert "image imported on kit2" in said


@pytest.mark.only("podman")
def test_sixteen_ranks_in_two_nodes(cluster, recipe_of, submit, alone):
    number, log = submit(recipe_of("sixteen", tp=16))
    assert cluster.ended(number) == ("COMPLETED", "0:0"), log.read_text()
    _, manifest = manifest_of(log)
    run = manifest["commands"][-1]
    assert (run["mpi_ranks"], run["spread"]["ranks_per_node"]) == (16, 8)
    assert len(run["spread"]["logs"]) == 16
    assert [said["token_ids"] for said in manifest["outputs"]] == [
        said["token_ids"] for said in alone
    ]


@pytest.mark.only("podman")
def test_a_cancelled_job_ends_everywhere_and_is_gone_on_with(place, cluster, recipe_of, submit):
    config = recipe_of("cancelled", answer=30)
    number, log = submit(config)
    wait_for(log, "[run] on 2 nodes")
    wait_until(lambda: len(ranks()) >= 4)
    assert cluster.ask("scancel", str(number)).returncode == 0
    assert cluster.ended(number) == ("CANCELLED", "130:0"), log.read_text()
    wait_until(lambda: not ranks())
    assert "--resume" in log.read_text()
    number, log = submit(config, "--resume")
    assert cluster.ended(number) == ("COMPLETED", "0:0"), log.read_text()
    path, manifest = manifest_of(log)
    reused = [command["name"] for command in manifest["commands"] if command.get("reused_from")]
    assert reused == ["configure", "build"]
    assert kit("manifest", "verify", path, env=place[1]).returncode == 0


@pytest.mark.only("podman")
def test_srun_that_a_cancelled_job_refuses_is_no_failure(place, cluster, recipe_of, submit):
    mark = place[0] / "late"
    mark.touch()
    try:
        number, log = submit(recipe_of("late"))
        assert cluster.ended(number) == ("CANCELLED", "130:0"), log.read_text()
    finally:
        mark.unlink()
    assert "error: step" not in log.read_text()
    assert "--submit --resume" in log.read_text()


@pytest.mark.only("podman")
def test_a_rank_that_dies_is_the_steps_failure(place, cluster, recipe_of, submit):
    number, log = submit(recipe_of("killed", answer=600))
    wait_for(log, "[run] on 2 nodes")
    wait_until(lambda: len(ranks()) >= 4)
    os.kill(ranks()[-1], 9)
    assert cluster.ended(number) == ("FAILED", "4:0"), log.read_text()
    said = log.read_text()
    assert "error: step run ended with exit code 137" in said
    assert "kit slurm --config" in said
    assert "--submit --resume" in said
    kept = next((place[0] / "runs/killed" / RELEASE).glob("*-failed"))
    assert sorted(file.name for file in (kept / "logs" / "run").iterdir()) == [
        f"rank-{rank}.log" for rank in range(4)
    ]
    assert not (kept / "nodes").exists()
    wait_until(lambda: not ranks())


@pytest.mark.only("podman")
def test_a_node_that_is_lost_is_named(cluster, recipe_of, submit):
    number, log = submit(recipe_of("lost", answer=600))
    wait_for(log, "[run] on 2 nodes")
    wait_until(lambda: len(ranks()) >= 4)
    cluster.lose("kit2")
    try:
        # Not only those of the lost node, whose containers notice that nobody wants them any more.
        wait_until(lambda: not ranks())
        wait_until(lambda: "error: step" in log.read_text(), 60)
        assert f"error: step run: job {number} lost kit2 in the middle" in log.read_text()
        wait_until(lambda: cluster.job(number)["ExitCode"] == "3:0")
    finally:
        cluster.restore("kit2")


@pytest.mark.only("podman")
def test_a_node_that_cannot_have_the_image_is_named(place, cluster, recipe_of, submit):
    mark = place[0] / "refuse"
    mark.touch()
    try:
        number, log = submit(recipe_of("imageless"))
        assert cluster.ended(number) == ("FAILED", "3:0"), log.read_text()
    finally:
        mark.unlink()
    assert "error: node kit2: podman pull failed: no space left" in log.read_text()
    assert "[build]" not in log.read_text()


@pytest.mark.only("podman")
def test_jobs_that_do_not_fit(place, cluster, recipe_of):
    folder, environment = place
    config = recipe_of("unfit")
    words = [sys.executable, "-m", "kit", "run", "--config", str(config)]
    words += ["--stack", "rehearsal", "--release", RELEASE, "--output", str(folder / "unfit")]

    def within(*srun):
        done = subprocess.run(
            ["srun", *srun, *words],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=60,
        )
        return done.returncode, done.stderr

    code, said = within("--nodes=1", "--ntasks=1")
    assert code == 3
    assert "has too few nodes: expected 2, found 1 (kit1)" in said
    code, said = within("--nodes=2", "--ntasks-per-node=1")
    assert code == 2
    assert "srun has started kit 2 times: once is enough" in said
    outside = kit(*words[3:], env=environment)
    assert outside.returncode == 2
    assert "wants 4 ranks on 2 hosts, 2 on each: this is one host, and no job of Slurm's" in (
        outside.stderr
    )
    assert f"try: kit slurm --config {config} --stack rehearsal" in outside.stderr
