import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks.fetch import fetch
from kit.locks.resolve import resolve
from kit.store import Store
from tests.integration.locks.conftest import noise
from tests.stand_in.file_server import Fault
from tests.stand_in.package_index import PackageIndex, wheel

INTENT = """
python:
  version: "3.11"
  glibc: "2.36"
  groups:
    runtime:
      wheels: [alpha==1.0]
    source:
      sdists: [beta==2.0]
"""
ALPHA = wheel("alpha", "1.0", b"x = 1\n" * 1000)
BETA = ("beta-2.0.tar.gz", noise(5000))


@pytest.fixture(params=[(True, True), (False, True), (False, False), (True, False)])
def kind(request):
    return request.param


@pytest.fixture
def index(monkeypatch, intend, tmp_path):
    intend(INTENT)
    (tmp_path / "pip.conf").touch()
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT"):
        monkeypatch.setenv(name, "")
    # `os.devnull` as configuration file makes pip read no other.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with PackageIndex() as found:
        monkeypatch.setenv("PIP_INDEX_URL", found.simple)
        found.add("alpha", *ALPHA)
        found.add("alpha", "alpha-1.0-cp311-cp311-win_amd64.whl", b"other")
        found.add("beta", *BETA)
        yield found


def test_every_kind_of_page(index, kind, project, client):
    index.speaks_json, index.says_digest = kind
    lock = resolve(project, "small", client=client)
    assert [(item.kind, item.file) for item in lock.inputs] == [
        ("sdist", BETA[0]),
        ("wheel", ALPHA[0]),
    ]
    assert lock.inputs[1].sha256 == Digest.of_bytes(ALPHA[1])
    assert lock.inputs[1].size == len(ALPHA[1])
    assert "127.0.0.1" not in lock.text(), "no host of an index in a lock"
    report = fetch(project, lock, client=client)
    assert (report.fetched, report.present) == (2, 0)
    assert report.bytes == lock.size
    assert sum(report.origins.values()) == 2
    store = Store(project.store)
    assert store.path(lock.inputs[1].sha256).read_bytes() == ALPHA[1]
    report = fetch(project, lock, client=client)
    assert (report.fetched, report.present) == (0, 2)


def test_the_same_lock_from_every_kind_of_page(index, project, client):
    texts = set()
    for index.speaks_json in (True, False):
        for index.says_digest in (True, False):
            texts.add(resolve(project, "small", client=client).text())
    assert len(texts) == 1


def test_a_vanished_wheel(index, project, client):
    lock = resolve(project, "small", client=client)
    index.remove("alpha", ALPHA[0])
    with pytest.raises(KitError) as caught:
        fetch(project, lock, client=client)
    assert "wheel alpha version 1.0 has vanished from the package index" in str(caught.value)
    assert caught.value.hint == "kit lock small"
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_the_page_is_there_but_the_file_is_not(index, project, client):
    lock = resolve(project, "small", client=client)
    del index.files[f"/files/{ALPHA[0]}"]
    with pytest.raises(KitError, match=r"wheel alpha version 1.0 has vanished"):
        fetch(project, lock, client=client)


def test_another_file_of_the_same_name(index, project, client):
    lock = resolve(project, "small", client=client)
    index.add("alpha", ALPHA[0], b"replaced")
    with pytest.raises(KitError, match="wrong content at http") as caught:
        fetch(project, lock, client=client)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert str(Digest.of_bytes(ALPHA[1])) in str(caught.value)
    assert str(Digest.of_bytes(b"replaced")) in str(caught.value)


def test_the_page_lies(index, project, client):
    lock = resolve(project, "small", client=client)
    index.stated[ALPHA[0]] = Digest.of_bytes(ALPHA[1]).hex
    index.add("alpha", ALPHA[0], noise(len(ALPHA[1])))
    with pytest.raises(KitError, match="wrong content: expected") as caught:
        fetch(project, lock, client=client)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_a_second_index_has_it(index, project, client, monkeypatch):
    lock = resolve(project, "small", client=client)
    with PackageIndex() as second:
        second.add("alpha", *ALPHA)
        index.remove("alpha", ALPHA[0])
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", second.simple)
        report = fetch(project, lock, client=client)
        assert report.fetched == 2
        assert len(report.origins) == 2
        assert resolve(project, "small", client=client) == lock


def test_an_index_with_a_login(index, project, client, monkeypatch, capfd):
    index.required_header = ("Authorization", "Basic bWU6cGFzcw==")  # me:pass
    monkeypatch.setenv("PIP_INDEX_URL", index.simple.replace("://", "://me:pass@"))
    lock = resolve(project, "small", client=client)
    fetch(project, lock, client=client)
    monkeypatch.setenv("PIP_INDEX_URL", index.simple.replace("://", "://me:wrong-secret@"))
    with pytest.raises(KitError, match="refuses with 401") as caught:
        resolve(project, "small", client=client)
    captured = capfd.readouterr()
    assert "wrong-secret" not in str(caught.value) + captured.out + captured.err


def test_a_login_stays_with_its_index(index, project, client, monkeypatch):
    """An index that sends on to another host does not send its login there."""
    with PackageIndex() as other:
        other.add("alpha", *ALPHA)
        other.add("beta", *BETA)
        for name in ("alpha", "beta"):
            place = f"/simple/{name}/"
            index.forever[place] = Fault(redirect=f"{other.url}{place}")
        monkeypatch.setenv("PIP_INDEX_URL", index.simple.replace("://", "://me:pass@"))
        lock = resolve(project, "small", client=client)
        assert fetch(project, lock, client=client).fetched == 2
        assert len(other.requests) >= 4
        assert not [seen for seen in other.requests if seen.headers.get("authorization")]


def test_an_unknown_pin(index, project, client, intend):
    intend(INTENT.replace("alpha==1.0", "alpha==9.9"))
    with pytest.raises(KitError, match=r"wheel alpha==9.9: there is no such version") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_page_that_is_none(index, project, client):
    index.forever["/simple/alpha/"] = Fault(redirect="/nonsense")
    index.put("/nonsense", b'{"x": 1}', "application/json")
    with pytest.raises(KitError, match="not the page of a package index") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_no_c_library_is_known(index, project, client, intend):
    intend(INTENT.replace('  glibc: "2.36"\n', ""))
    with pytest.raises(KitError, match="which C library") as caught:
        resolve(project, "small", client=client)
    assert "glibc" in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE
