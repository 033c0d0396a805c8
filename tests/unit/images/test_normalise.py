"""However an engine writes down what it built, the same content gives the same layer."""

from __future__ import annotations

import io
import json
import tarfile
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.digest import Digest
from kit.errors import KitError
from kit.images.layer import Entry, LayerWriter, text_file
from kit.images.normalise import normalise
from kit.images.oci import Layout

BASE = {"etc": "", "etc/os": "debian", "opt": "", "opt/old": "gone soon", "tmp": ""}


def _tar(members, mtime=5):
    """A tar of (name, kind, value); kinds: dir, file, link, hard."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, value in members:
            member = tarfile.TarInfo(name)
            member.mtime, member.mode = mtime, 0o755 if kind == "dir" else 0o644
            member.uname = "builder"
            member.type = {"dir": b"5", "file": b"0", "link": b"2", "hard": b"1"}[kind]
            if kind == "file":
                member.size = len(value)
            else:
                member.linkname = value.decode() if isinstance(value, bytes) else value
            archive.addfile(member, io.BytesIO(value) if kind == "file" else None)
    return stream.getvalue()


def _base():
    stream = io.BytesIO()
    writer = LayerWriter(stream, 1)
    for name, text in BASE.items():
        if text:
            writer.add(Entry(name, "file", 0o644, size=len(text)), text_file(text.encode()))
        else:
            writer.add(Entry(name, "directory", 0o755))
    digest, _ = writer.close()
    return stream.getvalue(), digest, writer.entries


def _saved(layers, config=None, style="podman"):
    """A docker-archive in the manner of an engine, in chunks of odd sizes."""
    config = {"config": {"Env": ["A=1"], "WorkingDir": "/"} if config is None else config}
    body = json.dumps(config).encode()
    members = []
    if style == "podman":
        names = [f"{Digest.of_bytes(layer).hex}.tar" for layer in layers]
    elif style == "docker":
        names = [f"{i}abc/layer.tar" for i in range(len(layers))]
        members += [(f"{i}abc/VERSION", "file", b"1.0") for i in range(len(layers))]
    else:
        names = [f"blobs/sha256/{Digest.of_bytes(layer).hex}" for layer in layers]
    members += [(name, "file", layer) for name, layer in zip(names, layers, strict=True)]
    manifest = [{"Config": "config.json", "Layers": names, "RepoTags": None}]
    members += [("config.json", "file", body)]
    members += [("manifest.json", "file", json.dumps(manifest).encode())]
    content = _tar(members)
    edges = [*range(0, len(content), 7919), len(content)]
    return [content[a:b] for a, b in pairwise(edges)]


def _normalise(folder, layers, **options):
    content, digest, entries = _base()
    saved = _saved([content, *layers], options.pop("config", None), options.pop("style", "podman"))
    layout = Layout(folder)
    result = normalise(saved, layout, entries, (digest,), 1, **options)
    with tarfile.open(layout.blob(result.layer.digest)) as archive:
        found = {m.name: (archive.extractfile(m).read() if m.isreg() else m) for m in archive}
    return result, found


def test_layers_are_merged_and_what_equals_the_base_is_dropped(tmp_path):
    layers = [
        _tar([("etc/", "dir", ""), ("etc/os", "file", b"debian"), ("opt/new", "file", b"1")]),
        _tar([("opt/new", "file", b"2"), ("opt/.wh.old", "file", b""), ("opt/x", "link", "new")]),
    ]
    _, found = _normalise(tmp_path, layers)
    assert list(found) == ["opt/.wh.old", "opt/new", "opt/x"]
    assert found["opt/new"] == b"2"


@pytest.mark.parametrize("style", ["podman", "docker", "oci"])
def test_every_engines_archive_gives_the_same_layer(tmp_path, style):
    content = [("opt/a", "file", b"a" * 3000), ("opt/b", "file", b"b")]
    plain, _ = _normalise(tmp_path / "plain", [_tar(content)])
    junk = [
        ("dev/", "dir", ""),
        ("dev/console", "file", b""),
        ("etc/hosts", "file", b"127.0.0.1 x"),
        ("etc/resolv.conf", "file", b""),
        ("run/.containerenv", "file", b""),
        ("context/", "dir", ""),
    ]
    other, _ = _normalise(
        tmp_path / style,
        [_tar(junk + content[1:], mtime=99), _tar(content[:1])],
        style=style,
        mount_points=frozenset({"context"}),
    )
    assert other.layer == plain.layer


def test_removed_and_made_again_is_not_a_whiteout(tmp_path):
    layers = [
        _tar([("opt/.wh.old", "file", b"")]),
        _tar([("opt/old", "file", b"gone soon"), ("opt/n", "file", b"")]),
    ]
    _, found = _normalise(tmp_path, layers)
    assert list(found) == ["opt/n"]


def test_opaque_folder_hides_what_the_base_has(tmp_path):
    layers = [_tar([("opt/.wh..wh..opq", "file", b""), ("opt/new", "file", b"1")])]
    _, found = _normalise(tmp_path, layers)
    assert list(found) == ["opt/.wh.old", "opt/new"]


def test_hard_links_are_told_from_their_first_name(tmp_path):
    one = [("opt/a", "file", b"x"), ("opt/b", "hard", "opt/a")]
    other = [("opt/b", "file", b"x"), ("opt/a", "hard", "opt/b")]
    first, found = _normalise(tmp_path / "1", [_tar(one)])
    second, _ = _normalise(tmp_path / "2", [_tar(other)])
    assert first.layer == second.layer
    assert found["opt/a"] == b"x"
    assert found["opt/b"].linkname == "opt/a"


def test_settings_lose_what_only_an_engine_wrote(tmp_path):
    config = {
        "Env": ["A=1"],
        "Hostname": "3f2a",
        "WorkingDir": "/",
        "Labels": {"io.buildah.version": "1.28", "keep": "me"},
    }
    result, _ = _normalise(tmp_path, [_tar([("x", "file", b"")])], config=config)
    assert result.settings == {"Env": ["A=1"], "Labels": {"keep": "me"}}


def test_image_on_another_base_is_refused(tmp_path):
    content, _, entries = _base()
    stranger = Digest.of_bytes(b"another base")
    with pytest.raises(KitError, match="does not stand on the locked base"):
        normalise(_saved([content]), Layout(tmp_path), entries, (stranger,), 1)


def test_path_that_climbs_out_is_refused(tmp_path):
    with pytest.raises(KitError, match="outside its folder"):
        _normalise(tmp_path, [_tar([("opt/../../etc/x", "file", b"")])])


NAMES = st.sampled_from(["opt/a", "opt/b", "etc/os", "srv/c", "srv/d"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(NAMES, st.binary(max_size=9)), max_size=4), max_size=4))
def test_splitting_into_layers_does_not_matter(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("layers")
    split = [_tar([(name, "file", body) for name, body in dict(step).items()]) for step in steps]
    last = {name: body for step in steps for name, body in step}
    joined = [_tar([(name, "file", body) for name, body in sorted(last.items())])]
    one, _ = _normalise(folder / "split", split)
    other, _ = _normalise(folder / "joined", joined)
    assert one.layer == other.layer
