import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks import lock as locks
from kit.locks.lock import KINDS, Input, Lock, Unresolved

digests = st.binary(min_size=32, max_size=32).map(lambda raw: Digest(raw.hex()))
words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
texts = st.text(max_size=20)
paths = st.lists(words, min_size=1, max_size=3).map("/".join)


def _locations(kind):
    if kind in ("file", "git", "lfs"):
        return paths.map("https://upstream.example/{}".format)
    return paths if kind in ("deb", "model") else texts


@st.composite
def inputs(draw):
    kind = draw(st.sampled_from(KINDS))
    return Input(
        kind=kind,
        group=draw(words),
        name=draw(texts),
        version=draw(texts),
        file=draw(paths),
        location=draw(_locations(kind)),
        sha256=draw(digests),
        size=draw(st.integers(0, 1 << 50)),
        source=draw(texts),
    )


@st.composite
def gaps(draw):
    return Unresolved(
        kind=draw(st.sampled_from(KINDS)),
        group=draw(words),
        name=draw(texts),
        version=draw(texts),
        location=draw(texts),
        reason=draw(texts),
        sha256=draw(st.none() | digests),
    )


@st.composite
def all_locks(draw):
    found = draw(
        st.lists(inputs(), max_size=5, unique_by=lambda item: (item.kind, item.group, item.file))
    )
    names = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True)
    values = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
    arguments = draw(st.dictionaries(names, values, max_size=3))
    unresolved = draw(st.lists(gaps(), max_size=3))
    return Lock(
        draw(words),
        draw(digests),
        tuple(sorted(found)),
        tuple(sorted(arguments.items())),
        tuple(sorted(unresolved)),
    )


@settings(deadline=None)
@given(all_locks())
def test_text_and_back(tmp_path_factory, lock):
    path = tmp_path_factory.mktemp("lock") / "x.lock.yaml"
    lock.write(path)
    assert locks.load(path) == lock
    again = locks.load(path)
    assert again.digest == lock.digest
    assert [item.source for item in again.inputs] == [item.source for item in lock.inputs]
    assert path.read_text(encoding="utf-8") == lock.text()


@settings(deadline=None, max_examples=60)
@given(all_locks(), st.data())
def test_a_changed_byte_is_an_error_or_another_lock(tmp_path_factory, lock, data):
    raw = lock.text().encode()
    first = raw.index(b"\n") + 1  # the first line is a comment
    place = data.draw(st.integers(first, len(raw) - 1))
    changed = bytearray(raw)
    changed[place] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.mktemp("lock") / "x.lock.yaml"
    path.write_bytes(changed)
    try:
        found = locks.load(path)
    except KitError as error:
        assert error.exit_code == ExitCode.USAGE  # noqa: PT017 (an error is one of two outcomes)
        return
    # Layout may vary without a change of meaning; what the meaning is must show in the digest.
    # Where a digest is known from is none of it: neither equality nor the digest sees it.
    assert (found == lock) == (found.digest == lock.digest)


def item(**changes):
    fields = {
        "kind": "deb",
        "group": "base",
        "name": "x",
        "version": "1",
        "file": "x_1.deb",
        "location": "pool/x_1.deb",
        "sha256": Digest("0" * 64),
        "size": 1,
    }
    return Input(**{**fields, **changes})


def write(path, *items):
    Lock("x", Digest("1" * 64), tuple(items)).write(path)
    return path


def test_select_size_and_order(tmp_path):
    lock = Lock(
        "x",
        Digest("1" * 64),
        (
            item(),
            item(group="devel"),
            item(kind="wheel", file="w", location="", sha256=Digest("2" * 64), size=5),
        ),
    )
    assert [found.group for found in lock.select(kind="deb")] == ["base", "devel"]
    assert len(lock.select(group="base")) == 2
    assert lock.size == 6, "equal content counts once"


def test_no_lock_says_how_to_make_it(tmp_path):
    with pytest.raises(KitError, match="there is no lock") as caught:
        locks.load(tmp_path / "trtllm-0.16.0.lock.yaml")
    assert caught.value.hint == "kit lock trtllm-0.16.0"


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../../etc/passwd"},
        {"file": "/etc/passwd"},
        {"group": "../x"},
        {"location": "../../../secret"},
        {"location": "/etc/shadow"},
        {"kind": "model", "location": "directory:../../home"},
        {"kind": "model", "location": "directory:/etc"},
    ],
)
def test_names_that_climb_out_are_refused(tmp_path, changes):
    path = write(tmp_path / "x.lock.yaml", item(**changes))
    with pytest.raises(KitError, match="outside its folder") as caught:
        locks.load(path)
    assert str(caught.value).startswith(f"{path}:")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("kit.lock/1", "kit.lock/9", ":2:9: expected schema kit.lock/1, found kit.lock/9"),
        ("kind: deb", "kind: dbe", ":6:9: unknown kind 'dbe'"),
        ("0" * 64, "0" * 63 + "x", "expected 64 hexadecimal digits"),
        ("size: 1", "size: -1", "expected bytes, found -1"),
        ("size: 1", "size: many", "expected a whole number"),
        ("size: 1", f"size: 0x{'f' * 5000}", "expected bytes, found more than any file has"),
        ("size: 1", "size: 1\n  sise: 2", "unknown key 'sise'; did you mean size"),
        ("intent: sha256:", "intent: md5:", "intent: expected 64 hexadecimal digits"),
    ],
)
def test_what_is_wrong_has_a_place(tmp_path, old, new, words):
    path = write(tmp_path / "x.lock.yaml", item())
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(KitError) as caught:
        locks.load(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{path}:")
    assert caught.value.exit_code == ExitCode.USAGE


def test_two_files_of_one_name_are_refused(tmp_path):
    path = write(tmp_path / "x.lock.yaml", item(), item(sha256=Digest("3" * 64)))
    with pytest.raises(KitError, match="stands twice in group base"):
        locks.load(path)


@pytest.mark.parametrize("name", ["a.whl", "./a.whl", "a.whl/"])
def test_two_kinds_of_one_name_are_refused(tmp_path, name):
    """They would stand at one place of a build context, and one be written over the other."""
    wheel = item(kind="wheel", file="a.whl", location="")
    other = item(kind="file", file=name, location="https://h/a.whl", sha256=Digest("3" * 64))
    path = write(tmp_path / "x.lock.yaml", wheel, other)
    with pytest.raises(KitError, match="stands twice in group base"):
        locks.load(path)


@pytest.mark.parametrize(
    ("kind", "location"),
    [
        ("file", "file:///etc/shadow"),
        ("file", "file:/etc/shadow"),
        ("file", "https://me:s3cret@host.example/x"),
        ("file", "https://[/s3cret"),
        ("file", "https://host.example/x?token=s3cret"),
        ("lfs", "https://host.example/x#s3cret"),
        ("git", "ext::sh -c s3cret"),
        ("git", "git@host.example:s3cret"),
        ("lfs", "https://host.example/s3cret x"),
        ("deb", "file:///etc/shadow"),
        ("deb", "https://me:s3cret@host.example/x.deb"),
        ("wheel", "https://s3cret@host.example/x.whl"),
    ],
)
def test_locations_are_addresses_without_logins(tmp_path, kind, location):
    path = write(tmp_path / "x.lock.yaml", item(kind=kind, location=location))
    with pytest.raises(KitError, match="without a login") as caught:
        locks.load(path)
    assert caught.value.exit_code == ExitCode.USAGE
    assert str(caught.value).startswith(f"{path}:")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("group", ["yes", "3.11", "null", "1e3", "0x10", "NO"])
def test_a_group_that_yaml_would_read_otherwise(tmp_path, group):
    path = write(tmp_path / "x.lock.yaml", item(group=group))
    assert locks.load(path).inputs[0].group == group
