"""Hosts that are asked before a fetch, and `kit fetch` that stops where it has to."""

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from kit import preflight
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks.intent import load
from kit.locks.lock import Input, Lock, Unresolved
from kit.project import Project
from kit.store import Store
from tests.conftest import ROOT
from tests.stand_in.file_server import Fault, FileServer
from tests.stand_in.registry import FailingRegistry, image

INTENT = """\
schema: kit.intent/1
stack: small
family: rehearsal
platform: linux/amd64
epoch: 1700000000
"""
TERMS = """\
licences:
  - {name: some-terms, url: https://terms.example/some}
"""


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """Loopback is asked directly; no login, mirror or acceptance of this machine is used."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("KIT_MIRRORS", "KIT_ACCEPT_LICENCES", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))


@pytest.fixture
def server():
    with FileServer() as found:
        yield found


@pytest.fixture
def project(tmp_path):
    root = tmp_path / "project"
    (root / "lockfiles").mkdir(parents=True)
    (root / "dockerfiles").mkdir()
    (root / "lockfiles" / "small.yaml").write_text(INTENT)
    return Project(root, tmp_path / "home")


@pytest.fixture
def findings(project):
    """What is found of the network for a lock of these inputs."""

    def check(*inputs, offline=False):
        intent = load(project.intent_path("small"))
        lock = Lock("small", intent.digest, tuple(sorted(inputs)))
        found = preflight.check_fetch(project, intent, lock, offline=offline)
        return {one.name: one for one in found if one.name.startswith(("host", "net", "source"))}

    return check


def file_input(url, content=b"x", name="file"):
    return Input("file", "data", name, "", name, url, Digest.of_bytes(content), len(content))


def kit(project, *arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "kit", *arguments],
        cwd=ROOT,
        env={**os.environ, "KIT_ROOT": str(project.root), "KIT_HOME": str(project.home), **env},
        capture_output=True,
        text=True,
        check=False,
    )


def host(server):
    return f"host {server.url.partition('://')[2]}"


def test_a_host_is_asked_once_and_nothing_is_downloaded(server, findings):
    items = [file_input(server.put(f"/{n}", b"%d" % n), b"%d" % n, name=f"f{n}") for n in range(20)]
    found = findings(*items)
    assert {name: one.state for name, one in found.items()} == {host(server): "ok"}
    assert [seen.method for seen in server.requests] == ["HEAD"]
    assert sum(seen.sent for seen in server.requests) == 0


@pytest.mark.parametrize(
    ("fault", "state", "remedy"),
    [
        (Fault(status=401), "failed", ".netrc"),
        (Fault(status=403), "failed", ".netrc"),
        (Fault(status=404), "failed", "kit lock small"),
        (Fault(status=429, retry_after=0), "warning", None),
        (Fault(status=503), "warning", None),
        (Fault(refuse_head=True), "ok", None),
        (Fault(status=451), "failed", "KIT_MIRRORS"),
    ],
)
def test_what_a_host_answers(server, findings, fault, state, remedy):
    item = file_input(server.put("/f?sig=query-secret", b"x"))
    server.forever["/f"] = fault
    only = findings(item)[host(server)]
    assert only.state == state
    assert remedy is None or remedy in only.remedy
    assert "query-secret" not in f"{only}"


def test_a_silent_host_is_waited_for_no_longer_than_said(findings, server, monkeypatch):
    monkeypatch.setattr(preflight.network, "SECONDS", 0.5)
    well = file_input(server.put("/f", b"x"), name="well")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        place = f"127.0.0.1:{deaf.getsockname()[1]}"
        start = time.monotonic()
        found = findings(well, file_input(f"http://{place}/f", b"y"))
    assert time.monotonic() - start < 10
    assert found[host(server)].state == "ok"
    assert found[f"host {place}"].state == "failed"


def test_nobody_listens(findings):
    with FileServer() as gone:
        item = file_input(gone.url + "/f")
    (only,) = findings(item).values()
    assert only.state == "failed"
    assert "no connection" in only.detail
    assert "KIT_MIRRORS" in only.remedy


def test_nobody_is_asked_for_what_is_there(server, project, findings):
    item = file_input(server.url + "/f")
    assert findings(item, offline=True)["network"].state == "ok"
    with Store(project.store).receive(item.sha256, 1) as reception:
        reception.write(b"x")
        reception.finish()
    assert findings(item)["network"].state == "ok"
    assert server.requests == []


def test_a_mirror_is_asked_in_place_of_the_origin(server, findings, monkeypatch):
    server.put("/mirror/f", b"x")
    monkeypatch.setenv("KIT_MIRRORS", f"https://files.example/={server.url}/mirror/")
    assert findings(file_input("https://files.example/f"))[host(server)].state == "ok"


def test_a_proxy_is_asked_in_place_of_the_origin(server, findings, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    findings(file_input("http://files.example/f"))
    assert [seen.headers["host"] for seen in server.requests] == ["files.example"]


@pytest.mark.parametrize("is_manifest", [True, False])
@pytest.mark.parametrize("user", [None, "Basic nobody-has-this"])
def test_a_registry_that_wants_a_token(findings, is_manifest, user):
    with FailingRegistry() as registry:
        registry.token_uses = 50
        registry.user = user
        pushed = registry.publish(image(1000), "1.0")
        digest = pushed.digest if is_manifest else next(iter(pushed.blobs))
        content = pushed.content if is_manifest else pushed.blobs[digest]
        name = registry.name
        item = Input(
            "oci", "base", name, str(pushed.digest), "blob", f"oci:{name}", digest, len(content)
        )
        (only,) = findings(item).values()
    assert only.state == ("ok" if user is None else "failed")
    assert user is None or "docker login" in only.remedy


def test_no_index_is_known(findings, monkeypatch):
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with FileServer() as index:
        monkeypatch.setenv("PIP_INDEX_URL", f"{index.url}/simple")
        wheel = Input("wheel", "w", "a", "1", "a-1-py3-none-any.whl", "", Digest("a" * 64), 1)
        assert findings(wheel)[host(index)].state == "ok"
        index.forever["/simple/"] = Fault(status=401)
        assert findings(wheel)[host(index)].state == "failed"


# The command


@pytest.fixture
def stack(server, project):
    """An intent with terms and one file, and its lock."""
    content = b"content" * 1000
    url = server.put("/f", content)
    digest = Digest.of_bytes(content)
    path = project.root / "lockfiles" / "small.yaml"
    entry = f"files:\n- {{name: f, group: data, url: '{url}', sha256: {digest.hex}}}\n"
    path.write_text(INTENT + TERMS + entry)
    item = file_input(url, content, name="f")
    lock = Lock("small", load(path).digest, (item,))
    lock.write(project.lock_path("small"))
    return lock


def test_terms_come_before_anything_else(server, project, stack):
    done = kit(project, "fetch", "small")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "https://terms.example/some" in done.stderr
    assert 'export KIT_ACCEPT_LICENCES="some-terms"' in done.stderr
    assert server.requests == [], "nobody was asked"
    answer = json.loads(kit(project, "fetch", "small", "--json").stdout)
    assert answer["ok"] is False
    assert answer["error"]["exit_code"] == ExitCode.ENVIRONMENT
    done = kit(project, "fetch", "small", KIT_ACCEPT_LICENCES="some-terms")
    assert done.returncode == 0, done.stderr
    assert Store(project.store).has(stack.inputs[0].sha256)


def test_a_lock_that_does_not_pin_everything(server, project, stack):
    gap = Unresolved("deb", "devel", "wget", "", "", "the repository's index decides the file")
    Lock("small", stack.intent, stack.inputs, unresolved=(gap,)).write(project.lock_path("small"))
    done = kit(project, "fetch", "small", KIT_ACCEPT_LICENCES="some-terms")
    assert done.returncode == ExitCode.CONTENT
    assert "deb wget: the repository's index decides the file" in done.stderr
    assert "kit lock small" in done.stderr
    assert server.requests == []


def test_several_reasons_are_said_together(server, project, stack):
    server.forever["/f"] = Fault(status=403)
    gone = file_input("http://127.0.0.1:9/x", b"gone", name="gone")
    Lock("small", stack.intent, (*stack.inputs, gone)).write(project.lock_path("small"))
    done = kit(project, "fetch", "small", KIT_ACCEPT_LICENCES="some-terms")
    assert done.returncode == ExitCode.ENVIRONMENT
    assert "2 things stand in the way" in done.stderr
    assert "host 127.0.0.1:9" in done.stderr
    assert "403" in done.stderr
    with pytest.raises(KitError):
        Store(project.store).path(stack.inputs[0].sha256)


def test_a_busy_host_is_no_reason_to_stop(server, project, stack):
    server.faults["/f"] = [Fault(status=503)]
    server.forever["/f"] = Fault(refuse_head=True)
    done = kit(project, "fetch", "small", KIT_ACCEPT_LICENCES="some-terms")
    assert done.returncode == 0, done.stderr
