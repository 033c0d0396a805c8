"""The backend from its source folder, the committed model, and ranks without MPI."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "dockerfiles" / "rehearsal" / "src"))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from kit_rehearsal.commands import SCRIPTS, main  # noqa: E402
from kit_rehearsal.releases import Span  # noqa: E402

if TYPE_CHECKING:
    import numpy as np

MODEL = ROOT / "kit" / "examples" / "models" / "gpt2-tiny"


class ThreadWorld:
    """Ranks that are threads of this process: the same interface as the ranks of MPI."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.aborted = False
        self._barrier = threading.Barrier(size, timeout=60)
        self._parts: list[np.ndarray | None] = [None] * size
        self._sent: dict[tuple[int, int], queue.SimpleQueue[np.ndarray]] = {
            (source, to): queue.SimpleQueue() for source in range(size) for to in range(size)
        }
        self._groups: dict[tuple[int, ...], ThreadWorld] = {}
        self._lock = threading.Lock()

    def ranks(self) -> list[ThreadRank]:
        return [ThreadRank(self, rank) for rank in range(self.size)]

    def exchange(self, rank: int, part: np.ndarray) -> list[np.ndarray]:
        self._parts[rank] = part.copy()
        self._barrier.wait()
        parts = [p for p in self._parts if p is not None]
        self._barrier.wait()
        return parts

    def group(self, members: tuple[int, ...]) -> ThreadWorld:
        with self._lock:
            return self._groups.setdefault(members, ThreadWorld(len(members)))

    def send(self, source: int, to: int, values: np.ndarray) -> None:
        self._sent[source, to].put(values.copy())

    def receive(self, source: int, to: int) -> np.ndarray:
        for _ in range(600):
            with contextlib.suppress(queue.Empty):
                return self._sent[source, to].get(timeout=0.1)
            if self.aborted:
                break
        raise threading.BrokenBarrierError

    def abort(self) -> None:
        self.aborted = True
        self._barrier.abort()
        for group in self._groups.values():
            group.abort()

    def run(self, work):
        """`work(rank)` on every rank at once; the results in rank order."""
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(work, self.ranks()))


class ThreadRank:
    def __init__(self, world: ThreadWorld, rank: int) -> None:
        self.world, self.rank, self.size = world, rank, world.size

    def gather(self, part: np.ndarray) -> list[np.ndarray]:
        return self.world.exchange(self.rank, part)

    def group(self, members) -> ThreadRank:
        return ThreadRank(self.world.group(tuple(members)), list(members).index(self.rank))

    def send(self, values: np.ndarray, to: int) -> None:
        self.world.send(self.rank, to, values)

    def receive(self, shape: tuple[int, ...], source: int) -> np.ndarray:
        values = self.world.receive(source, self.rank)
        assert values.shape == shape
        return values

    def abort(self) -> None:
        self.world.abort()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch) -> None:
    """Scripts leave what nobody named, such as model.cache, in the folder that they work in."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def model() -> Path:
    return MODEL


@pytest.fixture
def world():
    return ThreadWorld


@pytest.fixture
def pipeline(tmp_path):
    """convert and build the committed model as a release does; returns the engine directory."""

    def make(release: str, tp: int = 1, dtype: str = "float16", name: str = "x", build=()) -> Path:
        checkpoint, engine = tmp_path / f"{name}-ckpt", tmp_path / f"{name}-engine"
        convert, builder, _ = SCRIPTS[release][:3]
        if builder == "trtllm-build":
            argv = ["--model_dir", str(MODEL), "--dtype", dtype, "--tp_size", str(tp)]
            argv += ["--output_dir", str(checkpoint)]
            source = ["--checkpoint_dir", str(checkpoint)]
            source += ["--output_timing_cache", str(tmp_path / f"{name}.cache")]
        else:
            argv = ["-i", str(MODEL), "-o", str(checkpoint), "-tp", str(tp), "-t", dtype]
            source = ["--model_dir", str(checkpoint / f"{tp}-gpu"), "--world_size", str(tp)]
        assert main(release, convert, argv) == 0
        if Span(before="0.11.0").holds(release):
            source += ["--max_output_len", "60"]
        else:
            source += ["--max_seq_len", "160"]
        common = ["--max_batch_size", "4", "--max_input_len", "100", "--output_dir", str(engine)]
        assert main(release, builder, [*source, *common, *build]) == 0
        return engine

    return make


@pytest.fixture
def run_arguments():
    """The run script of a release and its arguments for an engine of the committed model."""

    def make(release: str, engine: Path, *more: str) -> tuple[str, list[str]]:
        script = SCRIPTS[release][2]
        flag = "--tokenizer_dir" if script == "examples/run.py" else "--tokenizer"
        return script, ["--engine_dir", str(engine), flag, str(MODEL), *more]

    return make
