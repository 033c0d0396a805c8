import errno
import json
import os

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images.oci import Layout
from kit.locks.http import Client
from kit.locks.intent import ImageReference
from kit.locks.lock import Input
from kit.locks.oci import resolve_images, write_layout
from kit.locks.registry import is_name
from kit.store import Store
from tests.stand_in.registry import DOCKER_TYPES, OCI_TYPES, image
from tests.stand_in.stored import damage


@pytest.mark.parametrize(
    "name",
    [
        "a.b/c",
        "localhost/c",
        "a:5000/c",
        "127.0.0.1:5000/c/d",
        "nvcr.io/nvidia/x-y_z.1",
        "a.b/c__d",
    ],
)
def test_names(name):
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a.b",
        "a.b/",
        "library/debian",
        "a.b//c",
        "a.b/../c",
        "a.b/C",
        "a.b/c?d",
        "a.b/c:1",
        "x@a.b/c",
    ],
)
def test_what_is_no_name(name):
    assert not is_name(name)


def test_docker_hub_has_to_be_said():
    asked = [ImageReference("base", "library/debian:12")]
    with pytest.raises(KitError, match=r"write docker\.io/library/debian for Docker Hub") as caught:
        resolve_images(asked, "linux/amd64", Client())
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def stocked(store, tmp_path):
    """Put an image into the store as a fetch does; returns its inputs."""

    def put(pushed):
        items = []
        for content in (pushed.content, *pushed.blobs.values()):
            path = tmp_path / "blob"
            path.write_bytes(content)
            digest = store.add_file(path)
            name, version = "a.b/c", str(pushed.digest)
            place, file = f"oci:{name}", f"blobs/sha256/{digest.hex}"
            items.append(Input("oci", "base", name, version, file, place, digest, len(content)))
        return items

    return put


@pytest.mark.parametrize("types", [OCI_TYPES, DOCKER_TYPES], ids=["oci", "docker"])
@pytest.mark.parametrize("links", [True, False])
def test_a_layout_holds_every_byte(store, stocked, tmp_path, monkeypatch, types, links):
    if not links:

        def refuse(*_):
            raise OSError(errno.EXDEV, "another disk")

        monkeypatch.setattr(os, "link", refuse)
    pushed = image(1000, 2000, types=types)
    layout = Layout(tmp_path / "layout")
    for _ in range(2):
        assert write_layout(stocked(pushed), store, layout, "localhost/x") == pushed.digest
    for digest, content in {pushed.digest: pushed.content, **pushed.blobs}.items():
        assert layout.blob(digest).read_bytes() == content
        assert layout.blob(digest).stat().st_mode & 0o777 == 0o444
        assert (layout.blob(digest).stat().st_nlink > 1) == links
    (row,) = json.loads((layout.root / "index.json").read_bytes())["manifests"]
    assert (row["digest"], row["mediaType"]) == (str(pushed.digest), types[0])
    assert len(list((layout.root / "blobs" / "sha256").iterdir())) == 4


def test_a_damaged_blob_reaches_no_layout(store, stocked, tmp_path):
    pushed = image(1000)
    items = stocked(pushed)
    layer = max(items, key=lambda item: item.size)
    damage(store, layer.sha256, 500)
    layout = Layout(tmp_path / "layout")
    with pytest.raises(KitError, match="damaged in the store") as caught:
        write_layout(items, store, layout, "localhost/x", "small")
    assert (caught.value.exit_code, caught.value.hint) == (ExitCode.CONTENT, "kit fetch small")
    assert not layout.blob(layer.sha256).exists()
    assert layout.names() == {}


def test_a_manifest_without_a_type_is_ocis(store, stocked, tmp_path):
    pushed = image(10)
    document = json.loads(pushed.content)
    del document["mediaType"]
    pushed = type(pushed)(json.dumps(document).encode(), "", {}, pushed.blobs)
    layout = Layout(tmp_path / "layout")
    write_layout(stocked(pushed), store, layout, "localhost/x")
    (row,) = json.loads((layout.root / "index.json").read_bytes())["manifests"]
    assert row["mediaType"] == OCI_TYPES[0]
    assert layout.image(pushed.digest).image_id == Digest.parse(document["config"]["digest"])
