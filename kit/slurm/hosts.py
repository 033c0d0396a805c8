"""The hosts of a job: looked at before a step, and one step with ranks on all of them.

Every node runs one container, so that its ranks share memory, processes and GPUs as on a single
host; the ranks are started by the plan's own `mpirun`, and its daemons on the other nodes by a
rendezvous in a folder that all nodes see. `srun` starts the containers, one task a node. Slurm's
PMIx is not used: it admits only processes of the job's own user, while the containers of a kit
that root runs have another one; it wants one Slurm task, and so one container, a rank; and not
every Slurm has the plugin.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kit import console
from kit.compat.script import mountable
from kit.digest import CHUNK
from kit.errors import ExitCode, KitError, environment_error
from kit.files import make_folder, write_bytes
from kit.images import process
from kit.images.confinement import handed_over, user_arguments
from kit.images.engine import Mount, RunRequest
from kit.slurm import rendezvous

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from kit.images.build import BuiltImage
    from kit.images.engine import Gpus
    from kit.project import Project
    from kit.slurm.allocation import Allocation

MPI_PLUGIN = "none"
"""Of Slurm's: see above."""
NODES = rendezvous.FOLDER
_RENDEZVOUS = "/kit/rendezvous.py"
_BRIDGES = "docker0,podman0,cni-podman0,virbr0"
"""Of container engines and virtual machines: of the same address on every node, and no way out."""
OPTIONS = (
    *("--hostfile", f"{NODES}/hosts"),
    *("--mca", "plm_rsh_agent", f"python3 -I -S {_RENDEZVOUS} agent"),
    # Every daemon is called by the first node, and stays its agent's child until it ends.
    *("--mca", "plm_rsh_no_tree_spawn", "1"),
    *("--mca", "oob_tcp_if_exclude", _BRIDGES),
    *("--mca", "btl_tcp_if_exclude", f"127.0.0.1/8,{_BRIDGES}"),
    "--leave-session-attached",
    *("--output-filename", f"{NODES}/ranks"),
)
"""What `mpirun` is told in addition to the plan's words."""


_DAY = 24 * 3600
_LEFT_BEHIND = 10
"""Seconds that the other nodes have for ending when one has ended."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a step on several hosts has ended.

    Attributes:
        exit_code: of `srun`: the highest of any node.
        folder: with all that the containers shared, to be removed.
        reports: what the launcher of each container has measured there, the first node's first.
        logs: output of every rank, kept among the logs of the run.
    """

    exit_code: int
    folder: Path
    reports: tuple[Path, ...]
    logs: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Hosts:
    """The nodes of a job that steps are shared out to.

    Attributes:
        allocation: the nodes, this one first.
        project: where the image is, on storage that all nodes see.
        image: of all containers.
        engine: `podman` or `docker`, the same on all nodes.
        gpus: that the containers of each node see.
        version: of Slurm.
    """

    allocation: Allocation
    project: Project
    image: BuiltImage
    engine: str
    gpus: Gpus
    version: str

    def check(self, runs: Path, read: Sequence[Path], ranks: int) -> tuple[dict[str, Any], ...]:
        """Look at every node: storage, engine, image, GPUs; the image is imported where it lacks.

        Args:
            runs: folder that the run's folder will be in.
            read: what the steps read.
            ranks: of one node.

        Returns:
            What a manifest says of each node, this one first.

        Raises:
            KitError: a node does not see the storage, has no engine or cannot import the image
                (exit 3), has too few GPUs (exit 2); srun failed (exit 3). Names the node.
        """
        watch = console.Stopwatch()
        names = ", ".join(self.allocation.nodes)
        console.note(f"looking at {names}; where the image is missing it is imported")
        with _marks([self.project.home, runs]) as marks:
            question = {
                **self._common(),
                "marks": marks,
                "read": [str(path) for path in read],
                "gpus": str(self.gpus),
                "ranks": ranks,
            }
            code, answers, rest = self._ask(question)
        bad = [answer for answer in answers.values() if "message" in answer]
        for answer in bad:
            raise KitError(
                f"node {answer['node']}: {answer['message']}",
                exit_code=ExitCode(answer["exit_code"]),
                hint=answer["hint"],
            )
        silent = [name for name in self.allocation.nodes if name not in answers]
        if code != 0 or silent:
            said = "".join(f"\n  {line}" for line in rest)
            names = ", ".join(silent or self.allocation.nodes)
            raise environment_error(
                f"no answer from node {names}: srun could not run {sys.executable} -m kit there"
                f"{said}",
                hint=f"srun --nodelist={names} {sys.executable} -m kit --version",
            )
        imported = [name for name, answer in answers.items() if answer["imported"]]
        engines = sorted({answer["engine"] for answer in answers.values()})
        console.note(
            f"{len(answers)} nodes looked at in {watch.seconds:.1f} s: all see the same storage; "
            f"{', '.join(engines)}; image "
            + (f"imported on {', '.join(imported)}" if imported else "present on all")
        )
        return tuple(answers[name]["facts"] for name in self.allocation.nodes)

    def run(
        self,
        request: RunRequest,
        step: str,
        ranks: int,
        path: str,
        launcher: str,
        scratch: Path,
        on_line: Callable[[str], None],
    ) -> Ended:
        """Run one step on all nodes, `ranks` on each.

        Args:
            request: the step as on one host; its command begins with `mpirun`.
            step: its name.
            ranks: of one node.
            path: folder that comes first on PATH.
            launcher: the script that measures, as the containers see it.
            scratch: hidden folder of the run, which all nodes see; logs of the ranks are kept in
                `logs/<step>`, whatever happens.
            on_line: gets every line of output, of all ranks.

        Raises:
            KitError: an engine or a node failed, rather than the step (exit 3).
        """
        folder, problems = scratch / "nodes" / step, scratch / "nodes" / f"{step}-problems"
        for place in (folder, problems):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
        # Slots are not said: Open MPI counts cores, and ranks that have to share some are patient.
        hosts = "".join(f"{name}\n" for name in self.allocation.nodes)
        write_bytes(folder / "hosts", hosts.encode())
        script = mountable(self.project, Path(rendezvous.__file__))
        mounts = (
            *request.mounts,
            Mount(script, _RENDEZVOUS),
            Mount(folder, NODES, writable=True),
        )
        task = {
            **self._common(),
            "first": self.allocation.nodes[0],
            "argv": [request.argv[0], *OPTIONS, *request.argv[1:]],
            "path": path,
            "launcher": launcher,
            "rendezvous": _RENDEZVOUS,
            "folder": str(folder),
            "inside": NODES,
            "problems": str(problems),
            "workdir": request.workdir,
            "environment": dict(request.environment),
            "mounts": [
                {"source": str(m.source), "target": m.target, "writable": m.writable}
                for m in mounts
            ],
            "gpus": str(request.gpus),
            "shm_bytes": request.shm_bytes,
        }
        shared = RunRequest(request.image, request.argv, mounts=mounts)
        console.note(
            f"[{step}] on {len(self.allocation.nodes)} nodes, {ranks} ranks in one container on "
            "each, whose network is the host's, all else closed as ever; Slurm "
            f"{self.version}, srun --mpi={MPI_PLUGIN}, daemons of Open MPI"
        )
        # Once for all containers: the first that ends must not take the folders from the others.
        try:
            with handed_over(shared, active=user_arguments()[1]):
                code, tail = process.stream(self._srun("run", task), on_line, self._environment())
        finally:
            logs = _keep(folder / "ranks", scratch / "logs" / step)
        if code != 0:
            self.allocation.wait_if_ending()
        reports = {name: folder / f"report-{name}.json" for name in self.allocation.nodes}
        problem = self._problem(code, tail, problems, reports)
        if problem is not None:
            shutil.rmtree(scratch / "nodes", ignore_errors=True)
            raise KitError(
                f"step {step}: {problem}", exit_code=problem.exit_code, hint=problem.hint
            )
        return Ended(code, scratch / "nodes", tuple(reports.values()), logs)

    def _problem(
        self, code: int, tail: Sequence[str], problems: Path, reports: Mapping[str, Path]
    ) -> KitError | None:
        """What kept a step from ending by itself, well or not."""
        for place in sorted(problems.glob("*.json")):
            said = json.loads(place.read_bytes())
            return KitError(
                f"node {said['node']}: {said['message']}",
                exit_code=ExitCode(said["exit_code"]),
                hint=said["hint"],
            )
        lost = [name for name, report in reports.items() if not os.path.lexists(report)]
        if code == 0 or not lost:
            return None
        last = "".join(f"\n  {line}" for line in tail[-8:])
        return environment_error(
            f"job {self.allocation.job} lost {', '.join(lost)} in the middle: "
            f"a node is down, or Slurm has ended the step{last}",
            hint=f"scontrol show job {self.allocation.job}; sinfo --list-reasons",
        )

    def _common(self) -> dict[str, Any]:
        return {
            "root": str(self.project.root),
            "home": str(self.project.home),
            "stack": self.image.stack,
            "digest": str(self.image.manifest_digest),
            "image_id": str(self.image.image_id),
        }

    def _ask(self, question: dict[str, Any]) -> tuple[int, dict[str, dict[str, Any]], list[str]]:
        answers: dict[str, dict[str, Any]] = {}
        rest: list[str] = []

        def on_line(line: str) -> None:
            try:
                answer = json.loads(line)
                answers[answer["node"]] = answer
            except (ValueError, TypeError, KeyError):
                rest.append(line)

        code, _ = process.stream(self._srun("check", question), on_line, self._environment())
        if code != 0:
            self.allocation.wait_if_ending()
        return code, answers, rest[-8:]

    def _environment(self) -> dict[str, str]:
        return {"KIT_ENGINE": self.engine}

    def _srun(self, what: str, content: Mapping[str, Any]) -> Sequence[str]:
        nodes = self.allocation.nodes
        return [
            "srun",
            f"--jobid={self.allocation.job}",
            f"--nodes={len(nodes)}",
            f"--ntasks={len(nodes)}",
            "--ntasks-per-node=1",
            f"--nodelist={','.join(nodes)}",
            f"--mpi={MPI_PLUGIN}",
            # Beside the job's script, or the shell in it, and with all that the job has on a node.
            "--overlap",
            "--cpu-bind=none",
            # When one node has ended the others end too, unless one of them is lost; while it is
            # only looked at, one may import an image for long.
            f"--wait={_LEFT_BEHIND if what == 'run' else 0}",
            "--kill-on-bad-exit=0",
            "--export=ALL",
            "--input=none",
            f"--job-name=kit-{what}",
            *(sys.executable, "-m", "kit.slurm.node", what, json.dumps(content)),
        ]


def _keep(ranks: Path, kept: Path) -> tuple[Path, ...]:
    """Copy what Open MPI has of the ranks, `<job>/rank.<n>/stdout` and `stderr`; a file a rank.

    A container could write there: links and devices count as empty.
    """
    found: dict[int, Path] = {}
    for place in ranks.glob("*/rank.*"):
        number = place.name.rpartition(".")[2]
        if number.isdecimal() and place.is_dir() and not place.is_symlink():
            found[int(number)] = place
    logs = []
    for rank in sorted(found):
        kept.mkdir(parents=True, exist_ok=True)
        logs.append(kept / f"rank-{rank}.log")
        with logs[-1].open("wb") as target:
            for name in ("stdout", "stderr"):
                _append(found[rank] / name, target)
    return tuple(logs)


def _append(source: Path, target: IO[bytes]) -> None:
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    with os.fdopen(descriptor, "rb") as stream:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            shutil.copyfileobj(stream, target, CHUNK)


@contextlib.contextmanager
def _marks(folders: Sequence[Path]) -> Iterator[dict[str, str]]:
    """A file with a random word in each folder, while the block runs: path and word.

    What a killed run has left is removed a day later.
    """
    marks: dict[str, str] = {}
    try:
        for folder in folders:
            make_folder(folder)
            for old in folder.glob(".nodes-*"):
                with contextlib.suppress(OSError):
                    if time.time() - old.stat().st_mtime > _DAY:
                        old.unlink()
            path, word = folder / f".nodes-{secrets.token_hex(6)}", secrets.token_hex(16)
            marks[str(path)] = word
            write_bytes(path, word.encode())
        yield marks
    finally:
        for name in marks:
            with contextlib.suppress(OSError):
                os.unlink(name)  # noqa: PTH108 - a path as text
