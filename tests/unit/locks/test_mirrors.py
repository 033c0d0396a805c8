import pytest

from kit.errors import ExitCode, KitError
from kit.locks.mirrors import rewrite


@pytest.fixture
def mirrors(monkeypatch):
    def say(text):
        monkeypatch.setenv("KIT_MIRRORS", text)

    return say


@pytest.mark.parametrize(
    ("pairs", "url", "expected"),
    [
        ("nvcr.io/=site.example/ngc/", "nvcr.io/nvidia/x", "site.example/ngc/nvidia/x"),
        ("nvcr.io=site.example/ngc", "nvcr.io/nvidia/x", "site.example/ngc/nvidia/x"),
        ("nvcr.io=site.example/ngc", "nvcr.io", "site.example/ngc"),
        ("nvcr.io=site.example", "nvcr.io.evil.example/x", "nvcr.io.evil.example/x"),
        ("nvcr.io=site.example", "nvcr.iox/x", "nvcr.iox/x"),
        ("a/=b/", "https://a/x?q=1", "https://b/x?q=1"),
        ("a=b", "https://a?q=1", "https://b?q=1"),
        ("a/=http://b/", "https://a/x", "http://b/x"),
        ("https://a/=https://b/", "https://a/x", "https://b/x"),
        ("https://a/=https://b/", "http://a/x", "http://a/x"),
        ("https://a/=https://b/", "a/x", "https://b/x"),
        ("https://a/=https://me:word@b/", "https://a/x", "https://me:word@b/x"),
        ("https://a/=https://b/", "https://me:word@a/x", "https://b/x"),
        ("HTTPS://A.Example/=https://b/", "https://a.EXAMPLE/X", "https://b/X"),
        ("a/=b/ a/c/=d/", "https://a/c/x", "https://d/x"),
        ("a/c/=d/ a/=b/", "https://a/c/x", "https://d/x"),
        ("a/=b/\n\n  c/=d/\n", "https://c/x", "https://d/x"),
        ("a/=b/ b/=c/", "https://a/x", "https://b/x"),
        ("https://a/x=https://a/get?id=1&key=2", "https://a/x", "https://a/get?id=1&key=2"),
        ("a/=b/", "git@a:x/y", "git@a:x/y"),
        ("a/=b/", "/a/x", "/a/x"),
        ("a/=b/", "", ""),
    ],
)
def test_the_longest_prefix_decides_once(mirrors, pairs, url, expected):
    mirrors(pairs)
    assert rewrite(url) == expected


def test_without_mirrors_everything_stays(monkeypatch, mirrors):
    monkeypatch.delenv("KIT_MIRRORS", raising=False)
    assert rewrite("https://me:word@a/x") == "https://me:word@a/x"
    mirrors("")
    assert rewrite("https://a/x") == "https://a/x"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/=b/ https://me:secret@host/", "pair 2: expected prefix=prefix"),
        ("=https://me:secret@host/", "pair 1: expected prefix=prefix"),
        ("a/=", "pair 1: expected prefix=prefix"),
        ("https://=b", "pair 1: expected prefix=prefix"),
        ("https://me:secret@a/=b", "pair 1, for a/: both sides end with '/', or none does"),
    ],
)
def test_what_is_no_pair(mirrors, text, message):
    mirrors(text)
    with pytest.raises(KitError) as caught:
        rewrite("https://a/x")
    assert str(caught.value) == f"KIT_MIRRORS: {message}"
    assert caught.value.exit_code == ExitCode.USAGE
