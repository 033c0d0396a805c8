import email.utils
import time

import pytest
import urllib3

from kit.locks import connection
from kit.locks.connection import Interrupted, Refused, require_success


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        (email.utils.formatdate(time.time() + 86_400, usegmt=True), 3600, 86_400),
        (email.utils.formatdate(time.time() - 600, usegmt=True), 0, 0),
        ("soon", 0, 0),
        ("-7", 0, 0),
        ("", 0, 0),
    ],
    ids=["seconds", "a day later", "earlier", "a word", "less than none", "nothing"],
)
def test_how_long_a_server_wants_to_rest(header, least, most):
    answer = urllib3.HTTPResponse(status=429, headers={"Retry-After": header})
    with pytest.raises(Interrupted, match="the server answers 429") as caught:
        require_success(answer, "https://a/x")
    assert least <= caught.value.rest <= most


def test_a_refusal_says_who_wants_what_login():
    answer = urllib3.HTTPResponse(status=401, headers={"WWW-Authenticate": "Basic"})
    with pytest.raises(Refused) as caught:
        require_success(answer, "https://a/x?q=secret", "https://b/y?q=secret")
    refusal = caught.value
    assert (refusal.status, refusal.challenge) == (401, "Basic")
    assert refusal.url.startswith("https://b/")
    assert str(refusal).startswith("https://a/x?…: the server refuses with 401")


def test_netrc_is_read_again_only_when_it_has_changed(tmp_path, monkeypatch):
    place = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(place))
    assert connection._login("http://host.example/x") == ("http://host.example/x", {})
    place.write_text("machine host.example login me password one\n")
    first = connection._login("http://host.example/x")[1]
    reads = connection._netrc.cache_info().misses
    assert connection._login("http://host.example/y")[1] == first
    assert connection._netrc.cache_info().misses == reads
    place.write_text("machine host.example login me password another\n")
    assert connection._login("http://host.example/x")[1] not in ({}, first)
    place.unlink()
    assert connection._login("http://host.example/x")[1] == {}
