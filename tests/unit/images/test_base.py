"""Base images from packages: reproducible, complete, and closed to hostile archives."""

from __future__ import annotations

import contextlib
import os
import tarfile

import pytest

from kit.errors import ExitCode, KitError
from kit.images import base
from kit.images.family import Family, Group, load_family
from kit.images.index import base_index
from kit.images.oci import Layout
from tests.unit.images.debs import deb

FAMILY = Family(
    context={},
    environment={"PATH": "/usr/bin"},
    exclude=("usr/share/doc",),
    keep=("copyright",),
    groups=(
        Group("base", ("opt",), ("tmp",), {"usr/bin/sh": "dash"}, {"etc/passwd": "root:x:0:0\n"}),
        Group("devel", (), (), {"usr/bin/cc": "gcc"}, {}),
    ),
)


def _packages(folder):
    folder.mkdir(parents=True, exist_ok=True)
    dash = [
        ("./", "directory", "", 0o755),
        ("./bin/", "directory", "", 0o755),
        ("./bin/dash", "file", b"#!dash", 0o755),
        ("./usr/share/doc/dash/copyright", "file", b"BSD", 0o644),
        ("./usr/share/doc/dash/changelog.gz", "file", b"long", 0o644),
    ]
    gcc = [
        ("./usr/bin/gcc", "file", b"ELF", 0o755),
        ("./usr/bin/gcc-12", "hardlink", "./usr/bin/gcc", 0o755),
        ("./usr/lib/x.so", "symlink", "x.so.1", 0o777),
    ]
    return {
        "base": {"dash_1.0.deb": deb(folder / "dash", "dash", dash)},
        "devel": {"gcc_1.0.deb": deb(folder / "gcc", "gcc", gcc)},
    }


def _assemble(layout, packages, family=FAMILY):
    return base.assemble(
        layout, family, packages, platform="linux/amd64", epoch=7, name=lambda g: f"test/{g}:1"
    )


def _members(layout, layer):
    with tarfile.open(layout.blob(layer.digest)) as archive:
        return {member.name: member for member in archive}


def test_layers_hold_what_packages_and_family_say(tmp_path):
    layout = Layout(tmp_path / "layout")
    images = _assemble(layout, _packages(tmp_path / "debs"))
    lower = _members(layout, images[0].layers[0])
    assert lower["usr/bin/dash"].mode == 0o755  # moved below /usr
    assert lower["bin"].linkname == "usr/bin"
    assert lower["usr/bin/sh"].linkname == "dash"
    assert lower["tmp"].mode == 0o1777
    assert "usr/share/doc/dash/copyright" in lower
    assert "usr/share/doc/dash/changelog.gz" not in lower
    with tarfile.open(layout.blob(images[0].layers[0].digest)) as archive:
        status = archive.extractfile("var/lib/dpkg/status").read()
    assert b"Package: dash\nStatus: install ok installed\nVersion: 1.0" in status
    upper = _members(layout, images[1].layers[1])
    assert upper["usr/bin/gcc-12"].linkname == "usr/bin/gcc"
    assert "usr/bin/dash" not in upper
    assert images[1].layers[0] == images[0].layers[0]
    assert base_index(layout, images[1])["usr/bin/cc"].link == "gcc"


def test_same_image_in_another_folder_under_another_umask(tmp_path):
    first = _assemble(Layout(tmp_path / "a"), _packages(tmp_path / "debs"))
    old = os.umask(0o077)
    try:
        second = _assemble(Layout(tmp_path / "b" / "c"), _packages(tmp_path / "other"))
    finally:
        os.umask(old)
    assert [i.manifest_digest for i in first] == [i.manifest_digest for i in second]


def test_layer_is_written_once_and_again_when_it_was_lost(tmp_path):
    layout = Layout(tmp_path / "layout")
    packages = _packages(tmp_path / "debs")
    first = _assemble(layout, packages)
    blob = layout.blob(first[0].layers[0].digest)
    stamp = blob.stat().st_mtime_ns
    _assemble(layout, packages)
    assert blob.stat().st_mtime_ns == stamp
    blob.unlink()
    assert _assemble(layout, packages)[0].manifest_digest == first[0].manifest_digest
    assert blob.exists()


def test_two_stacks_write_the_same_layer_at_once(tmp_path, monkeypatch):
    """Another process writes all of it while this one has not moved its file to its place."""
    layout = Layout(tmp_path / "layout")
    packages = _packages(tmp_path / "debs")
    whole = base.atomic_writer

    @contextlib.contextmanager
    def interrupted(*arguments):
        with whole(*arguments) as stream:
            yield stream
        monkeypatch.setattr(base, "atomic_writer", whole)
        if (child := os.fork()) == 0:
            os._exit(len(_assemble(layout, packages)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2

    monkeypatch.setattr(base, "atomic_writer", interrupted)
    assert len(_assemble(layout, packages)) == 2
    assert not list((layout.root / "blobs").glob("*new-*"))


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([("../../etc/cron.d/x", "file", b"x", 0o644)], "outside its folder"),
        ([("./usr/x", "hardlink", "../../../etc/shadow", 0o644)], "outside its folder"),
        (
            [("./usr/x", "symlink", "/etc", 0o777), ("./usr/x/passwd", "file", b"x", 0o644)],
            "/usr/x is a symlink",
        ),
        (
            [("./usr/y", "file", b"x", 0o644), ("./usr/y", "file", b"z", 0o644)],
            "another package ships",
        ),
    ],
)
def test_hostile_package_is_refused_and_leaves_no_layer(tmp_path, members, complaint):
    packages = _packages(tmp_path / "debs")
    packages["base"]["evil_1.deb"] = deb(tmp_path / "debs" / "evil", "evil", members)
    layout = Layout(tmp_path / "layout")
    with pytest.raises(KitError, match=complaint) as caught:
        _assemble(layout, packages)
    assert caught.value.exit_code is ExitCode.CONTENT
    assert [p for p in layout.root.rglob("*") if p.is_file()] == []


def test_damaged_package_is_named(tmp_path):
    packages = _packages(tmp_path / "debs")
    path = packages["base"]["dash_1.0.deb"]
    path.write_bytes(b"<html>not found</html>")
    with pytest.raises(KitError, match="not a Debian package") as caught:
        _assemble(Layout(tmp_path / "layout"), packages)
    assert str(path) in str(caught.value)


def test_link_over_a_packaged_file_is_refused(tmp_path):
    group = Group("base", (), (), {"usr/bin/dash": "bash"}, {})
    family = Family({}, {}, (), (), (group,))
    with pytest.raises(KitError, match="/usr/bin/dash is there already"):
        _assemble(Layout(tmp_path / "layout"), _packages(tmp_path / "debs"), family)


def test_family_file_is_checked_with_places(tmp_path):
    path = tmp_path / "family.yaml"
    path.write_text(
        "schema: kit.family/1\ncontext: {}\nenvironment: {}\nexclude: []\nkeep: []\n"
        "groups:\n  - name: base\n    links: {}\n    files: {}\n    linkz: {}\n"
    )
    with pytest.raises(KitError, match=r"family\.yaml:10:5: unknown key 'linkz'"):
        load_family(path)
