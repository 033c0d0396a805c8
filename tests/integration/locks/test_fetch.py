import random
import subprocess
import time
from pathlib import Path

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks import lock as locks
from kit.locks.fetch import fetch
from kit.locks.intent import load
from kit.locks.resolve import check_current, resolve
from kit.store import Store
from tests.integration.locks.conftest import file_input, lock_of, noise
from tests.stand_in.file_server import Fault
from tests.stand_in.stored import damage, damaged, stored


@pytest.fixture
def many(server):
    """Twenty files of different sizes, one of them twice."""
    contents = [noise(1000 * number + 1, seed=number) for number in range(20)]
    items = [
        file_input(server.put(f"/{number}", content), content, name=f"f{number}")
        for number, content in enumerate(contents)
    ]
    return lock_of(*items, file_input(server.url + "/3", contents[3], name="again"))


@pytest.mark.parametrize("jobs", [1, 2, 8, 64])
def test_everything_comes_once(server, many, project, client, jobs):
    report = fetch(project, many, jobs=jobs, client=client)
    assert (report.inputs, report.present, report.fetched) == (20, 0, 20)
    assert report.bytes == many.size == sum(seen.sent for seen in server.requests)
    assert report.seconds > 0
    assert report.origins == {server.url.removeprefix("http://"): 20}
    store = Store(project.store)
    assert damaged(store) == []
    assert set(stored(store)) == {item.sha256 for item in many.inputs}
    again = fetch(project, many, jobs=jobs, client=client)
    assert (again.present, again.fetched, again.bytes) == (20, 0, 0)
    assert len(server.requests) == 20


def test_only_what_is_missing(server, many, project, client):
    store = Store(project.store)
    fetch(project, many, client=client)
    lost = sorted({item.sha256 for item in many.inputs})[:3]
    for digest in lost:
        store.discard(digest)
    server.requests.clear()
    assert fetch(project, many, client=client).fetched == 3
    assert len(server.requests) == 3


def test_a_file_of_the_wrong_size_in_the_store_is_brought_again(many, project, client):
    fetch(project, many, client=client)
    store = Store(project.store)
    path = store.path(many.inputs[0].sha256)
    path.chmod(0o644)
    path.write_bytes(b"cut")
    assert fetch(project, many, client=client).fetched == 1
    assert damaged(store) == []


def test_the_first_failure_stops_the_rest(server, project, client):
    slow = noise(4_000_000, seed=1)
    items = [
        file_input(server.put(f"/{n}", slow + bytes([n])), slow + bytes([n]), f"f{n}")
        for n in range(6)
    ]
    for number in range(6):
        server.forever[f"/{number}"] = Fault(bytes_per_second=500_000)
    server.forever["/5"] = Fault(flip=0, bytes_per_second=5_000_000)
    start = time.monotonic()
    with pytest.raises(KitError, match="wrong content") as caught:
        fetch(project, lock_of(*items), jobs=6, client=client)
    assert time.monotonic() - start < 5
    assert caught.value.exit_code == ExitCode.CONTENT
    store = Store(project.store)
    assert store.received(items[5].sha256) == 0
    assert store.received(items[0].sha256) > 0, "what has come is kept"


def test_a_vanished_file(server, project, client):
    item = file_input(server.url + "/gone?sig=query-secret", b"x", name="data.bin")
    with pytest.raises(KitError) as caught:
        fetch(project, lock_of(item), client=client)
    assert "file data.bin" in str(caught.value)
    assert "has vanished" in str(caught.value)
    assert "query-secret" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_an_empty_file_needs_no_request(server, project, client):
    item = file_input(server.url + "/not-even-there", b"")
    assert fetch(project, lock_of(item), client=client).fetched == 1
    assert Store(project.store).has(item.sha256)


def test_space_is_looked_at_before(server, project, client):
    item = file_input(server.put("/f", b"x"), b"x")
    huge = type(item)("file", "data", "huge", "", "huge", server.url, Digest("2" * 64), 1 << 60)
    with pytest.raises(KitError, match="not enough disk"):
        fetch(project, lock_of(item, huge), client=client)
    assert server.requests == []


def test_files_are_checked_when_they_are_locked(server, project, client, intend):
    content = noise(50_000)
    url = server.put("/f", content)
    entry = "files:\n  - {{name: f.bin, group: data, url: '{}', sha256: {}}}\n"
    intend(entry.format(url, Digest.of_bytes(content).hex))
    lock = resolve(project, "small", client=client)
    assert lock.inputs[0].size == len(content)
    check_current(lock, load(project.intent_path("small")))
    server.requests.clear()
    assert fetch(project, lock, client=client).fetched == 0, "it came when it was locked"
    intend(entry.format(url, "ab" * 32))
    for fault in (Fault(), Fault(refuse_head=True)):
        server.forever["/f"] = fault
        with pytest.raises(KitError, match="wrong content: expected sha256:abab") as caught:
            resolve(project, "small", client=client)
        assert caught.value.exit_code == ExitCode.CONTENT


def test_what_is_there_is_checked_when_it_is_locked(server, project, client, intend):
    content = noise(50_000)
    url, digest = server.put("/f", content), Digest.of_bytes(content)
    intend(f"files:\n  - {{name: f.bin, group: data, url: '{url}', sha256: {digest.hex}}}\n")
    lock = resolve(project, "small", client=client)
    store = Store(project.store)
    damage(store, digest, 40_000)
    with pytest.raises(KitError, match=r"file f\.bin: damaged in the store") as caught:
        resolve(project, "small", client=client)
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.CONTENT, "kit fetch small")
    assert stored(store) == []
    fetch(project, lock, client=client)
    assert resolve(project, "small", client=client) == lock
    server.put("/f", content + b"more")
    with pytest.raises(KitError, match="wrong size: expected 50000 bytes of sha256:") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_a_lock_that_climbs_out_never_reaches_fetch(server, project):
    item = file_input(server.put("/f", b"x"), b"x", name="../../../tmp/evil")
    path = project.lock_path("small")
    lock_of(item).write(path)
    with pytest.raises(KitError, match="outside its folder"):
        locks.load(path)


def test_a_model_of_the_project(project, client, intend):
    folder = project.root / "models" / "tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    intend("models:\n  - {name: tiny, directory: models/tiny}\n")
    lock = resolve(project, "small", client=client)
    report = fetch(project, lock, client=client)
    assert report.origins == {str(folder): 1}
    (folder / "config.json").write_text("[]")
    Store(project.store).discard(lock.inputs[0].sha256)
    with pytest.raises(KitError, match="changed since it was locked"):
        fetch(project, lock, client=client)


def test_a_full_disk(server, small_disk, project, client, monkeypatch):
    content = noise(6_000_000)
    item = file_input(server.put("/f", content), content)
    here = type(project)(project.root, small_disk)
    with pytest.raises(KitError, match="not enough disk"):
        fetch(here, lock_of(item), client=client)
    # Somebody else fills the disk after the look at it: the write itself fails.
    monkeypatch.setattr(Store, "require_space", lambda *_: None)
    with pytest.raises(KitError, match="disk full while writing") as caught:
        fetch(here, lock_of(item), client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert str(small_disk) in str(caught.value)
    came = Store(here.store).received(item.sha256)
    assert came > 3_000_000
    # On a larger disk the same command goes on.
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    server.requests.clear()
    fetch(here, lock_of(item), client=client)
    assert [seen.range for seen in server.requests] == [f"bytes={came}-"]
    assert damaged(Store(here.store)) == []


def test_no_descriptor_is_left_open(server, many, project, client):
    fetch(project, many, client=client)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for item in many.inputs:
        Store(project.store).discard(item.sha256)
    fetch(project, many, client=client)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2


def test_random_breaks_never_bring_wrong_bytes(server, project, client):
    """Forty downloads, each broken a few times in random ways that may pass."""
    dice = random.Random(11)
    items = []
    for number in range(40):
        content = noise(dice.randrange(1, 60_000), seed=number)
        items.append(file_input(server.put(f"/{number}", content), content, name=f"f{number}"))
        server.faults[f"/{number}"] = [
            dice.choice(
                [
                    Fault(cut_after=dice.randrange(0, len(content))),
                    Fault(status=503),
                    Fault(ignore_range=True, cut_after=dice.randrange(0, len(content))),
                    Fault(hide_length=True),
                    Fault(wrong_range=True),
                ]
            )
            for _ in range(dice.randrange(0, 4))
        ]
    fetch(project, lock_of(*items), client=client)
    assert damaged(Store(project.store)) == []


def test_a_file_from_a_mirror(project, server, client, monkeypatch):
    content = noise(4000)
    here = server.put("/mirror/blob", content)
    item = file_input("https://files.example/pub/blob", content, name="blob")
    monkeypatch.setenv("KIT_MIRRORS", f"https://files.example/pub/={here.removesuffix('blob')}")
    fetch(project, lock_of(item), client=client)
    assert Store(project.store).has(item.sha256, item.size)


def test_a_mirror_that_holds_something_else(project, server, client, monkeypatch):
    here = server.put("/mirror/blob", noise(4000, seed=2))
    item = file_input("https://files.example/pub/blob", noise(4000, seed=1), name="blob")
    monkeypatch.setenv("KIT_MIRRORS", f"https://files.example/pub/={here.removesuffix('blob')}")
    with pytest.raises(KitError) as caught:
        fetch(project, lock_of(item), client=client)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert damaged(Store(project.store)) == []
    assert not Store(project.store).has(item.sha256, item.size)
