"""However an engine writes down what it built, the same content gives the same layer."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.digest import Digest
from kit.errors import KitError
from kit.images import normalise as normalise_module
from kit.images.delta import Found, from_archive, from_overlay
from kit.images.delta import _tar as _read_tar
from kit.images.index import base_index
from kit.images.layer import Entry, LayerWriter, text_file
from kit.images.normalise import merge
from kit.images.normalise import settings as image_settings
from kit.images.oci import Image, Layer, Layout

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


def _saved(layers, style="podman"):
    """A docker-archive in the manner of an engine, in chunks of odd sizes."""
    body = b"{}"
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
    saved = _saved([content, *layers], options.pop("style", "podman"))
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    read = from_archive(saved, scratch, (digest,))
    return _merged(folder, read, entries, **options)


def _merged(folder, layers, entries, **options):
    layout = Layout(folder)
    layer, _ = merge(layers, layout, entries, 1, **options)
    with tarfile.open(layout.blob(layer.digest)) as archive:
        found = {m.name: (archive.extractfile(m).read() if m.isreg() else m) for m in archive}
    return layer, found


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
    assert other == plain


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


TREE = {
    "opt": "",
    "opt/d": "",
    "opt/d/x": "",
    "opt/d/x/a": "a",
    "opt/d/y": "",
    "opt/d/y/z": "z",
    "opt/f": "f",
}


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (  # rm -r d && mkdir -p d/x: overlay marks the topmost new folder alone
            [[("opt/d/", "dir", ""), ("opt/d/.wh..wh..opq", "file", b""), ("opt/d/x/", "dir", "")]],
            ["opt/d/.wh.y", "opt/d/x/.wh.a"],
        ),
        (
            [[("opt/.wh.d", "file", b"")], [("opt/d/", "dir", ""), ("opt/d/n", "file", b"")]],
            ["opt/d/.wh.x", "opt/d/.wh.y", "opt/d/n"],
        ),
        (
            [[("opt/.wh.d", "file", b""), ("opt/d/", "dir", ""), ("opt/d/y/", "dir", "")]],
            ["opt/d/.wh.x", "opt/d/y/.wh.z"],
        ),
        (
            [[("opt/d", "file", b"f")], [("opt/d/", "dir", ""), ("opt/d/x/", "dir", "")]],
            ["opt/d/.wh.y", "opt/d/x/.wh.a"],
        ),
        ([[("opt/d/.wh.x", "file", b"")], [("opt/.wh.d", "file", b"")]], ["opt/.wh.d"]),
        ([[("opt/d/.wh.x", "file", b"")], [("opt/d", "file", b"f")]], ["opt/d"]),
        ([[("opt/.wh.d", "file", b"")], [("opt/d/x/a", "file", b"a")]], ["opt/d/.wh.y"]),
    ],
)
def test_folder_that_was_removed_is_empty_when_it_is_made_again(
    tmp_path, monkeypatch, layers, expected
):
    monkeypatch.setitem(globals(), "BASE", TREE)
    _, found = _normalise(tmp_path, [_tar(layer) for layer in layers])
    assert list(found) == expected


def test_hard_links_are_told_from_their_first_name(tmp_path):
    one = [("opt/a", "file", b"x"), ("opt/b", "hard", "opt/a")]
    other = [("opt/b", "file", b"x"), ("opt/a", "hard", "opt/b")]
    first, found = _normalise(tmp_path / "1", [_tar(one)])
    second, _ = _normalise(tmp_path / "2", [_tar(other)])
    assert first == second
    assert found["opt/a"] == b"x"
    assert found["opt/b"].linkname == "opt/a"


def test_settings_lose_what_only_an_engine_wrote():
    config = {
        "Env": ["A=1"],
        "Hostname": "3f2a",
        "WorkingDir": "/",
        "Labels": {"io.buildah.version": "1.28", "keep": "me"},
    }
    assert image_settings(config) == {"Env": ["A=1"], "Labels": {"keep": "me"}}


def test_image_on_another_base_is_refused(tmp_path):
    content, digest, _ = _base()
    stranger = Digest.of_bytes(b"another base")
    with pytest.raises(KitError, match="does not stand on the locked base"):
        from_archive(_saved([content]), tmp_path, (stranger,))
    with pytest.raises(KitError, match="does not stand on the locked base"):
        from_overlay({"RootFS": {"Layers": [str(digest)]}}, (stranger,))


@pytest.mark.skipif(os.geteuid() != 0, reason="overlay folders are root's")
def test_overlay_folders_give_the_same_layer_as_an_archive(tmp_path):
    """Whiteouts, opaque folders, hard links, modes: the two ways of reading agree."""
    _, digest, entries = _base()
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one / "opt", two / "opt", two / "srv"):
        folder.mkdir(parents=True, mode=0o755)
    (one / "opt" / "a").write_bytes(b"first")
    (two / "opt" / "a").write_bytes(b"second")
    os.mknod(two / "opt" / "old", stat.S_IFCHR, 0)
    (two / "srv" / "x").write_bytes(b"linked")
    os.link(two / "srv" / "x", two / "srv" / "y")
    (two / "srv" / "z").symlink_to("x")
    for path in (one / "opt" / "a", two / "opt" / "a", two / "srv" / "x"):
        path.chmod(0o644)
    inspected = {
        "RootFS": {"Layers": [str(digest), str(digest), str(digest)]},
        "GraphDriver": {"Name": "overlay", "Data": {"UpperDir": str(two), "LowerDir": f"{one}:/b"}},
    }
    read = from_overlay(inspected, (digest,))
    overlay, found = _merged(tmp_path / "o", read, entries)
    assert list(found) == ["opt/.wh.old", "opt/a", "srv", "srv/x", "srv/y", "srv/z"]
    layers = [
        _tar([("opt/a", "file", b"first")]),
        _tar(
            [
                ("opt/.wh.old", "file", b""),
                ("opt/a", "file", b"second"),
                ("srv", "dir", ""),
                ("srv/y", "file", b"linked"),
                ("srv/x", "hard", "srv/y"),
                ("srv/z", "link", "x"),
            ]
        ),
    ]
    archive, _ = _normalise(tmp_path / "archive", layers)
    assert overlay == archive


@pytest.mark.skipif(os.geteuid() != 0, reason="overlay attributes are root's")
@pytest.mark.parametrize("mark", ["trusted.overlay.metacopy", "trusted.overlay.redirect"])
def test_overlay_that_keeps_content_elsewhere_is_left_to_the_archive(scratch_overlay, mark):
    folder, inspected, digest = scratch_overlay
    assert from_overlay(inspected, (digest,)) is not None
    try:
        os.setxattr(folder / "file", mark, b"x")
    except OSError:
        pytest.skip("this file system keeps no trusted attributes")
    assert from_overlay(inspected, (digest,)) is None


@pytest.fixture
def scratch_overlay(tmp_path):
    folder = tmp_path / "upper"
    folder.mkdir()
    (folder / "file").write_bytes(b"x")
    digest = Digest.of_bytes(b"base")
    data = {"UpperDir": str(folder), "LowerDir": "/lower"}
    inspected = {
        "RootFS": {"Layers": [str(digest), str(Digest.of_bytes(b"new"))]},
        "GraphDriver": {"Name": "overlay", "Data": data},
    }
    return folder, inspected, digest


@pytest.mark.parametrize("size", [100, 3 << 20])
@pytest.mark.parametrize("style", ["podman", "oci"])
def test_layers_that_an_engine_compressed(tmp_path, size, style):
    content, digest, entries = _base()
    layer = _tar([("opt/a", "file", os.urandom(size))])
    (tmp_path / "s1").mkdir()
    (tmp_path / "s2").mkdir()
    plain = from_archive(_saved([content, layer], style), tmp_path / "s1", (digest,))
    packed = from_archive(
        _saved([content, gzip.compress(layer)], style), tmp_path / "s2", (digest,)
    )
    one, _ = _merged(tmp_path / "1", plain, entries)
    other, _ = _merged(tmp_path / "2", packed, entries)
    assert one == other


def test_merging_many_files_takes_linear_time(tmp_path):
    """Work is counted, not timed: paths looked at while layers are laid over each other."""
    looked = []

    class Counting(dict):
        def __iter__(self):
            looked.append(len(self))
            return super().__iter__()

    upper = Counting()
    layer = [Found(Entry(f"opt/{n}", "file", 0o644)) for n in range(2000)]
    normalise_module._apply(layer, upper, {}, set())
    normalise_module._apply(layer, upper, {}, set())
    assert len(upper) == 2000
    assert sum(looked) <= 3 * 2000
    # Every folder that is new in one of the base's is marked opaque by overlay.
    below = Counting({f"usr/{n}": Entry(f"usr/{n}", "file", 0o644) for n in range(2000)})
    looked.clear()
    opaque = [Found(Entry(f"opt/{n}/.wh..wh..opq", "file", 0o644)) for n in range(2000)]
    merge([opaque], Layout(tmp_path), below, 1)
    assert sum(looked) <= 3 * 2000


def test_layer_that_changes_nothing_on_a_base_with_one_of_that_kind(tmp_path):
    """The engine names the empty layer above like the one in the base: by its digest."""
    empty = _tar([])
    content, digest, entries = _base()
    base = (digest, Digest.of_bytes(empty))
    (tmp_path / "scratch").mkdir()
    read = from_archive(_saved([content, empty, empty]), tmp_path / "scratch", base)
    assert _merged(tmp_path, read, entries)[1] == {}


def test_storage_that_cannot_be_read_is_left_to_the_archive(tmp_path):
    digest = Digest.of_bytes(b"base")
    layers = {"Layers": [str(digest), str(Digest.of_bytes(b"new"))]}
    for driver in (
        None,
        {"Name": "btrfs", "Data": None},
        {"Name": "overlay2", "Data": {"UpperDir": str(tmp_path / "gone"), "LowerDir": "/l"}},
        {"Name": "overlay2", "Data": {"UpperDir": str(tmp_path)}},
    ):
        assert from_overlay({"RootFS": layers, "GraphDriver": driver}, (digest,)) is None


def test_a_file_may_replace_what_its_own_layer_hides(tmp_path):
    """Order within a layer does not matter: a whiteout speaks of the layers below."""
    first = [("opt/old", "file", b"new"), ("opt/.wh.old", "file", b"")]
    one, found = _normalise(tmp_path / "1", [_tar(first)])
    other, _ = _normalise(tmp_path / "2", [_tar(first[::-1])])
    assert one == other
    assert found == {"opt/old": b"new"}


def test_path_that_climbs_out_is_refused(tmp_path):
    with pytest.raises(KitError, match="outside its folder"):
        _normalise(tmp_path, [_tar([("opt/../../etc/x", "file", b"")])])


PATHS = ["opt", "opt/d", "opt/d/x", "opt/d/x/a", "opt/d/y", "opt/d/y/z", "opt/f", "opt/new"]
WHAT = st.sampled_from(["file", "dir", "opaque", "gone", "gone and made"])


def _members(made):
    """A layer as engines write it: folders before what lies in them, and nothing in a file."""
    for path, what in sorted(made.items()):
        folder, _, name = path.rpartition("/")
        above = [path[:n] for n, c in enumerate(path) if c == "/"]
        if any(made.get(place) in ("file", "gone") for place in above):
            continue
        yield from ((place + "/", "dir", "") for place in above)
        if what.startswith("gone"):
            yield (f"{folder}/.wh.{name}".lstrip("/"), "file", b"")
        if what == "file":
            yield (path, "file", path.encode())
        elif what != "gone":
            yield (path + "/", "dir", "")
        if what == "opaque":
            yield (f"{path}/.wh..wh..opq", "file", b"")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(PATHS), WHAT, max_size=5), max_size=3))
def test_merged_layer_shows_what_its_layers_show(tmp_path_factory, steps):
    """Laying layers over each other is written twice, for bases and here: both must agree."""
    folder = tmp_path_factory.mktemp("agree")
    layout = Layout(folder)
    plain = [
        _tar([(path, "file" if text else "dir", text.encode()) for path, text in TREE.items()]),
        *(_tar(list(_members(step))) for step in steps),
    ]
    layers = [Layer(layout.put(tar), len(tar)) for tar in plain]

    def shown(*chosen):
        return base_index(layout, Image(layout, layers[0].digest, layers[0].digest, chosen, {}))

    found = [list(_read_tar(layout.blob(layer.digest))) for layer in layers[1:]]
    merged, _ = merge(found, layout, shown(layers[0]), 1)
    assert shown(layers[0], merged) == shown(*layers)


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
    assert one == other
