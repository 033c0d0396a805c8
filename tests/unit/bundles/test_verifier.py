"""The verifier: signatures, hostile indexes, and that it stands alone."""

from __future__ import annotations

import ast
import base64
import errno
import json
import os
import resource
import subprocess
import sys
import tarfile
from pathlib import Path

import jsonschema
import pytest

from kit.bundles import create, sign, verifier
from kit.cli import run
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


@pytest.mark.parametrize("end", [b"", b"\\", b'\\\\"', b'"'])
def test_the_time_for_an_index_does_not_grow_with_its_square(end):
    """Twenty million bytes of escaped quotes: the square of that would not end today."""
    with pytest.raises(verifier.Refused, match=r"bundle\.json: not valid JSON"):
        verifier.parse(b'{"a": "' + b'\\"' * (10 << 20) + end, "bundle.json")


def test_no_title_is_looked_at_once_for_each_of_its_folders():
    titles = ["/".join(["a"] * 1500) + f"/{number}" for number in range(20)]
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "c_call"

    sys.setprofile(count)
    try:
        verifier._refuse_clash(titles, "bundle.json")
    finally:
        sys.setprofile(None)
    assert calls < 20 * len(titles)


@pytest.mark.parametrize(
    "titles", [("a", "a-b", "a/b"), ("a/b/c", "a"), ("x/a/b/c", "x/a!", "x/a"), ("b", "a", "b")]
)
def test_a_title_is_no_folder_of_another_one_whatever_stands_between(titles):
    with pytest.raises(verifier.Refused, match="files"):
        verifier.check_names("file", "n", "", "w", titles)
    verifier.check_names("file", "n", "", "w", ["a", "a-b", "a.b", "b/a", "c/a/b"])


@pytest.mark.parametrize("value", [b"[]", b"{}", b"0", b'""', b'"\\\\"'])
def test_an_index_of_too_many_values_is_not_read(value):
    text = b'{"a": [' + (value + b",") * 2_000_001 + value + b"]}"
    with pytest.raises(verifier.Refused, match="more than 2000000 values"):
        verifier.parse(text, "bundle.json")


def test_what_stands_in_a_text_is_no_value_and_no_bracket(original):
    index = json.loads((original / "bundle.json").read_text())
    index["contents"][0]["why"] = '[{"\\' * 30 + ",\\"
    text = json.dumps(index).encode()
    assert verifier.parse(text, "bundle.json").contents[0].why.endswith(",\\")


def signed_again(folder, private):
    """Make the list fit what is there, and sign it."""
    (folder / "SHA256SUMS.sig").unlink()
    names = sorted(path.name for path in folder.iterdir() if path.name != "SHA256SUMS")
    text = "".join(f"{verifier.sha256_of(folder / name)}  {name}\n" for name in names).encode()
    (folder / "SHA256SUMS").write_bytes(text)
    (folder / "SHA256SUMS.sig").write_bytes(sign.sign(private, making.blob(private), text))


@pytest.mark.parametrize("case", ["foreign", "unsigned", "altered", "missing"])
def test_the_index_of_a_stranger_is_not_parsed(bundle, sender, tmp_path, case):
    other = making.key(tmp_path, "other")
    (bundle / "bundle.json").write_bytes(b"[" * 1000)
    signed_again(bundle, other)
    if case == "missing":
        (bundle / "SHA256SUMS").unlink()
    elif case == "unsigned":
        (bundle / "SHA256SUMS.sig").unlink()
    elif case == "altered":
        with (bundle / "SHA256SUMS.sig").open("a") as stream:
            stream.write("x")
    (problem,) = verifier.check(bundle, [making.blob(sender)]).problems
    assert problem.kind == case
    assert "bundle.json was not read" in problem.detail
    # Without keys it is, and with the right one.
    for keys in [[], [making.blob(other)]][: 2 if case == "foreign" else 1]:
        found = verifier.check(bundle, keys).problems
        assert "nested deeper" in found[-1].detail


def test_of_a_strangers_bundle_there_is_no_receipt(bundle, tmp_path, capsys):
    public = making.key(tmp_path, "other").with_name("other.pub")
    words = ["bundle", "verify", str(bundle), "--key", str(public)]
    assert run([*words, "--receipt", str(tmp_path / "receipt.json")]) == 4
    told = capsys.readouterr()
    assert "foreign: SHA256SUMS.sig" in told.out
    assert "its index was not read" in told.out
    assert "no receipt" in told.err
    assert not (tmp_path / "receipt.json").exists()


@pytest.mark.parametrize("name", ["SHA256SUMS", "SHA256SUMS.sig"])
def test_of_list_and_signature_the_one_that_was_altered_is_named(bundle, sender, name):
    content = bytearray((bundle / name).read_bytes())
    at = content.index(b"part-0003") - 10 if name == "SHA256SUMS" else len(content) // 2
    content[at] = ord("0") if content[at] != ord("0") else ord("1")
    (bundle / name).write_bytes(content)
    problem = verifier.check_head(bundle, [making.blob(sender)]).problems[0]
    assert (problem.kind, problem.what) == ("altered", name)


@pytest.mark.parametrize("name", ["bundle.json", "SHA256SUMS", "verify.py", "part-0002"])
@pytest.mark.parametrize("kind", ["folder", "link", "large"])
def test_problems_name_no_folder(bundle, name, kind):
    path = bundle / name
    if kind == "large":
        with path.open("ab") as stream:
            stream.truncate(verifier.INDEX_LIMIT + 1)
    else:
        path.unlink()
        path.mkdir() if kind == "folder" else path.symlink_to("/etc/hostname")
    found = verifier.check(bundle).problems
    assert found
    assert not [one for one in found if "/" in one.detail]


def test_names_that_are_no_utf8_are_written_down(bundle, capsys):
    (bundle / "part-0002").rename(bundle / os.fsdecode(b"part\xff"))
    found = [one._asdict() for one in verifier.check(bundle).problems]
    assert {"kind": "extra", "what": "part\\udcff", "detail": ""} in found
    assert "renamed" in [one["kind"] for one in found]
    json.dumps(found, ensure_ascii=False).encode()
    assert verifier.main([str(bundle)]) == 4
    assert "extra: part\\udcff" in capsys.readouterr().out


def test_a_terminal_is_told_nothing_by_names(bundle, tmp_path):
    (bundle / "\x1b[2J\nverified").write_text("")
    done = alone("verify.py", cwd=bundle)
    assert done.returncode == 4
    assert "extra: \\x1b[2J\\nverified\n" in done.stdout
    for words in (["\x1b[2J"], ["--key", "\x1b[2J"]):
        done = alone(bundle / "verify.py", *words)
        assert (done.returncode, "\x1b" in done.stdout + done.stderr) == (2, False)
        assert "error: \\x1b[2J: cannot be read" in done.stderr


@pytest.fixture
def two(tmp_path, place):
    """A bundle of two contents, each in parts of its own."""
    data = [making.noise(tmp_path / name, [15_000], seed=seed) for seed, name in enumerate("ab")]
    making.make(place, tmp_path / "two", *data, settings=create.Settings("two", part_size=4000))
    return tmp_path / "two"


def test_of_one_content_only_its_own_parts_are_needed(two, tmp_path):
    index = making.index_of(two)
    numbers = {name: verifier._wanted(index, f"file/{name}") for name in "ab"}
    parts = {
        name: {part for number in numbers[name] for part in index.parts_of(index.items[number])}
        for name in "ab"
    }
    (spare, *_) = sorted(parts["b"] - parts["a"])
    (needed, *_) = sorted(parts["a"] - parts["b"])
    (two / spare).rename(tmp_path / spare)
    done = alone("verify.py", "--extract", "file/a", str(tmp_path / "out"), cwd=two)
    assert done.returncode == 0, done.stdout
    assert making.tree(tmp_path / "out") == making.tree(tmp_path / "a")
    done = alone("verify.py", "--extract", "file/b", str(tmp_path / "out"), cwd=two)
    assert (done.returncode, f"missing: {spare}\n" in done.stdout) == (4, True)
    assert f"missing: {spare}\n" in alone("verify.py", cwd=two).stdout
    (two / needed).unlink()
    done = alone("verify.py", "--extract", "file/a", str(tmp_path / "more"), cwd=two)
    assert done.returncode == 4
    assert [line for line in done.stdout.split("\n") if "missing" in line] == [f"missing: {needed}"]


def test_what_is_there_is_not_written_over(two, tmp_path):
    (path,) = making.tree(tmp_path / "a")
    (tmp_path / "out" / path).parent.mkdir(parents=True)
    (tmp_path / "out" / path).write_text("mine")
    done = alone("verify.py", "--extract", "file/a", str(tmp_path / "out"), cwd=two)
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path / 'out' / path}: is there already\n"
    assert (tmp_path / "out" / path).read_text() == "mine"


def test_a_part_that_goes_while_it_is_extracted_leaves_no_half_file(two, tmp_path):
    index = making.index_of(two)
    os.truncate(two / index.parts[2].name, 0)
    with pytest.raises(verifier.Refused, match="changed since it was verified"):
        verifier.extract(two, index, "file/a", tmp_path / "out")
    assert making.tree(tmp_path / "out") == {}


@pytest.mark.parametrize("name", ["", "verify.py", "part-0002", "bundle.json", "SHA256SUMS"])
def test_what_may_not_be_read_is_one_error(bundle, name, monkeypatch, capsys):
    """As root reads everything, somebody else's view of it is made up."""
    found = os.open

    def refuse(path, *arguments):
        if str(path) == str(bundle / name):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return found(path, *arguments)

    if name:
        monkeypatch.setattr(os, "open", refuse)
    else:
        monkeypatch.setattr(Path, "iterdir", refuse)
    assert verifier.main([str(bundle)]) == 3
    told = capsys.readouterr().err
    assert told == f"error: {bundle / name}: cannot be read: Permission denied\n"


def test_a_key_that_is_not_there_is_a_wrong_request(bundle, tmp_path):
    done = alone("verify.py", "--key", str(tmp_path / "no.pub"), cwd=bundle)
    assert done.returncode == 2
    assert (
        done.stderr == f"error: {tmp_path / 'no.pub'}: cannot be read: No such file or directory\n"
    )
