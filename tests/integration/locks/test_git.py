import base64
import json
import os
import random
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.files import locked
from kit.locks import git_program
from kit.locks.fetch import fetch
from kit.locks.git import GitSource
from kit.locks.http import ATTEMPTS, Client
from kit.locks.lock import Lock
from kit.locks.resolve import resolve
from kit.locks.tree import unpack
from kit.project import Project
from kit.reception import Cancelled
from kit.store import Store
from tests.integration.locks.conftest import noise
from tests.stand_in.file_server import Fault
from tests.stand_in.git_server import GitServer
from tests.stand_in.stored import damaged, stored

LOGIN = "Basic " + base64.b64encode(b"reader:pass-secret").decode()
SUBMODULE = '[submodule "{0}"]\n\tpath = {0}\n\turl = {1}\n'


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    monkeypatch.delenv("KIT_MIRRORS", raising=False)
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(tmp_path):
    with GitServer(tmp_path / "repositories") as found:
        yield found


@pytest.fixture
def want(intend):
    """An intent with one source tree."""

    def write(url, commit, *, submodules=True, lfs=()):
        intend(
            f"sources:\n- {{name: tree, url: '{url}', commit: {commit}, "
            f"submodules: {str(submodules).lower()}, lfs: {json.dumps(list(lfs))}}}\n"
        )

    return write


@pytest.fixture
def stack(server, want):
    """A tree with two submodules, one of them with one of its own."""
    inner = server.repository("inner.git")
    middle = server.repository("team/middle.git")
    other = server.repository("other.git")
    top = server.repository("team/top.git")
    deep = inner.commit({"inner.h": b"deep\n"})
    between = middle.commit(
        {".gitmodules": SUBMODULE.format("third/inner", "../../inner.git").encode()},
        submodules={"third/inner": deep},
    )
    beside = other.commit({"other.h": noise(3_000_000, seed=3)})
    modules = SUBMODULE.format("3rdparty/middle", "./../middle") + SUBMODULE.format(
        "3rdparty/other", f"{server.url}/other.git"
    )
    modules = modules.replace("./../middle", "../middle.git")
    commit = top.commit(
        {".gitmodules": modules.encode(), "src/main.cpp": b"int main() {}\r\n", "empty": b""},
        programs={"build.sh": b"#!/bin/sh\n"},
        links={"src/link": "main.cpp"},
        submodules={"3rdparty/middle": between, "3rdparty/other": beside},
    )
    want(f"{server.url}/team/top.git", commit)
    return commit


def names(lock):
    return [item.name for item in lock.inputs]


def everything(project):
    return {
        path.relative_to(project.home).as_posix(): path.read_bytes()
        for path in project.home.rglob("*")
        if path.is_file()
    }


def test_from_the_intent_to_a_tree(server, stack, project, client, tmp_path, capfd):
    lock = resolve(project, "small", client=client)
    assert names(lock) == [".", "3rdparty/middle", "3rdparty/middle/third/inner", "3rdparty/other"]
    assert lock.inputs[0].version == stack
    assert lock.inputs[1].location == f"{server.url}/team/middle.git"
    assert lock.inputs[2].location == f"{server.url}/inner.git"
    assert lock.inputs[2].file == "tree/3rdparty/middle/third/inner.tar"
    report = fetch(project, lock, client=client)
    assert (report.fetched, report.bytes) == (4, lock.size)
    assert server.packs("team/top.git") == server.packs("other.git") == 1, "no commit came twice"
    unpack(project, lock, "tree", tmp_path / "tree")
    tree = tmp_path / "tree"
    assert (tree / "src/main.cpp").read_bytes() == b"int main() {}\r\n"
    assert (tree / "3rdparty/middle/third/inner/inner.h").read_bytes() == b"deep\n"
    assert (tree / "3rdparty/other/other.h").stat().st_size == 3_000_000
    assert (tree / "src/link").readlink() == Path("main.cpp")
    assert (tree / "build.sh").stat().st_mode & 0o777 == 0o755
    assert (tree / "empty").stat().st_mode & 0o777 == 0o644
    assert {path.lstat().st_mtime for path in (tree, *tree.rglob("*"))} == {1700000000.0}
    assert "Traceback" not in capfd.readouterr().err


def test_the_same_lock_everywhere(server, stack, project, client, tmp_path):
    lock = resolve(project, "small", client=client)
    Store(project.store)
    server.root.joinpath("team/top.git/config").open("a").write("[core]\n\tautocrlf = true\n")
    elsewhere = Project(project.root, tmp_path / "another home")
    assert resolve(elsewhere, "small", client=Client(back_off=0.01)) == lock
    assert resolve(project, "small", client=client) == lock, "from what is there already"


def test_the_same_as_git_checks_out(server, want, project, client, tmp_path):
    dice = random.Random(5)
    files = {}
    for _ in range(200):
        folders = [f"d{dice.choice('abä')}{dice.randrange(9)}" for _ in range(dice.randrange(3))]
        name = (
            f"{dice.choice('abcß')}{dice.randrange(99)}{dice.choice(('', '.x', '.' + 'n' * 150))}"
        )
        files["/".join((*folders, name))] = dice.randbytes(dice.randrange(3000))
    files[".gitattributes"] = b"* text=auto eol=crlf\na* export-ignore\nb* export-subst\n"
    files["bin/b.txt"] = b"$Format:%H$\nline\n"
    repository = server.repository("many.git")
    commit = repository.commit(
        files, programs={"run me": b"#!"}, links={"to": "/".join(["d" * 60] * 3)}
    )
    want(f"{server.url}/many.git", commit)
    lock = resolve(project, "small", client=client)
    fetch(project, lock, client=client)
    unpack(project, lock, "tree", tmp_path / "ours")
    tars = Store(project.store).path(lock.inputs[0].sha256)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    subprocess.run(["tar", "xf", tars, "-C", theirs], check=True)
    listed = repository.git("ls-tree", "-r", "-z", commit).decode().split("\0")[:-1]
    assert len(listed) == len(files) + 2
    for row in listed:
        mode, _, rest = row.partition(" ")
        oid, _, path = rest.removeprefix("blob ").partition("\t")
        content = repository.git("cat-file", "blob", oid)
        for folder in (tmp_path / "ours", theirs):
            place = folder / path
            if mode == "120000":
                assert os.fsencode(place.readlink()) == content
            else:
                assert place.read_bytes() == content
                assert place.stat().st_mode & 0o111 == (0o111 if mode == "100755" else 0)


def test_a_commit_of_two_places_comes_once(server, want, project, client):
    commit = server.repository("shared.git").commit({"shared.h": b"1"})
    modules = SUBMODULE.format("a", "../shared.git") + SUBMODULE.format("b", "../shared.git")
    top = server.repository("top.git").commit(
        {".gitmodules": modules.encode()}, submodules={"a": commit, "b": commit}
    )
    want(f"{server.url}/top.git", top)
    lock = resolve(project, "small", client=client)
    assert lock.inputs[1].sha256 == lock.inputs[2].sha256
    assert server.packs("shared.git") == 1
    want(f"{server.url}/top.git", top, submodules=False)
    assert names(resolve(project, "small", client=client)) == ["."]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
@pytest.mark.parametrize("service", ["info/refs", "git-upload-pack"])
def test_what_may_pass_is_tried_again(server, stack, project, client, status, service):
    server.faults[f"/other.git/{service}"] = [Fault(status=status, retry_after=0)] * 2
    assert len(resolve(project, "small", client=client).inputs) == 4


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
@pytest.mark.parametrize("service", ["info/refs", "git-upload-pack"])
@pytest.mark.parametrize("name", ["team/top.git", "other.git"])
def test_what_does_not_pass_is_said(server, stack, project, client, status, service, name):
    server.forever[f"/{name}/{service}"] = Fault(status=status)
    with pytest.raises(KitError) as caught:
        resolve(project, "small", client=client)
    is_top = name.startswith("team")
    usage = status == 404 and is_top
    assert caught.value.exit_code == (ExitCode.USAGE if usage else ExitCode.ENVIRONMENT)
    message = str(caught.value)
    assert message.startswith("source tree: " + ("" if is_top else "submodule 3rdparty/other: "))
    assert f"{server.url}/{name}" in message
    if status == 404:
        assert "no repository, or no access to it" in message
    elif status in (401, 403):
        assert "a login is missing or wrong" in message
    else:
        assert f"the server answers {status}; tried {ATTEMPTS} times" in message
    if not is_top:
        assert caught.value.hint.startswith("export KIT_MIRRORS='127.0.0.1:")


def test_a_connection_that_breaks(server, stack, project, client, tmp_path):
    path = "/other.git/git-upload-pack"
    server.faults[path] = [Fault(cut_after=count) for count in (0, 30, 100_000, 1_000_000)]
    lock = resolve(project, "small", client=client)
    assert server.packs("other.git") == 5
    server.forever[path] = Fault(cut_after=50_000)
    with pytest.raises(KitError, match=r"submodule 3rdparty/other: .*; tried 5 times") as caught:
        resolve(Project(project.root, tmp_path / "h"), "small", client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    server.forever.clear()
    there = Project(project.root, tmp_path / "h")
    server.seen.clear()
    assert resolve(there, "small", client=client) == lock
    assert server.packs("team/top.git") == 0, "what was whole did not come again"


def test_no_answer_at_all(server, stack, project, client, monkeypatch):
    monkeypatch.setenv("KIT_MIRRORS", f"{server.url}/other.git=http://127.0.0.1:9/other.git")
    with pytest.raises(KitError, match=r"submodule 3rdparty/other: .*no connection") as caught:
        resolve(project, "small", client=client)
    assert "127.0.0.1" in caught.value.hint


def test_another_archive_than_locked(server, stack, project, client):
    lock = resolve(project, "small", client=client)
    item = lock.inputs[0]
    wrong = type(item)(
        item.kind,
        item.group,
        item.name,
        item.version,
        item.file,
        item.location,
        Digest("a" * 64),
        item.size,
    )
    store = Store(project.store)
    for size, words in ((item.size, "wrong content"), (item.size - 512, "wrong size")):
        with (
            pytest.raises(KitError, match=words) as caught,
            store.receive(wrong.sha256, size) as reception,
        ):
            GitSource(project, "small", client).bring(wrong, reception)
        assert caught.value.exit_code == ExitCode.CONTENT
        assert store.received(wrong.sha256) == 0
    assert stored(store) == []


def test_a_commit_that_is_not_there(server, stack, project, client, want):
    url = f"{server.url}/team/top.git"
    want(url, "0123456789" * 4)
    with pytest.raises(KitError, match="has no commit 0123456789") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.USAGE
    # A branch that was rewritten takes its commit along, once the server cleans up.
    want(url, stack)
    lock = resolve(project, "small", client=client)
    subprocess.run(["rm", "-rf", project.home / "git"], check=True)
    subprocess.run(["rm", "-rf", server.root / "team/top.git"], check=True)
    server.repository("team/top.git").commit({"other": b"history"})
    with pytest.raises(KitError, match=r"has vanished: .* has no such commit") as caught:
        fetch(project, lock, client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint == "kit lock small"
    assert damaged(Store(project.store)) == []


def test_a_submodule_whose_commit_is_not_there(server, project, client, want):
    server.repository("sub.git").commit({"x": b"1"})
    commit = server.repository("top.git").commit(
        {".gitmodules": SUBMODULE.format("3rdparty/sub", "../sub.git").encode()},
        submodules={"3rdparty/sub": "ab" * 20},
    )
    want(f"{server.url}/top.git", commit)
    with pytest.raises(
        KitError, match=r"submodule 3rdparty/sub: .*/sub\.git has no commit abab"
    ) as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert "KIT_MIRRORS" in caught.value.hint


def test_a_submodule_at_another_commit(server, stack, project, client, tmp_path):
    lock = resolve(project, "small", client=client)
    later = server.repository("fork.git").commit({"other.h": b"something else"})
    other = lock.inputs[3]
    fork = type(other)(
        other.kind,
        other.group,
        other.name,
        later,
        other.file,
        f"{server.url}/fork.git",
        other.sha256,
        other.size,
    )
    with pytest.raises(KitError, match=r"wrong size|wrong content"):
        fetch(project, Lock("small", lock.intent, (*lock.inputs[:3], fork)), client=client)
    fetch(project, lock, client=client)
    changed = Lock("small", lock.intent, (*lock.inputs[:3], fork))
    with pytest.raises(
        KitError, match=f"submodule 3rdparty/other is another one: expected {other.version}"
    ) as caught:
        unpack(project, changed, "tree", tmp_path / "tree")
    assert caught.value.exit_code == ExitCode.CONTENT
    missing = Lock("small", lock.intent, lock.inputs[:3])
    with pytest.raises(KitError, match="no archive of submodule 3rdparty/other"):
        unpack(project, missing, "tree", tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
    assert list(tmp_path.glob(".tree*")) == []


def test_a_poisoned_mirror(server, stack, project, client, monkeypatch, tmp_path):
    """Another history under the same address cannot have the commit; wrong bytes are refused."""
    with GitServer(tmp_path / "poisoned") as mirror:
        mirror.repository("other.git").commit({"other.h": b"evil"})
        monkeypatch.setenv("KIT_MIRRORS", f"{server.url}/other.git={mirror.url}/other.git")
        with pytest.raises(KitError, match="has no commit"):
            resolve(project, "small", client=client)
        subprocess.run(["rm", "-rf", mirror.root / "other.git"], check=True)
        subprocess.run(["cp", "-r", server.root / "other.git", mirror.root], check=True)
        mirror.forever["/other.git/git-upload-pack"] = Fault(flip=1_000_000)
        with pytest.raises(KitError, match="objects that git refuses") as caught:
            resolve(project, "small", client=client)
        assert caught.value.exit_code == ExitCode.CONTENT
        assert f"{mirror.url}/other.git" in str(caught.value), "the mirror is named"
    monkeypatch.delenv("KIT_MIRRORS")
    lock = resolve(project, "small", client=client)
    fetch(project, lock, client=client)
    assert damaged(Store(project.store)) == []


def test_a_mirror_and_its_login(server, project, client, want, monkeypatch, capfd):
    """What is asked for over ssh comes from the mirror; the lock names neither it nor its login."""
    sub = server.repository("mirrors/team/sub.git").commit({"x": b"1"})
    modules = SUBMODULE.format("a", "git@git.internal:team/sub.git") + SUBMODULE.format(
        "b", "ssh://git@git.internal:2222/team/sub.git"
    )
    top = server.repository("mirrors/team/top.git").commit(
        {".gitmodules": modules.encode()}, submodules={"a": sub, "b": sub}
    )
    server.login = LOGIN
    address = server.url.replace("http://", "http://reader:pass-secret@")
    monkeypatch.setenv("KIT_MIRRORS", f"https://git.internal/={address}/mirrors/")
    want("https://git.internal/team/top.git", top)
    lock = resolve(project, "small", client=client)
    assert {item.location for item in lock.inputs[1:]} == {"https://git.internal/team/sub.git"}
    fetch(project, lock, client=client)
    captured = capfd.readouterr()
    said = captured.out + captured.err + lock.text()
    assert "pass-secret" not in said
    assert "127.0.0.1" not in said
    assert not any(
        b"pass-secret" in text or LOGIN.encode() in text for text in everything(project).values()
    )
    monkeypatch.setenv(
        "KIT_MIRRORS", f"https://git.internal/={address.replace('pass', 'bad')}/mirrors/"
    )
    subprocess.run(["rm", "-rf", project.home], check=True)
    with pytest.raises(KitError, match="refuses with 401") as caught:
        resolve(project, "small", client=client)
    assert "secret" not in str(caught.value) + str(caught.value.hint) + "".join(capfd.readouterr())


def test_a_redirect_takes_no_login_along(server, project, client, want, monkeypatch, tmp_path):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login reader password pass-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.login = LOGIN
    commit = server.repository("top.git").commit({"x": b"1"})
    want(f"{server.url}/top.git", commit)
    assert len(resolve(project, "small", client=client).inputs) == 1
    subprocess.run(["rm", "-rf", project.home], check=True)
    with GitServer(server.root, host="localhost") as other:
        server.faults["/top.git/info/refs"] = [Fault(redirect=f"{other.url}/top.git/info/refs")]
        server.seen.clear()
        lock = resolve(project, "small", client=client)
        assert other.packs("top.git") == 1
        assert all("authorization" not in seen.headers for seen in other.seen)
        assert server.seen[0].headers["authorization"] == LOGIN
        assert lock.inputs[0].location == f"{server.url}/top.git"
        # git itself follows none: only its start was asked for beforehand.
        subprocess.run(["rm", "-rf", project.home], check=True)
        server.forever["/top.git/git-upload-pack"] = Fault(
            redirect=f"{other.url}/top.git/git-upload-pack"
        )
        other.seen.clear()
        with pytest.raises(KitError) as caught:
            resolve(project, "small", client=client)
        assert caught.value.exit_code == ExitCode.ENVIRONMENT
        assert other.seen == []


def test_a_page_instead_of_a_server(project, client, want, server):
    server.lfs = None
    want(f"{server.url}/none", "ab" * 20)
    with pytest.raises(KitError, match="no repository, or no access to it"):
        resolve(project, "small", client=client)


def test_a_server_that_hands_out_only_branches(server, project, client, want):
    server.is_old = True
    repository = server.repository("old.git")
    first = repository.commit({"x": b"1"})
    parent = first
    for number in range(120):
        parent = repository.commit({"x": b"%d" % number}, parent=parent)
    near = repository.git("rev-parse", "main~5").decode().strip()
    for commit in (near, first):
        want(f"{server.url}/old.git", commit)
        lock = resolve(project, "small", client=client)
        assert lock.inputs[0].version == commit
    gone = repository.commit({"x": b"dropped"}, branch="gone")
    repository.git("update-ref", "-d", "refs/heads/gone")
    want(f"{server.url}/old.git", gone)
    with pytest.raises(KitError, match="has no commit"):
        resolve(project, "small", client=client)


def test_what_git_refuses(server, project, client, want):
    """Names that would climb out of the tree, links that would carry others along."""
    repository = server.repository("evil.git")
    blob = repository.blob(b"x")
    below = repository.tree(("100644", blob, "b"))
    trees = {
        "..": [("100644", blob, "..")],
        ".git": [("40000", below, ".git")],
        ".GIT": [("40000", below, ".GIT")],
        "a/b": [("100644", blob, "a/b")],
        "twice": [("120000", blob, "a"), ("40000", below, "a")],
    }
    for rows in trees.values():
        want(f"{server.url}/evil.git", repository.commit_tree(repository.tree(*rows)))
        with pytest.raises(KitError) as caught:
            resolve(project, "small", client=client)
        assert caught.value.exit_code == ExitCode.CONTENT
    assert not (project.home / "store").exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../x", "a/../../x", "c/../../x", "loop"])
def test_links_that_lead_out(server, project, client, want, target):
    commit = server.repository("links.git").commit(
        {"a/b": b""}, links={"c": "a", "out": target, "loop": "loop", "fine": "c/../a/b"}
    )
    want(f"{server.url}/links.git", commit)
    with pytest.raises(KitError, match=r"refused link .*outside of the tree") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_a_submodule_from_nowhere(server, project, client, want):
    repository = server.repository("top.git")
    for number, (modules, words) in enumerate(
        (
            ("", "does not say where submodule 's' comes from"),
            (SUBMODULE.format("s", "ext::sh -c evil"), r"expected https, ssh or git|no address"),
            (SUBMODULE.format("s", "file:///etc"), "no address"),
            (SUBMODULE.format("s", "/srv/git/s.git"), "no address"),
            (SUBMODULE.format("s", "../../../s.git"), "climbs out"),
            (SUBMODULE.format("s", "-uevil"), r"git refuses: error: object \w+: gitmodulesUrl"),
        )
    ):
        files = {"x": b"%d" % number}
        if modules:
            files[".gitmodules"] = modules.encode()
        commit = repository.commit(files, submodules={"s": "ab" * 20})
        want(f"{server.url}/top.git", commit)
        with pytest.raises(KitError, match=words) as caught:
            resolve(project, "small", client=client)
        assert caught.value.exit_code == ExitCode.CONTENT


def test_the_users_own_git_is_left_out(server, stack, project, client, monkeypatch, tmp_path):
    home = tmp_path / "user"
    home.mkdir()
    evil = (
        f'[url "http://127.0.0.1:9/"]\n\tinsteadOf = {server.url}/\n[core]\n\tsshCommand = false\n'
    )
    evil += "[http]\n\textraHeader = X-Of-User: secret\n"
    (home / ".gitconfig").write_text(evil)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    monkeypatch.setenv("GIT_DIR", str(home / "nowhere"))
    monkeypatch.setenv("GIT_TRACE_CURL", str(home / "trace"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "http.proxy")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "http://127.0.0.1:9")
    assert len(resolve(project, "small", client=client).inputs) == 4
    assert not (home / "trace").exists()
    assert all("x-of-user" not in seen.headers for seen in server.seen)


def test_the_proxy_of_the_environment(server, project, client, want, monkeypatch):
    """A proxy is asked for whole addresses, of a host that nobody else knows."""
    commit = server.repository("top.git").commit({"x": b"1"})
    want("http://git.invalid/top.git", commit)
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    assert len(resolve(project, "small", client=client).inputs) == 1
    assert {seen.headers["host"] for seen in server.seen} == {"git.invalid"}
    assert server.packs("top.git") == 1
    subprocess.run(["rm", "-rf", project.home], check=True)
    monkeypatch.setenv("no_proxy", "git.invalid")
    with pytest.raises(KitError, match=r"git\.invalid is not known here"):
        resolve(project, "small", client=client)


def test_a_certificate_of_the_site(server, project, client, want, monkeypatch, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    words = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=here -addext subjectAltName=IP:127.0.0.1"
    command = ["openssl", *words.split(), "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    commit = server.repository("top.git").commit({"x": b"1"})
    with GitServer(server.root, certificate=(certificate, key)) as secure:
        want(f"{secure.url}/top.git", commit)
        with pytest.raises(KitError, match="no trusted connection") as caught:
            resolve(project, "small", client=client)
        assert "SSL_CERT_FILE" in caught.value.hint
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert len(resolve(project, "small", client=Client(back_off=0.01)).inputs) == 1


def test_without_git(server, stack, project, client, monkeypatch, tmp_path):
    git_program.find.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(KitError, match="git is needed") as caught:
        resolve(project, "small", client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    old = tmp_path / "git"
    old.write_text("#!/bin/sh\necho git version 2.25.1\n")
    old.chmod(0o755)
    with pytest.raises(KitError, match=r"expected git 2\.32 or newer, found git version 2\.25\.1"):
        resolve(project, "small", client=client)
    git_program.find.cache_clear()


def test_damage_in_the_repository_is_healed(server, stack, project, client):
    lock = resolve(project, "small", client=client)
    for pack in (project.home / "git").glob("*/objects/pack/*.pack"):
        content = bytearray(pack.read_bytes())
        content[len(content) // 2] ^= 4
        pack.chmod(0o644)
        pack.write_bytes(content)
    server.seen.clear()
    fetch(project, lock, client=client)
    assert server.packs("other.git") == 1
    assert damaged(Store(project.store)) == []
    for folder in (project.home / "git").glob("*/objects"):
        subprocess.run(["rm", "-rf", folder], check=True)
    assert resolve(project, "small", client=client) == lock


def test_what_a_killed_git_leaves(server, stack, project, client):
    lock = resolve(project, "small", client=client)
    for folder in (project.home / "git").iterdir():
        if folder.is_dir():
            subprocess.run(["rm", "-rf", folder / "objects"], check=True)
            (folder / "objects/pack").mkdir(parents=True)
            (folder / "refs/heads").mkdir(parents=True)
            for name in (
                "shallow.lock",
                "config.lock",
                "HEAD.lock",
                "objects/pack/tmp_pack_x",
                "refs/heads/m.lock",
            ):
                (folder / name).write_bytes(b"half")
            (folder / "HEAD").write_bytes(b"")
            (folder / "config").write_bytes(b"[cor")
    assert resolve(project, "small", client=client) == lock
    assert list((project.home / "git").glob("*/objects/pack/tmp_*")) == []


@pytest.mark.parametrize("command", ["lock", "fetch"])
def test_killed_again_and_again(server, stack, project, client, start, command):
    lock = resolve(project, "small", client=client)
    lock.write(project.lock_path("small"))
    subprocess.run(["rm", "-rf", project.home], check=True)
    server.forever["/other.git/git-upload-pack"] = Fault(bytes_per_second=8_000_000)
    dice = random.Random(7)
    store = Store(project.store)
    for _ in range(8):
        process = start(command, "small")
        time.sleep(dice.uniform(0.2, 1.1))
        process.send_signal(
            dice.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT))
        )
        _, err = process.communicate(timeout=20)
        assert "Traceback" not in err
        assert damaged(store) == []
    server.forever.clear()
    process = start(command, "small")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert project.lock_path("small").read_text() == lock.text()
    fetch(project, lock, client=client)
    assert damaged(store) == []
    assert list((project.home / "git").glob("*/objects/pack/tmp_*")) == []


def test_two_at_the_same_time(server, stack, project, client, start):
    server.forever["/other.git/git-upload-pack"] = Fault(bytes_per_second=4_000_000)
    first, second = start("lock", "small"), start("lock", "small")
    outs = [process.communicate(timeout=60) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outs
    assert server.packs("other.git") == 1, "the second waited for the first"


def test_called_off(server, stack, project, client):
    lock = resolve(project, "small", client=client)
    subprocess.run(["rm", "-rf", project.home / "git"], check=True)
    server.forever["/other.git/git-upload-pack"] = Fault(bytes_per_second=100_000)
    event = threading.Event()
    threading.Timer(0.5, event.set).start()
    item = lock.inputs[3]
    moment = time.monotonic()
    with (
        pytest.raises(Cancelled),
        Store(project.store).receive(item.sha256, item.size, cancelled=event) as reception,
    ):
        GitSource(project, "small").bring(item, reception)
    assert time.monotonic() - moment < 5
    # The lock is free again: nothing of git is left.
    for path in (project.home / "git").glob("*.lock"):
        with locked(path):
            pass


def test_a_full_disk(server, stack, project, client, tmp_path, monkeypatch):
    lock = resolve(project, "small", client=client)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount a small disk")
    try:
        here = Project(project.root, disk)
        monkeypatch.setenv("KIT_HOME", str(disk))
        with pytest.raises(KitError, match="disk full") as caught:
            resolve(here, "small", client=client)
        assert caught.value.exit_code == ExitCode.ENVIRONMENT
        assert "KIT_HOME" in caught.value.hint
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        assert resolve(here, "small", client=client) == lock
        fetch(here, lock, client=client)
        assert damaged(Store(here.store)) == []
    finally:
        subprocess.run(["umount", disk], check=True)
