"""Ctrl-C, SIGTERM and kill -9 against a separate process that fetches; then the same again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.locks.fetch import fetch
from kit.store import Store
from tests.integration.locks.conftest import file_input, lock_of, noise
from tests.stand_in.file_server import Fault

CODE = """
import sys
from pathlib import Path
from kit.errors import KitError
from kit.locks import lock
from kit.locks.fetch import fetch
from kit.project import Project
project = Project(Path(sys.argv[1]), Path(sys.argv[2]))
try:
    report = fetch(project, lock.load(project.lock_path("small")), jobs=4)
except KeyboardInterrupt:
    sys.exit(130)
except KitError as error:
    sys.exit(f"{error}")
print(report.fetched, report.present)
"""


@pytest.fixture
def lock(server, project):
    """Six files at 200 KB/s each."""
    items = []
    for number in range(6):
        content = noise(400_000, seed=number)
        items.append(file_input(server.put(f"/{number}", content), content, name=f"f{number}"))
        server.forever[f"/{number}"] = Fault(bytes_per_second=200_000)
    found = lock_of(*items)
    found.write(project.lock_path("small"))
    return found


@pytest.fixture
def start(project):
    processes = []

    def run():
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, project.root, project.home],
            cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def wait_for_bytes(store, lock, count):
    deadline = time.monotonic() + 20
    while sum(store.received(item.sha256) for item in lock.inputs) < count:
        assert time.monotonic() < deadline, "nothing comes"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_it_goes_on(server, project, lock, start, number):
    store = Store(project.store)
    process = start()
    wait_for_bytes(store, lock, 200_000)
    moment = time.monotonic()
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=20)
    assert time.monotonic() - moment < 3
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    assert "Traceback" not in err
    assert out == ""
    assert store.verify() == []
    came = sum(store.received(item.sha256) for item in lock.inputs)
    assert came >= 200_000
    server.forever.clear()
    server.requests.clear()
    out, err = start().communicate(timeout=20)
    assert out.split()[0] == "6", err
    assert sum(seen.sent for seen in server.requests) == lock.size - came, "only the rest was asked"
    assert store.verify() == []
    assert list((store.root / "partial").iterdir()) == []


def test_killed_again_and_again(server, project, lock, start):
    store = Store(project.store)
    for pause in (0.2, 0.3, 0.45, 0.6, 0.8):
        process = start()
        time.sleep(pause)
        process.kill()
        process.communicate()
        assert store.verify() == []
    server.forever.clear()
    out, err = start().communicate(timeout=20)
    assert sum(map(int, out.split())) == 6, err
    assert store.verify() == []


def test_two_at_the_same_time(server, project, lock, start):
    for number in range(6):
        server.forever[f"/{number}"] = Fault(bytes_per_second=1_000_000)
    first, second = start(), start()
    outs = [process.communicate(timeout=30) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outs
    assert Store(project.store).verify() == []
    assert sum(seen.sent for seen in server.requests) == lock.size, "no byte came twice"


def test_in_the_same_process(project, lock, client):
    """`fetch` itself raises KeyboardInterrupt, and soon."""
    main = os.getpid()
    helper = subprocess.Popen(["sh", "-c", f"sleep 0.7; kill -INT {main}"])
    moment = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch(project, lock, client=client)
    assert time.monotonic() - moment < 3
    helper.wait()
