"""Loading: verified first, all or nothing, deltas, no way back, killed at any moment."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path

import pytest

from kit import files as files_
from kit.bundles import admission, create, load, site, verifier
from kit.bundles.contents import Content, Entry
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images import records
from kit.images.oci import LAYER, Layer, Layout
from tests.unit.bundles import making, test_stacks

SIZES = [0, 5, 512, 5000, 20_000, 40_000, 77]
ROUNDS = 100
"""Processes that are killed."""


@pytest.fixture
def data(tmp_path):
    return making.noise(tmp_path / "data", SIZES)


@pytest.fixture
def there(tmp_path):
    """The site."""
    return making.project(tmp_path / "site")


def settings(**options):
    return create.Settings("test", **{"part_size": 20_000, "jobs": 2, **options})


def everything(place):
    """What a home holds but for locks."""
    return {n: c for n, c in making.tree(place.home).items() if "locks" not in n}


def test_what_was_sent_arrives(bundle, there, sender, tmp_path):
    data = making.noise(tmp_path / "data", [0, 1, 511, 512, 513, 9000, 20_000, 33_000, 700])
    loaded = making.take(there, bundle, making.blob(sender))
    assert loaded.pinned
    ((content, place),) = loaded.places
    assert (content.kind, content.name) == ("file", "data")
    assert making.tree(place) == making.tree(data)
    assert not (there.home / "bundles" / "loading").exists() or not list(
        (there.home / "bundles" / "loading").iterdir()
    )


def test_loading_twice_changes_nothing(bundle, there):
    making.take(there, bundle)
    before = everything(there)
    making.take(there, bundle)
    assert everything(there) == before


def test_what_stands_where_it_belongs_is_on_the_disk(tmp_path, place, there, monkeypatch):
    """What is written reaches the disk before it gets its names, and these before they are told."""
    data = Content("file", "d", "", "x", (Entry("f", "file", b"data"),))
    create.create(place, [data, carried()], tmp_path / "out", settings())
    states = []
    home = there.home / "bundles"

    def seen(folder):
        assert folder.stat().st_dev == there.home.stat().st_dev
        staged = list((home / "loading").glob("*/*"))
        blobs = list(there.images.rglob("*"))
        named = (there.images / "index.json").exists()
        loaded = site.last(there, "test")
        states.append((bool(staged), (home / "content").exists(), bool(blobs), named, loaded))

    monkeypatch.setattr(files_, "sync_disk", seen)
    making.take(there, tmp_path / "out")
    assert states == [(True, False, False, False, None), (True, True, True, False, None)]
    assert (there.images / "index.json").exists()
    assert site.last(there, "test") is not None


@pytest.mark.parametrize("code", ExitCode)
def test_what_the_site_can_mend_does_not_cost_another_copy(bundle, there, monkeypatch, code):
    def refuse(*_):
        raise KitError("refused", exit_code=code)

    monkeypatch.setattr(admission, "admit", refuse)
    with pytest.raises(KitError, match="refused"):
        making.take(there, bundle)
    staged = list((there.home / "bundles" / "loading").glob("*/*"))
    assert bool(staged) == (code != ExitCode.CONTENT)


@pytest.mark.parametrize("name", ["part-0001", "part-0004", "bundle.json", "SHA256SUMS"])
def test_nothing_is_imported_from_a_damaged_bundle(bundle, there, name):
    content = bytearray((bundle / name).read_bytes())
    content[len(content) // 2] ^= 4
    (bundle / name).write_bytes(content)
    with pytest.raises(KitError, match="not verified, nothing was imported") as caught:
        making.take(there, bundle)
    assert caught.value.exit_code == 4
    assert not (there.home / "bundles" / "content").exists()
    assert not there.store.exists()
    assert not there.images.exists()
    assert list(site.every(there)) == []


def test_padding_between_objects_counts_too(bundle, there):
    index = making.index_of(bundle)
    item = next(item for item in index.items if verifier.padding(item.size))
    number, place = index.place(item.offset + item.size)
    part = bundle / index.parts[number].name
    content = bytearray(part.read_bytes())
    content[place] = 1
    part.write_bytes(content)
    with pytest.raises(KitError, match="between two objects"):
        making.take(there, bundle)


def test_a_wrong_signer_is_refused(bundle, there, tmp_path):
    other = making.key(tmp_path, "other")
    with pytest.raises(KitError, match=r"foreign: SHA256SUMS\.sig"):
        making.take(there, bundle, making.blob(other))
    (bundle / "SHA256SUMS.sig").unlink()
    with pytest.raises(KitError, match="unsigned: SHA256SUMS"):
        making.take(there, bundle, making.blob(other))


def test_an_older_delivery_is_refused(tmp_path, place, there, data):
    making.make(place, tmp_path / "one", data)
    (data / "new").write_bytes(b"x")
    making.make(place, tmp_path / "two", data)
    making.take(there, tmp_path / "two")
    with pytest.raises(KitError, match="delivery 1 of test is older than delivery 2") as caught:
        making.take(there, tmp_path / "one")
    assert caught.value.exit_code == 4
    making.take(there, tmp_path / "one", allow_rollback=True)
    making.take(there, tmp_path / "two")


def test_another_bundle_of_the_same_number_is_refused(tmp_path, place, there, data):
    making.make(place, tmp_path / "one", data, settings=settings(sequence=3))
    (data / "new").write_bytes(b"x")
    making.make(place, tmp_path / "two", data, settings=settings(sequence=3))
    making.take(there, tmp_path / "one")
    with pytest.raises(KitError, match="another one than delivery 3"):
        making.take(there, tmp_path / "two")


def test_a_delta_needs_what_it_says(tmp_path, place, there, data):
    making.make(place, tmp_path / "one", data)
    (data / "new").write_bytes(b"x")
    base = making.index_of(tmp_path / "one")
    making.make(place, tmp_path / "two", data, settings=settings(since=base))
    with pytest.raises(KitError, match="this site lacks 7 of its 7 objects") as caught:
        making.take(there, tmp_path / "two")
    assert caught.value.exit_code == 4
    assert not (there.home / "bundles" / "content").exists()
    making.take(there, tmp_path / "one")
    loaded = making.take(there, tmp_path / "two")
    assert making.tree(loaded.places[0][1]) == making.tree(data)
    # And one more on top, after a file has gone.
    (data / "d0" / "file-0").unlink()
    (data / "newer").write_bytes(b"y")
    base = making.index_of(tmp_path / "two")
    making.make(place, tmp_path / "three", data, settings=settings(since=base))
    loaded = making.take(there, tmp_path / "three")
    assert making.tree(loaded.places[0][1]) == making.tree(data)


def test_a_delta_does_not_stand_on_damaged_files(tmp_path, place, there, data):
    making.make(place, tmp_path / "one", data)
    (data / "new").write_bytes(b"x")
    base = making.index_of(tmp_path / "one")
    making.make(place, tmp_path / "two", data, settings=settings(since=base))
    ((_, folder),) = making.take(there, tmp_path / "one").places
    damaged = folder / "d2" / "file-5"
    damaged.chmod(0o644)
    damaged.write_bytes(bytes(40_000))
    with pytest.raises(KitError, match="lacks 1 of its 7 objects") as caught:
        making.take(there, tmp_path / "two")
    assert "file/data: d2/file-5" in str(caught.value)


@pytest.fixture
def moved(tmp_path, place):
    """Two deliveries: `one` with a/moved, and its delta `two` with b/moved instead."""
    for name, files in (("a", ["moved", "stays"]), ("b", ["other"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_bytes(file.encode() * 100)
    making.make(place, tmp_path / "one", tmp_path / "a", tmp_path / "b")
    base = making.index_of(tmp_path / "one")
    (tmp_path / "a" / "moved").rename(tmp_path / "b" / "moved")
    making.make(
        place, tmp_path / "two", tmp_path / "a", tmp_path / "b", settings=settings(since=base)
    )
    return tmp_path


@pytest.mark.usefixtures("moved")
def test_a_delta_may_move_a_file_to_another_content(tmp_path, there):
    """What it needs is in a folder that goes away before the other one is made."""
    making.take(there, tmp_path / "one")
    for _ in range(2):
        for content, where in making.take(there, tmp_path / "two").places:
            assert making.tree(where) == making.tree(tmp_path / content.name)


def arrived(loaded, folder):
    """Whether both contents are there as they were sent."""
    return all(making.tree(path) == making.tree(folder / c.name) for c, path in loaded.places)


def test_a_delta_goes_on_after_all_was_imported_and_nothing_written_down(moved, there, monkeypatch):
    making.take(there, moved / "one")
    with monkeypatch.context() as patch:
        patch.setattr(site, "remember", making.fail)
        with pytest.raises(making.Failed):
            making.take(there, moved / "two")
    assert arrived(making.take(there, moved / "two"), moved)


@pytest.mark.parametrize("when", ["old", "new"])
@pytest.mark.parametrize("which", [1, 2])
def test_a_delta_goes_on_after_any_rename(moved, there, monkeypatch, when, which):
    """Killed once a folder is away, and once the new one is in its place."""
    making.take(there, moved / "one")
    stop_after_rename(there, moved / "two", monkeypatch, when, which)
    assert arrived(making.take(there, moved / "two"), moved)


def stop_after_rename(place, folder, monkeypatch, when, which=1):
    """Load until so many folders have gone away, or come into their place."""
    rename = Path.rename
    left = which

    def stop(self, target):
        nonlocal left
        found = rename(self, target)
        left -= (self if when == "new" else found).name.endswith(f".{when}")
        if not left:
            raise making.Failed
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop)
        with pytest.raises(making.Failed):
            making.take(place, folder)


def test_any_load_puts_back_what_a_killed_one_took_away(moved, there, monkeypatch, tmp_path):
    ((_, where), _) = making.take(there, moved / "one").places
    before = making.tree(where)
    stop_after_rename(there, moved / "two", monkeypatch, "old")
    assert not where.exists()
    data = making.noise(tmp_path / "more", [10])
    making.make(making.project(tmp_path), tmp_path / "x", data, settings=create.Settings("other"))
    with site._idle(there, "test") as idle:  # somebody else loads it just now
        assert idle
        making.take(there, tmp_path / "x")
        assert not where.exists()
    making.take(there, tmp_path / "x")
    assert making.tree(where) == before
    assert arrived(making.take(there, moved / "two"), moved)


def test_a_killed_load_that_is_given_up_helps_another_one(moved, there, monkeypatch, tmp_path):
    """What only its staging folder still holds is found by the next delivery, too."""
    making.take(there, moved / "one")
    with monkeypatch.context() as patch:
        patch.setattr(site, "remember", making.fail)
        with pytest.raises(making.Failed):
            making.take(there, moved / "two")
    (tmp_path / "b" / "more").write_bytes(b"more")
    base = making.index_of(moved / "one")
    chosen = settings(since=base, sequence=3)
    place = making.project(tmp_path)
    making.make(place, tmp_path / "three", tmp_path / "a", tmp_path / "b", settings=chosen)
    assert arrived(making.take(there, tmp_path / "three"), moved)


@pytest.mark.parametrize("where", ["store", "images"])
def test_a_damaged_file_hides_no_good_one(moved, there, where):
    making.take(there, moved / "one")
    for digest, size in making.index_of(moved / "two").requires.items():
        folder = Path("sha256", digest[:2]) if where == "store" else Path("blobs", "sha256")
        path = there.home / where / folder / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    assert arrived(making.take(there, moved / "two"), moved)


def test_a_file_that_cannot_be_read_is_not_called_missing(moved, there, monkeypatch):
    making.take(there, moved / "one")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(load.Digest, "of_file", refuse)
    with pytest.raises(KitError, match="may not read or write") as caught:
        making.take(there, moved / "two")
    assert caught.value.exit_code == 3


def test_images_keep_their_digest(tmp_path, place, there):
    image, contents = _image(place)
    create.create(place, contents, tmp_path / "out", settings())
    making.take(there, tmp_path / "out")
    found = Layout(there.images).image(image.manifest_digest)
    assert found.layers == image.layers
    reference = f"localhost/trtllm-kit/by-digest:{image.manifest_digest.hex}"
    assert Layout(there.images).names()[reference] == image.manifest_digest


def test_an_image_whose_manifest_names_other_blobs_is_refused(tmp_path, place, there):
    _, (content,) = _image(place)
    from kit.bundles.contents import Entry

    more = content._replace(entries=(*content.entries, Entry("x", "layer", b"more")))
    create.create(place, [more], tmp_path / "out", settings())
    with pytest.raises(KitError, match="its manifest names other blobs"):
        making.take(there, tmp_path / "out")
    assert Layout(there.images).names() == {}


LAYER_CONTENT = b"a layer"
TAR = "application/vnd.oci.image.layer.v1.tar"


def carried(manifest=None, config=None, row=None, text=None):
    """A small image `s` of a stack `s`, as a bundle carries it; with other keys if wanted."""
    digest = str(Digest.of_bytes(LAYER_CONTENT))
    kept = {"config": {}, "rootfs": {"type": "layers", "diff_ids": [digest]}, **(config or {})}
    packed = json.dumps(kept).encode()
    layer = {"mediaType": TAR, "digest": digest, "size": len(LAYER_CONTENT), **(row or {})}
    said = {
        "schemaVersion": 2,
        "config": {"digest": str(Digest.of_bytes(packed)), "size": len(packed)},
        "layers": [layer],
        **(manifest or {}),
    }
    entries = (Entry("config", "config", packed), Entry("layer-1", "layer", LAYER_CONTENT))
    written = json.dumps(said).encode() if text is None else text
    return Content("image", "s", "s", "x", entries, Entry("manifest", "manifest", written))


ODD = {
    "no JSON": {"text": b"{"},
    "a list": {"text": b"[]"},
    "deep": {"text": b'{"a":' * 100_000},
    "nothing": {"text": b"{}"},
    "too large": {"text": b'{"a":"' + bytes(20 << 20)},
    "number for configuration": {"manifest": {"config": 5}},
    "number for digest": {"manifest": {"config": {"digest": 5}}},
    "no digest": {"manifest": {"config": {"digest": "sha256:x"}}},
    "object for layers": {"manifest": {"layers": {}}},
    "number for layers": {"manifest": {"layers": 5}},
    "layers of numbers": {"manifest": {"layers": [5]}},
    "media type": {"manifest": {"mediaType": 5}},
    "other blob": {"row": {"digest": f"sha256:{'0' * 64}"}},
    "other size": {"row": {"size": 8}},
    "size of no number": {"row": {"size": "7"}},
    "no layer in configuration": {"config": {"rootfs": {"diff_ids": []}}},
    "no file system": {"config": {"rootfs": None}},
    "labels": {"config": {"config": {"Labels": ["x"]}}},
    "label": {"config": {"config": {"Labels": {"x": 5}}}},
    "settings": {"config": {"config": ["x"]}},
    "history": {"config": {"history": ["x"]}},
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_image_is_refused_before_anything_is_imported(tmp_path, place, there, case):
    dataset = Content("dataset", "d", "", "x", (Entry("f", "dataset", b"data"),))
    create.create(place, [dataset, carried(**ODD[case])], tmp_path / "out", settings())
    with pytest.raises(KitError, match="image s: ") as caught:
        making.take(there, tmp_path / "out")
    assert caught.value.exit_code == 4
    assert not there.contents.exists()
    assert not there.images.exists()
    assert list(site.every(there)) == []
    assert list((there.home / "bundles" / "loading").iterdir()) == []


def test_layers_of_another_compression_are_for_another_kit(tmp_path, place, there):
    image = carried(row={"mediaType": f"{TAR}+zstd"})
    create.create(place, [image], tmp_path / "out", settings())
    with pytest.raises(KitError, match="image s: layer") as caught:
        making.take(there, tmp_path / "out")
    assert caught.value.exit_code == 3
    assert not there.images.exists()


@pytest.mark.parametrize("name", ["s:1", "a b", "../x"])
def test_the_name_of_an_image_is_a_name(tmp_path, place, there, name):
    image = carried()._replace(name=name, stack=name)
    create.create(place, [image], tmp_path / "out", settings())
    with pytest.raises(KitError, match="cannot be called that"):
        making.take(there, tmp_path / "out")
    assert not there.images.exists()


def test_an_image_that_nobody_says_is_of_a_stack_is_not_its_latest(tmp_path, place, there):
    """Another bundle has brought the stack; one of another name would take its place."""
    name = "localhost/trtllm-kit/s:latest"
    layout = Layout(there.images)
    kept = layout.put(b"kept")
    layout.name_manifest(name, kept, "x")
    create.create(place, [carried()], tmp_path / "out", settings())
    making.take(there, tmp_path / "out")
    digest = making.index_of(tmp_path / "out").contents[0].manifest
    assert layout.names() == {
        name: kept,
        f"localhost/trtllm-kit/by-digest:{digest}": Digest(digest),
    }


MINE = "localhost/trtllm-kit/mine:latest"


def stack(folder, out, name="delivery", epoch=1700000000, **record):
    """A bundle of the stack `mine`, its image and its record; returns the image's digest."""
    sender = test_stacks.own(folder, epoch)
    contents = test_stacks.carried(sender, **record)
    create.create(sender, contents, out, create.Settings(name))
    return Digest(making.index_of(out).contents[0].manifest)


def test_record_and_latest_image_of_a_stack_are_one(tmp_path, there):
    digest = stack(tmp_path / "sender", tmp_path / "out")
    making.take(there, tmp_path / "out")
    assert Layout(there.images).names() == {MINE: digest}
    record = records.read(records.of_stack(there, "mine"))
    assert record["manifest_digest"] == str(digest)


def test_the_image_of_another_lock_is_not_the_latest_of_the_project(tmp_path):
    site_ = test_stacks.own(tmp_path / "site", epoch=1700000001)
    digest = stack(tmp_path / "sender", tmp_path / "out")
    making.take(site_, tmp_path / "out")
    by_digest = f"localhost/trtllm-kit/by-digest:{digest.hex}"
    assert Layout(site_.images).names() == {by_digest: digest}
    assert records.read(records.of_stack(site_, "mine")) is None


def test_a_bundle_takes_no_stack_away_from_another_one(tmp_path, there):
    digest = stack(tmp_path / "sender", tmp_path / "out")
    making.take(there, tmp_path / "out")
    before = records.read(records.of_stack(there, "mine"))
    stack(tmp_path / "other", tmp_path / "more", "another", epoch=1700000001, key="other")
    loaded = making.take(there, tmp_path / "more")
    assert Layout(there.images).names()[MINE] == digest
    assert records.read(records.of_stack(there, "mine")) == before
    assert "its image stays the latest" in " ".join(loaded.notes)
    # A newer delivery of the same bundle may; so does one whose stack the user has chosen.
    stack(tmp_path / "newer", tmp_path / "out2", epoch=1700000002, key="newer")
    shutil.rmtree(there.contents / "another")
    making.take(there, tmp_path / "out2", allow_rollback=True)
    assert records.read(records.of_stack(there, "mine"))["key"] == "newer"


@pytest.mark.parametrize(
    "record",
    [
        {"lock": "x"},
        {"lock": 5},
        {"key": 5},
        {"key": None},
        {"engine": "podman"},
        {"manifest_digest": f"sha256:{'0' * 64}"},
        {"manifest_digest": ["x"]},
        {"stages": []},
        {"key": "x" * (13 << 20)},
    ],
)
def test_an_odd_record_is_refused_before_anything_is_imported(tmp_path, there, record):
    stack(tmp_path / "sender", tmp_path / "out", **record)
    with pytest.raises(KitError, match="stack mine") as caught:
        making.take(there, tmp_path / "out")
    assert caught.value.exit_code == 4
    assert not there.contents.exists()
    assert not there.images.exists()


def test_a_lock_that_cannot_be_compared_is_refused_before_anything_is_imported(tmp_path):
    site_ = test_stacks.own(tmp_path / "site")
    sender = test_stacks.own(tmp_path / "sender")
    image, content = test_stacks.carried(sender)
    entries = tuple(
        entry._replace(source=b"stack: [") if entry.role == "lock" else entry
        for entry in content.entries
    )
    contents = [image, content._replace(entries=entries)]
    create.create(sender, contents, tmp_path / "out", create.Settings("x"))
    with pytest.raises(KitError, match="stack mine"):
        making.take(site_, tmp_path / "out")
    assert not site_.contents.exists()
    assert not site_.images.exists()


def _image(place):
    """A small image in the layout of a project, and the contents that carry it."""
    from kit.bundles import gather

    layout = Layout(place.images)
    layer = layout.put(b"a layer " * 1000)
    image = layout.write_image(
        name="localhost/x:latest",
        layers=(Layer(layer, 8000, LAYER),),
        settings={},
        history=["test"],
        platform="linux/amd64",
        epoch=0,
    )
    work = gather._Gathering(place, gather.Request())
    work.add_image(image, "x-1", "x", "asked for")
    return image, list(work.found.values())


def test_a_full_disk_is_told_before_anything_is_written(bundle, there, monkeypatch):
    monkeypatch.setattr("kit.files.free_bytes", lambda path: 1000)
    with pytest.raises(KitError, match="not enough disk") as caught:
        making.take(there, bundle)
    assert caught.value.exit_code == 3
    assert not (there.home / "bundles" / "content").exists()


def test_without_hard_links_files_are_copied(bundle, there, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "no links here")

    monkeypatch.setattr(load.os, "link", refuse)
    ((_, place),) = making.take(there, bundle).places
    assert sum(path.is_file() for path in place.rglob("*")) == 9


def test_a_disk_that_knows_no_capital_letters_mixes_nothing_up(tmp_path, place, there, monkeypatch):
    data = tmp_path / "data"
    data.mkdir()
    (data / "LICENSE").write_bytes(b"one")
    (data / "license").write_bytes(b"two")
    making.make(place, tmp_path / "out", data)
    seen = load.os.path.lexists

    def casefold(path):
        return any(str(one).lower() == str(path).lower() for one in path.parent.iterdir())

    monkeypatch.setattr(load.os.path, "lexists", casefold)
    with pytest.raises(KitError, match="small and capital letters") as caught:
        making.take(there, tmp_path / "out")
    assert caught.value.exit_code == 3
    monkeypatch.setattr(load.os.path, "lexists", seen)
    ((_, where),) = making.take(there, tmp_path / "out").places
    assert making.tree(where) == making.tree(data)


def test_a_damaged_record_is_no_reason_to_go_back(bundle, there):
    making.take(there, bundle)
    (there.home / "bundles" / "loaded" / "test.json").write_text("{")
    with pytest.raises(KitError, match="damaged") as caught:
        making.take(there, bundle)
    assert caught.value.exit_code == 4


def test_inputs_of_a_stack_go_into_the_store(tmp_path, place, there):
    from kit.bundles.contents import Content, Entry

    content = Content("inputs", "s", "s", "to build", (Entry("deb/a.deb", "deb", b"package"),))
    create.create(place, [content], tmp_path / "out", settings())
    making.take(there, tmp_path / "out")
    path = there.store / "sha256"
    digest = Digest.of_bytes(b"package")
    assert (path / digest.hex[:2] / digest.hex).read_bytes() == b"package"


def test_a_killed_load_goes_on_to_the_same_result(tmp_path, place, data):
    """SIGKILL at random moments; what is there in between is never half of something."""
    making.make(place, tmp_path / "out", data)
    calm = making.project(tmp_path / "calm")
    start = time.monotonic()
    ((_, where),) = making.take(calm, tmp_path / "out").places
    took = time.monotonic() - start
    expected = making.tree(where)
    there = making.project(tmp_path / "there")
    final = there.home / "bundles" / "content" / "test" / "file" / "data"
    clock = random.Random(2)
    killed = 0
    while killed < ROUNDS:
        killed += making.killed(
            lambda: making.take(there, tmp_path / "out"), clock.uniform(0, took)
        )
        if final.exists():
            assert making.tree(final) == expected
            if killed % 3 == 0:
                shutil.rmtree(there.home)
    making.take(there, tmp_path / "out")
    assert making.tree(final) == expected
    assert everything(there).keys() == everything(calm).keys()
