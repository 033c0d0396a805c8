"""Layouts and archives."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images.oci import Layer, Layout, archive


def _image(layout, name="test/a:1", body=b"\0" * 1024, labels=None):
    layer = Layer(layout.put(body), len(body))
    return layout.write_image(
        name=name,
        layers=(layer,),
        settings={"Env": ["A=b"], "Labels": labels or {}, "Cmd": []},
        history=("made",),
        platform="linux/amd64",
        epoch=1,
    )


def test_image_reads_back(tmp_path):
    layout = Layout(tmp_path)
    image = _image(layout, labels={"x": "y"})
    again = layout.image(image.manifest_digest)
    assert again == image
    assert again.labels == {"x": "y"}
    assert layout.names() == {"test/a:1": image.manifest_digest}
    assert json.loads((tmp_path / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}


def test_digest_is_a_function_of_content(tmp_path):
    assert (
        _image(Layout(tmp_path / "a")).manifest_digest
        == _image(Layout(tmp_path / "b"), name="other:2").manifest_digest
    )
    other = _image(Layout(tmp_path / "c"), labels={"x": "z"})
    assert other.manifest_digest != _image(Layout(tmp_path / "d")).manifest_digest


def test_a_name_moves_and_others_stay(tmp_path):
    layout = Layout(tmp_path)
    first = _image(layout)
    second = _image(layout, body=b"1" * 512)
    third = _image(layout, name="test/b:1", body=b"2" * 512)
    assert layout.names() == {
        "test/a:1": second.manifest_digest,
        "test/b:1": third.manifest_digest,
    }
    assert first.manifest_digest != second.manifest_digest


@pytest.mark.parametrize("damage", ["missing", "short", "altered manifest"])
def test_damaged_layout_is_an_error_of_content(tmp_path, damage):
    layout = Layout(tmp_path)
    image = _image(layout)
    blob = layout.blob(image.layers[0].digest)
    manifest = layout.blob(image.manifest_digest)
    for path in (blob, manifest):
        path.chmod(0o644)
    if damage == "missing":
        blob.unlink()
    elif damage == "short":
        blob.write_bytes(b"1")
    else:
        manifest.write_bytes(manifest.read_bytes() + b" ")
    with pytest.raises(KitError) as caught:
        layout.image(image.manifest_digest)
    assert caught.value.exit_code is ExitCode.CONTENT


def test_archive_is_both_oci_and_docker(tmp_path):
    layout = Layout(tmp_path)
    image = _image(layout)
    content = b"".join(archive(image, "test/a:1"))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        names = tar.getnames()
        legacy = json.load(tar.extractfile("manifest.json"))[0]
        assert legacy["RepoTags"] == ["test/a:1"]
        config = tar.extractfile(legacy["Config"]).read()
        assert Digest.of_bytes(config) == image.image_id
        assert [Digest.of_bytes(tar.extractfile(n).read()) for n in legacy["Layers"]] == [
            layer.digest for layer in image.layers
        ]
        index = json.load(tar.extractfile("index.json"))
        assert index["manifests"][0]["digest"] == str(image.manifest_digest)
    partial = b"".join(archive(image, "x", skip=frozenset({image.layers[0].digest})))
    with tarfile.open(fileobj=io.BytesIO(partial)) as tar:
        assert set(names) - set(tar.getnames()) == {f"blobs/sha256/{image.layers[0].digest.hex}"}
