"""What is done with the nodes' answers; `srun` is a script that says what a test wants."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images.build import BuiltImage
from kit.images.engine import Gpus, Mount, RunRequest
from kit.project import Project
from kit.slurm.allocation import Allocation
from kit.slurm.hosts import OPTIONS, Hosts

DIGEST = Digest.of_bytes(b"image")
FACTS = {"engine": "podman 5", "imported": False, "facts": {"cores": 2}}

PROBLEM = json.dumps({"node": "n2", "message": "cannot", "hint": None, "exit_code": 3})


class Srun:
    """A PATH whose first `srun` keeps its words and then does what a test wants."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")

    def does(self, text: str) -> None:
        script = self.folder / "srun"
        script.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > "{self.folder}/words"\n{text}\n')
        script.chmod(0o755)

    def says(self, *answers: dict[str, Any], code: int = 0) -> None:
        lines = [f"echo '{json.dumps(answer)}'" for answer in answers]
        self.does("\n".join([*lines, f"exit {code}"]))

    @property
    def words(self) -> list[str]:
        return (self.folder / "words").read_text().splitlines()

    @property
    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.words[-1])
        return found


@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Srun:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Srun(folder, monkeypatch)


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    project = Project(tmp_path / "project", tmp_path / "home")
    image = BuiltImage("rehearsal", DIGEST, DIGEST, DIGEST, {})
    return Hosts(Allocation("7", ("n1", "n2")), project, image, "podman", Gpus(), "22.05.8")


def test_every_node_is_asked_once_and_answers_in_the_jobs_order(
    srun: Srun, hosts: Hosts, tmp_path: Path
) -> None:
    facts = [{**FACTS, "node": name, "facts": {"cores": cores}} for name, cores in
             (("n2", 2), ("n1", 1))]  # fmt: skip
    srun.says(*facts)
    left, fresh = (tmp_path / "runs" / f".nodes-{name}" for name in ("left", "fresh"))
    left.parent.mkdir()
    for path in (left, fresh):
        path.touch()
    os.utime(left, (0, 0))
    assert hosts.check(tmp_path / "runs", [tmp_path / "model"], 8) == ({"cores": 1}, {"cores": 2})
    for word in ("--jobid=7", "--nodes=2", "--ntasks=2", "--nodelist=n1,n2", "--mpi=none"):
        assert word in srun.words
    # However long one of them imports an image.
    assert "--wait=0" in srun.words
    assert srun.content["read"] == [str(tmp_path / "model")]
    marks = srun.content["marks"]
    assert [Path(path).parent for path in marks] == [tmp_path / "home", tmp_path / "runs"]
    assert not any(map(os.path.exists, marks))
    assert (left.exists(), fresh.exists()) == (False, True)


def test_a_node_that_cannot_is_named_with_its_reason(
    srun: Srun, hosts: Hosts, tmp_path: Path
) -> None:
    bad = {"node": "n2", "message": "no engine", "hint": "make setup", "exit_code": 3}
    srun.says({**FACTS, "node": "n1"}, bad, code=3)
    with pytest.raises(KitError, match="node n2: no engine") as caught:
        hosts.check(tmp_path / "runs", [tmp_path / "model"], 8)
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.ENVIRONMENT, "make setup")


def test_a_node_without_the_kit_is_named_with_what_srun_says(
    srun: Srun, hosts: Hosts, tmp_path: Path
) -> None:
    srun.does(f"echo '{json.dumps({**FACTS, 'node': 'n1'})}'\necho 'execve(): no file' >&2; exit 2")
    with pytest.raises(
        KitError, match=r"no answer from node n2(.|\n)*execve\(\): no file"
    ) as caught:
        hosts.check(tmp_path / "runs", [tmp_path / "model"], 8)
    assert caught.value.exit_code is ExitCode.ENVIRONMENT


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    work = tmp_path / "work"
    work.mkdir()
    return RunRequest(
        image="image",
        argv=("mpirun", "-n", "4", "-N", "2", "python3", "run.py"),
        workdir="/app",
        environment={"OMPI_MCA_btl": "self,vader,tcp"},
        mounts=(Mount(work, "/kit/work", writable=True),),
    )


def test_a_step_tells_the_nodes_what_to_do_and_keeps_what_ranks_say(
    srun: Srun, hosts: Hosts, request_: RunRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "hidden" / "nodes" / "run"
    srun.does(
        f"""
        for rank in 00 01 10; do
            mkdir -p {folder}/ranks/1/rank.$rank
            echo out $rank > {folder}/ranks/1/rank.$rank/stdout
            echo err $rank > {folder}/ranks/1/rank.$rank/stderr
        done
        ln -sf /etc/passwd {folder}/ranks/1/rank.10/stderr
        mkdir {folder}/ranks/1/rank.x
        ln -s /etc {folder}/ranks/1/rank.7
        cp {folder}/hosts {tmp_path}/hosts
        touch {folder}/report-n1.json {folder}/report-n2.json
        echo said
        """
    )
    lines: list[str] = []
    scratch = tmp_path / "hidden"
    ended = hosts.run(request_, "run", 2, "/app/bin", "/kit/launcher.py", scratch, lines.append)
    assert (ended.exit_code, lines) == (0, ["said"])
    assert [path.name for path in ended.logs] == ["rank-0.log", "rank-1.log", "rank-10.log"]
    assert ended.logs[0].read_text() == "out 00\nerr 00\n"
    assert ended.logs[2].read_text() == "out 10\n"
    task = srun.content
    assert task["argv"] == ["mpirun", *OPTIONS, *request_.argv[1:]]
    assert (task["first"], task["environment"]) == ("n1", request_.environment)
    assert (tmp_path / "hosts").read_text() == "n1\nn2\n"
    assert ended.folder == scratch / "nodes"
    assert "--wait=10" in srun.words


@pytest.mark.parametrize(
    ("left", "why", "code"),
    [
        ("touch {folder}/report-n1.json", "job 7 lost n2 in the middle(.|\n)*Node failure", 3),
        ("", "job 7 lost n1, n2 in the middle", 3),
        (
            "echo '$PROBLEM' > {folder}-problems/n2.json",
            "step run: node n2: cannot",
            3,
        ),
    ],
)
def test_a_node_that_is_lost_is_told_from_a_step_that_fails(
    srun: Srun,
    hosts: Hosts,
    request_: RunRequest,
    tmp_path: Path,
    left: str,
    why: str,
    code: int,
) -> None:
    scratch = tmp_path / "hidden"
    folder = scratch / "nodes" / "run"
    left = left.format(folder=folder).replace("$PROBLEM", PROBLEM)
    srun.does(f"{left}\necho 'srun: error: Node failure on n2' >&2; exit 9")
    with pytest.raises(KitError, match=why) as caught:
        hosts.run(request_, "run", 2, "/app/bin", "/kit/launcher.py", scratch, lambda _: None)
    assert caught.value.exit_code == code
    assert not (scratch / "nodes").exists()


def test_a_step_that_fails_has_an_exit_code(
    srun: Srun, hosts: Hosts, request_: RunRequest, tmp_path: Path
) -> None:
    scratch = tmp_path / "hidden"
    folder = scratch / "nodes" / "run"
    srun.does(f"touch {folder}/report-n1.json {folder}/report-n2.json; exit 9")
    gpus = replace(hosts, gpus=Gpus(all=True))
    ended = gpus.run(request_, "run", 2, "/app/bin", "/kit/launcher.py", scratch, lambda _: None)
    assert (ended.exit_code, ended.logs) == (9, ())
