"""Making bundles: the same bytes always, deltas, resumption, what must not get in."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import tarfile
import time
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import cli, files
from kit.bundles import create, fingerprint, parts, plan, verifier, writing
from kit.bundles.contents import Content, Entry
from kit.commands.bundle import bytes_of
from kit.digest import Digest
from kit.errors import KitError
from tests.unit.bundles import making

SIZES = [0, 5, 512, 5000, 20_000, 40_000, 77]
ROUNDS = 100
"""Processes that are killed."""


@pytest.fixture
def data(tmp_path):
    return making.noise(tmp_path / "data", SIZES)


@pytest.fixture(autouse=True, params=["small", "large"])
def sizes(request, monkeypatch):
    """Whether parts begin with some of the files, or all are small."""
    monkeypatch.setattr(plan, "LARGE", 2000 if request.param == "large" else 1 << 26)


def settings(**options):
    return create.Settings("test", **{"part_size": 20_000, "jobs": 2, **options})


def test_the_same_content_gives_the_same_bytes_for_any_number_of_workers(tmp_path, data, sender):
    made = []
    for jobs in (1, 2, 3, 5, 8, 16):
        place = making.project(tmp_path / f"host-{jobs}")
        out = tmp_path / f"out-{jobs}"
        making.make(place, out, data, settings=settings(jobs=jobs, key=sender))
        made.append(making.content_of(out))
    assert all(one == made[0] for one in made)


def test_order_and_times_of_files_do_not_matter(tmp_path, data):
    making.make(making.project(tmp_path / "a"), tmp_path / "one", data)
    other = tmp_path / "elsewhere" / "data"
    for name, content in reversed(making.tree(data).items()):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_bytes(content)
        (other / name).chmod(0o600)
    os.utime(other, (1, 1))
    making.make(making.project(tmp_path / "b"), tmp_path / "two", other)
    assert making.content_of(tmp_path / "one") == making.content_of(tmp_path / "two")


def test_the_joined_parts_are_an_oci_layout(tmp_path, place, data):
    making.make(place, tmp_path / "out", data)
    joined = b"".join(path.read_bytes() for path in sorted((tmp_path / "out").glob("part-*")))
    with tarfile.open(fileobj=BytesIO(joined)) as archive:
        names = archive.getnames()
        assert names[:2] == ["oci-layout", "index.json"]
        assert len(set(names)) == len(names)
        assert {(m.mtime, m.uid, m.gid, m.mode, m.uname) for m in archive} == {(0, 0, 0, 0o644, "")}


def test_a_part_begins_with_each_large_file_unless_parts_have_to_be_full(
    tmp_path, place, data, monkeypatch
):
    monkeypatch.setattr(plan, "LARGE", 4000)
    making.make(place, tmp_path / "out", data, settings=settings())
    index = making.index_of(tmp_path / "out")
    inside = [index.place(item.offset)[1] for item in index.items if item.size >= 4000]
    assert len(inside) == 3
    assert inside == [0, 0, 0]
    assert max(part.size for part in index.parts) == 20_000
    making.make(place, tmp_path / "full", data, settings=settings(fill=True))
    parts_ = making.index_of(tmp_path / "full").parts
    assert {part.size for part in parts_[:-1]} == {20_000}
    one, two = (
        b"".join(path.read_bytes() for path in sorted((tmp_path / name).glob("part-*")))
        for name in ("out", "full")
    )
    assert one == two


@given(
    st.lists(st.integers(0, 3000), min_size=2, max_size=30),
    st.integers(600, 5000),
    st.integers(1, 3000),
    st.booleans(),
)
def test_parts_cover_the_stream_and_none_is_too_long(sizes, part_size, large, fill):
    objects = [(f"{number:064x}", size) for number, size in enumerate(sizes)]
    made = plan.Plan("x", part_size, fill, tuple(verifier.laid_out(objects)), {}, {}, (), {}, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "LARGE", large)
        ranges = made.ranges
    assert [start for start, _ in ranges[1:]] == [end for _, end in ranges[:-1]]
    assert (ranges[0][0], ranges[-1][1]) == (0, made.size)
    assert all(0 < size <= part_size for size in made.part_sizes)
    if fill:
        assert set(made.part_sizes[:-1]) <= {part_size}
    starts = {start for start, _ in ranges}
    least = max(large, made.size // 1000)
    assert fill or {item.offset for item in made.items if item.size >= least} <= starts
    heads = {item.offset for item in made.heads.values()}
    assert heads == {
        item.offset
        for item in made.items
        if item.size
        and any(start == item.offset and item.offset + item.size <= end for start, end in ranges)
    }


def test_a_file_that_a_part_begins_with_is_hashed_once(tmp_path, place, data, monkeypatch):
    """By writing the part; where that is done already, its digest is taken from the journal."""
    hashed = []
    real = fingerprint.Memory.hash
    monkeypatch.setattr(
        fingerprint.Memory,
        "hash",
        lambda self, path, on: hashed.append(Path(path).stat().st_size) or real(self, path, on),
    )
    monkeypatch.setattr(plan, "LARGE", 4000)
    monkeypatch.setattr(fingerprint, "_SETTLED", 0)
    with monkeypatch.context() as patch:
        patch.setattr(writing.Writing, "write_beside", making.fail)
        with pytest.raises(making.Failed):
            making.make(place, tmp_path / "out", data, settings=settings(part_size=50_000))
    first = sorted(hashed)
    hashed.clear()
    (tmp_path / ".out.partial" / "part-0002").unlink()
    making.make(place, tmp_path / "out", data, settings=settings(part_size=50_000))
    for sizes in (first, hashed):
        assert not {5000, 20_000, 40_000} & set(sizes)
    index = making.index_of(tmp_path / "out")
    assert len(index.parts) == 4
    assert verifier.check(tmp_path / "out").ok
    hashed.clear()
    making.make(place, tmp_path / "another", data, settings=settings(part_size=50_000))
    assert not {5000, 20_000, 40_000} & set(hashed)


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_a_large_file_that_changes_while_a_part_begins_with_it(
    tmp_path, place, data, monkeypatch, jobs
):
    monkeypatch.setattr(plan, "LARGE", 4000)
    changed = data / "d2" / "file-5"
    real = fingerprint._pieces

    def pieces(descriptor, size):
        for piece in real(descriptor, size):
            if size == 40_000:
                changed.write_bytes(bytes(40_000))
            yield piece

    chosen = settings(part_size=50_000, jobs=jobs)
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "_pieces", pieces)
        with pytest.raises(KitError, match="file-5: changed while it was read") as caught:
            making.make(place, tmp_path / "out", data, settings=chosen)
    assert caught.value.exit_code == 4
    making.make(place, tmp_path / "out", data)
    assert verifier.check(tmp_path / "out").ok


@pytest.mark.parametrize("lost", [False, True])
def test_what_has_been_begun_is_gone_on_with(tmp_path, place, data, monkeypatch, lost):
    """Large files that are copied already are only hashed, and copied again if that is wrong."""
    monkeypatch.setattr(plan, "LARGE", 4000)
    chosen = settings(part_size=50_000)
    making.make(place, tmp_path / "calm", data, settings=chosen)
    place = making.project(tmp_path / "other")
    with monkeypatch.context() as patch:
        patch.setattr(writing.Writing, "planned", making.fail)
        with pytest.raises(making.Failed):
            making.make(place, tmp_path / "out", data, settings=chosen)
    heads = sorted((tmp_path / ".out.partial").glob("head-*"))
    assert [path.stat().st_size for path in heads] == [5000, 20_000, 40_000]
    with heads[0].open("ab") as stream:
        stream.write(b"what comes next, but not all of it")
    (tmp_path / ".out.partial" / "head-0002.new").write_bytes(b"x")
    if lost:
        heads[1].write_bytes(bytes(20_000))
    with monkeypatch.context() as patch:
        patch.setattr(parts, "begin", making.fail)
        made = making.make(place, tmp_path / "out", data, settings=chosen)
    assert not made.was_there
    assert making.content_of(tmp_path / "out") == making.content_of(tmp_path / "calm")


def test_every_object_is_there_once(tmp_path, place, data):
    (data / "copy").write_bytes((data / "d2" / "file-5").read_bytes())
    making.make(place, tmp_path / "out", data)
    index = making.index_of(tmp_path / "out")
    assert sum(item.size == 40_000 for item in index.items) == 1
    making.take(place, tmp_path / "out")
    folder = place.home / "bundles" / "content" / "test" / "file" / "data"
    assert making.tree(folder) == making.tree(data)


def test_nothing_is_done_when_nothing_has_changed(tmp_path, place, data):
    assert not making.make(place, tmp_path / "out", data).was_there
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    again = making.make(place, tmp_path / "out", data)
    assert again.was_there
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}


def test_a_bundle_that_has_its_name_is_on_the_disk(tmp_path, place, data, monkeypatch):
    out, events = tmp_path / "new" / "folder" / "out", []
    partial = out.with_name(".out.partial")
    real, rename = os.fsync, Path.rename

    def fsync(descriptor):
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        real(descriptor)

    def named(path, target):
        events.append((path, target))
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "rename", named)
    making.make(place, out, data)
    moved = events.index((partial, out))
    before, after = set(events[:moved]), set(events[moved:])
    written = {partial / path.name for path in out.iterdir()}
    assert before >= {*written, partial, tmp_path, tmp_path / "new"}
    assert after >= {out, out.parent}
    [note] = (place.home / "bundles" / "made").iterdir()
    noted = next(n for n, event in enumerate(events) if note.name in str(event))
    assert set(events[:noted]) >= written


def test_a_name_that_a_kill_left_unflushed_is_flushed(tmp_path, place, data, monkeypatch):
    out, flushed = tmp_path / "out", []
    with monkeypatch.context() as patch:
        patch.setattr(create.Bundle, "keep_name", making.fail)
        with pytest.raises(making.Failed):
            making.make(place, out, data)
    assert out.exists()
    real = files.sync_folder
    monkeypatch.setattr(files, "sync_folder", lambda path: flushed.append(path) or real(path))
    for expected in ([out, tmp_path], []):
        assert making.make(place, out, data).was_there
        assert [path for path in flushed if place.home not in path.parents] == expected
        flushed.clear()


def test_a_folder_that_may_be_written_and_not_read_takes_a_bundle(
    tmp_path, place, data, monkeypatch
):
    """As root reads everything, somebody else's view of it is made up."""
    flushed = []
    real = files.sync_folder

    def refuse(folder):
        if folder == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        real(folder)

    monkeypatch.setattr(files, "sync_folder", refuse)
    monkeypatch.setattr(files, "sync_disk", flushed.append)
    assert not making.make(place, tmp_path / "out", data).was_there
    assert flushed == [tmp_path / "out"]


def test_a_file_that_two_contents_saw_in_two_states_is_told(tmp_path, place, data):
    path = data / "d1" / "file-1"
    first = Content("file", "a", "", "x", (Entry("f", "file", str(path), None, (1, 2, 3, 4, 5)),))
    second = Content("file", "b", "", "x", (Entry("f", "file", str(path)),))
    with pytest.raises(KitError, match="file-1: changed while the bundle was made") as caught:
        create.create(place, [first, second], tmp_path / "out", settings())
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out").exists()


def test_a_part_that_was_lost_with_its_memory_is_written_again(tmp_path, place, data, monkeypatch):
    making.make(place, tmp_path / "calm", data)
    with monkeypatch.context() as patch:
        patch.setattr(writing.Writing, "write_beside", making.fail)
        with pytest.raises(making.Failed):
            making.make(place, tmp_path / "out", data)
    part = tmp_path / ".out.partial" / "part-0003"
    part.write_bytes(bytes(part.stat().st_size))
    with (part.parent / ".journal").open("ab") as journal:
        journal.write(b"\0\0\0\n0 x\n12 \n3")
    making.make(place, tmp_path / "out", data)
    assert making.content_of(tmp_path / "out").items() >= {
        (path.name, path.read_bytes()) for path in (tmp_path / "calm").glob("part-*")
    }


def test_another_content_does_not_replace_a_bundle(tmp_path, place, data):
    making.make(place, tmp_path / "out", data)
    before = making.content_of(tmp_path / "out")
    (data / "new").write_bytes(b"x")
    with pytest.raises(KitError, match="something else stands there") as caught:
        making.make(place, tmp_path / "out", data)
    assert caught.value.exit_code == 2
    assert making.content_of(tmp_path / "out") == before


def test_a_bundle_that_somebody_touched_is_not_taken_for_the_same(tmp_path, place, data):
    making.make(place, tmp_path / "out", data)
    part = tmp_path / "out" / "part-0002"
    part.write_bytes(part.read_bytes()[::-1])
    with pytest.raises(KitError, match="changed since"):
        making.make(place, tmp_path / "out", data)


def test_deliveries_of_a_name_are_counted(tmp_path, place, data):
    assert making.make(place, tmp_path / "one", data).sequence == 1
    assert making.make(place, tmp_path / "same", data).sequence == 1
    (data / "new").write_bytes(b"x")
    assert making.make(place, tmp_path / "two", data).sequence == 2
    assert making.make(place, tmp_path / "ten", data, settings=settings(sequence=10)).sequence == 10
    (data / "new").write_bytes(b"y")
    assert making.make(place, tmp_path / "next", data).sequence == 11


def test_a_delta_carries_only_what_is_new(tmp_path, place, data):
    making.make(place, tmp_path / "one", data)
    (data / "new").write_bytes(b"only this")
    base = making.index_of(tmp_path / "one")
    making.make(place, tmp_path / "two", data, settings=settings(since=base))
    delta = making.index_of(tmp_path / "two")
    assert [item.size for item in delta.items[2:]] == [9]
    assert delta.base == base.identity
    assert delta.sequence == 2
    carried = {file.sha256 for file in delta.contents[0].files}
    assert set(delta.requires) == carried - {delta.items[2].sha256}
    assert verifier.check(tmp_path / "two").ok


def test_a_delta_carries_what_the_base_has_only_as_an_object_of_its_layout(tmp_path, place, data):
    """A site keeps neither `{}`, the configuration of what is no image, nor made manifests."""
    making.make(place, tmp_path / "one", data)
    base = making.index_of(tmp_path / "one")
    site = making.project(tmp_path / "site")
    making.take(site, tmp_path / "one")
    (data / "config.json").write_bytes(b"{}")
    with verifier.Stream(tmp_path / "one", base) as stream:
        item = next(item for item in base.items if item.sha256 == base.contents[0].manifest)
        made = b"".join(bytes(piece) for piece in stream.pieces(item.offset, item.size))
    (data / "manifest.json").write_bytes(made)
    making.make(place, tmp_path / "two", data, settings=settings(since=base))
    delta = making.index_of(tmp_path / "two")
    assert sorted(item.size for item in delta.items[2:]) == [2, len(made)]
    assert verifier.check(tmp_path / "two").ok
    making.take(site, tmp_path / "two")
    folder = site.home / "bundles" / "content" / "test" / "file" / "data"
    assert making.tree(folder) == making.tree(data)
    # The site has both from now on.
    (data / "new").write_bytes(b"x")
    making.make(place, tmp_path / "three", data, settings=settings(since=delta))
    assert [item.size for item in making.index_of(tmp_path / "three").items[2:]] == [1]
    making.take(site, tmp_path / "three")
    assert making.tree(folder) == making.tree(data)


def test_a_delta_to_what_it_has_nothing_of_is_none(tmp_path, place, data):
    making.make(place, tmp_path / "one", data)
    base = making.index_of(tmp_path / "one")
    other = making.noise(tmp_path / "other", [700], seed=1)
    made = making.make(place, tmp_path / "two", other, settings=settings(since=base))
    assert (made.base, made.requires, made.sequence) == (None, 0, 2)
    assert verifier.check(tmp_path / "two").ok
    making.take(making.project(tmp_path / "site"), tmp_path / "two")


def test_a_file_that_changes_meanwhile_is_told(tmp_path, place, data, monkeypatch):
    written = parts.write

    def change(*arguments):
        (data / "d2" / "file-5").write_bytes(bytes(40_000))
        return written(*arguments)

    monkeypatch.setattr(parts, "write", change)
    with pytest.raises(
        KitError, match=r"changed while (the bundle was made|it was read)"
    ) as caught:
        making.make(place, tmp_path / "out", data)
    assert caught.value.exit_code == 4
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_what_it_should_be_is_told(tmp_path, place, data):
    """Of an input, an image or a run it is known beforehand what each file must be."""
    path = data / "d2" / "file-5"
    good = Digest.of_file(path)
    for claimed in (good, Digest.of_bytes(b"something else")):
        entries = (
            Entry("a", "deb", str(path), claimed),
            Entry("b", "deb", str(data / "d1" / "file-1")),
        )
        content = Content("inputs", "s", "s", "to build", entries)
        out = tmp_path / claimed.short
        if claimed == good:
            create.create(place, [content], out, settings())
            assert verifier.check(out).ok
            continue
        with pytest.raises(KitError, match=f"expected {claimed}, found {good}") as caught:
            create.create(place, [content], out, settings())
        assert caught.value.exit_code == 4
        assert not out.exists()


def test_two_files_that_should_be_the_same_and_are_not(tmp_path, place):
    (tmp_path / "one").write_bytes(b"1" * 5000)
    (tmp_path / "two").write_bytes(b"2" * 5000)
    claimed = Digest.of_file(tmp_path / "one")
    entries = tuple(Entry(name, "deb", str(tmp_path / name), claimed) for name in ("one", "two"))
    content = Content("inputs", "x", "s", "why", entries)
    with pytest.raises(KitError, match=f"two is not what it was: expected {claimed}"):
        create.create(place, [content], tmp_path / "out", settings())


@pytest.mark.parametrize("what", ["pipe", "link out", "folder link", "dangling"])
def test_what_cannot_be_carried_is_told(tmp_path, place, data, what):
    path = data / "odd"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "link out":
        path.symlink_to("/etc/passwd")
    elif what == "folder link":
        path.symlink_to(data / "d1")
    else:
        path.symlink_to(data / "gone")
    with pytest.raises(KitError, match="odd") as caught:
        making.make(place, tmp_path / "out", data)
    assert caught.value.exit_code in (2, 4)


@pytest.mark.parametrize("name", ["back\\slash", "line\nbreak", "\x1b[2J"])
def test_names_that_no_bundle_can_hold_are_told(tmp_path, place, data, name):
    (data / name).write_bytes(b"x")
    with pytest.raises(KitError, match="no bundle can hold this") as caught:
        making.make(place, tmp_path / "out", data)
    assert caught.value.exit_code == 2
    assert not (tmp_path / ".out.partial").exists()


def test_too_many_parts_are_told_with_the_way_out(tmp_path, place, data):
    with pytest.raises(KitError, match="expected 9999 at most") as caught:
        making.make(place, tmp_path / "out", data, settings=settings(part_size=1))
    assert caught.value.hint.startswith("--part-size ")
    least = int(caught.value.hint.split()[1])
    with pytest.raises(KitError, match="at most"):
        making.make(place, tmp_path / "out", data, settings=settings(part_size=least - 1))


def test_an_index_that_no_reader_takes_is_told(tmp_path, place, data, monkeypatch):
    making.make(place, tmp_path / "out", data)
    size = (tmp_path / "out" / verifier.INDEX).stat().st_size
    monkeypatch.setattr(verifier, "INDEX_LIMIT", size - 1)
    with pytest.raises(KitError, match=f"expected {size - 1} at most") as caught:
        making.make(place, tmp_path / "other", data)
    assert caught.value.exit_code == 2
    monkeypatch.setattr(verifier, "INDEX_LIMIT", size + 20)
    making.make(place, tmp_path / "other", data)


@pytest.mark.parametrize(
    ("limit", "told"),
    [("MOST_VALUES", "more than 100 values"), ("MOST_OBJECTS", "file/data: 80 files")],
)
def test_a_bundle_that_no_reader_takes_is_not_written(tmp_path, place, monkeypatch, limit, told):
    data = tmp_path / "data"
    data.mkdir()
    for number in range(80):  # one object
        (data / f"f{number}").write_bytes(b"the same")
    monkeypatch.setattr(verifier, limit, 100 if limit == "MOST_VALUES" else 79)
    with pytest.raises(KitError, match=told) as caught:
        making.make(place, tmp_path / "out", data)
    assert (caught.value.exit_code, caught.value.hint[:3]) == (2, "tar")
    assert not list(tmp_path.rglob("part-*"))


def test_the_longest_name_of_a_file_comes_through(tmp_path, place):
    path = tmp_path / ("n" * 255)
    path.write_bytes(b"x")
    making.make(place, tmp_path / "out", path)
    making.take(place, tmp_path / "out")
    (found,) = (place.home / "bundles" / "content" / "test" / "file").glob(f"*/{path.name}")
    assert found.read_bytes() == b"x"


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, place, data, monkeypatch):
    monkeypatch.setattr("kit.files.free_bytes", lambda path: 1000)
    with pytest.raises(KitError, match="not enough disk") as caught:
        making.make(place, tmp_path / "out", data)
    assert caught.value.exit_code == 3
    assert not list((tmp_path).glob("**/part-*"))


def test_names_in_a_bundle_suit_every_file_system(original):
    for path in original.iterdir():
        assert path.name == path.name.strip(" .")
        assert not set(path.name) & set('<>:"/\\|?*')
        assert path.name.partition(".")[0].upper() not in {"CON", "PRN", "AUX", "NUL", "COM1"}
    names = [path.name.lower() for path in original.iterdir()]
    assert len(set(names)) == len(names)


def test_no_secret_of_the_environment_gets_in(tmp_path, place, data, sender, monkeypatch):
    secret = "hf_" + "Qx7" * 11
    for name in ("HF_TOKEN", "NGC_API_KEY", "KIT_SECRET"):
        monkeypatch.setenv(name, secret)
    making.make(place, tmp_path / "out", data, settings=settings(key=sender))
    private = sender.read_bytes().split(b"\n")[2]
    for path in (tmp_path / "out").iterdir():
        content = path.read_bytes()
        assert secret.encode() not in content
        assert private not in content
        assert str(tmp_path).encode() not in content


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4G", 4_000_000_000),
        ("4GiB", 4 << 30),
        ("55MiB", 55 << 20),
        ("4.7G", 4_700_000_000),
        ("1000", 1000),
        ("2 gb", 2_000_000_000),
        ("1T", 10**12),
        ("1k", 1000),
    ],
)
def test_sizes(text, expected):
    assert bytes_of(text) == expected


@pytest.mark.parametrize("text", ["", "0", "x", "-1", "4X", "G", "0.1"])
def test_no_sizes(text):
    with pytest.raises(KitError, match="expected a size"):
        bytes_of(text)


@pytest.mark.parametrize("text", ["10000T", "9" * 320, "9" * 320 + "TiB", str(1 << 53)])
def test_sizes_that_no_index_can_say(text):
    with pytest.raises(KitError, match=f"expected {(1 << 53) - 1} bytes at most") as caught:
        bytes_of(text)
    assert caught.value.exit_code == 2
    assert bytes_of(str((1 << 53) - 1)) == (1 << 53) - 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["create", "OUT", "--file", "x", "--sequence", "99999999999999999999"], "--sequence"),
        (["create", "OUT", "--file", "x", "--sequence", str(1 << 53)], "--sequence"),
        (["create", "OUT", "--file", "x", "--part-size", "10000T"], "--part-size"),
        (["create", "OUT", "--file", "x", "--since", "nosuch"], "nosuch: cannot be read"),
        (["create", "OUT", "--file", "x", "--since", "empty"], "no bundle: no bundle.json"),
        (["create", "empty", "--file", "x"], "no bundle"),
        (["list", "nosuch"], "nosuch: cannot be read"),
        (["list", "empty"], "no bundle: no bundle.json"),
    ],
)
def test_a_wrong_request_writes_nothing(tmp_path, capsys, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "x").write_bytes(b"x")
    extra = ["--without-kit"] if words[0] == "create" else []
    assert cli.run(["bundle", *words, *extra]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "rm -r" not in error
    assert {path.name for path in tmp_path.iterdir()} <= {"empty", "x", "home"}
    assert not list((tmp_path / "empty").iterdir())


def test_after_the_last_number_there_is_none(tmp_path, place, data):
    last = (1 << 53) - 1
    made = making.make(place, tmp_path / "out", data, settings=settings(sequence=last))
    assert made.sequence == last
    assert verifier.check(tmp_path / "out").ok
    (data / "new").write_bytes(b"x")
    with pytest.raises(KitError, match="the last number") as caught:
        making.make(place, tmp_path / "next", data)
    assert caught.value.exit_code == 2


def test_a_killed_create_goes_on_to_the_same_bytes(tmp_path, data, sender):
    """SIGKILL at random moments, again and again, until it gets through."""
    place = making.project(tmp_path)
    chosen = settings(part_size=3000, key=sender, jobs=3)
    start = time.monotonic()
    making.make(making.project(tmp_path / "calm"), tmp_path / "calm-out", data, settings=chosen)
    took = time.monotonic() - start
    expected = making.content_of(tmp_path / "calm-out")
    out = tmp_path / "out"
    clock = random.Random(1)
    killed = 0
    while killed < ROUNDS:
        killed += making.killed(
            lambda: making.make(place, out, data, settings=chosen), clock.uniform(0, took)
        )
        if out.exists():
            assert making.content_of(out) == expected
            subprocess.run(["rm", "-r", out], check=True)
    making.make(place, out, data, settings=chosen)
    assert making.content_of(out) == expected
    assert not list(tmp_path.glob(".*"))
