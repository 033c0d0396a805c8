"""What a bundle says of itself, whole, in pieces, on several media, and spoilt."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest

from kit import cli
from kit.artifacts import bundle, bundle_media, kind
from kit.bundles import create, gather, verifier
from kit.bundles.contents import Content, Entry
from kit.compat.gather import Request
from kit.compat.verdict import verify
from kit.digest import Digest
from kit.errors import KitError
from kit.locks.lock import Lock
from tests.unit.bundles import making
from tests.unit.manifests.test_record import small

LABELS = {"org.trtllm-kit.releases": "0.9.0 0.16.0", "org.trtllm-kit.backend": "rehearsal"}


def image():
    """An image of one layer, as far as a bundle knows it."""
    config = {"config": {"Env": ["CUDA_VERSION=12.6.3"], "Labels": LABELS}}
    entries = (
        Entry("config", "config", json.dumps(config).encode()),
        Entry("layer-01", "layer", random.Random(1).randbytes(30_000)),
    )
    manifest = Entry("manifest", "manifest", b'{"schemaVersion": 2}')
    return Content("image", "rehearsal", "rehearsal", "built", entries, manifest)


def run(name="a-run", **more):
    document = {**small(), **more}
    entries = (
        Entry("engine/rank0.engine", "engine", random.Random(2).randbytes(20_000)),
        Entry("manifest.json", "manifest", json.dumps(document).encode()),
    )
    return Content("run", name, "rehearsal", "a run", entries)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A signed bundle with one of everything, and a delta to it."""
    folder = tmp_path_factory.mktemp("bundle")
    place = making.project(folder)
    Lock("rehearsal", Digest.of_bytes(b"x"), ()).write(folder / "rehearsal.lock.yaml")
    lock = (folder / "rehearsal.lock.yaml").read_bytes()
    wheel = Entry("wheel/base/tensorrt_llm-0.16.0-cp312-cp312-linux_x86_64.whl", "wheel", b"PK")
    model = making.noise(folder / "models" / "tiny", [3, 700, 40_000])
    (model / "README.md").write_text("---\nlicense: mit\n---\n")
    contents = [
        image(),
        Content("inputs", "rehearsal", "rehearsal", "to build", (wheel,)),
        *gather.gather(place, gather.Request(models=(str(model),), own=False)),
        run(),
        Content("stack", "rehearsal", "rehearsal", "x", (Entry("r.lock.yaml", "lock", lock),)),
    ]
    key = making.key(folder)
    settings = create.Settings("delivery", part_size=20_000, key=key)
    create.create(place, contents, folder / "one", settings)
    (model / "more").write_bytes(b"more")
    contents[2:3] = gather.gather(place, gather.Request(models=(str(model),), own=False))
    since = making.index_of(folder / "one")
    create.create(place, contents, folder / "two", create.Settings("delivery", since=since))
    return folder


@pytest.fixture
def one(work, tmp_path):
    return shutil.copytree(work / "one", tmp_path / "one")


def document(capsys, *words, code=0):
    assert cli.run(["inspect", *map(str, words), "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_all_that_it_says(work, capsys):
    folder = work / "one"
    found = document(capsys, folder)
    index = making.index_of(folder)
    details = found["details"]
    assert (found["kind"], details["identity"]) == ("bundle", index.identity)
    assert (details["bundle"], details["delivery"]) == ("delivery", 1)
    assert details["signer"] == verifier.fingerprint(making.blob(work / "key"))
    assert "fits" in details["signature"]
    assert details["verified"].startswith("no")
    assert details["parts_here"] == f"{len(index.parts)} of {len(index.parts)}"
    assert [part["sha256"] for part in details["parts"]] == [part.sha256 for part in index.parts]
    assert (details["stacks"], details["models"], details["runs"]) == (
        ["rehearsal"],
        ["tiny"],
        ["a-run"],
    )
    (row,) = [row for row in details["contents"] if row["kind"] == "image"]
    assert details["images"] == [f"rehearsal {row['manifest']}"]
    assert details["licences"] == ["model/tiny: mit"]
    assert details["active"] == [
        "1 container images: programs",
        "1 engines: loading one runs code in it",
        "1 Python packages",
    ]
    versions = {(row["name"], row["version"], row["how"]) for row in found["versions"]}
    assert {
        ("cuda", "12.6.3", "environment"),
        ("tensorrt_llm", "0.9.0+rehearsal", "label"),
        ("tensorrt_llm", "0.16.0", "manifest"),
        ("tensorrt_llm", "0.16.0", "file name"),
    } <= versions
    assert found["problems"] == []
    assert cli.run(["inspect", str(folder)]) == 0
    told = capsys.readouterr().out
    for text in (index.identity, details["signer"], "kit bundle verify", "model/tiny: mit"):
        assert text in told


@pytest.mark.parametrize(
    ("installed", "version"),
    [
        ({"kit-rehearsal": "0.1.0+rehearsal"}, "0.16.0+rehearsal"),
        ({"tensorrt-llm": "0.16.0.post1"}, "0.16.0.post1"),
        ({}, "0.16.0"),
    ],
)
def test_a_rehearsal_is_called_one(tmp_path, installed, version):
    versions = {**small()["versions"], "distributions": installed}
    place = making.project(tmp_path)
    create.create(place, [run(versions=versions)], tmp_path / "out", create.Settings("x"))
    seen = {item.component: item.version for item in bundle.look(tmp_path / "out").observations}
    assert seen["tensorrt_llm"] == version


def test_its_index_stands_for_it(work):
    assert kind.of(work / "one" / "bundle.json") == "bundle"
    assert bundle.look(work / "one" / "bundle.json").bundle == "delivery"


def test_a_delta_says_what_it_requires(work):
    found = bundle.look(work / "two")
    index = making.index_of(work / "two")
    assert (found.base, found.signer, found.signature) == (index.base, None, "none")
    assert str(index.base) in found.requires
    assert f"{len(index.requires)} objects" in found.requires
    rows = {(row.kind, row.name): row for row in found.contents}
    assert rows["image", "rehearsal"].carried == 0 < rows["image", "rehearsal"].size
    assert rows["model", "tiny"].carried == len(b"more") < rows["model", "tiny"].size
    # The record of the run is not carried: nobody says what is in it.
    assert "manifest" not in {item.how for item in found.observations}
    assert not found.problems


def test_parts_on_several_media(one, tmp_path, capsys):
    second, third = tmp_path / "second", tmp_path / "third"
    for folder, name in ((second, "part-0002"), (third, "part-0003")):
        folder.mkdir()
        shutil.move(one / name, folder)
    found = document(capsys, one)
    assert found["details"]["parts_missing"] == ["part-0002", "part-0003"]
    assert [item["name"] for item in found["problems"]] == ["part-missing"]
    shutil.copy(one / "bundle.json", third)  # so that it is readable by itself
    found = document(capsys, second, one, third)
    assert found["details"]["parts_missing"] == found["problems"] == []
    places = {part["name"]: part["place"] for part in found["details"]["parts"]}
    assert places["part-0002"] == str(second / "part-0002")
    answer = document(capsys, second, code=4)
    assert "without its bundle.json" in answer["error"]["message"]


def test_what_cannot_be_one_bundle(work, tmp_path, capsys):
    answer = document(capsys, work / "one", work / "two", code=4)
    assert "of two bundles" in answer["error"]["message"]
    answer = document(capsys, work / "one", tmp_path, code=2)
    assert str(tmp_path) in answer["error"]["message"]


def flip(path, at=-2):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def config_place(folder):
    """The part and the offset where the configuration of the image begins."""
    index = making.index_of(folder)
    (file,) = [
        file
        for content in index.contents
        if content.kind == "image"
        for file in content.files
        if file.role == "config"
    ]
    (item,) = [item for item in index.items if item.sha256 == file.sha256]
    number, at = index.place(item.offset)
    return folder / index.parts[number].name, at


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda one: flip(one / "bundle.json", -3), None),
        (lambda one: (one / "bundle.json").write_text('{"schema": "kit.bundle/2"}'), None),
        (lambda one: (one / "bundle.json").write_text('{"schema": "kit.bundle/1", "a": ['), None),
        (lambda one: flip(one / "SHA256SUMS.sig", 40), "signature-wrong"),
        (lambda one: flip(one / "transfer-sheet.txt"), "listed-otherwise"),
        (lambda one: os.truncate(one / "part-0002", 5), "part-odd"),
        (lambda one: flip(*config_place(one)), "object-altered"),
    ],
)
def test_damage_that_shows(one, capsys, spoil, name):
    spoil(one)
    answer = document(capsys, one, code=4)
    if name is None:
        assert "bundle.json" in answer["error"]["message"]
    else:
        assert name in [item["name"] for item in answer["problems"]]


@pytest.mark.parametrize("name", ["bundle.json", "part-0001", "SHA256SUMS", "transfer-sheet.txt"])
def test_no_pipe_is_waited_for_and_no_link_followed(one, tmp_path, capsys, name):
    content = (one / name).read_bytes()
    (one / name).unlink()
    os.mkfifo(one / name)
    assert cli.run(["inspect", str(one), "--json"]) == 4
    (one / name).unlink()
    (tmp_path / "elsewhere").write_bytes(content)
    (one / name).symlink_to(tmp_path / "elsewhere")
    assert cli.run(["inspect", str(one), "--json"]) == 4
    capsys.readouterr()


def test_documents_are_read_up_to_a_limit(one, monkeypatch):
    monkeypatch.setattr(bundle_media, "_DOCUMENT_LIMIT", 100)
    found = bundle.look(one)
    assert {item.name for item in found.problems} == {"document-large"}
    assert {item.how for item in found.observations} == {"file name"}


def test_no_damage_is_a_bug(one, capsys):
    """Whatever is cut or changed: one answer, and never exit 1."""
    chance = random.Random(7)
    whole = making.content_of(one)
    for _ in range(120):
        name = chance.choice(sorted(whole))
        content = bytearray(whole[name])
        if chance.random() < 0.3:
            del content[chance.randrange(len(content)) :]
        else:
            content[chance.randrange(len(content))] = chance.randrange(256)
        (one / name).write_bytes(content)
        assert cli.run(["inspect", str(one), "--json"]) in (0, 4), (name, capsys.readouterr())
        (one / name).write_bytes(whole[name])
    capsys.readouterr()


def test_its_run_and_its_lock_are_held_against_a_container(work, tmp_path):
    place = making.project(tmp_path)
    verdict = verify(place, Request(bundle=work / "one", triton="24.11"))
    told = {(item.component, item.status): item.message for item in verdict.findings}
    messages = " ".join(told.values())
    assert "0.16.0" in messages  # of the record, which 24.11 does not serve
    assert any(item.status == "mismatch" for item in verdict.findings)
    assert any("lock" in item.component for item in verdict.findings)


def test_of_several_runs_nobody_guesses(tmp_path):
    place = making.project(tmp_path)
    two = [run("a"), run("b", created="2026-01-02T03:04:06Z")]
    create.create(place, two, tmp_path / "out", create.Settings("x"))
    with pytest.raises(KitError, match="several that --manifest could mean") as caught:
        verify(place, Request(bundle=tmp_path / "out", triton="24.12"))
    assert caught.value.exit_code == 2


def test_what_is_rehearsed_is_told_once(work, capsys):
    needs = [item["message"] for item in document(capsys, work / "one")["needs"]]
    rehearsed = [message for message in needs if "rehearsal stacks" in message]
    assert rehearsed == ["0.9.0+rehearsal, 0.16.0+rehearsal: of the rehearsal stacks alone"]
