import multiprocessing
import os
from pathlib import Path

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks import deb
from kit.locks.fetch import fetch
from kit.locks.intent import Debian, DebianGroup
from kit.locks.resolve import resolve
from kit.store import Store
from tests.stand_in.debian_repository import DebianRepository, missing_tools
from tests.stand_in.file_server import FileServer
from tests.stand_in.stored import damaged

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=f"no {', '.join(missing_tools())}")

INTENT = """
debian:
  suite: bookworm
  components: [main]
  groups:
    base: [shell]
    devel: [compiler]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    with DebianRepository(tmp_path_factory.mktemp("debian") / "mirror") as found:
        _fill(found)
        yield found


def _fill(found):
    found.add("shell", "1.0-1", "libc6, awk", Recommends="extra")
    found.add("libc6", "2.36-9")
    found.add("essential", "1", Essential="yes")
    found.add("mawk", "1:1.3-2", Provides="awk")
    found.add("extra", "1")
    found.add("compiler", "12+really~1", "libc6, linker (>= 2), shell")
    found.add("linker", "1.9")
    found.add("linker", "2.1", size=200_000)
    found.add("broken", "1", "nothing-has-this")
    found.publish()


@pytest.fixture
def mirror(repository, monkeypatch, intend):
    intend(INTENT)
    monkeypatch.setenv("KIT_DEBIAN_KEYRING", str(repository.keyring))
    with FileServer() as server:
        server.put_folder("/debian", repository.folder)
        monkeypatch.setenv("KIT_DEBIAN_MIRROR", f"{server.url}/debian")
        yield server


def test_closures_are_apart_and_complete(mirror, project, client, repository):
    lock = resolve(project, "small", client=client)
    base = {item.name: item.version for item in lock.select(group="base")}
    devel = {item.name: item.version for item in lock.select(group="devel")}
    assert base == {"shell": "1.0-1", "libc6": "2.36-9", "mawk": "1:1.3-2"}
    assert devel == {"compiler": "12+really~1", "linker": "2.1"}
    for item in lock.inputs:
        content = (repository.folder / item.location).read_bytes()
        assert (item.sha256, item.size) == (Digest.of_bytes(content), len(content))
        assert item.file == Path(item.location).name
    assert "127.0.0.1" not in lock.text(), "no host of a mirror in a lock"
    report = fetch(project, lock, client=client)
    assert report.fetched == 5
    assert damaged(Store(project.store)) == []


def test_the_same_again(mirror, project, client):
    assert resolve(project, "small", client=client) == resolve(project, "small", client=client)


def test_from_a_folder(mirror, repository, project, client, monkeypatch):
    lock = resolve(project, "small", client=client)
    monkeypatch.setenv("KIT_DEBIAN_MIRROR", repository.folder.as_uri())
    assert resolve(project, "small", client=client) == lock
    assert fetch(project, lock, client=client).fetched == 5


def test_a_vanished_package(mirror, project, client, monkeypatch):
    lock = resolve(project, "small", client=client)
    linker = next(item for item in lock.inputs if item.name == "linker")
    del mirror.files[f"/debian/{linker.location}"]
    login = mirror.url.replace("://", "://me:url-secret@")
    monkeypatch.setenv("KIT_DEBIAN_MIRROR", f"{login}/debian")
    with pytest.raises(KitError) as caught:
        fetch(project, lock, client=client)
    message = str(caught.value)
    assert message.startswith(
        f"package linker version 2.1 has vanished from the mirror {mirror.url}/debian"
    )
    assert "url-secret" not in message
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint == "kit lock small"


def test_a_mirror_with_a_login(mirror, project, client, monkeypatch):
    mirror.required_header = ("Authorization", "Basic bWU6cGFzcw==")  # me:pass
    login = mirror.url.replace("://", "://me:pass@")
    monkeypatch.setenv("KIT_DEBIAN_MIRROR", f"{login}/debian")
    lock = resolve(project, "small", client=client)
    assert fetch(project, lock, client=client).fetched == 5
    monkeypatch.setenv("KIT_DEBIAN_MIRROR", f"{login.replace('pass', 'url-secret')}/debian")
    with pytest.raises(KitError, match="cannot be had") as caught:
        resolve(project, "small", client=client)
    assert "url-secret" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_a_name_that_the_suite_does_not_have(mirror, project, client, intend):
    intend(INTENT.replace("compiler", "compilr"))
    with pytest.raises(KitError, match="group devel: bookworm has no package 'compilr'") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.USAGE


def test_dependencies_that_cannot_be_met(mirror, project, client, intend):
    intend(INTENT.replace("compiler", "broken"))
    with pytest.raises(KitError, match=r"broken : Depends: nothing-has-this") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_the_mirror_is_down(mirror, project, client, monkeypatch):
    monkeypatch.setenv("KIT_DEBIAN_MIRROR", "http://127.0.0.1:9/debian")
    with pytest.raises(KitError, match=r"cannot be had from http://127.0.0.1:9/debian") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_signed_by_somebody_else(mirror, project, client, monkeypatch, tmp_path):
    with DebianRepository(tmp_path / "other") as other:
        monkeypatch.setenv("KIT_DEBIAN_KEYRING", str(other.keyring))
    with pytest.raises(KitError, match="is not signed by the keys in") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_an_index_that_was_changed(mirror, project, client):
    path = "/debian/dists/bookworm/main/binary-amd64/Packages"
    mirror.put(path, mirror.files[path].read_bytes().replace(b"libc6", b"libc7"))
    with pytest.raises(KitError) as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code in (ExitCode.CONTENT, ExitCode.ENVIRONMENT)


def test_no_apt(mirror, project, client, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KitError, match="resolved by apt") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_the_hosts_own_apt_is_left_alone(mirror, project, client):
    places = [Path("/var/lib/apt/lists"), Path("/var/lib/dpkg"), Path("/var/cache/apt")]
    before = [place.stat().st_mtime_ns for place in places if place.exists()]
    resolve(project, "small", client=client)
    assert before == [place.stat().st_mtime_ns for place in places if place.exists()]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_unprivileged_user(mirror, repository):
    """apt as root drops its rights, as a user it has none: both must work."""
    debian = Debian("bookworm", ("main",), (DebianGroup("base", ("shell",)),))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def resolve_as_nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        try:
            queue.put(len(deb.resolve_debian(debian, "amd64", "small")))
        except BaseException as error:
            queue.put(repr(error))

    place = Path("/tmp") / f"kit-test-key-{os.getpid()}.gpg"  # pytest's folders are root's alone
    place.write_bytes(repository.keyring.read_bytes())
    place.chmod(0o644)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("KIT_DEBIAN_KEYRING", str(place))
            patched.setenv("HOME", "/nonexistent")
            process = context.Process(target=resolve_as_nobody)
            process.start()
            assert queue.get(timeout=60) == 3
            process.join()
    finally:
        place.unlink()
