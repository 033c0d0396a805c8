import time

from kit.locks.contents import Contents
from kit.locks.lfs import _expires, _headers
from tests.stand_in.lfs_server import pointer

FOREVER = float("inf")


def test_links_that_end():
    now = time.monotonic()
    assert 3000 < _expires({"expires_in": 3600}) - now < 3600
    assert _expires({}) == FOREVER
    assert _expires({"expires_in": 0, "expires_at": "0001-01-01T00:00:00Z"}) == FOREVER
    for text in (
        "2020-01-02T03:04:05Z",
        "2020-01-02T03:04:05.678901234+02:00",
        "2020-01-02T03:04:05",
    ):
        assert _expires({"expires_at": text}) < now
    assert _expires({"expires_at": "2999-01-02T03:04:05Z"}) > now + 1e9
    for text in ("soon", "", 7, None):
        assert _expires({"expires_at": text}) == FOREVER


def test_headers_that_a_server_may_ask_for():
    said = {
        "Authorization": "Basic x",
        "X-Amz-Date": "1",
        "Host": "elsewhere",
        "range": "bytes=0-1",
        "Content-Length": "5",
        "X-Break": "a\r\nHost: b",
        "X Break": "1",
        "X-Number": 5,
    }
    assert _headers(said) == {"Authorization": "Basic x", "X-Amz-Date": "1"}


def test_which_objects_are_wanted():
    contents = Contents()
    contents.see("a/x.a", "file", pointer(b"x"))
    contents.see("a/x.txt", "file", pointer(b"not by its attributes"))
    contents.see("b/y.a", "file", pointer(b"y"))
    contents.see("b/z.a", "file", b"itself")
    contents.see(".gitattributes", "file", b"*.a filter=lfs\n")
    found = [path for path, _, _ in contents.wanted("sub/module", ("sub/module/a/**",), "here")]
    assert found == ["a/x.a"]
    assert [path for path, _, _ in contents.wanted(".", ("*",), "here")] == ["a/x.a", "b/y.a"]
    assert list(contents.wanted(".", (), "here")) == []
