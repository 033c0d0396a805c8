"""A receipt: strictly read, signed by whom it has to be, of the bundle that was sent."""

from __future__ import annotations

import copy
import json
import subprocess
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import pytest

from kit.bundles import create, receipt, sign, verifier
from kit.cli import run
from kit.commands import reproduce
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.manifests import record
from tests.unit.bundles import making

DIGEST = "sha256:" + "c" * 64
HOST = {
    "os": "o",
    "kernel": "k",
    "architecture": "x86_64",
    "cpu": None,
    "cores": 1,
    "memory_bytes": 1,
    "gpus": [],
    "driver": None,
}
RUN = {
    "schema": "kit.manifest/1",
    "kind": "run",
    "created": "2026-01-01T00:00:00Z",
    "kit": {"version": "1"},
    "example": {"name": "gpt2-tiny", "digest": DIGEST},
    "release": "0.16.0",
    "stack": "rehearsal",
    "lock": DIGEST,
    "image": {"manifest_digest": DIGEST, "image_id": DIGEST},
    "engine": {"name": "podman", "version": "1"},
    "versions": {
        **dict.fromkeys(("os", "openmpi", "cuda", "tensorrt", "nccl")),
        "python": "3",
        "distributions": {},
    },
    "host": HOST,
    "gpus": "none",
    "model": {"name": "m", "files": []},
    "commands": [],
    "artifacts": [],
    "outputs": [],
}
SCHEMA = jsonschema.Draft202012Validator(json.loads(receipt.PUBLISHED.read_text()))


def made(parts=1, **changes):
    rows = [{"name": f"part-{n:04d}", "size": 5, "sha256": "b" * 64} for n in range(1, parts + 1)]
    return {
        "schema": "kit.receipt/1",
        "kit": "1",
        "bundle": {
            "name": "b",
            "sequence": 1,
            "identity": "a" * 64,
            "parts": rows,
            "objects": 5,
            "signer": None,
            "pinned": False,
        },
        "verified": True,
        "problems": [],
        "loaded": [{"kind": "run", "name": "r", "manifest": DIGEST}],
        "host": HOST,
        "results": [{"name": "reproduce x", "level": "L8", "manifest": DIGEST}],
        **changes,
    }


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site's key."""
    return making.key(tmp_path_factory.mktemp("site"), "site")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "receipt.json"


def verified(path, *words):
    return run(["manifest", "verify", str(path), *map(str, words)])


@pytest.mark.parametrize("parts", [1, 500, 9999])
def test_a_receipt_of_any_number_of_parts_is_recognised(path, capsys, parts):
    receipt.write(path, made(parts))
    assert receipt.is_receipt(path)
    assert verified(path) == 0
    assert "receipt of bundle b 1: verified" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text",
    ["", "[1]", '{"schema": "kit.manifest/1", "verified": 1}', '{"schema": 1}', "[" * 100_000],
)
def test_what_says_that_it_is_something_else_is_no_receipt(path, text):
    path.write_text(text)
    assert not receipt.is_receipt(path)
    assert not receipt.is_receipt(path.parent)
    assert not receipt.is_receipt(path / "nowhere")


WRONG = [
    (("results", 0, "level"), "L99"),
    (("results", 0, "level"), 8),
    (("results", 0, "level"), ["L8"]),
    (("results", 0, "name"), 5),
    (("results", 0, "manifest"), "nonsense"),
    (("results", 0, "manifest"), "c" * 64),
    (("results", 0, "manifest"), DIGEST.upper()),
    (("results", 0, "more"), 1),
    (("results",), ""),
    (("loaded",), {}),
    (("loaded", 0, "manifest"), None),
    (("problems",), ""),
    (("problems",), [{"kind": 1, "what": "x", "detail": "y"}]),
    (("kit",), [1]),
    (("verified",), 1),
    (("bundle", "sequence"), -7),
    (("bundle", "sequence"), True),
    (("bundle", "identity"), " ".join(["aa"] * 32)),
    (("bundle", "signer"), 1),
    (("bundle", "pinned"), None),
    (("bundle", "objects"), -1),
    (("bundle", "extra"), 1),
    (("bundle", "parts", 0, "name"), "part-1"),
    (("bundle", "parts", 0, "size"), "5"),
    (("bundle", "parts", 0, "sha256"), "B" * 64),
    (("bundle", "manifests"), ["x"]),
    (("bundle", "manifests"), "x"),
    (("host", "cores"), 0),
]


@pytest.mark.parametrize(("where", "value"), WRONG)
def test_what_the_schema_refuses_is_refused(path, where, value):
    found = copy.deepcopy(made())
    SCHEMA.validate(found)
    place = found
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    assert not SCHEMA.is_valid(found)
    path.write_text(json.dumps(found))
    with pytest.raises(KitError, match="not as a receipt is") as caught:
        receipt.verify(path, [])
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize("key", ["results", "host", "bundle"])
def test_a_key_too_few_is_refused(path, key):
    found = made()
    del found[key]
    path.write_text(json.dumps(found))
    with pytest.raises(KitError, match=f"missing key {key}"):
        receipt.verify(path, [])


@pytest.mark.parametrize(
    "change",
    [
        {"verified": False},
        {"problems": [{"kind": "altered", "what": "x", "detail": ""}]},
        {"kit": "\ud800"},
    ],
)
def test_what_cannot_be_is_refused(path, change):
    path.write_text(json.dumps(made(**change)))
    with pytest.raises(KitError, match="not as a receipt is"):
        receipt.verify(path, [])


def test_a_receipt_has_to_be_signed_by_one_of_the_keys(path, site, sender, capsys):
    receipt.write(path, made())
    assert verified(path) == 0
    said = capsys.readouterr().out
    assert "verified, not signed\n" in said
    assert "  not signed by the site: anybody may have written or altered it\n" in said
    assert verified(path, "--key", f"{site}.pub") == 4
    assert "not signed: there is no receipt.json.sig" in capsys.readouterr().err
    receipt.write(path, made(), site)
    assert verified(path) == 0
    assert "whoever that is: no --key was given" in capsys.readouterr().out
    assert verified(path, "--key", f"{sender}.pub") == 4
    assert "none of the given keys" in capsys.readouterr().err
    assert verified(path, "--key", f"{sender}.pub", "--key", f"{site}.pub", "--json") == 0
    found = json.loads(capsys.readouterr().out)["receipt"]
    assert found["signer"] == verifier.fingerprint(making.blob(site))
    assert found["pinned"]
    assert verified(path, "--key", path) == 2
    assert "expected a public key" in capsys.readouterr().err


def test_keys_and_bundles_are_for_receipts(tmp_path, capsys):
    (tmp_path / "manifest.json").write_text("{}")
    for words in (["verify", "--key", "x"], ["show", "--bundle", "x"]):
        assert run(["manifest", *words[:1], str(tmp_path), *words[1:]]) == 2
        assert "are for a receipt" in capsys.readouterr().err


def test_a_receipt_has_to_be_of_the_bundle(path, bundle, place, tmp_path, capsys):
    receipt.write(path, receipt.of(verifier.check(bundle)))
    assert verified(path, "--bundle", bundle) == 0
    assert verified(path, "--bundle", bundle / "bundle.json") == 0
    other = tmp_path / "other"
    (tmp_path / "file").write_text("x")
    making.make(place, other, tmp_path / "file", settings=create.Settings("other"))
    capsys.readouterr()
    assert verified(path, "--bundle", other) == 4
    said = capsys.readouterr().err
    assert "of another bundle" in said
    assert making.index_of(bundle).identity in said
    assert making.index_of(other).identity in said
    assert verified(path, "--bundle", tmp_path) == 2
    assert "no bundle" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value"), [("name", "y"), ("sequence", 2), ("objects", 1), ("parts", [])]
)
def test_what_a_receipt_says_of_its_bundle_has_to_be_so(path, bundle, key, value):
    found = receipt.of(verifier.check(bundle))
    found["bundle"][key] = value
    receipt.write(path, found)
    with pytest.raises(KitError, match=f"bundle.{key}: not what that bundle has"):
        receipt.verify(path, [], making.index_of(bundle))


def test_what_was_loaded_was_in_the_bundle(path, bundle, place):
    found = receipt.of_load(making.take(place, bundle))
    receipt.write(path, found)
    receipt.verify(path, [], making.index_of(bundle))
    found["loaded"][0]["name"] = "x\nforged"
    receipt.write(path, found)
    with pytest.raises(KitError, match=r"file/x\\nforged is not in that bundle"):
        receipt.verify(path, [], making.index_of(bundle))


def test_results_tell_whether_their_manifest_was_in_the_bundle(path, place, tmp_path, capsys):
    """As the site records it, and as the sender's own bundle says."""
    data = tmp_path / "run"
    data.mkdir()
    (data / "manifest.json").write_text("{}")
    making.make(place, tmp_path / "out", data)
    inside = str(Digest.of_file(data / "manifest.json"))
    found = receipt.of_load(making.take(place, tmp_path / "out"))
    SCHEMA.validate(found)
    assert found["bundle"]["manifests"] == [inside]
    found["results"] = [
        {"name": "sent", "level": "L6", "manifest": inside},
        {"name": "own", "level": None, "manifest": DIGEST},
    ]
    receipt.write(path, found)
    for words in ([], ["--bundle", tmp_path / "out"]):
        assert verified(path, *words) == 0
        said = capsys.readouterr().out
        assert "  result: sent: L6\n" in said
        assert "  result: own: no level (its manifest is not of this bundle)\n" in said
    del found["bundle"]["manifests"]  # as kits wrote it before
    receipt.write(path, found)
    assert [row["carried"] for row in receipt.verify(path, [])["results"]] == [None, None]
    index = making.index_of(tmp_path / "out")
    assert [row["carried"] for row in receipt.verify(path, [], index)["results"]] == [True, False]


def test_no_value_makes_a_line_of_its_own(path, capsys):
    forged = "x\n  signed by the site: SHA256:forged\x1b[2J"
    found = made(
        problems=[dict.fromkeys(("kind", "what", "detail"), forged)],
        verified=False,
        loaded=[{"kind": forged, "name": forged, "manifest": DIGEST}],
        results=[{"name": forged, "level": None, "manifest": DIGEST}],
    )
    found["bundle"] |= {"name": forged, "signer": forged}
    path.write_text(json.dumps(found))
    assert verified(path) == 4
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 7
    assert "\x1b" not in said
    path.write_text(json.dumps(made() | {"x\nerror: forged": 1}))
    assert verified(path) == 4
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_key_that_cannot_sign_leaves_the_receipt_as_it_was(path, site):
    receipt.write(path, made(), site)
    before = making.content_of(path.parent)
    with pytest.raises(KitError, match="there is no such file") as caught:
        receipt.write(path, made(2), path.with_name("typo"))
    assert caught.value.exit_code == ExitCode.USAGE
    assert making.content_of(path.parent) == before


@pytest.mark.parametrize("name", ["receipt.json", "receipt.json.sig"])
def test_a_disk_that_is_full_leaves_the_receipt_as_it_was(path, site, monkeypatch, name):
    receipt.write(path, made(), site)
    before = making.content_of(path.parent)

    def full(target, content):
        if target.name == f".{name}.new":
            making.fail()
        target.write_bytes(content)

    monkeypatch.setattr(receipt, "write_bytes", full)
    with pytest.raises(making.Failed):
        receipt.write(path, made(2), site)
    assert making.content_of(path.parent) == before


@pytest.mark.parametrize("first", [True, False], ids=["the first one", "another one"])
def test_killed_between_the_two_renames(path, site, monkeypatch, capsys, first):
    if not first:
        receipt.write(path, made(), site)
    renamed = Path.replace

    def killed(self, target):
        if target.name.endswith(".json.sig") and self.name == f".{target.name}.new":
            making.fail()
        return renamed(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(making.Failed):
        receipt.write(path, made(2), site)
    monkeypatch.undo()
    assert verified(path) == 4
    said = capsys.readouterr().err
    assert "cut off: its signature is still called .receipt.json.sig.new" in said
    found, signer = receipt.reopen(path)
    assert (found, signer) == (made(2), verifier.fingerprint(making.blob(site)))
    assert verified(path, "--key", f"{site}.pub") == 0
    assert making.content_of(path.parent).keys() == {"receipt.json", "receipt.json.sig"}


def test_what_the_hint_says_puts_it_right(path, site):
    receipt.write(path, made(), site)
    beside = receipt.signature_path(path)
    beside.rename(beside.with_name(f".{beside.name}.new"))
    with pytest.raises(KitError, match="cut off") as caught:
        receipt.verify(path, [])
    subprocess.run(caught.value.hint, shell=True, check=True)
    assert receipt.verify(path, [making.blob(site)])["signer"]


def test_what_was_altered_stays_so(path, site):
    """A signature under the temporary name helps only what it is of."""
    receipt.write(path, made(), site)
    path.write_text(json.dumps(made(2)))
    beside = receipt.signature_path(path)
    beside.with_name(f".{beside.name}.new").write_bytes(sign.sign(site, making.blob(site), b"x"))
    for read in (receipt.reopen, lambda path: receipt.verify(path, [])):
        with pytest.raises(KitError, match="the signature does not fit"):
            read(path)


def test_an_unsigned_receipt_leaves_no_signature(path, site):
    receipt.write(path, made(), site)
    receipt.write(path, made(2))
    assert making.content_of(path.parent).keys() == {"receipt.json"}
    with pytest.raises(KitError, match="a folder"):
        receipt.write(path.parent, made())


def test_a_key_is_tried_before_the_run(path, site):
    receipt.write(path, made(), site)
    with pytest.raises(KitError, match="signed again"):
        reproduce._require_receipt(path, None)
    with pytest.raises(KitError, match="there is no such file"):
        reproduce._require_receipt(path, str(path.with_name("typo")))
    other = making.key(path.parent, "other")
    other.with_name("other.pub").write_bytes(site.with_name("site.pub").read_bytes())
    with pytest.raises(KitError, match="cannot sign with"):
        reproduce._require_receipt(path, str(other))
    reproduce._require_receipt(path, str(site))


def test_results_that_are_added_at_once_are_all_kept(path, site):
    receipt.write(path, made(results=[]), site)

    def add(number):
        manifest = f"sha256:{number:064x}"
        row = {"name": f"reproduce {number}", "level": "L8", "manifest": manifest}
        reproduce._add(path, types.SimpleNamespace(result=row, path="x"), str(site))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    results = receipt.verify(path, [making.blob(site)])["results"]
    assert sorted(row["name"] for row in results) == [f"reproduce {n}" for n in range(8)]


def test_where_reports_go_is_tried_before_the_run(tmp_path):
    reproduce._require_writable(tmp_path / "new" / "report.html", "--report")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    for wrong, code in (("new", 2), ("file/report.html", 3)):
        with pytest.raises(KitError) as caught:
            reproduce._require_writable(tmp_path / wrong, "--report")
        assert caught.value.exit_code == code


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--sign-with", "k"], "--sign-with signs a receipt"),
        (["--receipt", "RECEIPT"], "signed again"),
        (["--receipt", "RECEIPT", "--sign-with", "typo"], "typo: no key to sign with"),
        (["--receipt", "RECEIPT", "--sign-with", "SITE", "--report", "/tmp"], "/tmp: a folder"),
    ],
)
def test_all_of_that_before_anything_is_looked_for(
    path, site, place, monkeypatch, capsys, words, told
):
    monkeypatch.setenv("KIT_ROOT", str(place.root))
    monkeypatch.setenv("KIT_HOME", str(place.home))
    receipt.write(path, made(), site)
    manifest = path.with_name("manifest.json")
    manifest.write_text(json.dumps(RUN))
    record.read(manifest)
    given = {"RECEIPT": str(path), "SITE": str(site)}
    assert run(["reproduce", str(manifest), *(given.get(word, word) for word in words)]) == 2
    assert told in capsys.readouterr().err


def test_a_result_of_another_manifest_is_told(path, site, capsys):
    found = made()
    found["bundle"]["manifests"] = []
    receipt.write(path, found, site)
    row = {"name": "again", "level": "L6", "manifest": DIGEST}
    again = types.SimpleNamespace(path=path.with_name("manifest.json"), result=row)
    reproduce._add(path, again, str(site))
    assert "did not come with bundle b" in capsys.readouterr().err
    (result,) = receipt.verify(path, [making.blob(site)])["results"]
    assert result == {**row, "carried": False}
