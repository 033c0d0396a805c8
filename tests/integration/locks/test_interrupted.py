"""Ctrl-C, SIGTERM and kill -9 against `kit fetch` itself; then the same command again."""

import json
import os
import signal
import subprocess
import time

import pytest

from kit.locks.fetch import fetch
from kit.locks.intent import load
from kit.locks.lock import Lock
from kit.store import Store
from tests.integration.locks.conftest import file_input, noise
from tests.stand_in.file_server import Fault
from tests.stand_in.stored import damaged


@pytest.fixture
def lock(server, project, intend):
    """Six files at 200 KB/s each, in the intent and in the lock."""
    items, files = [], ["files:"]
    for number in range(6):
        content = noise(400_000, seed=number)
        item = file_input(server.put(f"/{number}", content), content, name=f"f{number}")
        fields = f"name: {item.name}, group: data, url: '{item.location}', sha256: {item.sha256}"
        files.append(f"- {{{fields}}}")
        items.append(item)
        server.forever[f"/{number}"] = Fault(bytes_per_second=200_000)
    intend("\n".join(files) + "\n")
    found = Lock("small", load(project.intent_path("small")).digest, tuple(sorted(items)))
    found.write(project.lock_path("small"))
    return found


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
    assert damaged(store) == []
    came = sum(store.received(item.sha256) for item in lock.inputs)
    assert came >= 200_000
    server.forever.clear()
    server.requests.clear()
    process = start()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert (report["fetched"], report["bytes"]) == (6, lock.size - came)
    assert report["origins"] == [{"name": server.url.removeprefix("http://"), "count": 6}]
    assert sum(seen.sent for seen in server.requests) == lock.size - came, "only the rest was asked"
    assert damaged(store) == []
    assert list((store.root / "partial").iterdir()) == []


def test_killed_again_and_again(server, project, lock, start):
    store = Store(project.store)
    for pause in (0.2, 0.3, 0.45, 0.6, 0.8):
        process = start()
        time.sleep(pause)
        process.kill()
        process.communicate()
        assert damaged(store) == []
    server.forever.clear()
    process = start()
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert report["fetched"] + report["present"] == 6
    assert damaged(store) == []


def test_two_at_the_same_time(server, project, lock, start):
    for number in range(6):
        server.forever[f"/{number}"] = Fault(bytes_per_second=1_000_000)
    first, second = start(), start()
    outs = [process.communicate(timeout=30) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outs
    assert damaged(Store(project.store)) == []
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
