"""Packages on top of a base image: real apt, real signatures, repositories on loopback."""

import contextlib
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.locks.apt import resolve_apt
from kit.locks.fetch import fetch
from kit.locks.intent import Apt, AptRepository, DebianGroup
from kit.locks.lock import Input
from kit.store import Store
from tests.integration.locks.conftest import lock_of
from tests.stand_in.debian_repository import DebianRepository, missing_tools
from tests.stand_in.file_server import Fault, FileServer
from tests.stand_in.locked_image import layer, put_image
from tests.stand_in.stored import damaged

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=f"no {', '.join(missing_tools())}")

UBUNTU_KEYS = "usr/share/keyrings/ubuntu-archive-keyring.gpg"
CUDA = "https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64"
STAMP = "20241120T000000Z"
STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.39-0ubuntu8

Package: libcudnn9-cuda-12
Status: hold ok installed
Architecture: amd64
Version: 9.6.0.1-1
Depends: libc6

Package: libcudnn9-dev-cuda-12
Status: hold ok installed
Architecture: amd64
Version: 9.6.0.1-1
Depends: libcudnn9-cuda-12 (= 9.6.0.1-1)

Package: libnccl2
Status: install ok installed
Architecture: amd64
Version: 2.23.4-1+standin

Package: curl
Status: install ok installed
Architecture: amd64
Version: 8.5.0-2ubuntu10

"""


@pytest.fixture(scope="module")
def ubuntu(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ubuntu") / "archive"
    with DebianRepository(folder, "noble", origin="Ubuntu") as found:
        found.add("wget", "1.21.4-1ubuntu4", "libc6, libpsl5", Recommends="extra")
        found.add("wget", "1.21.4-1ubuntu4.1", "libc6, libpsl5", suite="noble-updates")
        found.add("libpsl5", "0.21.2-1.1build1", component="universe")
        found.add("extra", "1")
        found.add("gdb", "1:15.0~rc1-0ubuntu1+standin", "libc6, gdb-data", size=300_000)
        found.add("gdb-data", "1:15.0~rc1-0ubuntu1+standin", architecture="all")
        found.add("clash", "1", Conflicts="curl")
        found.add("broken", "1", "nothing-has-this")
        found.add("git", "1", "libc6 (>= 3)")
        found.publish()
        yield found


@pytest.fixture(scope="module")
def cuda(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cuda") / "x86_64"
    with DebianRepository(folder, flat=True, origin="NVIDIA") as found:
        for version in ("9.5.1.17-1+standin", "9.7.0.66-1+standin"):
            found.add("libcudnn9-cuda-12", version, "libc6")
            found.add("libcudnn9-dev-cuda-12", version, f"libcudnn9-cuda-12 (= {version})")
        found.add("libnccl2", "2.23.4-1+standin")
        found.add("libnccl2", "2.25.1-1+standin")
        found.add("cuda-nvrtc-dev-12-6", "12.6.85-1+standin")
        found.add_keyring()
        found.publish(valid_until="Thu, 01 Jan 2099 00:00:00 UTC")
        yield found


@pytest.fixture
def server(ubuntu, cuda, monkeypatch):
    with FileServer() as found:
        found.put_folder("/ubuntu", ubuntu.folder)
        found.put_folder("/nvidia", cuda.folder)
        mirrored(monkeypatch, found.url)
        monkeypatch.delenv("KIT_SNAPSHOT", raising=False)
        yield found


def mirrored(monkeypatch, url):
    monkeypatch.setenv(
        "KIT_MIRRORS",
        f"http://archive.ubuntu.com/ubuntu={url}/ubuntu {CUDA}={url}/nvidia "
        f"https://snapshot.ubuntu.com/ubuntu={url}/past",
    )


@pytest.fixture
def base(project, tmp_path, ubuntu):
    """Put a base image into the store; by default with packages and Ubuntu's keys."""
    store = Store(project.store)

    def put(status=STATUS, **members):
        usual = {UBUNTU_KEYS: ubuntu.keyring.read_bytes(), "var/lib/dpkg/status": status.encode()}
        lowest = layer({"var/lib/dpkg/status": b"Package: replaced\nVersion: 1\n"})
        return put_image(store, tmp_path, [lowest, layer({**usual, **members})])

    return put


@pytest.fixture
def keyring_deb(project, cuda):
    path = cuda.folder / "cuda-keyring_1.0-1_all.deb"
    return stored_file(project, path)


def stored_file(project, path):
    digest = Store(project.store).add_file(path)
    return Input(
        "file", "devel", path.name, "", path.name, f"{CUDA}/{path.name}", digest,
        path.stat().st_size,
    )  # fmt: skip


def wanted(*packages, **groups):
    groups = {"devel": packages, **groups}
    return Apt(
        base="base",
        repositories=(
            AptRepository(
                "ubuntu",
                "http://archive.ubuntu.com/ubuntu",
                ("noble", "noble-updates"),
                ("main", "universe"),
                UBUNTU_KEYS,
            ),
            AptRepository("cuda", CUDA, ("./",), (), "file:cuda-keyring_1.0-1_all.deb"),
        ),
        groups=tuple(DebianGroup(name, tuple(words)) for name, words in groups.items()),
    )


def signed_by(apt, name, keyring):
    """The same with other keys for one repository."""
    return replace(
        apt,
        repositories=tuple(
            replace(item, keyring=keyring) if item.name == name else item
            for item in apt.repositories
        ),
    )


@pytest.fixture
def resolve(project, server, base, keyring_deb, client):
    def run(*packages, apt=None, inputs=None, **groups):
        given = [*(base() if inputs is None else inputs), keyring_deb]
        found = apt or wanted(*packages, **groups)
        return resolve_apt(found, project, given, "amd64", "small", client)

    return run


@pytest.fixture
def refused(resolve, project):
    """Resolve, and expect a failure with this exit code, and nothing left of it."""

    def run(exit_code, *packages, **options):
        with pytest.raises(KitError) as caught:
            resolve(*packages, **options)
        assert caught.value.exit_code == exit_code, str(caught.value)
        assert not list((project.home / "apt").glob("*/*")), "nothing is left of it"
        return caught.value

    return run


def versions(inputs, group="devel"):
    return {item.name: item.version for item in inputs if item.group == group}


def test_pinned_development_files_are_taken_anew(resolve, base, cuda):
    """An image may lack static libraries of a package that its dpkg has; others depend on it."""
    entry = "Package: {}\nStatus: hold ok installed\nArchitecture: amd64\nVersion: {}\n{}\n"
    installed = entry.format("cuda-nvrtc-dev-12-6", "12.6.85-1+standin", "")
    depends = "Depends: cuda-nvrtc-dev-12-6 (>= 12.6.85-1+standin)\n"
    there = base(STATUS + installed + entry.format("cuda-libraries-dev", "1", depends))

    inputs = resolve("cuda-nvrtc-dev-12-6=12.6.85-1+standin", "curl", inputs=there)

    assert versions(inputs) == {"cuda-nvrtc-dev-12-6": "12.6.85-1+standin"}
    assert versions(resolve("cuda-nvrtc-dev-12-6", inputs=there)) == {}


def test_only_what_the_image_lacks(resolve, project, client, ubuntu, cuda, server):
    inputs = resolve(
        "wget", "gdb", "libcudnn9-cuda-12=9.5.1.17-1+standin", "libnccl2=2.23.4-1+standin",
        "libcudnn9-dev-cuda-12=9.5.1.17-1+standin",
    )  # fmt: skip
    assert versions(inputs) == {
        "wget": "1.21.4-1ubuntu4.1",
        "libpsl5": "0.21.2-1.1build1",
        "gdb": "1:15.0~rc1-0ubuntu1+standin",
        "gdb-data": "1:15.0~rc1-0ubuntu1+standin",
        "libcudnn9-cuda-12": "9.5.1.17-1+standin",
        "libcudnn9-dev-cuda-12": "9.5.1.17-1+standin",
    }
    files = {item.name: item for item in inputs}
    assert files["gdb"].location == (
        "http://archive.ubuntu.com/ubuntu/pool/main/g/gdb/gdb_15.0~rc1-0ubuntu1+standin_amd64.deb"
    )
    assert files["gdb-data"].file == "gdb-data_15.0~rc1-0ubuntu1+standin_all.deb"
    name = "libcudnn9-cuda-12_9.5.1.17-1+standin_amd64.deb"
    assert (files["libcudnn9-cuda-12"].location, files["libcudnn9-cuda-12"].file) == (
        f"{CUDA}/{name}",
        name,
    )
    content = (cuda.folder / name).read_bytes()
    assert files["libcudnn9-cuda-12"].sha256 == Digest.of_bytes(content)
    lock = lock_of(*inputs)
    assert "127.0.0.1" not in lock.text(), "no mirror in a lock"
    assert fetch(project, lock, client=client).fetched == 6
    assert damaged(Store(project.store)) == []
    assert not any("wget_1.21.4-1ubuntu4_" in seen.path for seen in server.requests)


def test_the_same_again(resolve):
    assert resolve("gdb", "wget") == resolve("gdb", "wget")


def test_groups_build_on_each_other(resolve):
    inputs = resolve("wget", release=["gdb", "wget"])
    assert set(versions(inputs)) == {"wget", "libpsl5"}
    assert set(versions(inputs, "release")) == {"gdb", "gdb-data"}


def test_a_later_group_wants_another_version(resolve):
    inputs = resolve(
        "libnccl2=2.25.1-1+standin", release=["libnccl2=2.23.4-1+standin"],
        debug=["libnccl2"],
    )  # fmt: skip
    assert versions(inputs) == {"libnccl2": "2.25.1-1+standin"}


def test_what_the_image_has_is_no_input(resolve):
    assert resolve("libnccl2=2.23.4-1+standin", "curl") == []


def test_what_is_taken_away_is_told(resolve, capfd):
    inputs = resolve("clash", "libcudnn9-cuda-12=9.5.1.17-1+standin", release=["gdb"])
    assert set(versions(inputs)) == {"clash", "libcudnn9-cuda-12"}
    notes = [line for line in capfd.readouterr().err.splitlines() if "takes out" in line]
    assert len(notes) == 1, "once, not again for each group"
    assert notes[0].startswith("apt group devel: takes out of the base image: ")
    for name in ("curl 8.5.0-2ubuntu10", "libcudnn9-dev-cuda-12 9.6.0.1-1"):
        assert name in notes[0]


def test_other_forms_of_a_keyring(resolve, project, base, ubuntu, cuda, tmp_path):
    armored = tmp_path / "cuda.pub"
    armored.write_bytes(cuda.armored_keyring)
    apt = signed_by(wanted("libnccl2=2.25.1-1+standin"), "cuda", "file:cuda.pub")
    inputs = [*base(), stored_file(project, armored)]
    assert versions(resolve(apt=apt, inputs=inputs)) == {"libnccl2": "2.25.1-1+standin"}
    inside = {"opt/keys/nvidia.asc": cuda.armored_keyring}
    apt = signed_by(apt, "cuda", "opt/keys/nvidia.asc")
    assert versions(resolve(apt=apt, inputs=base(**inside))) == {"libnccl2": "2.25.1-1+standin"}


def test_a_mirror_with_a_login(resolve, server, monkeypatch, project, client, refused):
    server.required_header = ("Authorization", "Basic bWU6cGFzcw==")  # me:pass
    mirrored(monkeypatch, server.url.replace("://", "://me:pass@"))
    inputs = resolve("wget", "libnccl2=2.25.1-1+standin")
    assert "pass" not in lock_of(*inputs).text()
    assert fetch(project, lock_of(*inputs), client=client).fetched == 3
    mirrored(monkeypatch, server.url.replace("://", "://me:url-secret@"))
    error = refused(ExitCode.ENVIRONMENT, "wget")
    assert "cannot be had from" in str(error)
    assert "url-secret" not in f"{error} {error.hint}"


def test_mirrors_of_whole_folders(resolve, server, monkeypatch):
    before = resolve("wget", "libnccl2=2.25.1-1+standin")
    pairs = os.environ["KIT_MIRRORS"].replace("=", "/=").split()
    monkeypatch.setenv("KIT_MIRRORS", " ".join(f"{pair}/" for pair in pairs))
    assert resolve("wget", "libnccl2=2.25.1-1+standin") == before


def test_a_login_of_netrc(resolve, server, monkeypatch, tmp_path, refused):
    server.required_header = ("Authorization", "Basic bWU6cGFzcw==")  # me:pass
    assert "cannot be had from" in str(refused(ExitCode.ENVIRONMENT, "wget"))
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password pass\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert versions(resolve("wget"))


def test_from_a_disk(resolve, ubuntu, cuda, monkeypatch, project, client):
    before = resolve("wget", "libnccl2=2.25.1-1+standin")
    monkeypatch.setenv(
        "KIT_MIRRORS",
        f"http://archive.ubuntu.com/ubuntu={ubuntu.folder.as_uri()} {CUDA}={cuda.folder.as_uri()}",
    )
    assert resolve("wget", "libnccl2=2.25.1-1+standin") == before
    assert fetch(project, lock_of(*before), client=client).fetched == 3


def test_from_a_snapshot(resolve, server, monkeypatch, project, client, ubuntu, refused):
    before = resolve("wget", "libnccl2=2.25.1-1+standin")
    server.put_folder(f"/past/{STAMP}", ubuntu.folder)
    for path in [path for path in server.files if path.startswith("/ubuntu/")]:
        del server.files[path]
    with pytest.raises(KitError, match="has vanished from its repository: no http") as caught:
        fetch(project, lock_of(*before), client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint.startswith("export KIT_SNAPSHOT=")
    assert refused(ExitCode.ENVIRONMENT, "wget")
    monkeypatch.setenv("KIT_SNAPSHOT", STAMP)
    assert resolve("wget", "libnccl2=2.25.1-1+standin") == before, "no snapshot in a lock"
    assert fetch(project, lock_of(*before), client=client).inputs == 3
    assert damaged(Store(project.store)) == []


def test_a_snapshot_has_long_expired(resolve, server, monkeypatch, tmp_path, base, refused):
    with DebianRepository(tmp_path / "old", "noble", origin="Ubuntu") as old:
        old.add("wget", "1.20")
        old.add("x", "1", suite="noble-updates", component="universe")
        old.add("x", "1", component="universe")
        old.publish(valid_until="Sat, 01 Jan 2022 00:00:00 UTC")
        keys = {UBUNTU_KEYS: old.keyring.read_bytes()}
    server.put_folder(f"/past/{STAMP}", old.folder)
    server.put_folder("/ubuntu", old.folder)
    error = refused(ExitCode.CONTENT, "wget", inputs=base(**keys))
    assert "repository ubuntu" in str(error)
    assert "is out of date" in str(error)
    assert error.hint.startswith("export KIT_SNAPSHOT=")
    monkeypatch.setenv("KIT_SNAPSHOT", STAMP)
    assert versions(resolve("wget", inputs=base(**keys))) == {"wget": "1.20"}


def test_a_vanished_package_without_a_past(resolve, server, project, client):
    inputs = resolve("libnccl2=2.25.1-1+standin")
    del server.files["/nvidia/libnccl2_2.25.1-1+standin_amd64.deb"]
    with pytest.raises(KitError, match=r"libnccl2 version 2\.25\.1-1\+standin has vanished") as e:
        fetch(project, lock_of(*inputs), client=client)
    assert (e.value.exit_code, e.value.hint) == (ExitCode.ENVIRONMENT, "kit lock small")


def test_a_package_that_was_changed(resolve, server, project, client):
    inputs = resolve("libnccl2=2.25.1-1+standin")
    server.forever["/nvidia/libnccl2_2.25.1-1+standin_amd64.deb"] = Fault(flip=300)
    with pytest.raises(KitError, match="wrong content") as caught:
        fetch(project, lock_of(*inputs), client=client)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_plus_signs_are_escaped(resolve, server, project, client):
    """Object stores read a bare `+` in a path as a blank."""
    seen = []
    server.guard = lambda answer: seen.append(answer.path) or True
    fetch(project, lock_of(*resolve("libnccl2=2.25.1-1+standin")), client=client)
    assert [path for path in seen if ".deb" in path] == [
        "/nvidia/libnccl2_2.25.1-1%2Bstandin_amd64.deb"
    ]


def test_a_version_that_is_not_there(refused):
    error = refused(ExitCode.USAGE, "libnccl2=2.99-1")
    assert str(error) == (
        "apt group devel: no version 2.99-1 of libnccl2 in ubuntu, cuda; "
        "there are: 2.25.1-1+standin, 2.23.4-1+standin"
    )
    assert error.hint.startswith("export KIT_SNAPSHOT=")


def test_a_package_that_is_not_there(refused):
    error = refused(ExitCode.USAGE, "nosuch", "wget")
    assert str(error) == "apt group devel: no package 'nosuch' in ubuntu, cuda"


@pytest.mark.parametrize(
    ("package", "said"),
    [("broken", "broken : Depends: nothing-has-this"), ("git", "git : Depends: libc6 (>= 3)")],
)
def test_dependencies_that_cannot_be_met(refused, package, said):
    error = refused(ExitCode.CONTENT, package)
    assert "apt group devel: it does not go together on this base image" in str(error)
    assert said in str(error)


def test_signed_by_somebody_else(refused, base, cuda):
    error = refused(
        ExitCode.CONTENT, "wget", inputs=base(**{UBUNTU_KEYS: cuda.keyring.read_bytes()})
    )
    assert str(error).startswith("repository ubuntu, http://127.0.0.1:")
    assert f"is not signed by the keys in {UBUNTU_KEYS}" in str(error)
    assert "NO_PUBKEY" in str(error)
    assert error.hint == "correct the keyring of repository ubuntu in lockfiles/small.yaml"


def test_not_signed(refused, server):
    del server.files["/nvidia/InRelease"]
    error = refused(ExitCode.CONTENT, "wget")
    assert "repository cuda" in str(error)
    assert "is not signed by the keys in file:cuda-keyring_1.0-1_all.deb" in str(error)


def test_an_index_that_was_changed(refused, server):
    path = "/nvidia/Packages"
    text = server.files[path].read_bytes()
    server.put(path, text.replace(b"2.25.1", b"2.25.9"))
    error = refused(ExitCode.CONTENT, "wget")
    assert "repository cuda" in str(error)
    assert "its index is not what its Release file says" in str(error)


def test_a_repository_that_is_down(refused, monkeypatch):
    mirrored(monkeypatch, "http://127.0.0.1:9")
    error = refused(ExitCode.ENVIRONMENT, "wget")
    assert "cannot be had from http://127.0.0.1:9/" in str(error)
    assert error.hint.startswith("export KIT_MIRRORS=")


def test_a_suite_that_is_not_there(refused):
    apt = wanted("wget")
    first = replace(apt.repositories[0], suites=("warty",))
    apt = replace(apt, repositories=(first, *apt.repositories[1:]))
    error = refused(ExitCode.ENVIRONMENT, apt=apt)
    assert "the index of warty cannot be had" in str(error)


def test_a_component_that_is_not_there(refused):
    apt = wanted("wget")
    first = replace(apt.repositories[0], components=("main", "multivers"))
    apt = replace(apt, repositories=(first, *apt.repositories[1:]))
    error = refused(ExitCode.USAGE, apt=apt)
    assert "/ubuntu noble: it has no component 'multivers'" in str(error)


def test_a_keyring_that_the_image_lacks(refused):
    apt = signed_by(wanted("wget"), "ubuntu", "usr/share/keyrings/ubuntu-archive-keyrings.gpg")
    error = refused(ExitCode.USAGE, apt=apt)
    assert "image base has no such file" in str(error)
    assert f"did you mean {UBUNTU_KEYS}?" in str(error)


def test_a_file_that_is_no_keyring(refused, base, project, tmp_path):
    apt = signed_by(wanted("wget"), "ubuntu", "opt/readme")
    error = refused(ExitCode.CONTENT, apt=apt, inputs=base(**{"opt/readme": b"keys are there"}))
    assert "repository ubuntu: keyring opt/readme: expected OpenPGP keys" in str(error)


def test_a_package_without_a_keyring(refused, base, project, cuda):
    place = cuda.folder / "libnccl2_2.25.1-1+standin_amd64.deb"
    apt = signed_by(wanted("wget"), "cuda", f"file:{place.name}")
    error = refused(ExitCode.CONTENT, apt=apt, inputs=[*base(), stored_file(project, place)])
    assert "a package without a keyring" in str(error)
    broken = project.home / "broken.deb"
    broken.write_bytes(place.read_bytes()[:150])
    apt = signed_by(apt, "cuda", "file:broken.deb")
    error = refused(ExitCode.CONTENT, apt=apt, inputs=[*base(), stored_file(project, broken)])
    assert "a package without a keyring" in str(error)


def test_an_image_without_packages(refused, base):
    assert "no var/lib/dpkg/status" in str(refused(ExitCode.USAGE, inputs=base(status="")))


def test_no_apt(resolve, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KitError, match="resolved by apt") as caught:
        resolve("wget")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_an_image_that_writes_into_the_settings_of_apt(refused, base, tmp_path):
    """What an image says of itself never becomes a command on this host."""
    run = f'x";}};APT::Update::Pre-Invoke{{"touch${{IFS}}{tmp_path}/ran'
    inputs = base(**{"var/lib/dpkg/arch": f"amd64\n{run}\n".encode()})
    assert "var/lib/dpkg/arch: no architecture" in str(refused(ExitCode.CONTENT, inputs=inputs))
    assert not (tmp_path / "ran").exists()


class Hostile(DebianRepository):
    """A repository whose index says of its package `odd` what the test wants."""

    instead = (b"", b"")

    def _packages(self):
        old, new = self.instead
        return {file: text.replace(old, new) for file, text in super()._packages().items()}


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (b"Filename: ../../odd_1_amd64.deb", "written outside its folder"),
        (b"Filename: /etc/odd_1_amd64.deb", "written outside its folder"),
        (b"Filename: odd_1_amd64.a_b", "not how a package is named"),
        (b"Filename: odd_1_amd64.exe", "not how a package is named"),
        (b"Filename: odd'.deb", "contradicts itself"),
    ],
)
def test_an_index_with_names_of_no_package(
    server, tmp_path, base, keyring_deb, project, client, new, said
):
    with Hostile(tmp_path / "hostile", flat=True) as found:
        found.add("odd", "1")
        found.instead = (b"Filename: ./odd_1_amd64.deb", new)
        found.publish()
        server.put_folder("/nvidia", found.folder)
        put = base(**{"usr/share/keyrings/odd.gpg": found.keyring.read_bytes()})
        apt = signed_by(wanted("odd"), "cuda", "usr/share/keyrings/odd.gpg")
        with pytest.raises(KitError, match=said) as caught:
            resolve_apt(apt, project, [*put, keyring_deb], "amd64", "small", client)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_a_name_with_dots_is_no_pattern(refused):
    assert "no package 'wge.'" in str(refused(ExitCode.USAGE, "wge."))


@pytest.mark.usefixtures("server")
def test_a_home_with_blanks(project, base, keyring_deb, client, tmp_path):
    home = tmp_path / "my home, [really] 100%"
    other = project._replace(home=home)
    inputs = [*base(), keyring_deb]
    shutil.copytree(project.home, home, dirs_exist_ok=True)
    found = resolve_apt(wanted("wget"), other, inputs, "amd64", "small", client)
    assert set(versions(found)) == {"wget", "libpsl5"}


PROGRAM = """
import pickle, sys
from kit.locks.apt import resolve_apt
from kit.locks.http import Client
apt, project, inputs = pickle.loads(sys.stdin.buffer.read())
resolve_apt(apt, project, inputs, "amd64", "small", Client())
"""


def test_killed(resolve, server, base, keyring_deb, project, monkeypatch):
    """A killed run leaves no apt behind, and the next one clears away what is left of it."""
    stalled = "/nvidia/InRelease"
    server.forever[stalled] = Fault(bytes_per_second=15)
    inputs = [*base(), keyring_deb]
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE)
    process.stdin.write(pickle.dumps((wanted("wget"), project, inputs)))
    process.stdin.close()
    try:
        place = project.home / "apt" / "small"
        wait_for(lambda: apts(place))
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_for(lambda: not apts(place), seconds=20)  # alone it would go on for a minute
    finally:
        process.kill()
        process.wait()
    del server.forever[stalled]
    (place / "left").touch()
    assert set(versions(resolve("wget"))) == {"wget", "libpsl5"}
    assert not place.exists()


def apts(place):
    """The running programs that were started for a folder."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if f"APT_CONFIG={place}".encode() in environ.read_bytes():
                found.append(environ)
    return found


def wait_for(condition, seconds=60):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)
