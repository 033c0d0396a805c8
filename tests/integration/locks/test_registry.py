import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images.oci import Layout
from kit.locks import lock as locks
from kit.locks.fetch import fetch
from kit.locks.http import ATTEMPTS
from kit.locks.intent import load
from kit.locks.oci import write_layout
from kit.locks.resolve import resolve
from kit.store import Store
from tests.integration.conftest import needs, private_podman
from tests.stand_in.file_server import Fault, FileServer
from tests.stand_in.registry import (
    BASIC,
    DOCKER_TYPES,
    OCI_TYPES,
    PASSWORD,
    USER,
    DockerRegistry,
    FailingRegistry,
    TokenService,
    image,
    index,
)
from tests.stand_in.stored import damaged

SIZES = (300_000, 20_000)
TYPES = pytest.mark.parametrize("types", [OCI_TYPES, DOCKER_TYPES], ids=["oci", "docker"])


@pytest.fixture(autouse=True)
def no_logins(monkeypatch, tmp_path):
    """Neither logins nor mirrors of this machine."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "NGC_API_KEY", "KIT_MIRRORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


@pytest.fixture
def login(tmp_path):
    """Store a login as `docker login` does."""

    def write(host, **entry):
        (tmp_path / "docker").mkdir(exist_ok=True)
        entry = entry or {"auth": BASIC.removeprefix("Basic ")}
        text = json.dumps({"auths": {host: entry}})
        (tmp_path / "docker" / "config.json").write_text(text)

    return write


@pytest.fixture
def registry():
    with FailingRegistry() as found:
        yield found


@pytest.fixture
def lock(project, intend, client):
    """Lock a stack of one image, by way of the file."""

    def make(reference, platform="linux/amd64"):
        intend(f"images:\n  - {{name: base, reference: '{reference}'}}\n")
        path = project.intent_path("small")
        path.write_text(path.read_text().replace("linux/amd64", platform))
        resolve(project, "small", client=client).write(project.lock_path("small"))
        return locks.load(project.lock_path("small"))

    return make


@pytest.fixture
def store(project):
    return Store(project.store)


def contents(pushed):
    """Digest and bytes of all that an image is made of."""
    return {pushed.digest: pushed.content, **pushed.blobs}


def assert_stored(store, pushed):
    for digest, content in contents(pushed).items():
        assert store.checked(digest).read_bytes() == content
    assert damaged(store) == []


@pytest.fixture
def docker_registry(tmp_path, missing):
    """Debian's docker-registry."""
    if shutil.which("docker-registry") is None:
        missing("docker-registry is not installed")
    with DockerRegistry(tmp_path / "registry") as found:
        yield found


@TYPES
@pytest.mark.parametrize("auth", ["none", "htpasswd", "token", "token for a login"])
def test_from_a_reference_to_a_layout(
    docker_registry, project, lock, client, store, login, tmp_path, missing, types, auth, capfd
):
    ours = image(*SIZES, types=types)
    others = [image(10, types=types, architecture="arm64", variant="v8")]
    docker_registry.push("team/app", index(*others, ours, types=types), "1.0")
    with TokenService(tmp_path, BASIC if auth.endswith("login") else None) as tokens:
        if auth == "htpasswd":
            docker_registry.start(docker_registry.htpasswd())
        elif auth != "none":
            docker_registry.start(tokens.auth)
        if auth in ("htpasswd", "token for a login"):
            with pytest.raises(KitError, match=r"wants a login|refuses with 401") as caught:
                lock(f"{docker_registry.host}/team/app:1.0")
            assert caught.value.exit_code == ExitCode.ENVIRONMENT
            assert caught.value.hint == f"docker login {docker_registry.host}"
            login(docker_registry.host)
        found = lock(f"{docker_registry.host}/team/app:1.0")
        report = fetch(project, found, client=client)
    assert report.origins == {docker_registry.host: 4}
    assert {item.sha256 for item in found.inputs} == set(contents(ours))
    assert {item.version for item in found.inputs} == {str(ours.digest)}
    assert {item.location for item in found.inputs} == {f"oci:{docker_registry.host}/team/app"}
    assert_stored(store, ours)
    layout = Layout(tmp_path / "layout")
    digest = write_layout(found.select(group="base"), store, layout, "localhost/app:1", "small")
    assert digest == ours.digest
    captured = capfd.readouterr()
    told = captured.out + captured.err + found.text() + str(report)
    assert PASSWORD not in told
    assert BASIC[6:] not in told
    if shutil.which("skopeo") is None:
        missing("skopeo is not installed")
    seen = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{layout.root}"],
        capture_output=True,
        check=True,
    )
    assert Digest.of_bytes(seen.stdout) == ours.digest


@TYPES
def test_podman_reads_the_layout(
    registry, project, lock, client, store, tmp_path, scratch, missing, types, monkeypatch
):
    needs("podman", missing)
    pushed = registry.publish(image(*SIZES, types=types), "1.0")
    found = lock(f"{registry.name}:1.0")
    fetch(project, found, client=client)
    layout = Layout(tmp_path / "layout")
    write_layout(found.select(group="base"), store, layout, "localhost/app:1")
    monkeypatch.delenv("DOCKER_CONFIG")
    with private_podman(scratch / f"layout-{pushed.digest.short}") as environment:

        def podman(*argv):
            done = subprocess.run(
                ["podman", *argv],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        found = podman("pull", "--quiet", f"oci:{layout.root}")
        digest = podman("image", "inspect", "--format", "{{.Digest}}", found)
    assert digest == str(pushed.digest)


def test_two_images_in_one_layout(registry, project, client, store, tmp_path, intend):
    pushed = [registry.publish(image(1000, odd=tag), tag) for tag in ("one", "two")]
    rows = "".join(f"  - {{name: {t}, reference: '{registry.name}:{t}'}}\n" for t in ("one", "two"))
    intend("images:\n" + rows)
    found = resolve(project, "small", client=client)
    fetch(project, found, client=client)
    layout = Layout(tmp_path / "layout")
    for name in ("one", "two", "one"):
        write_layout(found.select(group=name), store, layout, f"localhost/{name}")
    assert layout.names() == {
        "localhost/one": pushed[0].digest,
        "localhost/two": pushed[1].digest,
    }
    for item in pushed:
        assert layout.image(item.digest).manifest_digest == item.digest


def test_a_layout_of_what_is_not_there(registry, lock, store, tmp_path, project, client):
    registry.publish(image(1000), "1.0")
    found = lock(f"{registry.name}:1.0")
    layout = Layout(tmp_path / "layout")
    with pytest.raises(KitError, match="is not in the store") as caught:
        write_layout(found.inputs, store, layout, "localhost/app", "small")
    assert (caught.value.exit_code, caught.value.hint) == (
        ExitCode.ENVIRONMENT,
        "kit fetch small",
    )
    fetch(project, found, client=client)
    without = [item for item in found.inputs if str(item.sha256) != item.version]
    with pytest.raises(KitError, match="names no manifest"):
        write_layout(without, store, layout, "localhost/app")
    assert layout.names() == {}


# What a reference means


@pytest.mark.parametrize(
    ("platform", "chosen"), [("linux/amd64", "amd64"), ("linux/arm64", "arm64 v8")]
)
def test_the_plainest_variant_of_the_platform(registry, lock, platform, chosen):
    images = {
        "amd64 v3": image(10, variant="v3"),
        "arm64 v9": image(10, architecture="arm64", variant="v9"),
        "amd64": image(10),
        "arm64 v8": image(10, architecture="arm64", variant="v8"),
        "s390x": image(10, architecture="s390x"),
    }
    registry.publish(index(*images.values()), "1.0")
    found = lock(f"{registry.name}:1.0", platform)
    assert {item.version for item in found.inputs} == {str(images[chosen].digest)}


def test_no_image_for_the_platform(registry, lock):
    registry.publish(index(image(10, architecture="s390x"), image(10, variant="v4")), "index")
    registry.publish(image(10, architecture="arm64"), "plain")
    with pytest.raises(KitError, match="none for linux/amd64; there are linux/amd64/v4, linux/s39"):
        lock(f"{registry.name}:index")
    with pytest.raises(KitError, match="expected an image for linux/amd64, it is for linux/arm64"):
        lock(f"{registry.name}:plain")


def test_an_index_of_indexes(registry, lock):
    pushed = image(10)
    inner = replace(index(pushed), platform=pushed.platform)
    registry.publish(index(inner), "1.0")
    assert {item.version for item in lock(f"{registry.name}:1.0").inputs} == {str(pushed.digest)}
    for _ in range(3):
        inner = replace(index(inner), platform=pushed.platform)
    registry.publish(inner, "deep")
    with pytest.raises(KitError, match="more than 3 indexes inside of each other"):
        lock(f"{registry.name}:deep")


def test_without_a_tag_it_is_the_latest(registry, lock):
    pushed = registry.publish(image(10), "latest")
    assert lock(registry.name).inputs[0].version == str(pushed.digest)


def test_the_same_layer_twice_is_one_input(registry, lock):
    pushed = image(10)
    manifest = json.loads(pushed.content)
    manifest["layers"] *= 2
    registry.publish(replace(pushed, content=json.dumps(manifest).encode()), "1.0")
    assert len(lock(f"{registry.name}:1.0").inputs) == 3


def test_a_moved_tag(registry, project, lock, client, store):
    old = registry.publish(image(*SIZES), "1.0")
    found = lock(f"{registry.name}:1.0")
    new = registry.publish(image(*SIZES, odd="new"), "1.0")
    fetch(project, found, client=client)
    assert_stored(store, old)
    assert {item.version for item in lock(f"{registry.name}:1.0").inputs} == {str(new.digest)}
    with pytest.raises(KitError, match="the tag has moved") as caught:
        lock(f"{registry.name}:1.0@{old.digest}")
    assert caught.value.exit_code == ExitCode.CONTENT
    assert str(old.digest) in str(caught.value)
    assert str(new.digest) in str(caught.value)
    assert lock(f"{registry.name}@{old.digest}").inputs[0].version == str(old.digest)


def test_a_tag_and_a_digest_agree(registry, lock):
    inner = image(10)
    outer = registry.publish(index(inner), "1.0")
    for digest in (outer.digest, inner.digest):
        found = lock(f"{registry.name}:1.0@{digest}")
        assert {item.version for item in found.inputs} == {str(inner.digest)}


def test_what_a_registry_does_not_have(registry, project, lock, client):
    registry.publish(image(10), "1.0")
    for reference in (f"{registry.name}:2.0", f"{registry.host}/team/none:1.0"):
        with pytest.raises(KitError, match="image base: no 127") as caught:
            lock(reference)
        assert caught.value.exit_code == ExitCode.USAGE
    found = lock(f"{registry.name}:1.0")
    registry.files.clear()
    with pytest.raises(KitError, match="has vanished from the registry") as caught:
        fetch(project, found, client=client)
    assert (caught.value.exit_code, caught.value.hint) == (
        ExitCode.ENVIRONMENT,
        "kit lock small",
    )


def changed(pushed, **fields):
    return replace(pushed, content=json.dumps({**json.loads(pushed.content), **fields}).encode())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schemaVersion": 1}, "a manifest of schema 1: expected 2"),
        ({"manifests": []}, "neither the manifest of an image nor an index"),
        ({"mediaType": "text/plain"}, "expected a manifest of type"),
        ({"mediaType": OCI_TYPES[3]}, "expected a manifest of type"),
        ({"layers": 7}, "the manifest's layers cannot be read"),
        ({"layers": [{"digest": "sha256:" + "0" * 64}]}, "descriptor cannot be read"),
        (
            {"layers": [{"mediaType": "x", "size": 1, "digest": "sha512:" + "0" * 128}]},
            "expected a sha256 digest, found 'sha512:000",
        ),
        (
            {
                "layers": [
                    {"mediaType": "x", "size": n, "digest": f"sha256:{0:064}"} for n in (1, 2)
                ]
            },
            "two sizes of one blob",
        ),
        ({"config": {"mediaType": "x/y", "size": 2, "digest": f"sha256:{0:064}"}}, "no image that"),
        ({"pad": "x" * (4 << 20)}, "larger than 4194304 bytes"),
    ],
)
def test_manifests_that_are_none(registry, lock, fields, message):
    registry.publish(changed(image(10), **fields), "1.0")
    with pytest.raises(KitError, match=message) as caught:
        lock(f"{registry.name}:1.0")
    assert caught.value.exit_code in (ExitCode.USAGE, ExitCode.CONTENT)


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[" * 100_000, b"[]", b"\xff", b'{"a":1,"a":2}']
)
def test_a_manifest_that_is_no_json(registry, lock, content):
    registry.publish(replace(image(10), content=content), "1.0")
    with pytest.raises(KitError, match=f"{registry.name}: sha256:") as caught:
        lock(f"{registry.name}:1.0")
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    ],
)
def test_layers_that_only_their_maker_hands_out(registry, project, lock, client, store, media_type):
    pushed = image(10)
    (layer,) = json.loads(pushed.content)["layers"]
    foreign = changed(pushed, layers=[{**layer, "mediaType": media_type, "urls": ["https://x/y"]}])
    registry.publish(foreign, "1.0")
    found = lock(f"{registry.name}:1.0")
    fetch(project, found, client=client)
    assert_stored(store, foreign)
    del registry.files[registry.path(Digest.parse(layer["digest"]))]
    with pytest.raises(KitError, match="its licence lets only its maker hand it out"):
        lock(f"{registry.name}:1.0")


def test_a_tag_whose_content_has_another_digest(registry, lock):
    pushed = registry.publish(image(10), "1.0")
    registry.forever[f"/v2/{registry.repository}/manifests/1.0"] = Fault(flip=3)
    with pytest.raises(KitError):
        lock(f"{registry.name}:1.0")
    registry.forever.clear()
    registry.forever[registry.path(pushed.digest, "manifests")] = Fault(flip=3)
    with pytest.raises(KitError, match=f"wrong content: expected {pushed.digest}") as caught:
        lock(f"{registry.name}@{pushed.digest}")
    assert caught.value.exit_code == ExitCode.CONTENT


def test_a_configuration_with_another_digest(registry, lock):
    pushed = registry.publish(image(10), "1.0")
    digest = Digest.parse(json.loads(pushed.content)["config"]["digest"])
    registry.forever[registry.path(digest)] = Fault(flip=3)
    with pytest.raises(KitError, match=f"wrong content: expected {digest}"):
        lock(f"{registry.name}:1.0")


# Faults on the way


@pytest.fixture
def locked(registry, lock):
    """An image, its lock, and the path of its largest layer."""
    pushed = registry.publish(image(*SIZES), "1.0")
    found = lock(f"{registry.name}:1.0")
    registry.requests.clear()
    largest = max(found.inputs, key=lambda item: item.size)
    return pushed, found, largest, registry.path(largest.sha256)


@pytest.mark.parametrize("tenth", range(10))
def test_cut_at_a_tenth_it_asks_for_the_rest(registry, project, locked, client, store, tenth):
    pushed, found, largest, path = locked
    cut = largest.size * tenth // 10
    registry.faults[path] = [Fault(cut_after=cut)]
    fetch(project, found, client=client)
    assert [seen.range for seen in registry.asked(path)] == [
        None,
        f"bytes={cut}-" if cut else None,
    ]
    assert sum(seen.sent for seen in registry.asked(path)) == largest.size, "no byte came twice"
    assert_stored(store, pushed)


def test_cut_at_every_tenth_with_a_token_for_each_request(registry, project, locked, client, store):
    pushed, found, largest, path = locked
    registry.token_uses = 1
    registry.faults[path] = [Fault(cut_after=largest.size // 10) for _ in range(9)]
    report = fetch(project, found, jobs=1, client=client)
    assert report.bytes == found.size
    brought = [seen for seen in registry.asked(path) if seen.sent > 2]
    assert len(brought) == 10
    assert len({seen.headers["authorization"] for seen in brought}) == 10
    assert_stored(store, pushed)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(ignore_range=True),
        Fault(wrong_range=True),
        Fault(status=500),
        Fault(status=503, retry_after=0),
        Fault(status=429, retry_after=0),
        Fault(status=416),
        Fault(hide_length=True),
    ],
    ids=str,
)
def test_it_comes_all_the_same(registry, project, locked, client, store, fault):
    pushed, found, _, path = locked
    registry.faults[path] = [Fault(cut_after=100_000), fault]
    fetch(project, found, client=client)
    assert_stored(store, pushed)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Fault(flip=299_000), "wrong content: expected sha256:"),
        (Fault(extra=b"more"), "wrong size: expected"),
        (Fault(extra=b"more", hide_length=True), "wrong size: expected"),
    ],
    ids=str,
)
def test_wrong_content_leaves_nothing(registry, project, locked, client, store, fault, message):
    pushed, found, largest, path = locked
    registry.forever[path] = fault
    with pytest.raises(KitError, match=message) as caught:
        fetch(project, found, client=client)
    assert caught.value.exit_code == ExitCode.CONTENT
    assert path in str(caught.value)
    assert not store.has(largest.sha256)
    assert store.received(largest.sha256) == 0
    registry.forever.clear()
    fetch(project, found, client=client)
    assert_stored(store, pushed)


def test_a_registry_that_has_less(registry, project, locked, client, store):
    _, found, largest, path = locked
    registry.files[path] = registry.files[path][:-5]
    with pytest.raises(KitError, match="wrong size: expected"):
        fetch(project, found, client=client)
    assert store.received(largest.sha256) == 0


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
def test_refused_for_good(registry, project, locked, client, store, status):
    pushed, found, largest, path = locked
    registry.forever[path] = Fault(status=status, retry_after=0)
    with pytest.raises(KitError) as caught:
        fetch(project, found, client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert registry.name in str(caught.value) or path in str(caught.value)
    expected = {
        401: "wants a login in a way not known here: none",
        403: "refuses with 403, asked with no login",
        404: "has vanished from the registry",
        429: f"answers 429; 0 of {largest.size} bytes",
        500: f"answers 500; 0 of {largest.size} bytes",
    }
    assert expected[status] in str(caught.value)
    assert len(registry.asked(path)) == (ATTEMPTS if status in (429, 500) else 1)
    assert damaged(store) == []
    registry.forever.clear()
    fetch(project, found, client=client)
    assert_stored(store, pushed)


def test_a_limit_on_requests_is_waited_for(registry, project, locked, client):
    _, found, _, path = locked
    registry.faults[path] = [Fault(status=429, retry_after=1)]
    start = time.monotonic()
    fetch(project, found, client=client)
    assert time.monotonic() - start >= 1


def test_a_full_disk(registry, project, client, lock, small_disk, monkeypatch):
    pushed = registry.publish(image(6_000_000), "1.0")
    found = lock(f"{registry.name}:1.0")
    here = type(project)(project.root, small_disk)
    with pytest.raises(KitError, match="not enough disk"):
        fetch(here, found, client=client)
    monkeypatch.setattr(Store, "require_space", lambda *_: None)
    with pytest.raises(KitError, match="disk full while writing") as caught:
        fetch(here, found, client=client)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert damaged(Store(here.store)) == []
    subprocess.run(["mount", "-o", "remount,size=16m", small_disk], check=True)
    fetch(here, found, client=client)
    assert_stored(Store(here.store), pushed)


# Logins


def test_a_token_for_anybody_is_had_once(registry, project, lock, client):
    registry.token_uses = 100
    registry.publish(image(*SIZES, *[1000] * 10), "1.0")
    found = lock(f"{registry.name}:1.0")
    assert len(registry.issued) == 1
    fetch(project, found, jobs=8, client=client)
    assert len(registry.issued) == 2, "eight threads share one"


def test_a_token_that_ends_while_many_ask(registry, project, lock, client, store):
    registry.token_uses = 3
    pushed = registry.publish(image(*[1000] * 30), "1.0")
    fetch(project, lock(f"{registry.name}:1.0"), jobs=2, client=client)
    assert_stored(store, pushed)


def test_the_login_goes_to_the_token_service_only(registry, project, lock, client, login, store):
    registry.token_uses, registry.user = 2, BASIC
    pushed = registry.publish(image(*SIZES), "1.0")
    login(registry.host)
    fetch(project, lock(f"{registry.name}:1.0"), client=client)
    assert_stored(store, pushed)
    for seen in registry.requests:
        sent = seen.headers.get("authorization", "")
        assert sent == BASIC if seen.path == "/token" else not sent.startswith("Basic")


def test_an_identity_token_is_exchanged(registry, lock, login):
    registry.token_uses, registry.user = 100, "identity-secret"
    pushed = registry.publish(image(10), "1.0")
    login(registry.host, identitytoken="identity-secret")
    assert lock(f"{registry.name}:1.0").inputs[0].version == str(pushed.digest)
    assert not any("identity" in seen.query for seen in registry.requests)


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_a_wrong_login(registry, lock, login, kind):
    registry.publish(image(10), "1.0")
    if kind == "basic":
        registry.basic = True
    else:
        registry.token_uses, registry.user = 2, BASIC
    login(registry.host, username=USER, password="other-secret")
    with pytest.raises(KitError, match=r"refuses with 401, asked with the login of .*config") as e:
        lock(f"{registry.name}:1.0")
    assert e.value.hint == f"docker login {registry.host}"
    assert "secret" not in str(e.value) + str(e.value.__cause__) + str(e.value.__context__)
    assert len(registry.requests) <= 4


def test_a_token_that_is_never_enough(registry, lock):
    registry.token_uses = 0
    registry.publish(image(10), "1.0")
    with pytest.raises(KitError, match="no such repository, or no access to it"):
        lock(f"{registry.name}:1.0")
    assert len(registry.issued) == 2


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"token": 7}', b'{"token": "a\\nB: c"}', b'{"token": ""}']
)
def test_a_token_service_that_answers_nonsense(registry, lock, content):
    registry.token_uses = 5
    registry.routes.clear()
    registry.put("/token", content)
    with pytest.raises(KitError, match="/token:") as caught:
        lock(f"{registry.name}:1.0")
    assert caught.value.exit_code in (ExitCode.ENVIRONMENT, ExitCode.CONTENT)


@pytest.mark.parametrize("kind", ["basic", "token"])
def test_a_redirect_takes_no_login_along(registry, project, lock, client, login, store, kind):
    login(registry.host)
    if kind == "basic":
        registry.basic = True
    else:
        registry.token_uses, registry.user = 3, BASIC
    pushed = registry.publish(image(*SIZES), "1.0")
    found = lock(f"{registry.name}:1.0")
    with FileServer() as storage:
        for item in found.inputs:
            if str(item.sha256) != item.version:
                path = registry.path(item.sha256)
                url = storage.put(f"/bucket/{item.sha256.hex}", pushed.blobs[item.sha256])
                registry.forever[path] = Fault(redirect=f"{url}?signature=query-secret")
                storage.faults[f"/bucket/{item.sha256.hex}"] = [Fault(cut_after=item.size // 2)]
        report = fetch(project, found, client=client)
        assert storage.requests
        assert not any("authorization" in seen.headers for seen in storage.requests)
    assert "secret" not in str(report)
    assert_stored(store, pushed)


def test_what_is_redirected_to_gets_no_say_in_logins(registry, project, locked, client, login):
    _, found, _, path = locked
    registry.basic = True
    login(registry.host)
    with FileServer() as evil, FileServer() as storage:

        def refuse(answer):
            challenge = f'Bearer realm="{evil.url}/token",service="x"'
            answer.plain(401, b"", {"WWW-Authenticate": challenge})
            return False

        storage.guard = refuse
        registry.forever[path] = Fault(redirect=f"{storage.url}/bucket?signature=query-secret")
        with pytest.raises(KitError, match="refuses with 401") as caught:
            fetch(project, found, client=client)
        assert evil.requests == []
        assert len(storage.requests) == 1
    assert "secret" not in str(caught.value)


# Mirrors


def test_a_mirror_stands_for_the_registry(
    registry, project, lock, client, store, monkeypatch, login
):
    monkeypatch.setenv("KIT_MIRRORS", f"nvcr.io/=http://{registry.host}/team/")
    monkeypatch.setenv("NGC_API_KEY", "key-secret")
    registry.token_uses, registry.user = 100, BASIC
    login(registry.host)
    registry.repository = "team/nvidia/app"
    pushed = registry.publish(image(*SIZES), "1.0")
    found = lock("nvcr.io/nvidia/app:1.0")
    assert {item.location for item in found.inputs} == {"oci:nvcr.io/nvidia/app"}
    assert registry.host not in found.text(), "a lock names no mirror"
    report = fetch(project, found, client=client)
    assert report.origins == {registry.host: 4}
    assert_stored(store, pushed)
    assert not any("key-secret" in str(seen.headers) for seen in registry.requests)


def test_a_mirror_with_a_login_of_its_own(registry, lock, monkeypatch):
    registry.basic = True
    registry.publish(image(10), "1.0")
    pair = f"{USER}:{PASSWORD.replace(':', '%3A')}"
    monkeypatch.setenv("KIT_MIRRORS", f"nvcr.io/=http://{pair}@{registry.host}/")
    assert PASSWORD not in lock("nvcr.io/team/app:1.0").text()
    with pytest.raises(KitError) as caught:
        lock("nvcr.io/team/app:2.0")
    assert "secret" not in str(caught.value)


def test_a_poisoned_mirror(registry, project, locked, client, store, monkeypatch):
    pushed, found, largest, path = locked
    with FailingRegistry() as mirror:
        mirror.publish(pushed)
        mirror.forever[path] = Fault(flip=5)
        monkeypatch.setenv("KIT_MIRRORS", f"{registry.host}/={mirror.host}/")
        with pytest.raises(KitError, match="wrong content: expected") as caught:
            fetch(project, found, client=client)
        assert mirror.host in str(caught.value)
        assert caught.value.exit_code == ExitCode.CONTENT
    assert registry.requests == [], "there is no way back to the origin"
    assert not store.has(largest.sha256)
    monkeypatch.delenv("KIT_MIRRORS")
    fetch(project, found, client=client)
    assert_stored(store, pushed)


@pytest.mark.parametrize(
    "target", ["http://registry.example/", "ftp://127.0.0.1/", "https://[x/", "host/UPPER/"]
)
def test_a_mirror_that_leads_nowhere(lock, monkeypatch, target):
    monkeypatch.setenv("KIT_MIRRORS", f"nvcr.io/={target}")
    with pytest.raises(KitError, match=r"KIT_MIRRORS leads nvcr\.io/team/app") as caught:
        lock("nvcr.io/team/app:1.0")
    assert caught.value.exit_code == ExitCode.USAGE


# The process


def test_killed_again_and_again(registry, project, lock, login, store, start, tmp_path):
    registry.token_uses, registry.user = 50, BASIC
    login(registry.host)
    pushed = registry.publish(image(*[400_000] * 5), "1.0")
    found = lock(f"{registry.name}:1.0")
    assert found.intent == load(project.intent_path("small")).digest
    for digest in pushed.blobs:
        registry.forever[registry.path(digest)] = Fault(bytes_per_second=200_000)

    def kept():
        return sum(store.received(d) + store.has(d) * len(c) for d, c in contents(pushed).items())

    came = 0
    for pause in (0, 0.05, 0.13, 0.21, 0.34):
        process = start()
        limit = time.monotonic() + 20
        while kept() <= came:
            assert time.monotonic() < limit, "nothing more comes"
            time.sleep(0.01)
        time.sleep(pause)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert damaged(store) == []
        assert kept() > came, "what has come stays"
        came = kept()
    registry.forever.clear()
    process = start()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "secret" not in out + err
    assert_stored(store, pushed)
    layout = Layout(tmp_path / "layout")
    assert write_layout(found.inputs, store, layout, "localhost/app") == pushed.digest
