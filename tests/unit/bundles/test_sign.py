"""Which keys are pinned: all that the site has, and never none because they could not be read."""

from __future__ import annotations

import errno
import os

import pytest

from kit.bundles import sign, verifier
from kit.errors import ExitCode, KitError
from tests.unit.bundles import making


@pytest.fixture
def trusted(place):
    """The folder of the keys that the site trusts."""
    folder = place.home / sign.TRUSTED
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Two keys: what their .pub files say, and their blobs."""
    folder = tmp_path_factory.mktemp("two")
    private = [making.key(folder, name) for name in ("one", "two")]
    return [(path.with_name(f"{path.name}.pub").read_text(), making.blob(path)) for path in private]


def test_no_folder_pins_nothing(place):
    assert sign.pinned(place, []) == []


@pytest.mark.parametrize("name", [None, "sender.key"])
def test_a_folder_without_keys_does_not_let_everybody_in(place, trusted, keys, name):
    if name:
        (trusted / name).write_text(keys[0][0])
    with pytest.raises(KitError, match=r"no keys in it: expected files called \*\.pub") as caught:
        sign.pinned(place, [])
    assert caught.value.exit_code == ExitCode.USAGE


def test_all_keys_of_all_files_are_pinned(place, trusted, keys):
    (one, first), (two, second) = keys
    (trusted / "a.pub").write_text(f"# the old one, until May\n\n{one}{two}")
    (trusted / "b.pub").write_text(one.replace("\n", "\r\n"))
    (trusted / "notes.txt").write_text("no key")
    assert sign.pinned(place, []) == [first, second, first]


@pytest.mark.parametrize("what", ["file", "loop", "nowhere"])
def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(place, what):
    folder = place.home / sign.TRUSTED
    folder.parent.mkdir(exist_ok=True)
    if what == "file":
        folder.write_text("")
    else:
        folder.symlink_to(folder if what == "loop" else "gone")
    with pytest.raises(KitError, match="nobody knows which keys are trusted") as caught:
        sign.pinned(place, [])
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(place, trusted, keys, monkeypatch):
    """As root reads everything, somebody else's view of it is made up."""
    (trusted / "a.pub").write_text(keys[0][0])

    def refuse(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        with pytest.raises(KitError, match="Permission denied") as caught:
            sign.pinned(place, [])
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    monkeypatch.setattr(os, "open", lambda path, *_: refuse(path))
    with pytest.raises(KitError, match=r"a\.pub: cannot be read") as caught:
        sign.pinned(place, [])
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected a public key"),
        ("# {one}", "expected a public key"),
        ("#{one}", "expected a public key"),
        ("# a comment\u2028{one}", "expected a public key"),
        ("# a comment\r{one}", "expected a public key"),
        ("ssh-rsa AAAA x", "expected a public key"),
        ("ssh-ed25519", r":1: expected a public key"),
        ("{one}ssh-ed25519 AAAA", r":2: expected a public key"),
        ('namespaces="file" {one}', "no option before it"),
        ("sender@host {one}", "no name and no option"),
        ('command="echo ssh-ed25519 AAAA" {one}', "no option before it"),
    ],
)
def test_what_is_no_key_alone_is_refused(place, trusted, keys, text, told):
    (trusted / "a.pub").write_text(text.format(one=keys[0][0]), newline="")
    with pytest.raises(KitError, match=told) as caught:
        sign.pinned(place, [])
    assert caught.value.exit_code == ExitCode.USAGE


def test_keys_of_other_kinds_are_passed_over(place, trusted, keys):
    (one, blob), _ = keys
    (trusted / "a.pub").write_text(f"ssh-rsa AAAAB3 x\nsk-ssh-ed25519@openssh.com AAAA y\n{one}")
    assert sign.pinned(place, []) == [blob]


def test_one_signs_with_one_key(keys, tmp_path):
    (tmp_path / "key").write_text("a private one")
    (tmp_path / "key.pub").write_text("".join(text for text, _ in keys))
    with pytest.raises(KitError, match="expected one public key, found 2"):
        sign.public_key(tmp_path / "key")
    with pytest.raises(verifier.Refused, match="found 2"):
        verifier.public_key((tmp_path / "key.pub").read_text(), "key.pub")
