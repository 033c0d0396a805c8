import pytest

from kit.errors import ExitCode, KitError
from kit.locks import git_program
from kit.locks.connection import Interrupted, NotFound
from kit.locks.git_program import Unadvertised, UnknownCommit
from kit.locks.git_server import canonical, resolved


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://git.example/a/b.git", "https://git.example/a/b.git"),
        ("https://Git.Example:8443/a/b/", "https://git.example:8443/a/b"),
        ("http://git.example/a", "http://git.example/a"),
        ("https://user:secret@git.example/a", "https://git.example/a"),
        ("git@git.example:team/x.git", "https://git.example/team/x.git"),
        ("git.example:/team/x.git", "https://git.example/team/x.git"),
        ("ssh://git@git.example:2222/team/x.git", "https://git.example/team/x.git"),
        ("git+ssh://git.example/team/x", "https://git.example/team/x"),
        ("git://git.example/x.git", "https://git.example/x.git"),
        ("https://[::1]:80/x", "https://[::1]:80/x"),
    ],
)
def test_addresses_of_a_lock(url, expected):
    assert canonical(url, "here") == expected
    assert canonical(expected, "here") == expected


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "/srv/x",
        "file:///srv/x",
        "ext::sh -c x",
        "-x",
        "https://",
        "https://h/x?t=s",
        "https://h:p/x",
        "ftp://h/x",
        "https://h/a b",
        "ext:sh",
    ],
)
def test_no_addresses(url):
    if url == "ext:sh":  # to scp that is a host's name
        assert canonical(url, "here") == "https://ext/sh"
        return
    with pytest.raises(KitError) as caught:
        canonical(url, "here")
    assert caught.value.exit_code == ExitCode.CONTENT
    assert "t=s" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("./x.git", "https://h/a/b.git/x.git"),
        ("../x.git", "https://h/a/x.git"),
        ("../../c/x.git", "https://h/c/x.git"),
        ("git@other:x.git", "https://other/x.git"),
    ],
)
def test_addresses_of_submodules(url, expected):
    assert resolved(url, "https://h/a/b.git", "here") == expected


def test_no_way_out_of_a_host():
    for url in ("../..", "../../..", "../../../x"):
        with pytest.raises(KitError, match="climbs out"):
            resolved(url, "https://h/a/b.git", "here")


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        ("fatal: remote error: upload-pack: not our ref 123", UnknownCommit, ""),
        ("error: Server does not allow request for unadvertised object 12", Unadvertised, ""),
        ("fatal: unable to access 'u': The requested URL returned error: 503", Interrupted, "503"),
        ("fatal: unable to access 'u': The requested URL returned error: 403", KitError, "login"),
        ("fatal: could not read Username for 'u': terminal prompts disabled", KitError, "login"),
        ("fatal: unable to access 'u': The requested URL returned error: 418", KitError, "418"),
        ("remote: x\nfatal: repository 'https://h/x/' not found\n", NotFound, "not found"),
        (
            "error: object 0123456789012345678901234567890123456789: hasDotdot: x",
            KitError,
            "refuses",
        ),
        (
            "fatal: pack is corrupted (SHA1 mismatch)\nfatal: index-pack failed",
            KitError,
            "corrupted",
        ),
        (
            "fetch-pack: unexpected disconnect\nfatal: early EOF\nindex-pack",
            Interrupted,
            "disconnect",
        ),
        ("fatal: write error: No space left on device", KitError, "disk full"),
        ("", Interrupted, "says nothing"),
        ("remote: \x1b[31mhi https://u:secret@h/x?token=secret\x07", Interrupted, "https://h/x"),
    ],
)
def test_what_git_says(tmp_path, said, kind, words):
    with pytest.raises(kind) as caught:
        git_program._explain(said, "https://h/x", tmp_path)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
