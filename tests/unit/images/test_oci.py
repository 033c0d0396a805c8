"""Layouts and archives."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images.media_types import DOCKER_MANIFEST, LAYER_GZIP, MANIFEST
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


def test_archive_of_a_layer_of_more_than_eight_gib(tmp_path):
    """What TensorRT and PyTorch unpack to; a hole stands for it."""
    layout = Layout(tmp_path)
    large = Layer(Digest("a" * 64), (8 << 30) + 1)
    layout.blob(large.digest).parent.mkdir(parents=True)
    with layout.blob(large.digest).open("wb") as stream:
        stream.truncate(large.size)
    image = layout.write_image(
        name="x", layers=(large,), settings={}, history=("x",), platform="linux/amd64", epoch=1
    )
    header = next(piece for piece in archive(image, "x") if b"a" * 64 in piece[:100])
    assert tarfile.TarInfo.frombuf(header, "utf-8", "strict").size == large.size


def test_damaged_layer_is_named_and_taken_out(tmp_path):
    layout = Layout(tmp_path)
    image = _image(layout)
    layout.refuse_damaged(image)
    blob = layout.blob(image.layers[0].digest)
    content = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(KitError, match="is damaged, found") as caught:
        layout.refuse_damaged(image, "small")
    assert caught.value.exit_code is ExitCode.CONTENT
    assert "kit build small --rebuild" in str(caught.value.hint)
    assert not blob.exists()


def _pulled(layout, layer_type="application/vnd.docker.image.rootfs.diff.tar.gzip", diffs=1):
    """An image as a registry has it, in Docker's form."""
    tar = b"\0" * 1024
    blob = layout.put(gzip.compress(tar))
    config = layout.put(
        json.dumps({"rootfs": {"diff_ids": [str(Digest.of_bytes(tar))] * diffs}}).encode()
    )
    entry = {"mediaType": layer_type, "digest": str(blob), "size": 99}
    entry["size"] = layout.blob(blob).stat().st_size
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {"mediaType": "application/vnd.docker.container.image.v1+json"},
        "layers": [entry, entry],
    }
    manifest["config"]["digest"] = str(config)
    return layout.put(json.dumps(manifest, indent=3).encode()), Digest.of_bytes(tar)


def test_image_in_dockers_form(tmp_path):
    layout = Layout(tmp_path)
    digest, diff_id = _pulled(layout, diffs=2)
    image = layout.image(digest)
    assert [layer.diff_id for layer in image.layers] == [diff_id] * 2
    assert {layer.media_type for layer in image.layers} == {LAYER_GZIP}
    assert image.media_type == DOCKER_MANIFEST
    other = image.in_oci_form()
    assert other.media_type == MANIFEST
    assert (other.image_id, other.layers) == (image.image_id, image.layers)
    assert layout.image(other.manifest_digest) == other
    with tarfile.open(fileobj=io.BytesIO(b"".join(archive(image, "x")))) as tar:
        names = tar.getnames()
        index = json.load(tar.extractfile("index.json"))
    assert len(names) == len(set(names)), "a layer that stands twice comes once"
    assert index["manifests"][0]["digest"] == str(other.manifest_digest)


def test_image_that_contradicts_itself_or_cannot_be_read(tmp_path):
    layout = Layout(tmp_path)
    with pytest.raises(KitError, match="2 layers in its manifest, 1 in its configuration"):
        layout.image(_pulled(layout)[0])
    zstd = "application/vnd.oci.image.layer.v1.tar+zstd"
    with pytest.raises(KitError, match=r"tar\+zstd: layers are tar or gzip") as caught:
        layout.image(_pulled(layout, zstd, diffs=2)[0])
    assert caught.value.exit_code is ExitCode.ENVIRONMENT
    assert "skopeo copy --dest-compress-format=gzip" in caught.value.hint
