"""What a request means, and what the sheets and exports say of it."""

from __future__ import annotations

import json
import os
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from kit.bundles import active, create, export, gather, licences, receipt, verifier, wheels
from kit.bundles.contents import Content, Entry
from kit.digest import Digest
from kit.errors import KitError
from kit.locks import lock as locks
from kit.manifests import record
from kit.project import Project
from kit.store import Store
from tests.conftest import ROOT
from tests.unit.bundles import making
from tests.unit.manifests.test_record import small


def test_nothing_asked_for_is_told(place):
    with pytest.raises(KitError, match="nothing to carry") as caught:
        gather.gather(place, gather.Request())
    assert caught.value.exit_code == 2


def test_a_stack_that_is_not_built_is_told():
    project = Project(ROOT, ROOT / "nowhere")
    with pytest.raises(KitError, match="not built yet") as caught:
        gather.gather(project, gather.Request(stacks=("rehearsal",)))
    assert caught.value.hint == "kit build rehearsal"


def test_an_example_brings_its_recipe():
    project = Project(ROOT, ROOT / "nowhere")
    request = gather.Request(examples=("gpt2-tiny",), own=False)
    (content,) = gather.gather(project, request)
    assert (content.kind, content.name) == ("example", "gpt2-tiny")
    assert [entry.title for entry in content.entries] == ["gpt2-tiny.yaml"]


def test_an_unknown_model_is_told(place):
    with pytest.raises(KitError, match="--model gpt9"):
        gather.gather(place, gather.Request(models=("gpt9",), own=False))


def test_a_model_folder_is_a_model(place, tmp_path):
    folder = making.noise(tmp_path / "my-model", [10, 20])
    (content,) = gather.gather(place, gather.Request(models=(str(folder),), own=False))
    assert (content.kind, content.name, content.stack) == ("model", "my-model", "")


def _run(model, folder):
    """A gathering that has met a run of that model."""
    document = small() | {"model": {"name": "toy", "files": model}}
    project = Project(ROOT, folder)
    work = gather._Gathering(project, gather.Request(own=False))
    work.add_model_of(record.parse(document, "x"), "run-1")
    return work.found


def test_a_run_brings_the_model_that_it_read(tmp_path, capsys):
    """Otherwise a site has all but what to run."""
    content = b"weights"
    path = tmp_path / "config.json"
    path.write_bytes(content)
    digest = Store(Project(ROOT, tmp_path).store).add_file(path)
    model = [{"path": "config.json", "size": len(content), "sha256": digest.hex}]
    (found,) = _run(model, tmp_path).values()
    assert (found.label, found.why) == ("model/toy", "run run-1 reads it")
    assert [(entry.title, entry.claimed) for entry in found.entries] == [("config.json", digest)]
    assert not capsys.readouterr().err


def test_runs_of_two_states_of_a_model_and_of_two_stacks(tmp_path):
    work = gather._Gathering(Project(ROOT, tmp_path), gather.Request(own=False))
    path = tmp_path / "config.json"
    for number, (stack, content) in enumerate([("one", b"a"), ("two", b"a"), ("two", b"b")]):
        path.write_bytes(content)
        digest = Store(work.project.store).add_file(path)
        model = [{"path": "config.json", "size": 1, "sha256": digest.hex}]
        document = small() | {"model": {"name": "toy", "files": model}, "stack": stack}
        work.add_model_of(record.parse(document, "x"), f"run-{number}")
    assert [content.label for content in work.found.values()] == ["model/toy", "model/toy-run-2"]


def test_a_run_of_a_model_that_no_store_has_says_so(tmp_path, capsys):
    model = [{"path": "config.json", "size": 7, "sha256": "0" * 64}]
    assert not _run(model, tmp_path)
    assert "run run-1 read model toy, which no store has: --model DIR" in capsys.readouterr().err


def test_a_link_inside_a_folder_is_the_file(place, tmp_path):
    data = making.noise(tmp_path / "data", [5])
    (data / "link").symlink_to("d0/file-0")
    (tmp_path / "here").symlink_to(data)
    for given in (data, tmp_path / "here"):
        (content,) = gather.gather(place, gather.Request(files=(given,), own=False))
        assert content.name == "data"
        assert [entry.title for entry in content.entries] == ["d0/file-0", "link"]
        first, second = (entry.mark for entry in content.entries)
        assert first == second


@pytest.mark.parametrize(
    ("target", "code", "told"),
    [
        ("/etc/hostname", 2, "link: a link out of the folder"),
        ("../data2", 2, "link: a link out of the folder"),
        ("d0", 2, "link: a link to a folder"),
        ("nowhere", 2, "link: there is no such file"),
        ("link", 2, "link: Too many levels of symbolic links"),
        (None, 4, "link: expected a regular file"),
    ],
)
def test_what_no_site_could_have_is_refused(place, tmp_path, target, code, told):
    data = making.noise(tmp_path / "data", [5])
    if target is None:
        os.mkfifo(data / "link")
    else:
        (data / "link").symlink_to(target)
    with pytest.raises(KitError, match=told) as caught:
        gather.gather(place, gather.Request(files=(data,), own=False))
    assert caught.value.exit_code == code


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_is_gone_when_its_turn_comes_is_told(place, tmp_path, monkeypatch, what):
    gone = tmp_path / "data" / "a" / "gone"
    gone.parent.mkdir(parents=True)
    real = os.listdir

    def listed(descriptor):
        names = real(descriptor)
        if what == "file":
            return [*names, "gone"]
        if names == ["gone"]:
            gone.rmdir()
            gone.parent.rmdir()
        elif names == ["a"]:
            gone.mkdir()
        return names

    monkeypatch.setattr(os, "listdir", listed)
    path = tmp_path / "data" / "gone" if what == "file" else gone
    with pytest.raises(KitError, match=f"^{path}: gone while the bundle was made") as caught:
        gather.gather(place, gather.Request(files=(tmp_path / "data",), own=False))
    assert caught.value.exit_code == 4


def test_two_things_of_one_name_are_told(place, tmp_path):
    for number in (1, 2):
        making.noise(tmp_path / f"a{number}" / "data", [number])
    request = gather.Request(files=(tmp_path / "a1" / "data", tmp_path / "a2" / "data"), own=False)
    with pytest.raises(KitError, match="two different things are called file/data"):
        gather.gather(place, request)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({"stacks": ("rehearsal",)}, "rehearsal"),
        ({"stacks": ("trtllm-0.16.0", "triton-24.12")}, "trtllm-0.16.0+triton-24.12"),
        ({"models": ("/data/Llama 2",)}, "llama-2"),
        ({}, "bundle"),
    ],
)
def test_a_bundle_without_a_name_gets_one(words, expected):
    assert gather.Request(**words).name == expected


@pytest.mark.parametrize(
    ("title", "content", "role", "expected"),
    [
        ("rank0.engine", b"", "engine", "engine"),
        ("pytorch_model.bin", b"PK\x03\x04", "model", "pickle"),
        ("pytorch_model.bin", b"\x80\x02}", "model", "pickle"),
        ("rank0.bin", b"\0\0\0\0", "checkpoint", None),
        ("model.safetensors", b"", "model", None),
        ("modeling_x.py", b"", "model", "script"),
        ("x.deb", b"", "deb", "package"),
        ("x.whl", b"", "wheel", "wheel"),
        ("lib/libx.so.1.2", b"", "file", "library"),
        ("tool", b"\x7fELF", "file", "library"),
        ("LICENSE", b"Apache", "file", None),
        ("mpi4py-3.1.5.tar.gz", b"", "sdist", "script"),
    ],
)
def test_active_content_is_told_apart(title, content, role, expected):
    entry = Entry(title, role, content)
    assert active.classify(Content("file", "x", "", "y", (entry,)), entry) == expected


def test_licences_come_from_packages_cards_and_files(tmp_path):
    wheel = tmp_path / "a-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("a-1.dist-info/METADATA", "Name: a\nLicense-Expression: MIT\n\nx")
    (tmp_path / "README.md").write_text("---\nlicense: llama2\n---\n")
    (tmp_path / "LICENSE.txt").write_text("x")
    names = ("a-1-py3-none-any.whl", "README.md", "LICENSE.txt")
    entries = tuple(Entry(name, "model", str(tmp_path / name)) for name in names)
    found = licences.of(Content("model", "x", "", "y", entries))
    assert found == "MIT; llama2; see LICENSE.txt"
    assert licences.of(Content("file", "x", "", "y", (Entry("a", "file", b"x"),))) is None


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.outside = []
        self.said = []

    def handle_starttag(self, tag, attrs):
        self.outside += [value for name, value in attrs if name in ("src", "href")]
        assert tag not in ("script", "link", "img", "iframe")

    def handle_data(self, data):
        self.said.append(data)


def test_the_transfer_sheet_says_it_all_in_both_forms(tmp_path, place, sender):
    folder = tmp_path / "<b>data"
    folder.mkdir()
    (folder / "run.sh").write_text("true")
    (folder / "weights.pt").write_bytes(b"x" * 50_000)
    settings = create.Settings("test", part_size=20_000, key=sender)
    made = making.make(place, tmp_path / "out", folder, settings=settings)
    plain = (tmp_path / "out" / "transfer-sheet.txt").read_text()
    page = _Page()
    page.feed((tmp_path / "out" / "transfer-sheet.html").read_text())
    said = "\n".join(page.said)
    assert page.outside == []
    for text in (plain, said):
        for wanted in (
            made.identity,
            made.signer,
            "run.sh",
            "weights.pt",
            "<b>data",
            "Admitted by",
        ):
            assert wanted in text
        for _, length, sha256 in made.parts:
            assert sha256 in text
            assert str(length) in text


def test_a_receipt_is_whole_or_refused(bundle, sender, tmp_path):
    path = tmp_path / "receipt.json"
    report = verifier.check(bundle, [making.blob(sender)])
    site = making.key(tmp_path, "site")
    receipt.write(path, receipt.of(report), site)
    assert receipt.is_receipt(path)
    found = receipt.verify(path, [making.blob(site)])
    assert found["verified"]
    assert found["signer"] == verifier.fingerprint(making.blob(site))
    with pytest.raises(KitError, match="none of the given keys"):
        receipt.verify(path, [making.blob(sender)])
    path.write_text(path.read_text().replace('"verified": true', '"verified": false'))
    with pytest.raises(KitError) as caught:
        receipt.verify(path, [])
    assert caught.value.exit_code == 4


def test_a_receipt_fits_its_schema_and_names_no_host(bundle, tmp_path):
    import os

    import jsonschema

    (bundle / "part-0001").unlink()
    path = tmp_path / "receipt.json"
    receipt.write(path, receipt.of(verifier.check(bundle)))
    found = json.loads(path.read_text())
    jsonschema.Draft202012Validator(json.loads(receipt.PUBLISHED.read_text())).validate(found)
    assert not found["verified"]
    assert [one["what"] for one in found["problems"]] == ["part-0001"]
    assert receipt.verify(path, [])["signer"] is None
    assert str(tmp_path) not in path.read_text()
    if len(os.uname().nodename) > 3:
        assert os.uname().nodename not in path.read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"schema": "kit.receipt/2"},
        {"more": 1},
        {"host": {}},
        {"bundle": {}},
        {"verified": False},
        {"problems": [1]},
        {"results": [{"name": "x"}]},
    ],
)
def test_what_is_no_receipt_is_refused(bundle, tmp_path, change):
    path = tmp_path / "receipt.json"
    found = receipt.of(verifier.check(bundle))
    path.write_text(json.dumps({**found, **change}))
    with pytest.raises(KitError) as caught:
        receipt.verify(path, [])
    assert caught.value.exit_code == 4


def test_other_tools_get_every_file_with_its_digest(bundle):
    index = making.index_of(bundle)
    for name, text in ((name, make(bundle, index)) for name, make in export.FORMATS.items()):
        found = json.loads(text)
        rows = found["spec"]["files"] if name == "hauler" else found["components"][0]["files"]
        paths = [row.get("path") or row["source"] for row in rows]
        assert sorted(paths) == sorted(str(path) for path in bundle.iterdir())
        if name == "zarf":
            assert found["kind"] == "ZarfPackageConfig"
            for row in rows:
                content = (bundle / row["source"]).read_bytes()
                assert row["shasum"] == Digest.of_bytes(content).hex
        else:
            assert found["apiVersion"] == "content.hauler.cattle.io/v1"
            names = {row["name"]: row["path"] for row in rows}
            assert names["trtllm-kit-test-1/part-0001"] == str(bundle / "part-0001")


def test_a_hauler_path_is_an_address(bundle):
    moved = bundle.rename(bundle.with_name("a #1? 50%"))
    rows = json.loads(export.hauler(moved, making.index_of(moved)))["spec"]["files"]
    for row in rows:
        address = urlsplit(row["path"])
        assert (address.scheme, address.query, address.fragment) == ("", "", "")
        assert Path(unquote(address.path)).is_file()


@pytest.mark.parametrize(
    "text",
    [
        b"no newline at its end " * 3000,
        b"a line\r\n" * 3000,
        b"###ZARF_REGISTRY###\n" + b"a line\n" * 3000,
        b"x" * (1 << 20) + b"\n",
    ],
    ids=["no newline", "carriage return", "a template", "a long line"],
)
def test_a_part_that_zarf_would_rewrite_is_refused(place, tmp_path, text):
    """As a part in the middle of a large text is."""
    (tmp_path / "log.txt").write_bytes(text * 3)
    size = len(text)
    making.make(
        place, tmp_path / "out", tmp_path / "log.txt", settings=create.Settings("x", part_size=size)
    )
    with pytest.raises(KitError, match="part-0002: begins and ends in text") as caught:
        export.zarf(tmp_path / "out", making.index_of(tmp_path / "out"))
    assert caught.value.exit_code == 4


def test_text_that_comes_back_as_it_was_is_exported(place, tmp_path):
    (tmp_path / "log.txt").write_bytes(b"a line of 16 by\n" * 4096)
    settings = create.Settings("x", part_size=8192)
    making.make(place, tmp_path / "out", tmp_path / "log.txt", settings=settings)
    assert "part-0003" in export.zarf(tmp_path / "out", making.index_of(tmp_path / "out"))


def test_the_kits_own_wheels_are_locked_for_every_python():
    lock = locks.load(wheels.lock_path(Project(ROOT, ROOT / "nowhere")))
    names = {item.name for item in lock.inputs}
    assert {"docker", "huggingface-hub", "packaging", "pyyaml", "tqdm", "urllib3", "pip"} <= names
    assert all(item.kind == "wheel" for item in lock.inputs)
    for name in names:
        served = {
            python
            for item in lock.inputs
            if item.name == name
            for python in item.group.split("-")[1:]
        }
        assert served == set(wheels.PYTHONS), name


def test_the_lock_of_the_wheels_fits_the_environment():
    """`make relock` without `python -m kit.bundles.wheels` would leave them apart."""
    text = (ROOT / "lockfiles" / "python" / "dev.txt").read_text()
    for item in locks.load(wheels.lock_path(Project(ROOT, ROOT / "nowhere"))).inputs:
        assert item.sha256.hex in text, f"python -m kit.bundles.wheels: {item}"


def test_requirements_name_every_digest_and_leave_out_pip():
    lock = locks.load(wheels.lock_path(Project(ROOT, ROOT / "nowhere")))
    text = wheels.requirements(lock, Digest.of_bytes(b"wheel"))
    assert "pip==" not in text
    assert f"--hash={Digest.of_bytes(b'wheel')}" in text
    for item in lock.inputs:
        assert (item.sha256.hex in text) == (item.name != "pip")
