"""One image, seen in its layout, in an engine's own storage, and in what the engine saves."""

from __future__ import annotations

import dataclasses

import pytest

from kit.artifacts import image
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images.oci import Layer, Layout
from tests.unit.artifacts.images import layer

pytestmark = pytest.mark.engine

SITE = "usr/lib/python3/dist-packages"
LOWER = {
    "usr/lib/libnccl.so.2.23.4": b"x",
    "usr/lib/libmpi.so.40.30.4": b"x",
    "usr/lib/libmpi.so.40": "libmpi.so.40.30.4",
    "opt/mpi/libmpi.so.40.30.4": "=usr/lib/libmpi.so.40.30.4",
    "opt/old/lib/libnvinfer.so.10.6.0": b"x",
    f"{SITE}/numpy-1.26.4.dist-info/METADATA": b"Name: numpy",
}
UPPER = {
    "usr/lib/.wh.libnccl.so.2.23.4": b"",
    "opt/old/": None,
    "opt/old/.wh..wh..opq": b"",
    "opt/old/libnvinfer.so.10.7.0": b"x",
    f"{SITE}/.wh.numpy-1.26.4.dist-info": b"",
    f"{SITE}/numpy-2.1.0.dist-info/METADATA": b"Name: numpy",
}
NAME = "localhost/kit-test/looked-into:1"


@pytest.fixture(scope="module")
def stored(place):
    layout = Layout(place.home / "looked-into")
    blobs = [layer(files) for files in (LOWER, UPPER)]
    for content in blobs:
        layout.put(content)
    return layout.write_image(
        name=NAME,
        layers=tuple(Layer(Digest.of_bytes(content), len(content)) for content in blobs),
        settings={"Env": ["CUDA_VERSION=12.6.3"]},
        history=("lower", "upper"),
        platform="linux/amd64",
        epoch=1,
    )


def test_same_image_three_ways(engine, place, stored, monkeypatch):
    engine.load(stored, NAME)
    in_layout = image.look(str(stored.layout.root), place, probe=False)
    in_storage = image.look(NAME, place, probe=False)
    monkeypatch.setattr(image, "_overlay_folders", lambda _: None)
    in_saved = image.look(NAME, place, probe=False)
    assert in_layout.versions("numpy") == ("2.1.0",)
    assert in_layout.versions("nccl") == ()
    assert [item.version for item in in_layout.installs("tensorrt")] == ["10.7.0"]
    assert len(in_layout.installs("libmpi")) == 1
    same = {"manifest_digest": None, "size": 0, "reference": ""}
    one, two, three = (
        dataclasses.replace(
            found,
            **same,
            observations=tuple(sorted(found.observations, key=lambda item: item.where)),
        )
        for found in (in_layout, in_storage, in_saved)
    )
    assert one == two == three


def test_nothing_is_pulled(engine, place):
    with pytest.raises(KitError, match="kit pulls nothing") as caught:
        image.look("localhost/kit-test/never-built:1", place)
    assert caught.value.exit_code == ExitCode.USAGE


def test_image_without_python_says_so(engine, place, stored):
    engine.load(stored, NAME)
    for reference in (NAME, str(stored.layout.root)):
        found = image.look(reference, place)
        assert found.probed is None
        assert "could not be probed" in found.unprobed or "run" in found.unprobed
