"""Loading: verified first, all or nothing, deltas, no way back, killed at any moment."""

from __future__ import annotations

import random
import shutil
import time

import pytest

from kit.bundles import create, load, site, verifier
from kit.digest import Digest
from kit.errors import KitError
from kit.images.oci import LAYER, Layer, Layout
from tests.unit.bundles import making

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


def test_a_delta_may_move_a_file_to_another_content(tmp_path, place, there):
    """What it needs is in a folder that goes away before the other one is made."""
    for name, files in (("a", ["moved", "stays"]), ("b", ["other"])):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_bytes(file.encode() * 100)
    making.make(place, tmp_path / "one", tmp_path / "a", tmp_path / "b")
    base = making.index_of(tmp_path / "one")
    (tmp_path / "a" / "moved").rename(tmp_path / "b" / "moved")
    chosen = settings(since=base)
    making.make(place, tmp_path / "two", tmp_path / "a", tmp_path / "b", settings=chosen)
    making.take(there, tmp_path / "one")
    for _ in range(2):
        for content, where in making.take(there, tmp_path / "two").places:
            assert making.tree(where) == making.tree(tmp_path / content.name)


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
    from dataclasses import replace

    from kit.bundles.contents import Entry

    more = replace(content, entries=(*content.entries, Entry("x", "layer", b"more")))
    create.create(place, [more], tmp_path / "out", settings())
    with pytest.raises(KitError, match="its manifest names other blobs"):
        making.take(there, tmp_path / "out")
    assert Layout(there.images).names() == {}


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
