"""When a bundle is the one that is asked for: what times say, what only digests say, kills."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from kit.bundles import create, fingerprint, parts, plan, verifier, writing
from kit.bundles.fingerprint import Memory, mark_of
from kit.errors import KitError
from tests.unit.bundles import making

SIZES = [3000, 40_000, 90_000, 5]


@pytest.fixture
def data(tmp_path):
    return making.noise(tmp_path / "data", SIZES)


@pytest.fixture
def settled(monkeypatch):
    """Files that have just been written count as if they were old."""
    monkeypatch.setattr(fingerprint, "_SETTLED", 0)


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that are hashed."""
    found = []
    real = fingerprint.read_all
    for module in (fingerprint, parts):
        monkeypatch.setattr(
            module, "read_all", lambda path, add: found.append(Path(path).name) or real(path, add)
        )
    return found


def put(path, content):
    """Another content in the same file, with the same size and time, as `cp -p` leaves it."""
    status = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert mark_of(path.stat())[:4] == mark_of(status)[:4]


def later(path):
    """Wait until a change gets another time."""
    before = path.stat().st_ctime_ns
    probe = path.parents[2] / "probe"
    while True:
        probe.touch()
        if probe.stat().st_ctime_ns > before:
            return
        time.sleep(0.001)


@pytest.mark.usefixtures("settled")
def test_what_has_not_changed_costs_a_look(tmp_path, place, data, hashed, monkeypatch):
    making.make(place, tmp_path / "out", data)
    hashed.clear()
    looked = []
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **how: looked.append(path) or real(path, **how))
    assert making.make(place, tmp_path / "out", data).was_there
    assert hashed == []
    names = [Path(path).name for path in looked if "file-" in str(path)]
    assert sorted(names) == sorted(path.name for path in data.rglob("file-*"))


@pytest.mark.parametrize("old", [False, True])
def test_another_content_with_the_same_size_and_time(tmp_path, place, data, monkeypatch, old):
    if old:
        monkeypatch.setattr(fingerprint, "_SETTLED", 0)
    making.make(place, tmp_path / "out", data)
    changed = data / "d1" / "file-1"
    later(changed)
    put(changed, bytes(40_000))
    with pytest.raises(KitError, match="something else stands there") as caught:
        making.make(place, tmp_path / "out", data)
    assert caught.value.exit_code == 2
    making.make(place, tmp_path / "another", data)
    making.take(place, tmp_path / "another")
    folder = place.home / "bundles" / "content" / "test" / "file" / "data"
    assert making.tree(folder) == making.tree(data)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("how", ["mode", "link"])
def test_where_only_the_last_of_the_times_has_moved_digests_decide(
    tmp_path, place, data, hashed, how
):
    """As `kit build` and `kit run` move it, which link files of the store."""
    making.make(place, tmp_path / "out", data)
    changed = data / "d1" / "file-1"
    later(changed)
    if how == "mode":
        changed.chmod(0o600)
    else:
        (tmp_path / "link").hardlink_to(changed)
    hashed.clear()
    assert making.make(place, tmp_path / "out", data).was_there
    assert hashed == ["file-1"]
    hashed.clear()
    assert making.make(place, tmp_path / "out", data).was_there
    assert hashed == []


def test_a_file_that_was_written_just_before_is_hashed_once_more(
    tmp_path, place, data, hashed, monkeypatch
):
    """It may have changed since within the same tick; later, its time tells."""
    making.make(place, tmp_path / "out", data)
    for expected in (["file-0", "file-1", "file-2", "file-3"], []):
        monkeypatch.setattr(fingerprint, "_SETTLED", 0)
        hashed.clear()
        assert making.make(place, tmp_path / "out", data).was_there
        assert sorted(hashed) == expected


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("good", [True, False])
def test_a_part_whose_time_alone_has_moved(tmp_path, place, data, good):
    making.make(place, tmp_path / "out", data)
    part = tmp_path / "out" / "part-0002"
    content = part.read_bytes()
    put(part, content if good else content[::-1])
    if good:
        assert making.make(place, tmp_path / "out", data).was_there
    else:
        with pytest.raises(KitError, match="changed since"):
            making.make(place, tmp_path / "out", data)


def test_a_digest_is_remembered_only_if_the_file_was_old_when_it_was_hashed(tmp_path):
    """Not if it has become old since: then it may have changed within the tick of its mark."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    memory = Memory(tmp_path / "memory.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "_SETTLED", 60_000_000_000)
        assert not memory.hash(str(path), lambda _: None).settled
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprint, "_SETTLED", 0)
        memory.save()
        assert Memory(tmp_path / "memory.json").find(mark_of(path.stat())) is None
        assert memory.hash(str(path), lambda _: None).settled
        memory.save()
        assert Memory(tmp_path / "memory.json").find(mark_of(path.stat())) is not None


@pytest.mark.parametrize(
    ("mtime", "ctime", "expected"),
    [
        (1, 1, True),
        (1, 99, False),
        (99, 1, False),
        (99, 99, False),
        (500, 1, True),
        (1, 500, False),
        (-5, 1, True),
    ],
)
def test_what_is_settled(monkeypatch, mtime, ctime, expected):
    """A time of the last two seconds is not; one to come only if somebody has set it."""
    monkeypatch.setattr(fingerprint, "_SETTLED", 2)
    assert fingerprint.is_settled((1, 1, 1, mtime, ctime), 100) is expected


@pytest.mark.parametrize("large", [2000, 1 << 26])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("step", ["planned", "write_parts", "write_beside"])
def test_what_was_interrupted_goes_on_with_the_files_as_they_are(
    tmp_path, place, data, monkeypatch, step, old, large
):
    monkeypatch.setattr(plan, "LARGE", large)
    if old:
        monkeypatch.setattr(fingerprint, "_SETTLED", 0)
    with monkeypatch.context() as patch:
        patch.setattr(writing.Writing, step, making.fail)
        with pytest.raises(making.Failed):
            making.make(place, tmp_path / "out", data)
    for name, size in (("d0/file-0", 3000), ("d1/file-1", 40_000)):
        later(data / name)
        put(data / name, bytes(size))
    making.make(place, tmp_path / "out", data)
    assert verifier.check(tmp_path / "out").ok
    making.take(place, tmp_path / "out")
    folder = place.home / "bundles" / "content" / "test" / "file" / "data"
    assert making.tree(folder) == making.tree(data)


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("large", [2000, 1 << 26])
def test_parts_are_kept_where_digests_agree(tmp_path, place, data, monkeypatch, large):
    monkeypatch.setattr(plan, "LARGE", large)
    chosen = create.Settings("test", part_size=100_000)
    with monkeypatch.context() as patch:
        patch.setattr(writing.Writing, "write_beside", making.fail)
        with pytest.raises(making.Failed):
            making.make(place, tmp_path / "out", data, settings=chosen)
    later(data / "d1" / "file-1")
    (data / "d1" / "file-1").chmod(0o600)
    for name in ("begin", "write", "finish"):
        monkeypatch.setattr(parts, name, making.fail)
    making.make(place, tmp_path / "out", data, settings=chosen)
    assert verifier.check(tmp_path / "out").ok


def test_parts_of_two_plans_are_not_mixed(tmp_path, place, data, monkeypatch):
    """Killed, changed, killed, changed back: the journal knows which parts are of which plan."""
    changed = data / "d0" / "file-0"
    contents = [changed.read_bytes(), bytes(3000)]
    for number in (0, 1):
        put(changed, contents[number])
        with monkeypatch.context() as patch:
            stops = "write_beside" if number == 0 else "write_parts"
            patch.setattr(writing.Writing, stops, making.fail)
            with pytest.raises(making.Failed):
                making.make(place, tmp_path / "out", data)
        later(changed)
    making.make(place, tmp_path / "out", data)
    assert verifier.check(tmp_path / "out").ok


@pytest.mark.parametrize("old", [False, True])
def test_a_file_that_changes_before_it_is_carried_and_gets_its_time_back(
    tmp_path, place, data, monkeypatch, old
):
    if old:
        monkeypatch.setattr(fingerprint, "_SETTLED", 0)
    planned = writing.Writing.planned

    def change(*arguments):
        put(data / "d1" / "file-1", bytes(40_000))
        return planned(*arguments)

    monkeypatch.setattr(writing.Writing, "planned", change)
    with pytest.raises(KitError, match="changed while the bundle was made") as caught:
        making.make(place, tmp_path / "out", data)
    assert caught.value.exit_code == 4


@pytest.mark.usefixtures("settled")
def test_a_link_that_somebody_makes_meanwhile_does_no_harm(tmp_path, place, data, monkeypatch):
    planned = writing.Writing.planned

    def link(*arguments):
        later(data / "d1" / "file-1")
        (tmp_path / "link").hardlink_to(data / "d1" / "file-1")
        return planned(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(writing.Writing, "planned", link)
        making.make(place, tmp_path / "out", data)
    assert verifier.check(tmp_path / "out").ok
    assert making.make(place, tmp_path / "out", data).was_there


# -- kills at the end ------------------------------------------------------------------------------


class Killed(BaseException):
    """Stands for SIGKILL: nobody handles it."""


def stop(*arguments, **options):
    raise Killed


def stop_after(real):
    def action(*arguments, **options):
        real(*arguments, **options)
        raise Killed

    return action


STEPS = {
    "before the list is written": (writing.Writing, "write_beside", stop),
    "after it": (writing.Writing, "write_beside", stop_after(writing.Writing.write_beside)),
    "before the note": (create.Bundle, "note", stop),
    "after the note": (create.Bundle, "note", stop_after(create.Bundle.note)),
    "after the journal": (Path, "rename", None),
    "before the name is kept": (create.Bundle, "keep_name", stop),
    "after the name": (create.Bundle, "give_name", stop_after(create.Bundle.give_name)),
}


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_the_end(tmp_path, place, data, monkeypatch, step):
    """The same command ends with the bundle; what comes after has the next number."""
    chosen = create.Settings("test", part_size=20_000)
    making.make(making.project(tmp_path / "calm"), tmp_path / "calm-out", data, settings=chosen)
    where, name, action = STEPS[step]
    out = tmp_path / "out"
    if action is None:
        real = Path.rename

        def action(path, target):
            if target == out:
                raise Killed
            return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, action)
        with pytest.raises(Killed):
            making.make(place, out, data, settings=chosen)
        assert out.exists() == (step in ("before the name is kept", "after the name"))
    other = making.noise(tmp_path / "other", [7])
    if step == "after the name":
        assert making.make(place, tmp_path / "other-out", other, settings=chosen).sequence == 2
    made = making.make(place, out, data, settings=chosen)
    assert made.sequence == 1
    assert making.content_of(out) == making.content_of(tmp_path / "calm-out")
    assert making.make(place, out, data, settings=chosen).was_there
    assert not list(tmp_path.glob(".*"))
    (other / "d0" / "file-0").write_bytes(b"another")
    expected = 3 if step == "after the name" else 2
    assert making.make(place, tmp_path / "next", other, settings=chosen).sequence == expected


def test_what_was_finished_but_for_its_name_is_not_written_again(
    tmp_path, place, data, monkeypatch
):
    monkeypatch.setattr(fingerprint, "_SETTLED", 0)
    with monkeypatch.context() as patch:
        patch.setattr(create.Bundle, "give_name", stop)
        with pytest.raises(Killed):
            making.make(place, tmp_path / "out", data)
    monkeypatch.setattr(writing.Writing, "write", making.fail)
    assert making.make(place, tmp_path / "out", data).sequence == 1
    assert verifier.check(tmp_path / "out").ok


def test_deliveries_that_are_made_at_once_get_different_numbers(tmp_path, place):
    made = []

    def action(number):
        data = making.noise(tmp_path / f"data-{number}", [1000], seed=number)
        made.append(making.make(place, tmp_path / f"out-{number}", data).sequence)

    threads = [threading.Thread(target=action, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == list(range(1, 9))


# -- what stands there -----------------------------------------------------------------------------


def test_only_a_bundle_is_called_one_that_may_be_removed(tmp_path, place, data):
    making.make(place, tmp_path / "out", data)
    (data / "new").write_bytes(b"x")
    with pytest.raises(KitError, match="something else stands there") as caught:
        making.make(place, tmp_path / "out", data)
    assert f"rm -r {tmp_path / 'out'}" in caught.value.hint
    (tmp_path / "out" / "notes").write_bytes(b"mine")
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("nowhere")
    for place_ in ("out", "empty", "data", "file", "link"):
        with pytest.raises(KitError, match="something else stands there: no bundle") as caught:
            making.make(place, tmp_path / place_, data)
        assert caught.value.exit_code == 2
        assert "rm" not in caught.value.hint


@pytest.mark.parametrize("note", ["", "{}", '{"made": {"parts": 1}}', '{"made": 1}', "[]"])
def test_a_damaged_note_is_none(tmp_path, place, data, note):
    making.make(place, tmp_path / "out", data)
    (mark,) = (place.home / "bundles" / "made").iterdir()
    mark.write_text(note)
    with pytest.raises(KitError, match="something else stands there"):
        making.make(place, tmp_path / "out", data)


def test_a_bundle_that_was_moved_away_and_back(tmp_path, place, data):
    making.make(place, tmp_path / "out", data)
    shutil.move(tmp_path / "out", tmp_path / "away")
    assert not making.make(place, tmp_path / "out", data).was_there
    known = json.loads(next((place.home / "bundles" / "made").iterdir()).read_bytes())
    assert known["made"]["sequence"] == 1


@pytest.mark.usefixtures("settled")
def test_a_disk_may_get_another_number(tmp_path, place, data, monkeypatch):
    """As those of networks and mapped ones do when a host is started."""
    making.make(place, tmp_path / "out", data)
    real = fingerprint.mark_of

    def moved(status):
        device, *rest = real(status)
        return device + 1, *rest

    for module in (fingerprint, plan, create):
        monkeypatch.setattr(module, "mark_of", moved)
    assert making.make(place, tmp_path / "out", data).was_there


def test_a_fresh_large_file_is_hashed_once_more_for_all_its_parts(
    tmp_path, place, hashed, monkeypatch
):
    monkeypatch.setattr(fingerprint, "_SETTLED", 60_000_000_000)
    waited = []
    monkeypatch.setattr(fingerprint.time, "sleep", waited.append)
    (tmp_path / "large").write_bytes(bytes(1 << 20))
    settings = create.Settings("test", part_size=50_000, fill=True, jobs=8)
    made = making.make(place, tmp_path / "out", tmp_path / "large", settings=settings)
    assert len(made.parts) > 20
    assert hashed == ["large", "large"]
    assert waited == [60]
