"""A stack of the sender's own is found at a site whose project has never heard of it."""

from __future__ import annotations

import json
import shutil

import pytest

from kit.bundles import create, gather, stacks
from kit.bundles.contents import Content, Entry
from kit.cli import run
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images import build, records
from kit.locks import intent
from kit.locks.lock import Lock
from tests.unit.bundles import making

INTENT = """schema: kit.intent/1
stack: mine
family: own
platform: linux/amd64
epoch: 1700000000
"""
FAMILY = """schema: kit.family/1
stages:
  - name: release
    groups: ["base?"]
    reads: [install, table.json]
context:
  table.json: data/table.json
groups:
  - {name: base, directories: [], sticky: [], links: {}, files: {}}
"""


def own(folder, epoch=1700000000):
    """A project of somebody's own with the stack `mine`, which has never been built."""
    place = making.project(folder)
    family = place.root / "dockerfiles" / "own"
    (family / "install").mkdir(parents=True)
    (place.root / "data").mkdir()
    (place.root / "data" / "table.json").write_text("{}")
    (family / "Dockerfile").write_text("ARG BASE\nFROM ${BASE} AS release\nRUN true\n")
    (family / "family.yaml").write_text(FAMILY)
    (family / "install" / "release.sh").write_text("true\n")
    (family / "notes.txt").write_text("no stage reads it\n")
    path = place.root / "lockfiles" / "mine.yaml"
    path.write_text(INTENT.replace("1700000000", str(epoch)))
    Lock("mine", intent.load(path).digest, ()).write(path.with_suffix(".lock.yaml"))
    return place


def carried(place, **record):
    """The stack with an image and the record of its build, as `gather` would have found them."""
    lock = build.lock.load(place.lock_path("mine"))
    config = b'{"rootfs": {"type": "layers", "diff_ids": []}, "config": {}}'
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": str(Digest.of_bytes(config)),
                "size": len(config),
            },
            "layers": [],
        }
    ).encode()
    note = {
        "key": "k",
        "lock": str(lock.digest),
        "manifest_digest": str(Digest.of_bytes(manifest)),
        "engine": {"name": "podman", "version": "5"},
        **record,
    }
    work = gather._Gathering(place, gather.Request(stacks=("mine",), own=False))
    files = (Entry("build.json", "build-record", json.dumps(note).encode()),)
    rows = (*files, *work.files_of("mine"))
    return [
        Content("image", "mine", "mine", "x", (Entry("config", "config", config),),
                Entry("manifest", "manifest", manifest)),
        Content("stack", "mine", "mine", "x", tuple(sorted(rows, key=lambda row: row.title))),
    ]  # fmt: skip


@pytest.fixture
def bundle(tmp_path):
    place = own(tmp_path / "sender")
    create.create(place, carried(place), tmp_path / "bundle", create.Settings("delivery"))
    return tmp_path / "bundle"


def test_all_that_its_stages_read_is_carried_and_nothing_else(bundle):
    (content,) = [row for row in making.index_of(bundle).contents if row.kind == "stack"]
    assert [file.title for file in content.files] == [
        "build.json",
        "data/table.json",
        "dockerfiles/own/Dockerfile",
        "dockerfiles/own/family.yaml",
        "dockerfiles/own/install/release.sh",
        "lockfiles/mine.lock.yaml",
        "lockfiles/mine.yaml",
    ]


def test_at_the_site_it_is_found_by_its_name(bundle, place, tmp_path):
    assert "mine" not in place.stacks
    loaded = making.take(place, bundle)
    assert "mine" in place.stacks
    assert not place.owns("mine")
    (where,) = [path for content, path in loaded.places if content.kind == "stack"]
    assert place.root_of("mine") == where
    assert f"stack mine came with the bundle: kit build and kit run find it in {where}" in (
        loaded.notes
    )
    # What a build would do is the same as at the sender's, whatever the folder.
    sender = place._replace(root=tmp_path / "sender" / "project")
    assert _key(place) == _key(sender)
    shutil.rmtree(sender.root)
    assert _key(place)
    record = records.read(records.of_stack(place, "mine"))
    assert record["lock"] == str(build.lock.load(place.lock_path("mine")).digest)


def _key(project):
    _, lock, recipe = build.opened(project, "mine", build.Choices())
    return recipe.plan(lock, recipe.default_target)[-1].key


def test_the_projects_own_comes_first_and_keeps_its_record(bundle, tmp_path):
    place = own(tmp_path / "site", epoch=1700000001)
    path = records.of_stack(place, "mine")
    path.parent.mkdir(parents=True)
    path.write_text('{"own": true}')
    loaded = making.take(place, bundle)
    assert place.root_of("mine") == place.root
    assert records.read(path) == {"own": True}
    (note,) = loaded.notes
    carried_lock = build.lock.load(place.roots_of("mine")[1] / "lockfiles" / "mine.lock.yaml")
    for text in (str(carried_lock.digest), "KIT_ROOT="):
        assert text in note
    # But what was recorded with the delivered lock is made again with that one.
    chosen = stacks.project_with(place, "mine", str(carried_lock.digest))
    assert chosen.root == place.roots_of("mine")[1]
    assert chosen.lock_path("mine").read_bytes() != place.lock_path("mine").read_bytes()
    assert stacks.project_with(place, "mine", f"sha256:{'0' * 64}") == place


def test_two_bundles_with_the_same_stack_agree(bundle, place, tmp_path):
    making.take(place, bundle)
    sender = own(tmp_path / "again")
    create.create(sender, carried(sender), tmp_path / "b2", create.Settings("another"))
    making.take(place, tmp_path / "b2")
    assert len(place.roots_of("mine")) == 2
    assert place.root_of("mine") == place.roots_of("mine")[0]


def test_between_two_that_differ_nobody_guesses(bundle, place, tmp_path):
    making.take(place, bundle)
    sender = own(tmp_path / "other", epoch=1700000001)
    create.create(sender, carried(sender), tmp_path / "b2", create.Settings("another"))
    making.take(place, tmp_path / "b2")
    assert place.stacks == []  # what lists them goes on
    with pytest.raises(KitError, match="each time another one") as caught:
        place.root_of("mine")
    assert caught.value.exit_code == ExitCode.USAGE
    root = place.roots_of("mine")[0]
    assert caught.value.hint == f"export KIT_ROOT={root}"
    assert place._replace(root=root).owns("mine")


def test_it_is_listed_and_not_locked_anew(bundle, place, monkeypatch, capsys):
    making.take(place, bundle)
    monkeypatch.setenv("KIT_ROOT", str(place.root))
    monkeypatch.setenv("KIT_HOME", str(place.home))
    before = place.lock_path("mine").read_bytes()
    assert run(["lock", "mine"]) == ExitCode.USAGE
    told = capsys.readouterr().err
    assert "stack mine came with a bundle and is not to be changed" in told
    assert place.lock_path("mine").read_bytes() == before
    assert run(["bundle", "list"]) == 0
    told = capsys.readouterr().out
    (content,) = [row for row in making.index_of(bundle).contents if row.kind == "stack"]
    for text in (str(place.root_of("mine")), content.manifest[:12]):
        assert text in told


def test_what_a_killed_load_left_is_no_stack(bundle, place):
    making.take(place, bundle)
    folder = place.root_of("mine")
    folder.rename(folder.with_name(f".{folder.name}.new"))
    assert place.stacks == []


@pytest.mark.parametrize(
    ("name", "titles"),
    [
        ("../mine", ("lockfiles/mine.yaml", "lockfiles/mine.lock.yaml")),
        ("mine", ("lockfiles/other.yaml", "lockfiles/mine.lock.yaml")),
        ("mine", ("mine.yaml", "mine.lock.yaml")),
        ("mine", ()),
    ],
)
def test_what_could_not_be_found_is_refused_before_anything_is_written(
    place, tmp_path, name, titles
):
    roles = ("intent", "lock")
    entries = [Entry(title, role, b"x") for title, role in zip(titles, roles, strict=False)]
    content = Content("stack", name, "mine", "x", (*entries, Entry("a", "recipe", b"y")))
    create.create(place, [content], tmp_path / "out", create.Settings("x"))
    with pytest.raises(KitError, match="expected lockfiles/") as caught:
        making.take(place, tmp_path / "out")
    assert caught.value.exit_code == ExitCode.CONTENT
    assert not place.contents.exists()


@pytest.mark.parametrize("where", ["/etc/passwd", "../../secret"])
def test_a_family_reads_nothing_outside_of_its_project(place, tmp_path, where):
    sender = own(tmp_path / "sender")
    path = sender.root / "dockerfiles" / "own" / "family.yaml"
    path.write_text(FAMILY.replace("data/table.json", where))
    with pytest.raises(KitError, match="outside its folder"):
        build.opened(sender, "mine", build.Choices())
