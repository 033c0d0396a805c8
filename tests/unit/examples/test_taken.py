"""Steps of an earlier run whose ranks were on several hosts: their logs come along."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from kit.digest import Digest
from kit.examples.fingerprints import Fingerprints
from kit.examples.folder import RunFolder
from kit.examples.past import Ground, Past
from kit.examples.plan import Step
from kit.examples.taken import Taken
from kit.manifests import record

if TYPE_CHECKING:
    from pathlib import Path

STEP = Step("run", ("mpirun", "x"), "/", {}, "/bin", 4, (), nodes=2)
GROUND = Ground("sha256:a", "0.16.0", "none", (), ())


def file(root: Path, name: str, content: str) -> record.File:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return record.File(name, len(content), Digest.of_bytes(content.encode()).hex)


def earlier(folder: Path) -> Past:
    logs = tuple(file(folder, f"logs/run/rank-{rank}.log", str(rank)) for rank in range(2))
    command = record.Command(
        name="run",
        argv=STEP.argv,
        cwd="/",
        env={},
        path="/bin",
        mpi_ranks=4,
        exit_code=0,
        seconds=1.0,
        peak_memory_bytes=1,
        log=file(folder, "logs/run.log", "all"),
        written=(file(folder, "output/tokens.csv", "1"),),
        spread=record.Spread(2, 2, "host", (), logs),
    )
    return Past("earlier", folder, folder, GROUND, (command,))


def test_logs_of_ranks_are_taken_over(tmp_path: Path) -> None:
    past = earlier(tmp_path / "earlier")
    folder = RunFolder(tmp_path / "new", dt.datetime.now(dt.timezone.utc))
    folder.work.mkdir(parents=True)
    folder.logs.mkdir()
    Taken(past, past.commands).adopt(folder, [])
    assert (folder.logs / "run.log").read_text() == "all"
    assert (folder.logs / "run" / "rank-1.log").read_text() == "1"
    assert (folder.work / "output" / "tokens.csv").read_text() == "1"


def test_a_log_of_a_rank_that_was_altered_is_not_relied_on(tmp_path: Path) -> None:
    past = earlier(tmp_path)
    assert past.kept(GROUND, [STEP], Fingerprints()) == past.commands
    (tmp_path / "logs" / "run" / "rank-1.log").write_text("?")
    assert past.kept(GROUND, [STEP], Fingerprints()) == ()
