"""What upstreams and disks do wrong, for every kind of source: an error that helps, or it goes on.

Never a corrupt store, never a secret in what is said. Where each fault is covered; "each" means
file, wheel, deb, model, oci, lfs and git, here:

| fault | tests |
| --- | --- |
| 401, 403, 404, 429, 500 for good | each: `test_a_status_for_good`; test_http, test_registry `test_refused_for_good`, test_git `test_what_does_not_pass_is_said`, test_lfs `test_a_batch_that_is_refused` |
| 429 with Retry-After, 500, 503 that pass | each: `test_a_busy_server_is_asked_again`, `test_a_server_that_wants_to_rest`; test_registry `test_a_limit_on_requests_is_waited_for` |
| a token that ends in the middle | oci: `test_registry.test_a_token_that_ends_while_many_ask`; lfs: `test_lfs.test_a_link_that_has_expired`; model: `test_a_signature_is_good_for_one_request` |
| cut at every tenth | each but git: `test_cut_at_every_tenth`; git, whose packs start anew: `test_a_pack_that_is_cut`; oci with tokens: test_registry |
| Range ignored, another part sent | each but git: `test_a_server_that_does_not_know_ranges` |
| wrong Content-Length | each but git: `test_a_wrong_length`; git: `test_a_pack_that_is_cut` |
| digest mismatch | each but git: `test_other_bytes`; git: `test_git.test_another_archive_than_locked` |
| a moved tag | oci: `test_registry.test_a_moved_tag`; a commit cannot move |
| a vanished package | `test_a_status_for_good[404]`; test_debian, test_python_index, test_hub, test_lfs |
| a redirect to another host | wheel, deb, file: `test_a_redirect_takes_no_login_along`; oci, git, lfs: tests of that name; model: test_hub |
| an LFS pointer instead of the object | `test_lfs.test_a_pointer_instead_of_the_object`; `unit/preflight/test_content.py` |
| a submodule at another commit | `test_git.test_a_submodule_at_another_commit`; `unit/preflight/test_content.py` |
| a poisoned mirror | each but git: `test_a_poisoned_mirror`; git, oci: tests of that name |
| a full disk | each: `test_a_full_disk` |
| `kill -9` at any point | all together: `test_killed_a_hundred_times`; test_interrupted, test_git, test_registry |
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.errors import ExitCode, KitError
from kit.locks.fetch import fetch
from kit.locks.http import ATTEMPTS
from kit.project import Project
from kit.store import Store
from tests.conftest import ROOT
from tests.integration.locks.conftest import noise
from tests.stand_in.every_upstream import KINDS, SECRET, EveryUpstream
from tests.stand_in.file_server import Fault, FileServer
from tests.stand_in.stored import damaged, stored

PLAIN = [kind for kind in KINDS if kind != "git"]
"""Kinds whose bytes come as one file that can be continued."""
NETRC = "machine 127.0.0.1 login me password netrc-secret\n"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    patch = pytest.MonkeyPatch()
    for name in (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        patch.delenv(name, raising=False)
    for name in ("KIT_MIRRORS", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "NGC_API_KEY"):
        patch.delenv(name, raising=False)
    folder = tmp_path_factory.mktemp("upstream")
    for name in ("NETRC", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        patch.setenv(name, str(folder / "none"))
    with EveryUpstream(folder) as found:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        found.fill()
        yield found
    patch.undo()


@pytest.fixture
def here(upstream, tmp_path):
    """The project of the upstreams, with an empty home."""
    upstream.well()
    return Project(upstream.project.root, tmp_path / "home")


@pytest.fixture
def bring(upstream, here, client):
    """Fetch what there is of one kind."""

    def one(kind, project=None):
        return fetch(project or here, upstream.only(kind), jobs=2, client=client)

    return one


def assert_nothing_of(store, item):
    assert damaged(store) == []
    assert item.sha256 not in stored(store)
    assert store.received(item.sha256) == 0


def assert_whole(upstream, here, kind):
    store = Store(here.store)
    assert damaged(store) == []
    assert {item.sha256 for item in upstream.only(kind).inputs} <= set(stored(store))


# Answers that carry no file


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
@pytest.mark.parametrize("kind", KINDS)
def test_a_status_for_good(upstream, here, bring, capfd, kind, status):
    server, path = upstream.shelf(kind)
    server.forever[path] = Fault(status=status)
    with pytest.raises(KitError) as caught:
        bring(kind)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    said = f"{caught.value} {caught.value.hint} {capfd.readouterr()}"
    assert "127.0.0.1" in said or "hub" in said, "which server"
    assert "secret" not in said
    assert str(status) in said or status in (401, 403, 404)
    if status == 404:
        assert "vanished" in said
        assert "kit lock small" in said
    assert_nothing_of(Store(here.store), upstream.item(kind))
    upstream.well()
    bring(kind)
    assert_whole(upstream, here, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_busy_server_is_asked_again(upstream, here, bring, kind):
    server, path = upstream.shelf(kind)
    server.faults[path] = [Fault(status=429), Fault(status=500), Fault(status=503)]
    bring(kind)
    assert server.faults[path] == []
    assert_whole(upstream, here, kind)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_server_that_wants_to_rest(upstream, here, bring, client, monkeypatch, kind):
    rests = []
    monkeypatch.setattr(client.cancelled, "wait", lambda seconds: rests.append(seconds) or False)
    server, path = upstream.shelf(kind)
    server.faults[path] = [Fault(status=429, retry_after=7)]
    bring(kind)
    assert rests == [7]
    assert_whole(upstream, here, kind)


# Answers that break


@pytest.mark.parametrize("kind", PLAIN)
def test_cut_at_every_tenth(upstream, here, bring, kind):
    server, path = upstream.shelf(kind)
    size = upstream.item(kind).size
    tenth = size // 10
    server.faults[path] = [Fault(cut_after=tenth) for _ in range(9)]
    bring(kind)
    assert_whole(upstream, here, kind)
    asked = [seen for seen in server.requests if seen.path == path and seen.method == "GET"]
    assert [seen.range for seen in asked] == [
        None,
        *[f"bytes={tenth * count}-" for count in range(1, 10)],
    ]
    assert sum(seen.sent for seen in asked) == size, "no byte came twice"


def test_a_pack_that_is_cut(upstream, here, bring):
    server, path = upstream.shelf("git")
    size = upstream.item("git").size
    for tenth in range(0, 10, 3):
        server.faults[path] = [Fault(cut_after=size * tenth // 10)]
        bring("git", Project(here.root, here.home / str(tenth)))
        assert_whole(upstream, Project(here.root, here.home / str(tenth)), "git")
    server.forever[path] = Fault(cut_after=size // 2)
    with pytest.raises(KitError) as caught:
        bring("git")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert_nothing_of(Store(here.store), upstream.item("git"))


@pytest.mark.parametrize("second", [Fault(ignore_range=True), Fault(wrong_range=True)], ids=str)
@pytest.mark.parametrize("kind", PLAIN)
def test_a_server_that_does_not_know_ranges(upstream, here, bring, kind, second):
    server, path = upstream.shelf(kind)
    server.faults[path] = [Fault(cut_after=upstream.item(kind).size // 2), second]
    bring(kind)
    assert_whole(upstream, here, kind)


@pytest.mark.parametrize("kind", PLAIN)
def test_always_cut_it_is_given_up_and_goes_on_next_time(upstream, here, bring, kind):
    server, path = upstream.shelf(kind)
    size = upstream.item(kind).size
    server.faults[path] = [Fault(cut_after=size // 2), *[Fault(cut_after=0)] * ATTEMPTS]
    with pytest.raises(KitError, match="are kept"):
        bring(kind)
    upstream.well()
    bring(kind)
    assert_whole(upstream, here, kind)
    asked = [seen.range for seen in server.requests if (seen.path, seen.method) == (path, "GET")]
    assert asked == [f"bytes={size // 2}-"]


# Other bytes than were locked


@pytest.mark.parametrize("wrong", [5, -5])
@pytest.mark.parametrize("kind", PLAIN)
def test_a_wrong_length(upstream, here, bring, kind, wrong):
    server, path = upstream.shelf(kind)
    server.forever[path] = Fault(wrong_length=wrong)
    with pytest.raises(KitError, match="wrong size") as caught:
        bring(kind)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert_nothing_of(Store(here.store), upstream.item(kind))


@pytest.mark.parametrize("place", [0, 0.5, 1])
@pytest.mark.parametrize("kind", PLAIN)
def test_other_bytes(upstream, here, bring, kind, place):
    server, path = upstream.shelf(kind)
    server.forever[path] = Fault(flip=int(place * (upstream.item(kind).size - 1)))
    with pytest.raises(KitError, match="wrong content") as caught:
        bring(kind)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert str(upstream.item(kind).sha256) in str(caught.value)
    assert_nothing_of(Store(here.store), upstream.item(kind))
    upstream.well()
    bring(kind)
    assert_whole(upstream, here, kind)


@pytest.mark.parametrize("kind", PLAIN)
def test_a_poisoned_mirror(upstream, here, bring, monkeypatch, kind):
    """A server of the site that has something else of the same size under every path."""
    item = upstream.item(kind)
    origin, path = upstream.shelf(kind)
    with FileServer() as poison, monkeypatch.context() as poisoned:
        poison.put(path, noise(item.size, seed=99))
        if kind == "oci":
            pair = f"{upstream.registry.host}/={poison.url}/"
            poison.put(upstream.registry.path(upstream.pushed.digest, "manifests"), b"{}")
        else:
            pair = f"{origin.url}/={poison.url}/"
        poisoned.setenv("KIT_MIRRORS", pair)
        if kind == "deb":
            poisoned.setenv("KIT_DEBIAN_MIRROR", f"{poison.url}/debian")
        elif kind == "model":
            poisoned.setenv("HF_ENDPOINT", poison.url)
            poison.put(f"/owner/model/resolve/{item.version}/{item.file}", noise(item.size, seed=9))
        with pytest.raises(KitError) as caught:
            bring(kind)
    assert caught.value.exit_code == ExitCode.CONTENT
    store = Store(here.store)
    assert damaged(store) == []
    assert item.sha256 not in stored(store)
    # Another blob may have been found wrong first: what was left of this one does no harm.
    bring(kind)
    assert_whole(upstream, here, kind)


# Logins


@pytest.mark.parametrize("kind", ["file", "wheel", "deb"])
def test_a_redirect_takes_no_login_along(upstream, here, bring, monkeypatch, tmp_path, kind):
    server, path = upstream.shelf(kind)
    (tmp_path / "netrc").write_text(NETRC)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with FileServer() as other:
        content = server.files[path]
        # The other host by another name, which no login is for.
        other.put("/elsewhere", content)
        away = other.url.replace("127.0.0.1", "localhost")
        server.forever[path] = Fault(redirect=f"{away}/elsewhere")
        bring(kind)
        assert server.asked(path)[0].headers["authorization"].startswith("Basic ")
        assert "authorization" not in other.requests[0].headers
    assert_whole(upstream, here, kind)


def test_a_signature_is_good_for_one_request(upstream, here, bring):
    """What the hub sends on to ends with each request: each one starts at the hub again."""
    server, path = upstream.shelf("model")
    size = upstream.item("model").size
    server.faults[path] = [Fault(cut_after=size // 3), Fault(cut_after=size // 3)]
    upstream.hub.requests.clear()
    bring("model")
    asked = [seen for seen in upstream.hub.requests if "/resolve/" in seen.path]
    assert len(asked) == 3
    assert {seen.headers["authorization"] for seen in asked} == {f"Bearer {SECRET}"}
    assert all("authorization" not in seen.headers for seen in server.requests)
    assert_whole(upstream, here, "model")


# The disk and the process


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk(upstream, bring, small_disk, monkeypatch, kind):
    """A real one, full to the last 100 KB; what has come stays, and it goes on with more room."""
    filler = small_disk / "filler"
    here = Project(upstream.project.root, small_disk / "home")
    here.home.mkdir()
    upstream.well()
    with filler.open("wb") as stream:
        stream.write(b"\0" * ((4 << 20) - 100_000))
    with pytest.raises(KitError, match="not enough disk") as caught:
        bring(kind, here)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    monkeypatch.setattr(Store, "require_space", lambda *_: None)
    with pytest.raises(KitError, match=r"disk full|No space left") as caught:
        bring(kind, here)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert damaged(Store(here.store)) == []
    filler.unlink()
    bring(kind, here)
    assert_whole(upstream, here, kind)


NURSERY = """
import os, sys
from kit import cli, project
from kit.locks import deb, fetch, git, hf, http, lfs, lock, oci, pypi
import huggingface_hub, tqdm, urllib3

def command():
    place = project.find()
    fetch.fetch(place, lock.load(place.lock_path("small")), jobs=4)
    return 0

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), 1)
        os.dup2(1, 2)
        os._exit(cli.guarded(command))
    print(child, flush=True)
    sys.stdin.readline()  # until then its number is nobody else's
    _, status = os.waitpid(child, 0)
    print(status, flush=True)
"""
"""Fetches again and again without starting Python again: a line starts one, another waits for it."""


def test_killed_a_hundred_times(upstream, here, monkeypatch, tmp_path):
    """All kinds together, SIGKILL after up to 0.4 seconds, whatever it is doing."""
    for kind in PLAIN:
        server, path = upstream.shelf(kind)
        server.forever[path] = Fault(bytes_per_second=1_500_000)
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("KIT_ROOT", str(here.root))
    monkeypatch.setenv("KIT_HOME", str(here.home))
    store, dice = Store(here.store), random.Random(5)
    digests = {item.sha256 for item in upstream.lock.inputs}
    ends = {"killed": 0, "done": 0}
    nursery = subprocess.Popen(
        [sys.executable, "-c", NURSERY, str(log)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with nursery:
        for _ in range(100):
            print("go", file=nursery.stdin, flush=True)
            child = int(nursery.stdout.readline())
            time.sleep(dice.uniform(0, 0.4))
            os.kill(child, 9)
            print("wait", file=nursery.stdin, flush=True)
            status = int(nursery.stdout.readline())
            ends["killed" if status == 9 else "done"] += 1
            assert status in (0, 9), log.read_text()
            assert damaged(store) == []
            if digests <= set(stored(store)):
                for digest in dice.sample(sorted(digests), len(digests) // 2):
                    store.discard(digest)
                if dice.random() < 0.5:
                    shutil.rmtree(here.home / "git", ignore_errors=True)
        nursery.stdin.close()
    assert ends["killed"] > 10, ends
    continued = [
        kind for kind in PLAIN if any(seen.range for seen in upstream.shelf(kind)[0].requests)
    ]
    assert len(continued) > 2, "they were stopped in the middle of their files"
    upstream.well()
    done = subprocess.run(
        [sys.executable, "-m", "kit", "fetch", "small", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["fetched"] + answer["present"] == len(digests)
    assert damaged(store) == []
    assert digests <= set(stored(store))
    assert list((store.root / "partial").iterdir()) == []
    assert list(Path(here.home / "git").glob("*/objects/pack/tmp_*")) == []
    said = log.read_text() + done.stdout + done.stderr
    assert "secret" not in said
    assert "Traceback" not in said
