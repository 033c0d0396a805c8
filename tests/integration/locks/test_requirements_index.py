"""The index behind a socket: what it offers, records and refuses."""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import socket

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks.recording_index import RecordingIndex
from kit.store import Store
from tests.stand_in.file_server import Fault
from tests.stand_in.package_index import PackageIndex, sdist, wheel


@pytest.fixture
def upstream(monkeypatch):
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with PackageIndex() as found:
        monkeypatch.setenv("PIP_INDEX_URL", found.simple)
        yield found


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def index(upstream, client, store, tmp_path):
    # Longer than the path of a socket may be.
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    with RecordingIndex(client, store, folder) as found:
        yield found


@pytest.fixture
def ask(index):
    def run(path, method="GET"):
        connection = http.client.HTTPConnection("index")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(10)
        folder = os.open(index._folder, os.O_RDONLY)
        connection.sock.connect(f"/proc/self/fd/{folder}/socket")
        os.close(folder)
        connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body

    return run


def hrefs(body):
    return re.findall(r'href="([^"]+)"', body.decode())


@pytest.mark.parametrize("speaks_json", [True, False])
@pytest.mark.parametrize("says_metadata", [True, False])
def test_a_page_says_what_upstream_says(upstream, index, ask, speaks_json, says_metadata):
    upstream.speaks_json, upstream.says_metadata = speaks_json, says_metadata
    old, new = wheel("alpha", "1.0"), wheel("alpha", "2.0+x", requires_python=">=3.9")
    upstream.offer(old, new, sdist("alpha", "2.0"))
    upstream.yanked[old[0]] = 'not "good"'
    upstream.wanted_python[new[0]] = ">=3.9"
    index.session("s")
    status, body = ask("/s/simple/alpha/")
    assert status == 200
    digest = hashlib.sha256(new[1]).hexdigest()
    assert f"../../files/1/alpha-2.0%2Bx-py3-none-any.whl#sha256={digest}" in hrefs(body)
    assert body.count(b'data-yanked="not &quot;good&quot;"') == 1
    assert body.count(b'data-requires-python="&gt;=3.9"') == 1
    assert body.count(b"data-core-metadata") == (2 if says_metadata else 0)
    if says_metadata:
        status, body = ask("/s/files/1/alpha-2.0%2Bx-py3-none-any.whl.metadata")
        assert (status, b"Name: alpha" in body) == (200, True)
    assert index.session("s").delivered == {}


def test_files_go_through_the_store_and_are_written_down(upstream, index, ask, store):
    name, content = wheel("alpha", "1.0", b"x" * 200_000)
    upstream.offer((name, content))
    session, other = index.session("s"), index.session("s+build")
    (href,) = hrefs(ask("/s/simple/alpha/")[1])
    place = f"/s/files/0/{name}"
    assert href.startswith(f"../../files/0/{name}")
    assert ask(place, "HEAD") == (200, b"")
    assert ask(place) == (200, content)
    assert ask(place) == (200, content)
    assert len(upstream.asked(f"/files/{name}")) == 1
    (offer,) = session.delivered.values()
    assert index.identity(offer) == (Digest.of_bytes(content), len(content))
    assert index.offer(f"http://127.0.0.1:1{place}") == offer
    assert store.path(Digest.of_bytes(content)).read_bytes() == content
    assert other.delivered == {}
    assert ask(f"/s+build/files/0/{name}")[0] == 200
    assert other.delivered == {0: offer}


@pytest.mark.parametrize(
    "path", ["/", "/x/simple/alpha/", "/s/files/7/x.whl", "/s/files/x/y", "/s/simple/alpha/../x"]
)
def test_nothing_else_is_there(upstream, index, ask, path):
    index.session("s")
    assert ask(path) == (404, b"")
    assert ask("/s/simple/no-such/") == (404, b"")
    assert index.session("s").problem is None


def test_what_several_indexes_have_comes_from_the_first(upstream, index, ask, monkeypatch):
    same, configured, named = (wheel("alpha", version) for version in ("1.0", "2.0", "3.0"))
    upstream.offer(same, configured)
    with PackageIndex() as second:
        second.offer(same, named)
        monkeypatch.setenv("KIT_MIRRORS", f"nv.example/={second.url[7:]}/")
        index.session("s", ["http://nv.example/simple/"])
        (page,) = {ask("/s/simple/alpha/") for _ in range(3)}
    assert [href.split("/")[-1].split("#")[0] for href in hrefs(page[1])] == [
        same[0],
        configured[0],
        named[0],
    ]
    offers = [index.offer(f"/s/files/{number}/x") for number in range(3)]
    assert [offer.location for offer in offers] == ["", "", f"http://nv.example/files/{named[0]}"]


def test_a_mirror_that_stands_for_too_little(upstream, index, ask, monkeypatch):
    """What lies beside it could only be locked under the mirror's own name."""
    with PackageIndex() as second:
        second.offer(wheel("alpha", "1.0"))
        target = second.url.replace("://", "://me:pass@")
        monkeypatch.setenv("KIT_MIRRORS", f"https://nv.example/={target}/simple/")
        session = index.session("s", ["https://nv.example"])
        assert ask("/s/simple/alpha/")[0] == 502
    assert "widen the one of the index" in str(session.problem)
    assert "pass@" not in str(session.problem)


def test_files_on_another_host_keep_their_address(upstream, index, ask):
    with PackageIndex() as second, PackageIndex() as files:
        name, content = wheel("alpha", "1.0")
        place = files.put(f"/x/{name}", content).replace("://", "://me:pass@") + "?token=secret"
        second.put("/simple/alpha/", f'<a href="{place}">{name}</a>'.encode(), "text/html")
        second.routes.clear()
        session = index.session("s", [second.simple])
        assert ask("/s/simple/alpha/")[0] == 200
        assert session.problem is None
        assert index.offer("/s/files/0/x").location == f"{files.url}/x/{name}"


def test_the_first_failure_is_kept(upstream, index, ask):
    upstream.offer(wheel("alpha", "1.0"), wheel("beta", "1.0"))
    upstream.stated["alpha-1.0-py3-none-any.whl"] = "0" * 64
    session = index.session("s")
    for project, number in (("alpha", 0), ("beta", 1)):
        assert ask(f"/s/simple/{project}/")[0] == 200
        upstream.forever[f"/files/{project}-1.0-py3-none-any.whl"] = (
            Fault() if number == 0 else Fault(status=403)
        )
        assert ask(f"/s/files/{number}/{project}-1.0-py3-none-any.whl") == (502, b"")
    assert isinstance(session.problem, KitError)
    assert session.problem.exit_code == ExitCode.CONTENT
    assert session.delivered == {}


def test_wrong_metadata_is_not_handed_on(upstream, index, ask):
    upstream.says_metadata = True
    upstream.offer(wheel("alpha", "1.0"))
    session = index.session("s")
    assert ask("/s/simple/alpha/")[0] == 200
    upstream.forever["/files/alpha-1.0-py3-none-any.whl.metadata"] = Fault(flip=3)
    assert ask("/s/files/0/alpha-1.0-py3-none-any.whl.metadata")[0] == 502
    assert "wrong content" in str(session.problem)


def test_a_full_disk_is_told_as_one(upstream, client, small_disk, tmp_path):
    upstream.offer(wheel("alpha", "1.0", b"x" * (8 << 20)))
    with RecordingIndex(client, Store(small_disk), tmp_path) as index:
        session = index.session("s")
        index.page(session, "alpha")
        with pytest.raises(KitError, match="not enough disk") as caught:
            index.bring(index.offer("/s/files/0/x"))
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
