"""A push into registries that redirect, refuse, break off and lie, on loopback."""

from __future__ import annotations

import http.server
import json
import re
import threading

import pytest

from kit.bundles import create, push, verifier
from kit.cli import run
from kit.errors import ExitCode, KitError
from tests.unit.bundles import making


class Registry(http.server.ThreadingHTTPServer):
    """Takes what it is sent; `answers` are other replies to some requests.

    Attributes:
        blobs, manifests: what it has, by digest and by path.
        seen: method, path and login of every request.
        answers: method and part of a path → status, headers, body.
    """

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs, self.manifests, self.seen, self.answers = {}, {}, [], {}

    @property
    def host(self):
        return f"127.0.0.1:{self.server_port}"

    def count(self, method):
        return sum(one[0] == method for one in self.seen)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def say(self, status, headers=(), body=b""):
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), **dict(headers)}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        self.close_connection = int(headers["Content-Length"]) != len(body)

    def handle_any(self):
        registry = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        registry.seen.append((self.command, self.path, self.headers.get("Authorization")))
        for (method, part), answer in registry.answers.items():
            if method == self.command and part in self.path:
                return self.say(*answer)
        digest = self.path.rpartition("sha256:")[2]
        if self.command == "HEAD":
            return self.say(200 if digest in registry.blobs else 404)
        if self.command == "POST":
            return self.say(202, {"Location": f"{self.path}one?_state=secret"})
        if self.command == "GET":
            found = registry.manifests.get(digest)
            return self.say(404) if found is None else self.say(200, {}, found)
        (registry.blobs if "digest=" in self.path else registry.manifests)[
            digest if "digest=" in self.path else self.path
        ] = body
        return self.say(201)

    do_HEAD = do_GET = do_POST = do_PUT = handle_any


@pytest.fixture
def registry(monkeypatch, tmp_path):
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    with Registry() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def sent(place, tmp_path):
    """A bundle of one file, and a delta to it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_bytes(b"x" * 5000)
    making.make(place, tmp_path / "one", data)
    (data / "more").write_bytes(b"y" * 5000)
    settings = create.Settings("test", since=making.index_of(tmp_path / "one"))
    making.make(place, tmp_path / "two", data, settings=settings)
    return tmp_path / "one", tmp_path / "two"


def pushed(folder, registry, target="kit"):
    return push.push(folder, making.index_of(folder), f"{registry.host}/{target}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_blob_that_is_somewhere_else_is_there(sent, registry, status):
    """And nobody follows with the login."""
    pushed(sent[0], registry)
    count = registry.count("POST")
    with Registry() as store:
        place = {"Location": f"http://{store.host}/store?signature=x"}
        for digest in registry.blobs:
            registry.answers["HEAD", digest] = (status, place)
        pushed(sent[0], registry)
        assert registry.count("POST") == count
        pushed(sent[1], registry)
        assert not store.seen


def test_a_blob_that_is_not_there_is_missing_from_a_delta(sent, registry):
    with pytest.raises(KitError, match="which this delta needs") as caught:
        pushed(sent[1], registry)
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize("status", [204, 304, 400, 401, 403, 429, 500, 502, 503])
@pytest.mark.parametrize("which", [0, 1])
def test_a_registry_that_does_not_say_what_it_has(sent, registry, status, which):
    challenge = {"WWW-Authenticate": f'Bearer realm="http://{registry.host}/token"'}
    registry.answers["HEAD", "/blobs/"] = (status, challenge)
    registry.answers["GET", "/token"] = (200, {}, json.dumps({"token": "t"}).encode())
    with pytest.raises(KitError, match=f"does not say whether it has .*: {status}") as caught:
        pushed(sent[which], registry)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert (caught.value.hint == f"docker login {registry.host}") == (status in (401, 403))
    assert registry.count("POST") == 0


@pytest.mark.parametrize("status", [403, 500])
def test_a_manifest_that_a_delta_needs_is_asked_for(registry, tmp_path, status):
    digest = "sha256:" + "a" * 64
    repository = push._Repository(registry.host, "kit/image/x", None, 1)
    registry.answers["GET", "/manifests/"] = (status, {}, b"no\nerror: forged")
    with pytest.raises(KitError, match="does not say whether") as caught:
        repository._present(digest)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "\n" not in str(caught.value)
    registry.answers.clear()
    with pytest.raises(KitError, match="lacks the manifest") as caught:
        repository._present(digest)
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize(
    ("method", "part", "status"),
    [("PUT", "digest=", 500), ("POST", "/uploads/", 500), ("PUT", "/manifests/", 500)],
)
def test_an_answer_that_breaks_off(sent, registry, method, part, status):
    registry.answers[method, part] = (status, {"Content-Length": "1000"}, b"short")
    with pytest.raises(KitError, match="the answer broke off") as caught:
        pushed(sent[0], registry)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


@pytest.mark.parametrize(
    "location",
    [
        *("http://[::1/x?secret", "http://host:port/?secret", "http://host:99999/", "https://"),
        *("ftp://host/", "", "mailto:x"),
    ],
)
def test_an_upload_to_nowhere(sent, registry, location):
    registry.answers["POST", "/uploads/"] = (202, {"Location": location})
    with pytest.raises(KitError, match="sends uploads to what is no URL") as caught:
        pushed(sent[0], registry)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "secret" not in str(caught.value)


def test_no_two_contents_have_one_name(place, registry, tmp_path):
    names = ("a.b.txt", "a_b.txt", "a-b.txt", "A.b.txt", "a b.txt", "a..b.txt", "é", "è", "a__b")
    for name in names:
        (tmp_path / name).write_text(name)
    making.make(place, tmp_path / "out", *(tmp_path / name for name in names))
    rows = pushed(tmp_path / "out", registry)
    found = {row["name"]: row["reference"].removeprefix(f"{registry.host}/kit/") for row in rows}
    assert found["a.b.txt"] == "file/a.b.txt:1"
    assert found["a_b.txt"] == "file/a_b.txt:1"
    assert found["a-b.txt"] == "file/a-b.txt:1"
    assert found["a__b"] == "file/a__b:1"
    assert re.fullmatch(r"file/a\.b\.txt-[0-9a-f]{12}:1", found["A.b.txt"])
    assert len(set(found.values())) == len(registry.manifests) == len(names)
    for reference in found.values():
        component = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
        assert re.fullmatch(rf"file/{component}:1", reference)


def test_names_that_stay_the_same_are_refused_before_anything_is_sent():
    contents = [
        verifier.Content("file", name, "", "y", "a" * 64, ())
        for name in ("A", "a", "a-" + push.Digest.of_bytes(b"A").short)
    ]
    with pytest.raises(KitError, match="nothing was sent") as caught:
        push._repositories("kit", contents)
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize("target", ["me:hunter2@HOST/kit", "https://me:hun@ter2@HOST/kit"])
def test_a_login_in_a_target_is_not_repeated(sent, place, registry, monkeypatch, capsys, target):
    monkeypatch.setenv("KIT_ROOT", str(place.root))
    monkeypatch.setenv("KIT_HOME", str(place.home))
    target = target.replace("HOST", registry.host)
    assert run(["bundle", "push", str(sent[0]), target]) == 2
    said = capsys.readouterr()
    assert f"…@{registry.host}/kit: expected registry" in said.err
    assert f"docker login {registry.host}" in said.err
    for secret in ("hun", "ter2", "me:"):
        assert secret not in said.err + said.out
    assert not registry.seen
