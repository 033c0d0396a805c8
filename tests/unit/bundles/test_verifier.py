"""The verifier: signatures, hostile indexes, and that it stands alone."""

from __future__ import annotations

import ast
import base64
import json
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import jsonschema
import pytest

from kit.bundles import create, sign, verifier
from tests.unit.bundles import making

SCHEMA = Path(verifier.__file__).with_name("schema") / "bundle-1.json"


def alone(*arguments, cwd=None):
    """Run a bundle's verify.py as a site does that has nothing."""
    return subprocess.run(
        [sys.executable, "-I", "-S", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_published_schema_holds_what_is_written(original):
    index = json.loads((original / "bundle.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(index)


def test_ssh_keygen_checks_the_signature(original, sender, tmp_path):
    public = sender.with_name("sender.pub").read_text()
    (tmp_path / "allowed").write_text(f"sender {public}")
    words = ["ssh-keygen", "-Y", "verify", "-f", str(tmp_path / "allowed"), "-I", "sender"]
    words += ["-n", "kit-bundle", "-s", str(original / "SHA256SUMS.sig")]
    with (original / "SHA256SUMS").open() as sums:
        assert subprocess.run(words, stdin=sums, capture_output=True, check=False).returncode == 0


def test_the_verifier_in_the_bundle_stands_alone(bundle, sender):
    public = sender.with_name("sender.pub")
    done = alone("verify.py", "--key", str(public), cwd=bundle)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("(pinned)\nverified\n")
    content = bytearray((bundle / "part-0002").read_bytes())
    content[-1] ^= 1
    (bundle / "part-0002").write_bytes(content)
    done = alone(bundle / "verify.py", bundle)
    assert done.returncode == 4
    assert "part-0002" in done.stdout
    assert done.stdout.endswith("NOT verified\n")
    assert alone(bundle / "verify.py", bundle.parent / "nowhere").returncode == 2


def test_the_verifier_extracts_one_content(bundle, tmp_path):
    done = alone("verify.py", "--extract", "file/data", str(tmp_path / "out"), cwd=bundle)
    assert done.returncode == 0, done.stderr
    data = making.noise(tmp_path / "data", [0, 1, 511, 512, 513, 9000, 20_000, 33_000, 700])
    assert making.tree(tmp_path / "out") == making.tree(data)
    done = alone("verify.py", "--extract", "file/date", str(tmp_path / "x"), cwd=bundle)
    assert (done.returncode, "file/data" in done.stderr) == (2, True)


def test_it_needs_no_newer_python_than_it_says():
    ast.parse(Path(verifier.__file__).read_text(), feature_version=(3, 8))
    tree = ast.parse(Path(verifier.__file__).read_text())
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {
        (node.module or "").partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
    }
    assert imported <= set(sys.stdlib_module_names)


def test_a_pinned_key_is_the_only_one(bundle, sender, tmp_path):
    other = making.key(tmp_path, "other")
    assert verifier.check(bundle, [making.blob(sender)]).pinned
    report = verifier.check(bundle, [making.blob(other)])
    assert [one.kind for one in report.problems] == ["foreign"]
    assert not report.pinned
    (bundle / "SHA256SUMS.sig").unlink()
    assert [one.kind for one in verifier.check(bundle, [making.blob(other)]).problems] == [
        "unsigned"
    ]
    assert verifier.check(bundle).ok


def test_another_purpose_is_no_signature_of_a_bundle(bundle, sender):
    words = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(sender)]
    (bundle / "SHA256SUMS.sig").unlink()
    subprocess.run([*words, str(bundle / "SHA256SUMS")], check=True, capture_output=True)
    found = verifier.check(bundle, [making.blob(sender)]).problems
    assert [one.what for one in found] == ["SHA256SUMS.sig"]
    assert "another purpose" in found[0].detail


RFC_8032 = [
    "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    "-",
    "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
    "af82",
    "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
]


@pytest.mark.parametrize("vector", [RFC_8032[:3], RFC_8032[3:]])
def test_ed25519_is_that_of_the_rfc(vector):
    key, message, signature = (bytes.fromhex(text.strip("-")) for text in vector)
    assert verifier.is_signed(key, message, signature)
    assert not verifier.is_signed(key, message + b"x", signature)
    assert not verifier.is_signed(key, message, signature[:32] + bytes(32))
    # The same signature once more, by a number that the RFC does not allow.
    large = int.from_bytes(signature[32:], "little") + verifier._L
    assert not verifier.is_signed(key, message, signature[:32] + large.to_bytes(32, "little"))
    assert not verifier.is_signed(b"\xff" * 32, message, signature)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\n"
        + base64.b64encode(b"SSHSIG\0\0\0\1" + b"\xff\xff\xff\xff").decode()
        + "\n-----END SSH SIGNATURE-----\n",
        "-----BEGIN SSH SIGNATURE-----\n!!!!\n-----END SSH SIGNATURE-----\n",
    ],
)
def test_what_is_no_signature_is_refused(text):
    with pytest.raises(ValueError):
        verifier.signed_by(text.encode(), b"x")


def test_a_private_key_of_another_kind_is_told(tmp_path):
    words = ["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", str(tmp_path / "ec")]
    subprocess.run(words, check=True)
    with pytest.raises(Exception, match="expected a public key: ssh-ed25519") as caught:
        sign.public_key(tmp_path / "ec")
    assert caught.value.exit_code == 2
    assert "ssh-keygen -t ed25519" in caught.value.hint


def changed(original, **keys):
    index = json.loads((original / "bundle.json").read_text())
    index.update(keys)
    return json.dumps(index).encode()


def _contents(original, **keys):
    index = json.loads((original / "bundle.json").read_text())
    index["contents"][0].update(keys)
    return json.dumps(index).encode()


HEX = "0" * 64
HOSTILE = {
    "traversal": lambda o: _contents(o, files=[["../../etc/passwd", 3, "file"]]),
    "absolute": lambda o: _contents(o, files=[["/etc/passwd", 3, "file"]]),
    "backslash": lambda o: _contents(o, files=[["a\\..\\b", 3, "file"]]),
    "dot": lambda o: _contents(o, files=[["a/./b", 3, "file"]]),
    "zero byte": lambda o: _contents(o, files=[["a\0b", 3, "file"]]),
    "terminal": lambda o: _contents(o, files=[["a\x1b[2Jb", 3, "file"]]),
    "endless name": lambda o: _contents(o, files=[["x" * 300, 3, "file"]]),
    "twice": lambda o: _contents(o, files=[["a", 3, "file"], ["a", 4, "file"]]),
    "file and folder": lambda o: _contents(o, files=[["a", 3, "file"], ["a/b", 4, "file"]]),
    "no such object": lambda o: _contents(o, files=[["a", 10_000, "file"]]),
    "negative object": lambda o: _contents(o, files=[["a", -1, "file"]]),
    "true object": lambda o: _contents(o, files=[["a", True, "file"]]),
    "no first row": lambda o: _contents(o, files=["a"]),
    "kind": lambda o: _contents(o, kind="malware"),
    "name": lambda o: changed(o, name="../x"),
    "schema": lambda o: changed(o, schema="kit.bundle/2"),
    "key": lambda o: changed(o, more=1),
    "sequence": lambda o: changed(o, sequence=0),
    "sequence true": lambda o: changed(o, sequence=True),
    "sequence float": lambda o: changed(o, sequence=1.0),
    "part size": lambda o: changed(o, part_size=1),
    "parts": lambda o: changed(o, parts=[["part-0001", 1 << 50, HEX]]),
    "part name": lambda o: changed(o, parts=[["../part-0001", 5, HEX]]),
    "size": lambda o: changed(o, objects=[f"{HEX} 99999999999999999999"]),
    "negative size": lambda o: changed(o, objects=[f"{HEX} -5"]),
    "object twice": lambda o: changed(o, objects=[f"{HEX} 1", f"{HEX} 1"]),
    "object for nothing": lambda o: changed(
        o, objects=[*json.loads((o / "bundle.json").read_text())["objects"], f"{HEX} 1"]
    ),
    "requires": lambda o: changed(o, requires=[f"{HEX} 1"]),
    "base": lambda o: changed(o, base=HEX),
    "no object": lambda _: b"[]",
    "no JSON": lambda _: b"{",
    "no text": lambda _: b"\xff\xfe",
    "deep": lambda _: b'{"a":' * 100_000,
    "deep list": lambda _: b"[" * 1_000_000,
    "key twice": lambda _: b'{"schema": "kit.bundle/1", "schema": "kit.bundle/1"}',
    "long number": lambda _: b'{"sequence": ' + b"9" * 100_000 + b"}",
    "NaN": lambda o: changed(o, sequence=float("nan")),
    "null": lambda o: changed(o, contents=None),
    "list of null": lambda o: changed(o, contents=[None]),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_indexes_are_refused(original, case):
    with pytest.raises(verifier.Refused, match=r"bundle\.json") as caught:
        verifier.parse(HOSTILE[case](original), "bundle.json")
    assert caught.value.code == 4
    assert len(str(caught.value)) < 1000


def test_there_may_be_more_parts_than_a_process_may_open(tmp_path):
    place = making.project(tmp_path)
    data = making.noise(tmp_path / "data", [5000])
    settings = create.Settings("test", part_size=50)
    making.make(place, tmp_path / "out", data, settings=settings)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    try:
        assert len(list((tmp_path / "out").glob("part-*"))) > 100
        assert verifier.check(tmp_path / "out").ok
        making.take(place, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("size", [0, 1, 511, 1 << 20, 8**11 - 1, 8**11, 1 << 45])
def test_headers_are_those_of_gnu_tar(size):
    """As tarfile has written them since Python 3.9; 3.8 writes other bytes that mean the same."""
    member = tarfile.TarInfo("blobs/sha256/" + HEX)
    member.size, member.mode = size, 0o644
    found = verifier.header(member.name, size)
    assert len(found) == 512
    assert found == member.tobuf(tarfile.GNU_FORMAT)


def told_again(folder):
    """Make index and list fit the parts: what somebody does who makes a hostile bundle."""
    index = json.loads((folder / "bundle.json").read_text())
    for row in index["parts"]:
        row[2] = verifier.sha256_of(folder / row[0])
    (folder / "bundle.json").write_text(json.dumps(index))
    names = sorted(path.name for path in folder.iterdir() if "SHA256" not in path.name)
    lines = [f"{verifier.sha256_of(folder / name)}  {name}\n" for name in names]
    (folder / "SHA256SUMS").write_text("".join(lines))
    (folder / "SHA256SUMS.sig").unlink()


def _member(name, kind=tarfile.REGTYPE, link=""):
    def change(member):
        member.name, member.type, member.linkname = name, kind, link

    return change


MEMBERS = {
    "traversal": _member("../../etc/cron.d/x"),
    "absolute": _member("/etc/cron.d/x"),
    "symbolic link": _member("blobs/sha256/x", tarfile.SYMTYPE, "/etc/passwd"),
    "hard link": _member("blobs/sha256/x", tarfile.LNKTYPE, "../../../etc/passwd"),
    "device": _member("blobs/sha256/x", tarfile.CHRTYPE),
    "pipe": _member("blobs/sha256/x", tarfile.FIFOTYPE),
    "twice": _member("index.json"),
}


@pytest.mark.parametrize("case", MEMBERS)
def test_hostile_members_of_the_stream_are_refused(bundle, case, tmp_path):
    """The index says which headers there must be: nothing else gets as far as being read."""
    index = making.index_of(bundle)
    item = next(item for item in index.items[4:] if index.place(item.offset)[1] > 600)
    member = tarfile.TarInfo(item.path)
    member.size, member.mode = item.size, 0o644
    MEMBERS[case](member)
    part, inside = index.place(item.offset - 512)
    path = bundle / index.parts[part].name
    content = bytearray(path.read_bytes())
    assert content[inside : inside + 512] == verifier.header(item.path, item.size)
    content[inside : inside + 512] = member.tobuf(tarfile.GNU_FORMAT)
    path.write_bytes(content)
    told_again(bundle)
    found = verifier.check(bundle).problems
    assert [str(one) for one in found] == [f"altered: {path.name}: between two objects"]
    place = making.project(tmp_path / "site")
    with pytest.raises(Exception, match="nothing was imported"):
        making.take(place, bundle)
    assert not (place.home / "bundles" / "content").exists()


def test_an_oversized_index_is_not_read(bundle):
    with (bundle / "bundle.json").open("r+b") as stream:
        stream.truncate(verifier.INDEX_LIMIT + 1)
    (problem,) = [one for one in verifier.check(bundle).problems if one.what == "bundle.json"]
    assert "larger than" in problem.detail


def test_every_truncated_index_is_refused(original):
    text = (original / "bundle.json").read_bytes()
    for length in range(0, len(text) - 2, 7):
        with pytest.raises(verifier.Refused):
            verifier.parse(text[:length], "bundle.json")
