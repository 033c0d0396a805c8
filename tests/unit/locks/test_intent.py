from dataclasses import replace

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks import intent as intents
from kit.locks.lock import Lock
from kit.locks.resolve import check_current

TEXT = """\
# a comment
schema: kit.intent/1
stack: small
family: rehearsal
platform: linux/amd64
epoch: 1700000000
debian:
  suite: bookworm
  components: [main]
  groups:
    base: [python3, libc6]
    devel: [gcc]
python:
  version: "3.11"
  groups:
    runtime:
      wheels: [numpy==1.26.4]
    source:
      sdists: [mpi4py==3.1.5]
files:
  - name: data.bin
    url: http://127.0.0.1/data.bin
    sha256: abababababababababababababababababababababababababababababababab
    group: data
models:
  - name: tiny
    directory: models/tiny
  - name: big
    repo: someone/big
    revision: main
    allow: ["*.json", "*.safetensors"]
"""


@pytest.fixture
def load(tmp_path):
    def read(text=TEXT):
        path = tmp_path / "small.yaml"
        path.write_text(text)
        return intents.load(path)

    return read


def test_everything_is_read(load):
    intent = load()
    assert (intent.stack, intent.family, intent.platform) == ("small", "rehearsal", "linux/amd64")
    assert intent.architecture == "amd64"
    assert intent.epoch == 1700000000
    assert [group.name for group in intent.debian.groups] == ["base", "devel"]
    assert str(intent.python.groups[0].wheels[0]) == "numpy==1.26.4"
    assert intent.files[0].sha256 == Digest("ab" * 32)
    assert [model.name for model in intent.models] == ["tiny", "big"]
    assert intent.models[1].allow == ("*.json", "*.safetensors")


def test_comments_and_layout_do_not_matter(load):
    plain = load().digest
    assert load("\n\n# more\n" + TEXT.replace("[gcc]", "\n      - gcc # why")).digest == plain
    assert load(TEXT.replace('"3.11"', "'3.11'")).digest == plain
    assert load(TEXT.replace("  components: [main]\n", "")).digest == plain, "the default"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("1700000000", "1700000001"),
        ("linux/amd64", "linux/arm64"),
        ("[gcc]", "[gcc, g++]"),
        ("1.26.4", "1.26.3"),
        ("bookworm", "bullseye"),
        ("1/data.bin", "2/data.bin"),
        ("revision: main", "revision: v1"),
    ],
)
def test_what_is_asked_for_matters(load, old, new):
    plain = load()
    changed = load(TEXT.replace(old, new))
    assert changed.digest != plain.digest
    lock = Lock("small", plain.digest, ())
    check_current(lock, plain)
    with pytest.raises(KitError, match="made from another intent") as caught:
        check_current(lock, changed)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert caught.value.hint == "kit lock small"


def test_a_lock_of_another_stack(load):
    with pytest.raises(KitError, match="stack 'other'"):
        check_current(Lock("other", load().digest, ()), load())


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("platform:", "platfrom:", "2:1: missing key 'platform'"),
        ("family: rehearsal", "family: rehearsal\nfamilly: x", "5:1: unknown key 'familly'"),
        (
            "suite: bookworm",
            "suite: bookworm\n  siute: x",
            "9:3: unknown key 'siute'; did you mean",
        ),
        ("wheels: [numpy", "wheel: [numpy", "17:7: unknown key 'wheel'; did you mean wheels?"),
        ("kit.intent/1", "kit.intent/2", "2:9: expected schema kit.intent/1, found kit.intent/2"),
        ("stack: small", "stack: other", "3:8: stack: expected 'small'"),
        ("linux/amd64", "linux/amd46", "unknown platform 'linux/amd46'; did you mean linux/amd64"),
        ("1700000000", "-5", "epoch: expected seconds since 1970"),
        ("1700000000", "soon", "6:8: epoch: expected a whole number"),
        ("family: rehearsal", "family: ../x", "not a valid family"),
        ("[gcc]", "[gcc, gcc]", "devel: 'gcc' stands twice"),
        ("[gcc]", "['gcc; rm']", "not a Debian package name"),
        ("[gcc]", "['--option']", "not a Debian package name"),
        ("[gcc]", "gcc", "12:12: devel: expected a list"),
        ("numpy==1.26.4", "numpy>=1.26", "expected an exact pin, name==version"),
        ("numpy==1.26.4", "numpy", "expected an exact pin"),
        ("numpy==1.26.4", "numpy==1.*", "expected an exact pin"),
        ("[numpy==1.26.4]", "[a_b==1, A-B==2]", "'a-b' stands twice"),
        ('"3.11"', "3.11", "14:12: version: expected a text, found '3.11'; put it in quotes"),
        ('"3.11"', '"2.7"', "not a valid version"),
        ("ab" * 32, "abcd", "sha256: expected 64"),
        ("http://", "ftp://", "url: expected http(s)://"),
        ("http://", "http://user:secret@", "no place for secrets"),
        ("/data.bin", "/data.bin?token=s3cret", "query or fragment, where servers take secrets"),
        (
            "/data.bin",
            "/data.bin#s3cret",
            "'http://127.0.0.1/data.bin=http://127.0.0.1/data.bin?…'",
        ),
        ("name: data.bin", "name: ../data.bin", "outside its folder"),
        ("directory: models/tiny", "directory: /etc", "outside its folder"),
        ("directory: models/tiny", "repo: x/y", "missing key 'revision'"),
        ("    directory: models/tiny\n", "", "either a directory or a repo"),
        ("name: big", "name: tiny", "models: 'tiny' stands twice"),
        ("repo: someone/big", "repo: a/b/c", "not a valid repo"),
        ("schema: ", "schema: [", "not valid YAML"),
    ],
)
def test_what_is_wrong_has_a_place(load, tmp_path, old, new, words):
    assert old in TEXT
    with pytest.raises(KitError) as caught:
        load(TEXT.replace(old, new, 1))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/small.yaml:")
    assert words in message
    assert "secret@" not in message
    assert caught.value.exit_code == ExitCode.USAGE


def test_sections_may_be_left_out(load):
    head = TEXT[: TEXT.index("debian:")]
    intent = load(head)
    assert (intent.debian, intent.python, intent.files, intent.models) == (None, None, (), ())


def test_the_projects_own_intents_and_locks():
    from kit import project
    from kit.locks import lock as locks

    found = project.find()
    for stack in found.stacks:
        intent = intents.load(found.intent_path(stack))
        assert intent.stack == stack
        if found.lock_path(stack).exists():
            lock = locks.load(found.lock_path(stack))
            check_current(replace(lock, unresolved=()), intent)
            assert lock.unresolved or not stack.startswith(("trtllm-", "triton-"))
