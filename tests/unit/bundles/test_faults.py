"""Whatever happens to a file of a bundle on its way is found, and the right thing is named."""

from __future__ import annotations

import functools
import os
import random
import shutil
import subprocess

import pytest

from kit.bundles import create, verifier
from tests.unit.bundles import making

FAULTS = 10_000
KINDS = ["flip", "truncate", "delete", "swap"]


def names_at(index, part, offset):
    """What a report may call the place of a byte of a part: its object, or the part itself."""
    at = int(part.removeprefix("part-")) - 1
    place = index.starts[at] + offset
    for number, item in enumerate(index.items):
        if item.offset <= place < item.offset + item.size:
            head = number < len(verifier.HEAD) or item.sha256 == verifier.EMPTY
            return {item.path if head else f"object {item.sha256[:12]}"}
    return {part}


def problems(folder, keys):
    return list(verifier.check(folder, keys, jobs=1).problems)


def test_every_one_of_ten_thousand_faults_is_found_and_named(bundle, sender, monkeypatch):
    """Bits, lengths, files: in parts, index, list, signature and what stands beside them."""
    monkeypatch.setattr(verifier, "is_signed", functools.lru_cache(None)(verifier.is_signed))
    keys = [making.blob(sender)]
    index = making.index_of(bundle)
    contents = making.content_of(bundle)
    names = sorted(contents)
    chosen = random.Random(6)
    # In proportion to their length, as on a disk that forgets, but every file often enough.
    weights = [len(contents[name]) + 2000 for name in names]
    done = dict.fromkeys(KINDS, 0)
    for _ in range(FAULTS):
        kind = chosen.choices(KINDS, [80, 12, 3, 5])[0]
        name = chosen.choices(names, weights)[0]
        path, content = bundle / name, contents[name]
        other = chosen.choice([one for one in names if contents[one] != content])
        if kind == "flip":
            at = chosen.randrange(len(content))
            changed = bytearray(content)
            changed[at] ^= 1 << chosen.randrange(8)
            path.write_bytes(changed)
            expected = names_at(index, name, at) if name.startswith("part-") else {name}
        elif kind == "truncate":
            path.write_bytes(content[: chosen.randrange(len(content))])
            expected = {name}
        elif kind == "delete":
            path.unlink()
            expected = {name, verifier.SUMS} if name == verifier.SIGNATURE else {name}
        else:
            path.write_bytes(contents[other])
            (bundle / other).write_bytes(content)
            expected = {name, other}
        found = problems(bundle, keys)
        named = {problem.what.split(" (")[0] for problem in found}
        assert named & expected, (kind, name, expected, found)
        if kind == "flip" and name.startswith("part-"):
            assert len(found) == 1, (kind, name, expected, found)
        path.write_bytes(content)
        (bundle / other).write_bytes(contents[other])
        done[kind] += 1
    assert min(done.values()) > 100
    assert problems(bundle, keys) == []


def test_extra_files_are_named(bundle):
    (bundle / "notes.txt").write_text("x")
    assert [str(one) for one in problems(bundle, [])] == ["extra: notes.txt"]


def test_a_renamed_part_is_recognised(bundle):
    (bundle / "part-0002").rename(bundle / "PART-0002.bak")
    said = [str(one) for one in problems(bundle, [])]
    assert "missing: part-0002" in said
    assert "renamed: PART-0002.bak: holds what belongs in part-0002" in said


def test_parts_in_another_order_are_recognised(bundle):
    (bundle / "part-0001").rename(bundle / "x")
    (bundle / "part-0002").rename(bundle / "part-0001")
    (bundle / "x").rename(bundle / "part-0002")
    said = {str(one) for one in problems(bundle, [])}
    assert "renamed: part-0001: holds what belongs in part-0002" in said
    assert "renamed: part-0002: holds what belongs in part-0001" in said


def test_a_part_of_another_bundle_is_no_part_of_this_one(bundle, place, tmp_path):
    data = making.noise(tmp_path / "other", [70_000], seed=5)
    settings = create.Settings("test", part_size=12_000)
    making.make(place, tmp_path / "second", data, settings=settings)
    shutil.copy(tmp_path / "second" / "part-0003", bundle / "part-0003")
    said = [str(one) for one in problems(bundle, [])]
    assert said
    assert all("part-0003" in line for line in said)


def test_a_shortened_last_object_is_named(bundle):
    index = making.index_of(bundle)
    last = index.parts[-1]
    os.truncate(bundle / last.name, 10)
    said = [str(one) for one in problems(bundle, [])]
    assert said[0] == f"truncated: {last.name}: expected {last.size} bytes, found 10"


def test_a_longer_part_is_found(bundle):
    with (bundle / "part-0001").open("ab") as stream:
        stream.write(b"\0")
    assert any(one.what == "part-0001" for one in problems(bundle, []))


@pytest.mark.parametrize("name", ["part-0001", "bundle.json", "SHA256SUMS", "verify.py"])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "device"])
def test_what_is_no_regular_file_is_never_read(bundle, name, kind):
    path = bundle / name
    path.rename(bundle.parent / "kept")
    if kind == "link":
        path.symlink_to(bundle.parent / "kept")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    assert any(name in (one.what, one.what.split(":")[0]) for one in problems(bundle, []))


def test_no_bundle_is_a_wrong_request(tmp_path):
    with pytest.raises(verifier.Refused, match=r"no bundle: no bundle\.json") as caught:
        verifier.check(tmp_path)
    assert caught.value.code == 2


def test_sha256sum_says_the_same(bundle):
    words = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    assert subprocess.run(words, cwd=bundle, check=False).returncode == 0
    content = bytearray((bundle / "part-0004").read_bytes())
    content[100] ^= 1
    (bundle / "part-0004").write_bytes(content)
    done = subprocess.run(words, cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "part-0004: FAILED" in done.stdout
