"""What lies in an image, whatever its layers took away, and only if they are what they should be."""

from __future__ import annotations

import gzip
import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images.index import base_index, index_path
from kit.images.layer import unpacked
from kit.images.oci import LAYER, LAYER_GZIP, Layer, Layout


def _tar(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.LNKTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)
    return stream.getvalue()


def _image(layout, *tars, pack=gzip.compress):
    layers = []
    for tar in tars:
        blob = pack(tar)
        diff_id = Digest.of_bytes(tar)
        unpacked_as = diff_id if blob != tar else None
        media_type = LAYER if blob == tar else LAYER_GZIP
        layers.append(Layer(layout.put(blob), len(blob), media_type, unpacked_as))
    return layout.write_image(
        name="x",
        layers=tuple(layers),
        settings={},
        history=["made"] * len(layers),
        platform="linux/amd64",
        epoch=1,
    )


def test_whiteouts_opaque_folders_and_replaced_folders(tmp_path):
    layout = Layout(tmp_path)
    lower = _tar(
        *(("a/", None), ("a/kept", b"1"), ("a/gone", b"2"), ("a/f/", None), ("a/f/x", b"3")),
        *(("b/", None), ("b/old", b"4"), ("c/", None), ("c/in", b"5"), ("d", b"6"), ("ab", b"7")),
    )
    upper = _tar(
        *(("a/.wh.gone", b""), ("a/.wh.f", b""), ("b/.wh..wh..opq", b""), ("b/new", b"8")),
        *(("c", b"no folder any more"), ("d/", None), ("d/e", b"9")),
    )
    image = _image(layout, lower, upper)
    found = base_index(layout, image)
    assert sorted(found) == ["a", "a/kept", "ab", "b", "b/new", "c", "d", "d/e"]
    assert found["c"].kind == "file"
    assert found["a/kept"].sha256 == Digest.of_bytes(b"1").hex
    assert sorted(base_index(layout, _image(layout, lower))) == [
        *("a", "a/f", "a/f/x", "a/gone", "a/kept", "ab", "b", "b/old", "c", "c/in", "d"),
    ]


def test_folders_that_no_layer_names(tmp_path):
    layout = Layout(tmp_path)
    lower = _tar(("a/b/c/x", b"1"), ("a/b/y", b"2"))
    found = base_index(layout, _image(layout, lower))
    assert sorted(found) == ["a", "a/b", "a/b/c", "a/b/c/x", "a/b/y"]
    assert (found["a/b"].kind, found["a/b"].mode) == ("directory", 0o755)
    found = base_index(layout, _image(layout, lower, _tar(("a/b/.wh.c", b""))))
    assert sorted(found) == ["a", "a/b", "a/b/y"]


def test_hard_links_are_files_of_the_layer_that_made_them(tmp_path):
    layout = Layout(tmp_path)
    lower = _tar(("one", b"first"), ("two", "one"))
    image = _image(layout, lower, _tar(("one", b"second")))
    found = base_index(layout, image)
    assert found["two"].kind == "file"
    assert found["two"].sha256 == Digest.of_bytes(b"first").hex
    assert found["one"].sha256 == Digest.of_bytes(b"second").hex
    dangling = _image(layout, _tar(("two", "nowhere")))
    with pytest.raises(KitError, match="/two: hard link to /nowhere, which its layer lacks"):
        base_index(layout, dangling)


def test_layer_that_is_not_the_one_it_should_be_is_refused_and_removed(tmp_path):
    layout = Layout(tmp_path)
    tar, other = _tar(("a", b"1")), _tar(("a", b"2"))
    blob = gzip.compress(other)
    layer = Layer(layout.put(blob), len(blob), LAYER_GZIP, Digest.of_bytes(tar))
    image = layout.write_image(
        name="x", layers=(layer,), settings={}, history=["x"], platform="linux/amd64", epoch=1
    )
    with pytest.raises(KitError, match="expected diff id") as caught:
        base_index(layout, image)
    assert caught.value.exit_code is ExitCode.CONTENT
    assert not layout.blob(layer.digest).exists()
    assert not index_path(layout, layer.diff_id).exists()


def test_index_is_made_once(tmp_path):
    layout = Layout(tmp_path)
    image = _image(layout, _tar(("a", b"1")))
    first = base_index(layout, image)
    layout.blob(image.layers[0].digest).unlink()
    assert base_index(layout, image) == first


@pytest.mark.parametrize(
    "members", [[("../../etc/x", b"")], [("a/../../x", b"")]], ids=["climbs", "climbs inside"]
)
def test_layer_that_leads_out_is_refused(tmp_path, members):
    layout = Layout(tmp_path)
    with pytest.raises(KitError, match="outside its folder"):
        base_index(layout, _image(layout, _tar(*members)))


def test_damaged_and_unknown_compression(tmp_path):
    layout = Layout(tmp_path)
    tar = _tar(("a", bytes(100_000)))
    for pack, complaint in (
        (lambda tar: gzip.compress(tar)[:-20], "cut short"),
        (lambda tar: gzip.compress(tar)[:40] + b"????" + gzip.compress(tar)[44:], "damaged|diff"),
        (lambda _: b"\x28\xb5\x2f\xfdxxxx", "zstd, which kit does not read"),
    ):
        with pytest.raises(KitError, match=complaint):
            base_index(layout, _image(layout, tar, pack=pack))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=40), min_size=1, max_size=4), st.integers(0, 3), st.booleans())
def test_gzip_streams_in_a_row_and_padding(parts, zeros, large):
    parts = [part * 70_000 for part in parts] if large else parts
    packed = b"".join(gzip.compress(part, mtime=0) for part in parts) + bytes(zeros)
    assert b"".join(unpacked(io.BytesIO(packed), "x")) == b"".join(parts)
