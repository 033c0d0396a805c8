"""What `srun` starts on every node of a job: look at the node, or run its container of a step.

    python -m kit.slurm.node check QUESTION      one line of JSON on standard output
    python -m kit.slurm.node run TASK            the container's output, its exit code

The argument is JSON, written by `kit.slurm.hosts`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kit import images
from kit.compat.host import host_facts
from kit.digest import Digest
from kit.errors import KitError, environment_error, usage_error
from kit.files import write_json
from kit.images.build import BuiltImage, ready
from kit.images.engine import Gpus, Mount, RunRequest
from kit.project import Project
from kit.slurm.allocation import node_home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

ALIVE = "/kit/alive"
"""A file that the node's program holds a lock on: a container that gets the lock is an orphan."""
_TERMINATED = 128 + signal.SIGTERM


def main(arguments: list[str]) -> int:
    """Do what is asked; returns the exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    node = os.environ["SLURMD_NODENAME"]
    content: dict[str, Any] = json.loads(arguments[1])
    try:
        if arguments[0] == "check":
            # On one line: what several nodes say arrives line by line.
            print(json.dumps({"node": node, **_check(content)}), flush=True)
            return 0
        return _run(node, content)
    except KeyboardInterrupt:
        return _TERMINATED
    except KitError as error:
        problem = {
            "node": node,
            "message": str(error),
            "hint": error.hint,
            "exit_code": int(error.exit_code),
        }
        if arguments[0] == "check":
            print(json.dumps(problem), flush=True)
        else:
            write_json(Path(content["problems"]) / f"{node}.json", problem)
        return error.exit_code


def _check(question: dict[str, Any]) -> dict[str, Any]:
    """What a node is, once it is known to see the shared storage and to have the image."""
    for path, expected in question["marks"].items():
        try:
            found = Path(path).read_text(encoding="ascii")
        except OSError as error:
            found = error.strerror or type(error).__name__
        if found != expected:
            raise environment_error(
                f"does not see the storage of the job's first node: {path}: {found}",
                hint="export KIT_HOME=<a folder on storage that all nodes see>; kit run --output "
                "<another such folder>",
            )
    for path in question["read"]:
        if not Path(path).exists():
            raise environment_error(
                f"does not see {path}, which the steps read",
                hint="bring it to storage that all nodes see",
            )
    project = Project(Path(question["root"]), Path(question["home"]))
    engine = images.select(node_home(project.home))
    image = _image(question)
    was_there = any(engine.has(d.hex) for d in (image.image_id, image.manifest_digest))
    ready(project, engine, image)
    facts = host_facts()
    gpus = Gpus.parse(question["gpus"])
    if gpus.all and len(facts["gpus"]) < question["ranks"]:
        raise usage_error(f"{len(facts['gpus'])} GPUs for {question['ranks']} ranks, one each")
    return {
        "engine": f"{engine.name} {engine.version()}",
        "imported": not was_there,
        "facts": facts,
    }


def _image(content: dict[str, Any]) -> BuiltImage:
    manifest, configuration = (Digest.parse(content[key]) for key in ("digest", "image_id"))
    return BuiltImage(content["stack"], manifest, manifest, configuration, {})


def _run(node: str, task: dict[str, Any]) -> int:
    """One container; its lines go to standard output, and it ends when this process does."""
    project = Project(Path(task["root"]), Path(task["home"]))
    engine = images.select(node_home(project.home))
    is_first = node == task["first"]
    folder, short = Path(task["folder"]), node.partition(".")[0]
    argv = task["argv"] if is_first else ["python3", "-I", "-S", task["rendezvous"], "follow", node]
    report = f"{task['inside']}/report-{node}.json"
    with _alive() as alive:
        request = RunRequest(
            image=ready(project, engine, _image(task)),
            argv=(
                *("python3", "-I", "-S", task["launcher"], "--path", task["path"]),
                *("--report", report, "--alive", ALIVE, "--", *argv),
            ),
            workdir=task["workdir"],
            environment=task["environment"],
            mounts=(
                *(Mount(Path(m["source"]), m["target"], m["writable"]) for m in task["mounts"]),
                Mount(alive, ALIVE),
            ),
            gpus=Gpus.parse(task["gpus"]),
            shm_bytes=task["shm_bytes"],
            node=node,
        )
        try:
            return engine.run(request, lambda line: print(line, flush=True))
        finally:
            # Nobody waits for this node any more, however its container has ended.
            for name in ("over",) if is_first else (f"{short}.taken", f"{short}.ended"):
                if not os.path.lexists(folder / name):
                    write_json(folder / name, _TERMINATED)


@contextlib.contextmanager
def _alive() -> Iterator[Path]:
    """A file on this node's own disk, locked for as long as this process lives."""
    with tempfile.TemporaryDirectory(prefix="kit-") as folder:
        Path(folder).chmod(0o755)
        path = Path(folder) / "alive"
        with path.open("xb") as stream:
            path.chmod(0o644)
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield path


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
