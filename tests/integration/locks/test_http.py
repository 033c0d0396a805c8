import base64
import subprocess
import threading
import time

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks.connection import NotFound, shown
from kit.locks.http import ATTEMPTS, Client
from kit.reception import Cancelled
from kit.store import Store
from tests.integration.locks.conftest import noise
from tests.stand_in.file_server import Fault, FileServer
from tests.stand_in.stored import damaged

CONTENT = noise(300_000)
DIGEST = Digest.of_bytes(CONTENT)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def bring(store, client):
    def download(url, headers=None, client=client, digest=DIGEST, size=300_000):
        with store.receive(digest, size, cancelled=client.cancelled) as reception:
            client.download(url, reception, headers)

    return download


def partials(store):
    return list((store.root / "partial").iterdir())


def test_a_whole_file(server, store, bring):
    bring(server.put("/f", CONTENT))
    assert store.path(DIGEST).read_bytes() == CONTENT
    (seen,) = server.requests
    assert seen.range is None
    assert seen.headers["accept-encoding"] == "identity"


def test_cut_off_it_asks_only_for_the_rest(server, store, bring):
    url = server.put("/f", CONTENT)
    server.faults["/f"] = [Fault(cut_after=100_000), Fault(cut_after=50_000)]
    bring(url)
    assert store.path(DIGEST).read_bytes() == CONTENT
    assert [seen.range for seen in server.requests] == [None, "bytes=100000-", "bytes=150000-"]
    assert sum(seen.sent for seen in server.requests) == len(CONTENT), "no byte came twice"


def test_given_up_it_keeps_what_has_come_and_goes_on_next_time(server, store, bring):
    url = server.put("/f", CONTENT)
    server.faults["/f"] = [Fault(cut_after=100_000), *[Fault(cut_after=0)] * ATTEMPTS]
    with pytest.raises(KitError) as caught:
        bring(url)
    message = str(caught.value)
    assert "100000 of 300000 bytes have come and are kept" in message
    assert "the connection ended early" in message
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert store.received(DIGEST) == 100_000
    server.faults.clear()
    server.requests.clear()
    bring(url)
    assert [seen.range for seen in server.requests] == ["bytes=100000-"]
    assert server.requests[0].sent == 200_000


def test_a_server_that_ignores_ranges(server, store, bring):
    url = server.put("/f", CONTENT)
    server.faults["/f"] = [Fault(cut_after=100_000), Fault(ignore_range=True)]
    bring(url)
    assert store.path(DIGEST).read_bytes() == CONTENT


def test_a_server_that_ignores_ranges_and_always_breaks(server, bring):
    url = server.put("/f", CONTENT)
    server.forever["/f"] = Fault(cut_after=100_000, ignore_range=True)
    with pytest.raises(KitError, match="100000 of 300000"):
        bring(url)
    assert len(server.requests) <= 2 * ATTEMPTS


def test_a_server_that_sends_another_part(server, store, bring):
    url = server.put("/f", CONTENT)
    server.faults["/f"] = [Fault(cut_after=100_000), Fault(wrong_range=True)]
    bring(url)
    assert store.path(DIGEST).read_bytes() == CONTENT


def test_a_server_without_lengths(server, store, bring):
    url = server.put("/f", CONTENT)
    server.faults["/f"] = [Fault(hide_length=True, cut_after=100_000), Fault(hide_length=True)]
    bring(url)
    assert store.path(DIGEST).read_bytes() == CONTENT


@pytest.mark.parametrize("place", [0, 150_000, 299_999])
def test_wrong_bytes_leave_nothing(server, store, bring, place):
    url = server.put("/f", CONTENT)
    server.forever["/f"] = Fault(flip=place)
    with pytest.raises(KitError) as caught:
        bring(url + "?token=query-secret")
    message = str(caught.value)
    assert url in message
    assert f"expected {DIGEST}" in message
    assert "found sha256:" in message
    assert "query-secret" not in message
    assert caught.value.exit_code == ExitCode.CONTENT
    assert partials(store) == []
    assert not store.has(DIGEST)


def test_a_damaged_partial_is_not_the_servers_fault(server, store, bring):
    (store.root / "partial").mkdir(parents=True)
    (store.root / "partial" / DIGEST.hex).write_bytes(b"\0" * 1000)
    bring(server.put("/f", CONTENT))
    assert [seen.range for seen in server.requests] == ["bytes=1000-", None]
    assert damaged(store) == []


@pytest.mark.parametrize("fault", [Fault(extra=b"more"), Fault(extra=b"more", hide_length=True)])
def test_too_long_leaves_nothing(server, store, bring, fault):
    server.forever["/f"] = fault
    with pytest.raises(KitError, match="wrong size: expected 300000 bytes") as caught:
        bring(server.put("/f", CONTENT))
    assert caught.value.exit_code == ExitCode.CONTENT
    assert partials(store) == []


def test_too_short_is_found_before_the_first_byte(server, store, bring):
    with pytest.raises(KitError, match="expected 300000 bytes, the server has 299999"):
        bring(server.put("/f", CONTENT[:-1]))
    assert partials(store) == []


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_busy_twice_then_well(server, store, bring, status):
    server.faults["/f"] = [Fault(status=status, retry_after=0), Fault(status=status)]
    bring(server.put("/f", CONTENT))
    assert store.has(DIGEST)
    assert len(server.requests) == 3


def test_busy_for_good(server, bring):
    server.forever["/f"] = Fault(status=503)
    with pytest.raises(KitError, match="the server answers 503; 0 of 300000") as caught:
        bring(server.put("/f", CONTENT))
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert len(server.requests) == ATTEMPTS


@pytest.mark.parametrize("status", [404, 410])
def test_gone_is_not_asked_for_again(server, bring, status):
    server.forever["/f"] = Fault(status=status)
    with pytest.raises(NotFound):
        bring(server.put("/f", CONTENT))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_refused_names_the_login(server, bring, status):
    server.forever["/f"] = Fault(status=status)
    with pytest.raises(KitError, match=f"refuses with {status}") as caught:
        bring(server.put("/f", CONTENT), {"Authorization": "Bearer header-secret"})
    assert "header-secret" not in str(caught.value) + str(caught.value.hint)
    assert len(server.requests) == 1


def test_nobody_listens(bring):
    with FileServer() as gone:
        url = gone.put("/f", CONTENT)
    with pytest.raises(KitError, match="no connection") as caught:
        bring(url)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_a_name_that_nobody_knows(bring):
    with pytest.raises(KitError, match=r"the name nowhere.invalid is not known here"):
        bring("http://nowhere.invalid/f")


def test_a_silent_server(server, store, bring):
    url = server.put("/f", CONTENT)
    server.forever["/f"] = Fault(bytes_per_second=100)
    with pytest.raises(KitError, match=r"gone silent|ended early"):
        bring(url, client=Client(read_timeout=0.02, back_off=0.01))


def test_cancelled_in_the_middle(server, store, client, bring):
    server.forever["/f"] = Fault(bytes_per_second=200_000)
    url = server.put("/f", CONTENT * 20)
    threading.Timer(0.5, client.cancelled.set).start()
    start = time.monotonic()
    content = CONTENT * 20
    with pytest.raises(Cancelled):
        bring(url, digest=Digest.of_bytes(content), size=len(content))
    assert time.monotonic() - start < 8


def test_a_login_stays_on_its_host(server, store, bring):
    with FileServer() as other:
        target = other.put("/g", CONTENT)
        server.forever["/f"] = Fault(redirect=target + "?sig=x")
        bring(server.put("/f", b""), {"Authorization": "Bearer header-secret"})
        assert server.requests[0].headers["authorization"] == "Bearer header-secret"
        assert "authorization" not in other.requests[0].headers
    assert store.has(DIGEST)


def test_a_login_goes_along_on_the_same_host(server, bring):
    server.put("/g", CONTENT)
    server.forever["/f"] = Fault(redirect="/g")
    bring(server.put("/f", b""), {"Authorization": "Bearer x"})
    assert server.requests[1].headers["authorization"] == "Bearer x"


def test_a_login_in_the_url_and_in_netrc(server, store, bring, monkeypatch, tmp_path):
    login = "Basic " + base64.b64encode(b"me:pass word").decode()
    server.required_header = ("Authorization", login)
    url = server.put("/f", CONTENT)
    with pytest.raises(KitError, match="refuses with 401"):
        bring(url)
    with pytest.raises(KitError) as caught:
        bring(url.replace("://", "://me:url-secret@"))
    assert "url-secret" not in str(caught.value)
    bring(url.replace("://", "://me:pass%20word@"))
    store.discard(DIGEST)
    netrc = tmp_path / "netrc"
    netrc.write_text('machine 127.0.0.1 login me password "pass word"\n')
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    bring(url)
    assert store.has(DIGEST)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://x/"])
def test_no_redirect_out_of_http(server, bring, target):
    server.forever["/f"] = Fault(redirect=target)
    with pytest.raises(KitError, match="refused to be sent on"):
        bring(server.put("/f", b""))


def test_redirects_without_end(server, bring):
    server.forever["/f"] = Fault(redirect="/f")
    with pytest.raises(KitError, match="more than 10 redirects"):
        bring(server.put("/f", b""))


def test_through_a_proxy(server, store, bring, monkeypatch):
    """A proxy is asked with the whole URL; this one answers itself."""
    login = "Basic " + base64.b64encode(b"me:proxy-secret").decode()
    server.required_header = ("Proxy-Authorization", login)
    server.put("http://elsewhere.invalid/f", CONTENT)
    server.put("/f", CONTENT)
    monkeypatch.setenv("http_proxy", server.url.replace("://", "://me:proxy-secret@"))
    monkeypatch.setenv("no_proxy", "")
    bring("http://elsewhere.invalid/f")
    assert store.has(DIGEST)
    assert len(server.requests) == 1


def test_an_own_certificate_authority(tmp_path, store, monkeypatch):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    with FileServer(certificate=(certificate, key)) as server:
        url = server.put("/f", CONTENT)
        with (
            pytest.raises(KitError, match="no trusted connection") as caught,
            store.receive(DIGEST, len(CONTENT)) as reception,
        ):
            Client().download(url, reception)
        assert "SSL_CERT_FILE" in str(caught.value.hint)
        for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            with monkeypatch.context() as patched:
                patched.setenv(name, str(certificate))
                assert Client().measure(url) == (DIGEST, len(CONTENT))
        client = Client()
        client.trust(str(certificate))
        assert client.measure(url) == (DIGEST, len(CONTENT))


def test_from_a_disk(tmp_path, store, bring, client):
    (tmp_path / "a b").write_bytes(CONTENT)
    url = (tmp_path / "a b").as_uri()
    assert client.length(url) == len(CONTENT)
    assert client.measure(url) == (DIGEST, len(CONTENT))
    bring(url)
    assert store.has(DIGEST)
    with pytest.raises(NotFound):
        client.read((tmp_path / "absent").as_uri())
    with pytest.raises(KitError, match="wrong size"):
        bring(url, digest=Digest("0" * 64), size=len(CONTENT) + 1)


def test_small_documents(server, client):
    url = server.put("/page", b"hello", "text/html")
    server.faults["/page"] = [Fault(status=503), Fault(cut_after=2)]
    assert client.read(url) == (b"hello", "text/html", url)
    assert client.length(url) == 5
    server.forever["/page"] = Fault(refuse_head=True)
    assert client.length(url) is None
    with pytest.raises(NotFound):
        client.length(server.url + "/absent")


def test_connections_are_used_again(server, client, store):
    for number in range(5):
        content = noise(1000, seed=number)
        with store.receive(Digest.of_bytes(content), 1000) as reception:
            client.download(server.put(f"/{number}", content), reception)
    pool = next(iter(client._connections._pools.values())).connection_from_url(server.url)
    assert pool.num_connections == 1


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://user:pass@host:1/a/b?token=x#y", "https://host:1/a/b?…"),
        ("http://host/a", "http://host/a"),
        ("file:///a/b", "file:///a/b"),
        ("http://us@er:p@host/a", "http://host/a"),
    ],
)
def test_what_people_see_of_a_url(url, text):
    assert shown(url) == text
