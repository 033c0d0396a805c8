import dataclasses
import os

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks import archive, intent
from kit.locks.contents import refuse_escaping
from kit.locks.lock import Input, Lock
from kit.locks.tree import unpack
from kit.project import Project
from kit.store import Store
from tests.stand_in.lfs_server import pointer

COMMIT, BELOW = "ab" * 20, "cd" * 20
URL = "https://git.example/x.git"
INTENT = f"""\
schema: kit.intent/1
stack: small
family: rehearsal
platform: linux/amd64
epoch: 1700000000
sources:
- {{name: tree, url: "{URL}", commit: {COMMIT}, lfs: ["*.a"]}}
"""


@pytest.fixture
def project(tmp_path):
    (tmp_path / "lockfiles").mkdir()
    (tmp_path / "lockfiles/small.yaml").write_text(INTENT)
    return Project(tmp_path, tmp_path / "home")


@pytest.fixture
def stored(project, tmp_path):
    """Put an archive of rows (path, kind, content or link) into the store."""

    def put(*rows, place=".", commit=COMMIT):
        parts = []
        for path, kind, what in rows:
            content = what if kind in ("file", "program") else b""
            link = "" if kind in ("file", "program") else what
            parts.append(archive.header(path, kind, len(content), link) + content)
            parts.append(archive.padding(len(content)))
        return add(b"".join(parts) + archive.END, place, commit)

    def add(content, place, commit):
        path = tmp_path / "archive"
        path.write_bytes(content)
        digest = Store(project.store).add_file(path)
        return Input("git", "tree", place, commit, f"{place}.tar", URL, digest, len(content))

    put.raw = add
    return put


@pytest.fixture
def lock_of(project):
    def make(*items):
        digest = intent.load(project.intent_path("small")).digest
        return Lock("small", digest, tuple(sorted(items)))

    return make


def refused(project, lock, folder, words, code=ExitCode.CONTENT):
    with pytest.raises(KitError, match=words) as caught:
        unpack(project, lock, "tree", folder)
    assert caught.value.exit_code == code
    assert not folder.exists()
    assert not list(folder.parent.glob(f".{folder.name}*"))


def test_a_tree_with_a_submodule(project, stored, lock_of, tmp_path):
    os.umask(0o077)
    try:
        top = stored(
            ("a/b", "file", b"1"), ("a/c", "program", b"2"), ("sub/mod", "submodule", BELOW)
        )
        below = stored(
            ("l", "symlink", "../../a/b"), ("x", "file", b"3"), place="sub/mod", commit=BELOW
        )
        folder = tmp_path / "out"
        folder.mkdir()
        unpack(project, lock_of(top, below), "tree", folder)
    finally:
        os.umask(0o022)
    assert (folder / "sub/mod/l").read_bytes() == b"1"
    assert (folder / "sub/mod/.git").read_bytes() == b""
    modes = {
        path.name: path.lstat().st_mode & 0o777
        for path in folder.rglob("*")
        if not path.is_symlink()
    }
    assert modes == {
        "a": 0o755,
        "b": 0o644,
        "c": 0o755,
        "sub": 0o755,
        "mod": 0o755,
        "x": 0o644,
        ".git": 0o644,
    }
    assert {path.lstat().st_mtime for path in (folder, *folder.rglob("*"))} == {1700000000.0}


def test_files_below_a_link(project, stored, lock_of, tmp_path):
    (tmp_path / "outside").mkdir()
    top = stored(("a", "symlink", str(tmp_path / "outside")), ("a/evil", "file", b"x"))
    refused(project, lock_of(top), tmp_path / "out", "a folder and a symlink at once")
    top = stored(("a", "symlink", "."), ("sub", "submodule", BELOW))
    below = stored(("x", "file", b""), place="a", commit=BELOW)
    refused(project, lock_of(top, below), tmp_path / "out", "'a', which is no submodule")
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_submodule_over_what_is_there(project, stored, lock_of, tmp_path):
    top = stored(("s", "submodule", BELOW), ("s/x", "file", b"1"))
    below = stored(("x", "file", b"2"), place="s", commit=BELOW)
    refused(project, lock_of(top, below), tmp_path / "out", "stands twice")


@pytest.mark.parametrize("target", ["/etc", "../out", "a/../../x"])
def test_links_that_lead_out(project, stored, lock_of, tmp_path, target):
    top = stored(("a/b", "file", b""), ("l", "symlink", target))
    refused(project, lock_of(top), tmp_path / "out", "refused link 'l'")


def test_links_are_followed_as_the_system_does():
    links = {"a/b/y": "../..", "a/b/x": "y/../etc"}
    with pytest.raises(KitError, match="refused link 'a/b/x'"):
        refuse_escaping(links, "here")
    refuse_escaping({"a/b/y": "../..", "a/b/x": "y/a", "z": "./a//b/x/b"}, "here")


def test_archives_that_are_damaged(project, stored, lock_of, tmp_path):
    refused(project, lock_of(stored.raw(b"no tar", ".", COMMIT)), tmp_path / "out", "ends early")
    top = stored(("a", "file", b"1"))
    path = Store(project.store).path(top.sha256)
    path.chmod(0o644)
    path.write_bytes(b"other")
    refused(project, lock_of(top), tmp_path / "out", "damaged in the store")
    refused(project, lock_of(top), tmp_path / "out", "not in the store", ExitCode.ENVIRONMENT)


def test_another_commit(project, stored, lock_of, tmp_path):
    top = stored(("sub", "submodule", BELOW))
    other = dataclasses.replace(top, version=BELOW)
    refused(project, lock_of(other), tmp_path / "out", "its commit is another one")
    refused(project, lock_of(top), tmp_path / "out", "no archive of submodule sub")
    below = stored(("x", "file", b""), place="sub", commit="ef" * 20)
    refused(
        project,
        lock_of(top, below),
        tmp_path / "out",
        f"submodule sub is another one: expected {BELOW}",
    )
    refused(project, lock_of(below), tmp_path / "out", "the lock has no archive of it")


def test_pointers(project, stored, lock_of, tmp_path):
    content = b"the library"
    (tmp_path / "object").write_bytes(content)
    digest = Store(project.store).add_file(tmp_path / "object")
    item = Input("lfs", "tree", "x.a", "", f"lfs/{digest.hex}", URL, digest, len(content))
    top = stored(
        (".gitattributes", "file", b"*.a filter=lfs\n"), ("x.a", "program", pointer(content))
    )
    unpack(project, lock_of(top, item), "tree", tmp_path / "out")
    assert (tmp_path / "out/x.a").read_bytes() == content
    assert (tmp_path / "out/x.a").stat().st_mode & 0o777 == 0o755
    refused(project, lock_of(top), tmp_path / "none", r"x\.a is still a Git LFS pointer")
    other = dataclasses.replace(item, size=5)
    refused(project, lock_of(top, other), tmp_path / "none", r"x\.a is still a Git LFS pointer")


def test_wrong_requests(project, stored, lock_of, tmp_path):
    top = stored(("a", "file", b"1"))
    lock = lock_of(top)
    with pytest.raises(KitError, match="no source 'treee'; did you mean tree"):
        unpack(project, lock, "treee", tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "full/x", "link"):
        with pytest.raises(KitError, match="expected no such folder, or an empty one") as caught:
            unpack(project, lock, "tree", tmp_path / name)
        assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(KitError, match="made from another intent"):
        unpack(project, Lock("small", Digest("0" * 64), lock.inputs), "tree", tmp_path / "out")


def test_what_a_killed_one_left(project, stored, lock_of, tmp_path):
    partial = tmp_path / ".out.partial"
    (partial / "old").mkdir(parents=True)
    (partial / "link").symlink_to("/")
    top = stored(("a", "file", b"1"))
    unpack(project, lock_of(top), "tree", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]
    assert not partial.exists()
