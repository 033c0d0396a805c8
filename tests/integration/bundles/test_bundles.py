"""Bundles against real things: registries, container tools, disks, a site without a route."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from kit.bundles import create, gather, push, verifier
from kit.errors import ExitCode, KitError
from kit.images.oci import LAYER, Layer, Layout
from kit.project import Project
from tests.conftest import ROOT
from tests.integration.conftest import kit
from tests.stand_in.registry import BASIC, DockerRegistry
from tests.unit.bundles import making

SIZES = [0, 5, 512, 5000, 200_000, 3_000_000]


@pytest.fixture
def place(tmp_path):
    return making.project(tmp_path)


@pytest.fixture
def data(tmp_path):
    return making.noise(tmp_path / "data", SIZES)


@pytest.fixture(autouse=True)
def no_logins(monkeypatch, tmp_path):
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no-config"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def image_contents(place):
    """An image of one layer that every tool can read."""
    folder = place.home / "rootfs"
    (folder / "etc").mkdir(parents=True, exist_ok=True)
    (folder / "etc" / "motd").write_text("rehearsal\n")
    words = ["tar", "--sort=name", "--mtime=@0", "--owner=0", "--group=0", "-c", "-C"]
    layer = subprocess.run([*words, str(folder), "."], capture_output=True, check=True).stdout
    layout = Layout(place.images)
    digest = layout.put(layer)
    image = layout.write_image(
        name="localhost/x:latest",
        layers=(Layer(digest, len(layer), LAYER),),
        settings={"Cmd": ["true"]},
        history=["test"],
        platform="linux/amd64",
        epoch=0,
    )
    work = gather._Gathering(place, gather.Request())
    work.add_image(image, "x", "x", "asked for")
    return image, list(work.found.values())


def joined(bundle, folder):
    """What `cat part-* | tar -x` gives."""
    folder.mkdir()
    words = f"cat '{bundle}'/part-* | tar -x -C '{folder}'"
    subprocess.run(words, shell=True, check=True)
    return folder


def test_container_tools_read_the_joined_parts(place, data, tmp_path, missing):
    for program in ("skopeo", "podman"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed")
    image, contents = image_contents(place)
    request = gather.Request(files=(data,), own=False)
    contents += gather.gather(place, request)
    create.create(place, contents, tmp_path / "out", create.Settings("test", part_size=100_000))
    layout = joined(tmp_path / "out", tmp_path / "layout")
    words = ["skopeo", "inspect", "--format", "{{.Digest}}", f"oci:{layout}:image-x"]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert found == str(image.manifest_digest)
    # And everything that is no image: skopeo checks every digest while it copies.
    words = ["skopeo", "copy", "--quiet", f"oci:{layout}:file-data", f"oci:{tmp_path}/copy:data"]
    subprocess.run(words, check=True)
    assert Layout(tmp_path / "copy").names().keys() == {"data"}
    # Podman takes no long path for what it runs from.
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        storage = ["--root", f"{short}/graph", "--runroot", f"{short}/run"]
        pull(storage, layout, image)


def pull(storage, layout, image):
    words = ["podman", *storage, "--storage-driver", "vfs", "pull", "-q", f"oci:{layout}:image-x"]
    # Unlike the others, it wants the folder of Docker's logins to be there.
    own = {name: value for name, value in os.environ.items() if name != "DOCKER_CONFIG"}
    done = subprocess.run(words, env=own, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == image.image_id.hex, done.stderr


@pytest.fixture
def registry(tmp_path, missing):
    if shutil.which("docker-registry") is None:
        missing("docker-registry is not installed")
    with DockerRegistry(tmp_path / "registry") as found:
        yield found


@pytest.mark.parametrize("auth", ["none", "htpasswd"])
def test_everything_goes_into_a_registry(place, data, tmp_path, registry, auth, missing):
    if shutil.which("skopeo") is None:
        missing("skopeo is not installed")
    image, contents = image_contents(place)
    contents = [*gather.gather(place, gather.Request(files=(data,), own=False)), *contents]
    create.create(place, contents, tmp_path / "out", create.Settings("test", part_size=100_000))
    index = making.index_of(tmp_path / "out")
    target = f"{registry.host}/kit"
    if auth == "htpasswd":
        registry.start(registry.htpasswd())
        with pytest.raises(KitError, match="wants a login") as caught:
            push.push(tmp_path / "out", index, target, jobs=2)
        assert caught.value.exit_code == ExitCode.ENVIRONMENT
        (tmp_path / "docker").mkdir()
        entry = {"auths": {registry.host: {"auth": BASIC.removeprefix("Basic ")}}}
        (tmp_path / "docker" / "config.json").write_text(json.dumps(entry))
    rows = push.push(tmp_path / "out", index, target, jobs=2)
    assert [row["reference"] for row in rows] == [f"{target}/file/data:1", f"{target}/image/x:1"]
    assert rows[1]["digest"] == str(image.manifest_digest)
    words = ["skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}"]
    if auth == "htpasswd":
        words += ["--authfile", str(tmp_path / "docker" / "config.json")]
    for row in rows:
        done = subprocess.run(
            [*words, f"docker://{row['reference']}"], capture_output=True, text=True, check=False
        )
        if "image/x" in row["reference"]:
            assert done.stdout.strip() == row["digest"], done.stderr
    assert push.push(tmp_path / "out", index, target) == rows


def test_an_oras_client_pulls_what_was_pushed(place, data, tmp_path, registry):
    """A client of the ORAS project, in Python: every file by its path, every byte."""
    client = pytest.importorskip("oras.client", reason="the package oras is not installed")
    making.make(place, tmp_path / "out", data)
    (row,) = push.push(tmp_path / "out", making.index_of(tmp_path / "out"), f"{registry.host}/kit")
    found = client.OrasClient(hostname=registry.host, insecure=True)
    manifest = found.get_manifest(row["reference"])
    assert manifest["artifactType"] == "application/vnd.trtllm-kit.file.v1"
    found.pull(target=row["reference"], outdir=str(tmp_path / "pulled"))
    assert making.tree(tmp_path / "pulled") == making.tree(data)


def test_contents_that_are_almost_called_the_same_stay_apart(place, tmp_path, registry):
    """As a registry and a client of OCI take their names."""
    client = pytest.importorskip("oras.client", reason="the package oras is not installed")
    names = ("a.b.txt", "a_b.txt", "a__b.txt", "a-b.txt", "A.B.txt", "a b.txt", "é")
    for name in names:
        (tmp_path / name).write_text(name)
    making.make(place, tmp_path / "out", *(tmp_path / name for name in names))
    rows = push.push(tmp_path / "out", making.index_of(tmp_path / "out"), f"{registry.host}/kit")
    assert len({row["reference"] for row in rows}) == len(names)
    found = client.OrasClient(hostname=registry.host, insecure=True)
    for row in rows:
        found.pull(target=row["reference"], outdir=str(tmp_path / "pulled"))
        assert (tmp_path / "pulled" / row["name"]).read_text() == row["name"]


def test_a_delta_goes_where_its_base_is(place, data, tmp_path, registry):
    making.make(place, tmp_path / "one", data)
    base = making.index_of(tmp_path / "one")
    (data / "new").write_bytes(b"new")
    making.make(place, tmp_path / "two", data, settings=create.Settings("test", since=base))
    delta = making.index_of(tmp_path / "two")
    target = f"{registry.host}/kit"
    with pytest.raises(KitError, match="which this delta needs") as caught:
        push.push(tmp_path / "two", delta, target)
    assert caught.value.exit_code == ExitCode.CONTENT
    push.push(tmp_path / "one", base, target)
    (row,) = push.push(tmp_path / "two", delta, target)
    assert row["reference"] == f"{target}/file/data:2"


def test_no_registry_is_told(place, data, tmp_path):
    making.make(place, tmp_path / "one", data)
    index = making.index_of(tmp_path / "one")
    with pytest.raises(KitError, match="cannot be reached") as caught:
        push.push(tmp_path / "one", index, "127.0.0.1:1/kit")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    with pytest.raises(KitError, match="expected registry"):
        push.push(tmp_path / "one", index, "HTTP://x")


@pytest.fixture
def disk(tmp_path):
    """A real disk of four megabytes, which a test may make read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", folder]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("large", [1, 1 << 26])
def test_a_disk_that_fills_up_while_a_bundle_is_made(place, data, disk, monkeypatch, large):
    """Where a part begins with a large file, too; what is full is not the disk of that file."""
    monkeypatch.setattr("kit.files.free_bytes", lambda path: 1 << 40)
    monkeypatch.setattr("kit.bundles.plan.LARGE", large)
    chosen = create.Settings("test", jobs=2)
    filler = disk / "filler"
    filler.write_bytes(bytes(2_000_000))
    with pytest.raises(KitError, match=f"disk full while writing {disk}/.out.partial/") as caught:
        making.make(place, disk / "out", data, settings=chosen)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert not (disk / "out").exists()
    filler.unlink()
    making.make(place, disk / "out", data, settings=chosen)
    assert verifier.check(disk / "out").ok


def test_a_disk_that_fills_up_while_a_bundle_is_loaded(place, data, disk, tmp_path, monkeypatch):
    making.make(place, tmp_path / "out", data)
    there = Project(place.root, disk / "home")
    filler = disk / "filler"
    filler.write_bytes(bytes(2_000_000))
    with pytest.raises(KitError, match="not enough disk"):
        making.take(there, tmp_path / "out")
    monkeypatch.setattr("kit.files.free_bytes", lambda path: 1 << 40)
    with pytest.raises(KitError, match="disk full") as caught:
        making.take(there, tmp_path / "out")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert not (there.home / "bundles" / "content").exists()
    filler.unlink()
    ((_, where),) = making.take(there, tmp_path / "out").places
    assert making.tree(where) == making.tree(data)


def test_a_medium_that_cannot_be_written_is_read(place, data, disk, tmp_path):
    making.make(place, disk / "out", data)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert verifier.check(disk / "out").ok
    there = making.project(tmp_path / "site")
    ((_, where),) = making.take(there, disk / "out").places
    assert making.tree(where) == making.tree(data)
    with pytest.raises(KitError, match="may not write") as caught:
        making.make(place, disk / "other", data)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


def test_a_fat32_medium_carries_it_over(place, data, tmp_path, missing):
    """Written to a FAT32 image and read from it again by other programs than the kernel."""
    if not shutil.which("mcopy") or not shutil.which("mkfs.fat"):
        missing("mtools or dosfstools are not installed")
    key = making.key(tmp_path)
    settings = create.Settings("test", part_size=500_000, key=key)
    made = making.make(place, tmp_path / "out", data, settings=settings)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert len({name.casefold() for name in names}) == len(names)
    medium = tmp_path / "medium"
    size = str(34 << 10)  # KiB: the smallest that mkfs.fat makes a FAT32 of
    subprocess.run(["mkfs.fat", "-F", "32", "-C", medium, size], check=True, capture_output=True)
    own = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}

    def mtools(*words):
        argv = [words[0], "-i", str(medium), *map(str, words[1:])]
        done = subprocess.run(argv, env=own, check=True, capture_output=True, text=True)
        return done.stdout

    mtools("mcopy", "-s", tmp_path / "out", "::/BUNDLE")
    assert sorted(mtools("mdir", "-b", "::/bundle").split()) == sorted(
        f"::/bundle/{name}" for name in names
    )
    mtools("mcopy", "-s", "-n", "::/bundle", tmp_path / "back")
    assert making.content_of(tmp_path / "back") == making.content_of(tmp_path / "out")
    words = [sys.executable, "-I", tmp_path / "back" / "verify.py", "--key", f"{key}.pub"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert made.identity in done.stdout
    there = making.project(tmp_path / "site")
    ((_, where),) = making.take(there, tmp_path / "back", making.blob(key)).places
    assert making.tree(where) == making.tree(data)


def test_a_disk_with_a_limit_on_files_as_fat32_has(data, tmp_path):
    """Parts are what a file system takes; one that is too large is told."""
    words = ["bundle", "create", str(tmp_path / "out"), "--file", str(data), "--without-kit"]
    environment = {"KIT_HOME": str(tmp_path / "home")}
    limited = ["sh", "-c", 'ulimit -f 2000; exec "$@"', "sh", sys.executable, "-m", "kit"]
    done = subprocess.run(
        [*limited, *words],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "too large for this disk (FAT32 ends at 4 GB)" in done.stderr
    assert "--part-size" in done.stderr
    done = subprocess.run(
        [*limited, *words, "--part-size", "500K"],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert max(path.stat().st_size for path in (tmp_path / "out").iterdir()) <= 500_000


def without_a_route(*words, **options):
    """Run something where there is not even a loopback device that is up."""
    return subprocess.run(
        ["unshare", "--net", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


@pytest.fixture(scope="module")
def fetched(scratch):
    """A home with the kit's own wheels."""
    folder = scratch / "home-with-wheels"
    done = kit("fetch", "kit", env={"KIT_HOME": str(folder)})
    assert done.returncode == 0, done.stderr
    return folder


def test_a_site_with_nothing_but_python_sets_itself_up(fetched, tmp_path, data, missing):
    """bootstrap → load → receipt, without a route; then the sender reads the receipt."""
    if without_a_route("true").returncode != 0:
        missing("may not make a network namespace")
    sender, site = making.key(tmp_path, "sender"), making.key(tmp_path, "site")
    out = tmp_path / "out"
    done = kit(
        *("bundle", "create", str(out), "--file", str(data), "--key", str(sender)),
        *("--part-size", "4M", "--name", "delivery", "--json"),
        env={"KIT_HOME": str(fetched)},
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    empty = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path / "nobody")}
    python = {**empty, "PYTHON": os.path.realpath(sys.executable)}
    done = without_a_route(
        out / "bootstrap", tmp_path / "kit", "--key", f"{sender}.pub", env=python
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kit ")
    program = tmp_path / "kit" / "bin" / "kit"
    home = {**empty, "KIT_HOME": str(tmp_path / "site-home")}
    receipt = tmp_path / "receipt.json"
    words = ["bundle", "load", out, "--key", f"{sender}.pub", "--receipt", receipt, "--json"]
    done = without_a_route(program, *words, "--sign-with", site, env=home, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout)
    assert (loaded["identity"], loaded["pinned"]) == (made["identity"], True)
    places = {row["name"]: row["path"] for row in loaded["contents"]}
    assert making.tree(Path(places["data"])) == making.tree(data)
    words = ["manifest", "verify", str(receipt), "--bundle", str(out), "--json"]
    done = kit(*words, "--key", f"{sender}.pub")
    assert done.returncode == 4, done.stdout
    done = kit(*words, "--key", f"{site}.pub")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["receipt"]
    assert told["bundle"]["identity"] == made["identity"]
    assert told["signer"] == verifier.fingerprint(making.blob(site))
    assert not (tmp_path / "kit").joinpath("bin", "pip").exists()
    # The site sends it on, with the kit that it was given, to one that has nothing either.
    words = ["bundle", "create", tmp_path / "on", "--file", data, "--key", site]
    done = without_a_route(program, *words, env=home, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    words = [tmp_path / "on" / "bootstrap", tmp_path / "kit-2", "--key", f"{site}.pub"]
    done = without_a_route(*words, env=python)
    assert done.returncode == 0, done.stderr


def test_bootstrap_installs_nothing_that_is_not_signed_as_expected(fetched, tmp_path, data):
    out = tmp_path / "out"
    sender, other = making.key(tmp_path, "sender"), making.key(tmp_path, "other")
    words = ["bundle", "create", str(out), "--file", str(data), "--key", str(sender)]
    done = kit(*words, env={"KIT_HOME": str(fetched)})
    assert done.returncode == 0, done.stderr
    python = {"PATH": "/usr/bin:/bin", "PYTHON": os.path.realpath(sys.executable)}
    words = [out / "bootstrap", tmp_path / "kit", "--key", f"{other}.pub"]
    done = subprocess.run(words, env=python, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "foreign: SHA256SUMS.sig" in done.stderr
    assert not (tmp_path / "kit").exists()
