import base64
import dataclasses
import json
import subprocess

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks.fetch import fetch
from kit.locks.http import ATTEMPTS
from kit.locks.lfs import LfsSource
from kit.locks.lock import Input, Lock
from kit.locks.resolve import resolve
from kit.locks.tree import unpack
from kit.store import Store
from tests.integration.locks.conftest import noise
from tests.stand_in.file_server import Fault, FileServer
from tests.stand_in.git_server import GitServer
from tests.stand_in.lfs_server import LfsServer, pointer
from tests.stand_in.stored import damaged

LIBRARY, KERNELS, UNWANTED = noise(200_000, seed=1), noise(90_000, seed=2), noise(5000, seed=3)
ATTRIBUTES = b"*.a filter=lfs diff=lfs merge=lfs -text\n*.lib filter=lfs\n"
HEADER = {"Authorization": "RemoteAuth header-secret", "X-Of-Storage": "more"}


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("KIT_MIRRORS", raising=False)


@pytest.fixture
def storage():
    with FileServer() as found:
        yield found


@pytest.fixture
def server(tmp_path, storage):
    with GitServer(tmp_path / "repositories", lfs=LfsServer(storage, HEADER)) as found:
        yield found


@pytest.fixture
def want(intend, server):
    def write(commit, *lfs, name="top.git"):
        patterns = json.dumps(list(lfs))
        intend(
            f"sources:\n- {{name: tree, url: '{server.url}/{name}', commit: {commit}, lfs: {patterns}}}\n"
        )

    return write


@pytest.fixture
def stack(server, want):
    """Three objects, one of them twice, one that nobody wants, one in a submodule; a mere text."""
    sub = server.repository("sub.git").commit(
        {".gitattributes": ATTRIBUTES, "lib/kernels.a": server.lfs.add(KERNELS)}
    )
    commit = server.repository("top.git").commit(
        {
            ".gitattributes": ATTRIBUTES,
            ".gitmodules": b'[submodule "s"]\n\tpath = cpp/sub\n\turl = ../sub.git\n',
            "cpp/x86_64/lib.a": server.lfs.add(LIBRARY),
            "cpp/x86_64/copy.a": pointer(LIBRARY),
            "cpp/small.a": b"committed as it is",
            "cpp/looks.txt": pointer(b"nowhere"),
            "windows/x.lib": server.lfs.add(UNWANTED),
        },
        submodules={"cpp/sub": sub},
    )
    want(commit, "cpp/**")
    return commit


@pytest.fixture
def lock(stack, project, client):
    return resolve(project, "small", client=client)


@pytest.fixture
def bring(project, client):
    def one(item, items=(), source=None):
        source = source or LfsSource(client, "small", items)
        store = Store(project.store)
        with store.receive(item.sha256, item.size) as reception:
            source.bring(item, reception)
        return store

    return one


def objects(lock):
    return lock.select(kind="lfs")


def library(lock):
    return next(item for item in objects(lock) if item.sha256 == Digest.of_bytes(LIBRARY))


def test_from_the_intent_to_a_tree(server, storage, lock, project, client, tmp_path, capfd):
    assert [(item.name, item.size) for item in objects(lock)] == [
        ("cpp/sub/lib/kernels.a", len(KERNELS)),
        ("cpp/x86_64/copy.a", len(LIBRARY)),
    ]
    assert [item.location for item in objects(lock)] == [
        f"{server.url}/sub.git",
        f"{server.url}/top.git",
    ]
    assert objects(lock)[1].file == f"lfs/{Digest.of_bytes(LIBRARY).hex}"
    assert not storage.requests, "an object is not downloaded to lock it"
    fetch(project, lock, client=client)
    unpack(project, lock, "tree", tmp_path / "tree")
    tree = tmp_path / "tree/cpp"
    assert (tree / "x86_64/lib.a").read_bytes() == (tree / "x86_64/copy.a").read_bytes() == LIBRARY
    assert (tree / "sub/lib/kernels.a").read_bytes() == KERNELS
    assert (tree / "small.a").read_bytes() == b"committed as it is"
    assert (tree / "looks.txt").read_bytes() == pointer(b"nowhere"), "not kept in LFS"
    assert (tmp_path / "tree/windows/x.lib").read_bytes() == pointer(UNWANTED), "nobody asked"
    assert (tree / "x86_64/lib.a").stat().st_mtime == 1700000000
    assert {seen.headers["x-of-storage"] for seen in storage.requests} == {"more"}
    captured = capfd.readouterr()
    assert "secret" not in captured.out + captured.err + lock.text()


def test_an_object_goes_on_where_it_stopped(storage, lock, bring):
    item = library(lock)
    path = f"/{item.sha256.hex}"
    storage.faults[path] = [Fault(cut_after=50_000), Fault(status=503), Fault(cut_after=70_000)]
    store = bring(item)
    assert [seen.range for seen in storage.asked(path)] == [
        None,
        "bytes=50000-",
        "bytes=50000-",
        "bytes=120000-",
    ]
    assert damaged(store) == []


@pytest.mark.parametrize("fault", [Fault(flip=100), Fault(extra=b"more")])
def test_wrong_bytes(storage, lock, bring, project, fault):
    item = library(lock)
    storage.forever[f"/{item.sha256.hex}"] = fault
    with pytest.raises(KitError, match=r"wrong (content|size)") as caught:
        bring(item)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert "secret" not in str(caught.value)
    assert not Store(project.store).has(item.sha256)
    assert Store(project.store).received(item.sha256) == 0


def test_a_pointer_instead_of_the_object(storage, lock, bring):
    item = library(lock)
    storage.put(f"/{item.sha256.hex}", pointer(LIBRARY))
    with pytest.raises(
        KitError, match=r"wrong size: expected 200000 bytes, the server has 1\d\d"
    ) as caught:
        bring(item)
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_batch_is_asked_for_again(server, lock, bring, status):
    server.lfs.faults = [Fault(status=status, retry_after=0)] * 2
    assert bring(library(lock)).has(library(lock).sha256)
    server.lfs.faults = [Fault(status=status)] * ATTEMPTS
    with pytest.raises(KitError, match=f"the server answers {status}; tried {ATTEMPTS} times"):
        bring(objects(lock)[0])


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "a login is missing or wrong"),
        (403, "a login is missing or wrong"),
        (404, "no server of Git LFS"),
        (413, "the server answers 413"),
        (422, "the request is wrong"),
        (509, "bandwidth"),
    ],
)
def test_a_batch_that_is_refused(server, lock, bring, status, words):
    server.lfs.faults = [Fault(status=status)]
    with pytest.raises(KitError, match=words) as caught:
        bring(library(lock))
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert len(server.lfs.batches) == 3, "not asked again"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (404, "never pushed"),
        (410, "its owner has removed it"),
        (422, "request is wrong"),
        (599, "'no way'"),
    ],
)
def test_an_object_that_is_refused(server, stack, lock, bring, project, client, code, words):
    server.lfs.errors[Digest.of_bytes(LIBRARY).hex] = (code, "no\x1b\nway")
    for action in (lambda: bring(library(lock)), lambda: resolve(project, "small", client=client)):
        with pytest.raises(KitError, match=words) as caught:
            action()
        assert caught.value.exit_code == ExitCode.ENVIRONMENT
        assert "cpp/x86_64/copy.a" in str(caught.value)
        assert "\x1b" not in str(caught.value)


def test_an_object_that_was_never_pushed(server, stack, project, client):
    server.lfs.forget(KERNELS)
    with pytest.raises(KitError, match=r"lfs cpp/sub/lib/kernels\.a .*: 404: .*never pushed"):
        resolve(project, "small", client=client)


def test_what_the_batch_says_of_an_object(server, lock, bring):
    item = library(lock)
    rows = {
        "wrong size": {"size": 5},
        "does not say where it is": {"actions": {}},
        "refused to be sent to": {"actions": {"download": {"href": "file:///etc/passwd"}}},
    }
    for words, row in rows.items():
        server.lfs.changes = row
        with pytest.raises(KitError, match=words):
            bring(item)
    server.lfs.changes = {"oid": "0" * 64}
    with pytest.raises(KitError, match="does not say where it is"):
        bring(item)


def test_a_redirect_takes_no_login_along(server, storage, lock, bring):
    item = library(lock)
    with FileServer() as other:
        target = other.put("/elsewhere", LIBRARY)
        storage.faults[f"/{item.sha256.hex}"] = [Fault(redirect=target)]
        assert bring(item).has(item.sha256)
        assert "authorization" not in other.requests[0].headers
    assert storage.requests[0].headers["authorization"] == HEADER["Authorization"]


def test_a_link_that_has_expired(server, storage, lock, bring, client):
    item = library(lock)
    for early in ({"lifetime": 5}, {"expires_at": "2020-01-01T00:00:00.123Z"}):
        server.lfs.batches.clear()
        for key, value in early.items():
            setattr(server.lfs, key, value)
        source = LfsSource(client, "small", objects(lock))
        store = bring(item, source=source)
        store.discard(item.sha256)
        bring(item, source=source)
        assert len(server.lfs.batches) == 2, "asked again, as it is about to end"
    # Ended before its time, in the middle of a download.
    server.lfs.lifetime, server.lfs.expires_at = 3600, "0001-01-01T00:00:00Z"
    source = LfsSource(client, "small", objects(lock))
    store = bring(item, source=source)
    store.discard(item.sha256)
    server.lfs.batches.clear()
    path = f"/{item.sha256.hex}"
    storage.requests.clear()
    storage.faults[path] = [Fault(cut_after=50_000), Fault(status=403)]
    bring(item, source=source)
    assert len(server.lfs.batches) == 1
    assert [seen.range for seen in storage.asked(path)] == [None, "bytes=50000-", "bytes=50000-"]
    assert len({seen.query for seen in storage.asked(path)}) == 2


def test_one_that_storage_has_lost(storage, lock, bring):
    item = library(lock)
    for status, words in ((404, "has vanished"), (403, "refuses with 403")):
        storage.forever[f"/{item.sha256.hex}"] = Fault(status=status)
        with pytest.raises(KitError, match=words) as caught:
            bring(item)
        assert caught.value.exit_code == ExitCode.ENVIRONMENT
        assert "query-secret" not in str(caught.value)


def test_many_are_asked_for_together(server, project, client, want, bring):
    contents = [noise(100 + number, seed=number) for number in range(130)]
    files = {f"{number:03}.a": server.lfs.add(content) for number, content in enumerate(contents)}
    commit = server.repository("many.git").commit({".gitattributes": ATTRIBUTES, **files})
    want(commit, "*.a", name="many.git")
    lock = resolve(project, "small", client=client)
    assert [len(batch["objects"]) for batch in server.lfs.batches] == [100, 30]
    assert server.lfs.batches[0]["operation"] == "download"
    server.lfs.largest_batch = 40
    server.lfs.batches.clear()
    assert resolve(project, "small", client=client) == lock
    assert max(len(batch["objects"]) for batch in server.lfs.batches) == 100
    server.lfs.batches.clear()
    server.lfs.largest_batch = 1000
    source = LfsSource(client, "small", objects(lock))
    for item in objects(lock):
        bring(item, source=source)
    assert [len(batch["objects"]) for batch in server.lfs.batches] == [100, 30]


def test_without_what_was_asked_for(server, stack, project, client, want):
    want(stack, "nothing/**")
    with pytest.raises(KitError, match=r"no file of Git LFS matches nothing/\*\*") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_pointer_that_stays(server, stack, lock, project, client, tmp_path):
    fetch(project, lock, client=client)
    item = library(lock)
    others = tuple(other for other in lock.inputs if other != item)
    with pytest.raises(KitError, match=r"cpp/x86_64/copy\.a is still a Git LFS pointer") as caught:
        unpack(project, Lock("small", lock.intent, others), "tree", tmp_path / "tree")
    assert caught.value.exit_code == ExitCode.CONTENT
    assert not (tmp_path / "tree").exists()


def test_a_pointer_that_cannot_be_read(server, project, client, want):
    commit = server.repository("top.git").commit(
        {".gitattributes": ATTRIBUTES, "x.a": pointer(b"x").replace(b"oid", b"old")}
    )
    want(commit, "*.a")
    with pytest.raises(KitError, match=r"x\.a: a Git LFS pointer that cannot be read"):
        resolve(project, "small", client=client)


def test_a_path_that_a_lock_cannot_hold(server, project, client, want):
    commit = server.repository("top.git").commit(
        {".gitattributes": ATTRIBUTES, "\udcff.a": server.lfs.add(LIBRARY), "\udcfe": b"no matter"}
    )
    want(commit, "*.a")
    with pytest.raises(KitError, match=r"'\\udcff\.a'.* no UTF-8"):
        resolve(project, "small", client=client)


def test_lfsconfig_leads_to_the_same_host_only(server, project, client, want, monkeypatch):
    repository = server.repository("top.git")

    def commit(url):
        return repository.commit(
            {
                ".gitattributes": ATTRIBUTES,
                ".lfsconfig": f"[lfs]\n\turl = {url}\n".encode(),
                "x.a": server.lfs.add(LIBRARY),
            }
        )

    want(commit(f"{server.url}/elsewhere.git/info/lfs"), "*.a")
    lock = resolve(project, "small", client=client)
    assert objects(lock)[0].location == f"{server.url}/elsewhere.git"
    want(commit("https://lfs.example/team/x.git/info/lfs"), "*.a")
    with pytest.raises(
        KitError, match=r"names another server, https://lfs\.example/team/x\.git"
    ) as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    monkeypatch.setenv("KIT_MIRRORS", f"https://lfs.example/={server.url}/")
    lock = resolve(project, "small", client=client)
    assert objects(lock)[0].location == "https://lfs.example/team/x.git"
    fetch(project, lock, client=client)
    want(commit(f"{server.url}/odd"), "*.a")
    with pytest.raises(KitError, match="as git-lfs has it"):
        resolve(project, "small", client=client)


def test_a_login_for_the_batch(server, storage, lock, bring, monkeypatch, capfd):
    server.login = "Basic " + base64.b64encode(b"reader:pass-secret").decode()
    item = library(lock)
    with pytest.raises(KitError, match="refuses with 401"):
        bring(item)
    here = server.url.replace("127.0.0.1", "reader:pass-secret@127.0.0.1")
    monkeypatch.setenv("KIT_MIRRORS", f"{server.url}/={here}/")
    bring(item)
    assert "secret" not in "".join(capfd.readouterr())


def test_a_mirror_of_the_storage(server, storage, lock, bring, monkeypatch):
    """What the storage's host would be sent is not for the mirror that stands for it."""
    item = library(lock)
    with FileServer() as mirror:
        mirror.put(f"/{item.sha256.hex}", LIBRARY)
        monkeypatch.setenv("KIT_MIRRORS", f"{storage.url}/={mirror.url}/")
        bring(item)
        assert "x-of-storage" not in mirror.requests[0].headers
        assert "authorization" not in mirror.requests[0].headers
    assert storage.requests == []


def test_a_lock_that_leads_elsewhere(lock, bring):
    for location in ("file:///etc", "http://user:pass-secret@127.0.0.1:9/x", "ext::sh"):
        item = dataclasses.replace(library(lock), location=location)
        with pytest.raises(KitError, match=r"no address|expected https") as caught:
            bring(item)
        assert "secret" not in str(caught.value)


def test_fetch_without_the_server_of_git(server, lock, project, client):
    """Objects do not need the repositories."""
    subprocess.run(["rm", "-rf", project.home], check=True)
    only = Lock("small", lock.intent, tuple(objects(lock)))
    assert fetch(project, only, client=client).fetched == 2
    assert server.packs("top.git") == 1
    assert isinstance(only.inputs[0], Input)
