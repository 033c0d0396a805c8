import multiprocessing
import os
import random
import signal
import stat
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit import reception as receptions
from kit import store as store_module
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.reception import Cancelled, copy_file
from kit.store import Store
from tests.stand_in.stored import damage, damaged, stored

CONTENT = random.Random(7).randbytes(300_000)
DIGEST = Digest.of_bytes(CONTENT)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def put(store, content=CONTENT):
    digest = Digest.of_bytes(content)
    receive(store, content, digest, len(content))
    return digest


def receive(store, content=CONTENT, digest=DIGEST, size=None, **options):
    with store.receive(digest, len(CONTENT) if size is None else size, **options) as reception:
        reception.write(content)
        reception.finish()


def partials(store):
    return list((store.root / "partial").iterdir())


def test_what_goes_in_comes_out(store, tmp_path):
    digest = put(store)
    path = store.path(digest)
    assert path == store.root / "sha256" / digest.hex[:2] / digest.hex
    assert path.read_bytes() == CONTENT
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    source = tmp_path / "file"
    source.write_bytes(b"other")
    assert store.path(store.add_file(source)).read_bytes() == b"other"
    assert stored(store) == sorted([digest, Digest.of_bytes(b"other")])
    assert partials(store) == []


def test_twice_is_once(store):
    put(store)
    before = store.path(DIGEST).stat()
    with store.receive(DIGEST, len(CONTENT)) as reception:
        assert reception.done
    assert partials(store) == []
    assert store.path(DIGEST).stat().st_ino == before.st_ino


def test_empty_file(store):
    digest = put(store, b"")
    assert store.path(digest).read_bytes() == b""


def test_absent_is_explained(store, tmp_path):
    with pytest.raises(KitError, match=f"numpy, {DIGEST} is not in the store") as caught:
        store.path(DIGEST, "numpy", "rehearsal")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint == "kit fetch rehearsal"
    with pytest.raises(KitError, match="no such file"):
        store.add_file(tmp_path / "absent")


def test_size_is_part_of_having(store):
    put(store)
    assert store.has(DIGEST)
    assert store.has(DIGEST, len(CONTENT))
    assert not store.has(DIGEST, 5)


def test_wrong_content_leaves_nothing(store):
    wrong = CONTENT[:-1] + b"!"
    with pytest.raises(KitError) as caught:
        receive(store, wrong)
    message = str(caught.value)
    assert str(DIGEST) in message
    assert str(Digest.of_bytes(wrong)) in message
    assert caught.value.exit_code == ExitCode.CONTENT
    assert partials(store) == []
    assert not store.has(DIGEST)


def test_too_short_leaves_nothing(store):
    with pytest.raises(KitError, match="299999 bytes; nothing"):
        receive(store, CONTENT[:-1])
    assert partials(store) == []


def test_too_long_is_found_at_once(store):
    with pytest.raises(KitError, match="expected 300000 bytes, found more"):
        receive(store, CONTENT + b"!")
    assert partials(store) == []


@settings(max_examples=40, deadline=None)
@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path_factory, place, bit):
    store = Store(tmp_path_factory.mktemp("store"))
    wrong = bytearray(CONTENT)
    wrong[place] ^= 1 << bit
    with pytest.raises(KitError, match="wrong content"):
        receive(store, bytes(wrong))
    assert not store.has(DIGEST)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, len(CONTENT)), max_size=6))
def test_interrupted_anywhere_it_goes_on(tmp_path_factory, stops):
    store = Store(tmp_path_factory.mktemp("store"))
    for stop in sorted(stops):
        with store.receive(DIGEST, len(CONTENT)) as reception:
            assert reception.offset == store.received(DIGEST)
            reception.write(CONTENT[reception.offset : stop])
    with store.receive(DIGEST, len(CONTENT)) as reception:
        reception.write(CONTENT[reception.offset :])
        reception.finish()
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert damaged(store) == []


def test_a_partial_longer_than_the_file_is_thrown_away(store):
    (store.root / "partial").mkdir(parents=True)
    (store.root / "partial" / DIGEST.hex).write_bytes(CONTENT + b"!")
    with store.receive(DIGEST, len(CONTENT)) as reception:
        assert reception.offset == 0


def test_bytes_are_counted(store):
    seen = []
    receive(store, on_bytes=seen.append)
    assert sum(seen) == len(CONTENT)


def test_restart_counts_back(store):
    seen = []
    with store.receive(DIGEST, len(CONTENT), on_bytes=seen.append) as reception:
        reception.write(CONTENT[:1000])
        reception.restart()
        reception.write(CONTENT)
        reception.finish()
    assert sum(seen) == len(CONTENT)


def test_cancelled_keeps_what_has_come(store):
    cancelled = threading.Event()
    with store.receive(DIGEST, len(CONTENT), cancelled=cancelled) as reception:
        reception.write(CONTENT[:1000])
        cancelled.set()
        with pytest.raises(Cancelled):
            reception.write(CONTENT[1000:])
    assert store.received(DIGEST) == 1000


@settings(max_examples=20, deadline=None)
@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 7))
def test_any_damage_is_found_when_used_and_healed_by_a_fetch(tmp_path_factory, place, bit):
    store = Store(tmp_path_factory.mktemp("store"))
    other = put(store, b"other")
    put(store)
    assert store.checked(DIGEST) == store.path(DIGEST)
    damage(store, DIGEST, place, 1 << bit)
    found = Digest.of_file(store.path(DIGEST))
    with pytest.raises(KitError) as caught:
        store.checked(DIGEST, "wheel numpy", "rehearsal")
    message = str(caught.value)
    assert message.startswith("wheel numpy: damaged in the store")
    assert f"expected {DIGEST}, found {found}" in message
    assert caught.value.exit_code == ExitCode.CONTENT
    assert caught.value.hint == "kit fetch rehearsal"
    assert stored(store) == [other]
    with pytest.raises(KitError, match="is not in the store"):
        store.checked(DIGEST)
    put(store)
    assert store.checked(DIGEST).read_bytes() == CONTENT


def test_damage_is_found_by_many_at_once(store):
    """Whoever comes later finds it gone; nobody takes a damaged file for a good one."""
    put(store)
    damage(store, DIGEST)
    found = []

    def check():
        try:
            store.checked(DIGEST)
        except KitError as error:
            found.append(error.exit_code)

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert ExitCode.CONTENT in found
    assert set(found) <= {ExitCode.CONTENT, ExitCode.ENVIRONMENT}
    assert stored(store) == []


def test_a_file_that_came_in_place_of_a_damaged_one_stays(store, monkeypatch):
    put(store)
    damage(store, DIGEST)
    hashed = store_module._hash

    def healed_meanwhile(descriptor):
        found = hashed(descriptor)
        store.discard(DIGEST)
        put(store)
        return found

    monkeypatch.setattr(store_module, "_hash", healed_meanwhile)
    with pytest.raises(KitError, match="damaged"):
        store.checked(DIGEST)
    assert store.path(DIGEST).read_bytes() == CONTENT


def test_not_enough_space_is_said_before(store):
    with pytest.raises(KitError, match="not enough disk") as caught:
        store.require_space({DIGEST: 1 << 60})
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    store.require_space({DIGEST: 10})
    put(store)
    store.require_space({DIGEST: 1 << 60})  # it is there: nothing is missing


def test_two_threads_bring_the_same_file_once(store):
    written = []

    def bring():
        with store.receive(DIGEST, len(CONTENT)) as reception:
            if not reception.done:
                for start in range(0, len(CONTENT), 30_000):
                    reception.write(CONTENT[start : start + 30_000])
                    time.sleep(0.01)
                reception.finish()
                written.append(1)

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert written == [1]
    assert damaged(store) == []
    assert partials(store) == []


def test_waiting_for_another_can_be_called_off(store):
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    with (
        store.receive(DIGEST, len(CONTENT)),
        pytest.raises(Cancelled),
        store.receive(DIGEST, len(CONTENT), cancelled=cancelled),
    ):
        pass


def test_killed_at_any_moment_it_works(store):
    """A real process, killed while it writes, ten times over."""
    context = multiprocessing.get_context("fork")

    def bring():
        while True:
            with store.receive(DIGEST, len(CONTENT)) as reception:
                for start in range(reception.offset, len(CONTENT), 1000):
                    reception.write(CONTENT[start : start + 1000])
                reception.finish()
            store.discard(DIGEST)

    for attempt in range(10):
        process = context.Process(target=bring)
        process.start()
        time.sleep(0.01 + 0.007 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert damaged(store) == []
    with store.receive(DIGEST, len(CONTENT)) as reception:
        if not reception.done:
            reception.write(CONTENT[reception.offset :])
            reception.finish()
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert partials(store) == []


def test_a_file_that_changes_while_it_is_copied(store, tmp_path):
    source = tmp_path / "file"
    source.write_bytes(CONTENT[:-1] + b"!")
    with (
        pytest.raises(KitError, match="wrong content") as caught,
        store.receive(DIGEST, len(CONTENT)) as reception,
    ):
        copy_file(source, reception)
    assert str(source) in str(caught.value)


def test_a_store_that_may_not_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(KitError, match="a file stands where a folder is expected") as caught:
        put(Store(tmp_path / "file" / "store"), b"x")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


class Item:
    """What a lock calls an input."""

    def __init__(self, content, name):
        self.sha256 = Digest.of_bytes(content)
        self.size = len(content)
        self.name = name

    def __str__(self):
        return self.name


@pytest.fixture
def many(store):
    """Thirty files of all sizes, the first of them asked for twice."""
    contents = [random.Random(n).randbytes(1 + n * n * 3000) for n in range(30)]
    for content in contents:
        put(store, content)
    items = [Item(content, f"file {n}") for n, content in enumerate(contents)]
    return [*items, Item(contents[0], "again")]


@pytest.mark.parametrize("jobs", [None, 1, 3, 64])
def test_all_are_checked_once(store, many, jobs):
    counted = []
    found = store.check_all(many, jobs=jobs, on_bytes=counted.append)
    assert found == {item.sha256: store.path(item.sha256) for item in many}
    assert sum(counted) == sum(item.size for item in many[:-1])
    assert store.check_all([]) == {}


@pytest.mark.parametrize("jobs", [None, 1, 3])
def test_all_damage_is_found_and_said_together(store, many, jobs):
    broken = (0, 7, 29)
    for number in broken:
        damage(store, many[number].sha256, place=many[number].size - 1)
    with pytest.raises(KitError) as caught:
        store.check_all(many, "small", jobs=jobs)
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.CONTENT, "kit fetch small")
    for number in broken:
        named = "again" if number == 0 else f"file {number}"
        assert f"{named}: damaged in the store" in str(caught.value)
        assert not store.has(many[number].sha256), "the next fetch brings it again"
    assert len(stored(store)) == 27


def test_one_damaged_file_of_many_is_said_as_ever(store, many):
    damage(store, many[5].sha256)
    with pytest.raises(KitError, match=r"^file 5: damaged in the store") as caught:
        store.check_all(many, "small")
    assert caught.value.exit_code == ExitCode.CONTENT


def test_missing_ones_are_named_before_anything_is_hashed(store, many):
    damage(store, many[20].sha256)
    for number in range(1, 9):
        store.discard(many[number].sha256)
    with pytest.raises(KitError) as caught:
        store.check_all(many, "small")
    assert (caught.value.exit_code, caught.value.hint) == (
        ExitCode.ENVIRONMENT,
        "kit fetch small",
    )
    assert "file 1, file 2, file 3, file 4, file 5 and 3 more are not in the store" in str(
        caught.value
    )
    assert store.has(many[20].sha256), "not looked at"


def test_many_files_are_settled_together(store, monkeypatch):
    """Each file is whole on the disk before it gets its name; names are made to last at the end."""
    done = []
    monkeypatch.setattr(receptions, "sync_folder", done.append)
    monkeypatch.setattr(receptions, "sync_disk", lambda folder: done.append((folder, "sync")))
    unsettled = receptions.Unsettled()
    contents = [bytes([n]) * 100 for n in range(20)]
    digests = [Digest.of_bytes(content) for content in contents]
    for content, digest in zip(contents, digests, strict=True):
        receive(store, content, digest, 100, unsettled=unsettled)
    assert done == []
    assert not any(store.has(digest) for digest in digests), "none is durable"
    store.settle(unsettled)
    places = {store.path(digest).parent for digest in digests}
    assert done[0] == (store.root / "partial", "sync")
    assert set(done[1:]) == places | {store.root / "sha256"}
    assert [store.path(digest).read_bytes() for digest in digests] == contents
    assert partials(store) == []
    done.clear()
    store.settle(unsettled)
    assert done == []
    put(store)
    assert store.path(DIGEST).parent in done, "a single file is settled at once"


def test_many_files_are_moved_when_there_are_enough(store):
    unsettled = receptions.Unsettled()
    contents = [b"%d" % number for number in range(300)]
    for content in contents:
        receive(store, content, Digest.of_bytes(content), len(content), unsettled=unsettled)
    assert sum(store.has(Digest.of_bytes(content)) for content in contents) == 256
    store.settle(unsettled)
    assert all(store.has(Digest.of_bytes(content)) for content in contents)


def test_a_process_that_ends_before_leaves_what_the_next_one_finishes(store):
    unsettled = receptions.Unsettled()
    receive(store, unsettled=unsettled)
    for descriptor, _, _ in unsettled._taken():
        os.close(descriptor)
    with store.receive(DIGEST, len(CONTENT)) as reception:
        assert reception.complete
        reception.finish()
    assert store.path(DIGEST).read_bytes() == CONTENT


def test_a_file_that_waits_is_locked(store):
    unsettled = receptions.Unsettled()
    receive(store, unsettled=unsettled)
    cancelled = threading.Event()
    threading.Timer(0.3, cancelled.set).start()
    with pytest.raises(Cancelled), store.receive(DIGEST, len(CONTENT), cancelled=cancelled):
        pass
    store.settle(unsettled)
    assert store.has(DIGEST)
