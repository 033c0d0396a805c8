"""Requirements on a base image: its own pip in a container, replayed from the store."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tarfile

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images import select
from kit.images.engine import Mount, RunRequest
from kit.locks import archive
from kit.locks.closures import RequirementGroup, Requirements
from kit.locks.fetch import fetch
from kit.locks.http import Client
from kit.locks.lock import Input, Lock
from kit.locks.requirements import resolve_requirements
from kit.project import Project
from kit.store import Store
from tests.conftest import ROOT
from tests.stand_in.debian_repository import missing_tools
from tests.stand_in.file_server import Fault
from tests.stand_in.package_index import PackageIndex, sdist, wheel
from tests.stand_in.python_base import PythonBase
from tests.stand_in.registry import DockerRegistry
from tests.stand_in.stored import damaged

pytestmark = pytest.mark.engine
one_engine = pytest.mark.only("podman")

INTENT = """\
schema: kit.intent/1
stack: small
family: small
platform: linux/amd64
epoch: 1700000000
"""
DOCKERFILE = """\
ARG BASE
FROM ${BASE} AS base
FROM base AS devel
FROM devel AS wheel
FROM devel AS release
"""
NGC = {
    "etc/pip.conf": "[global]\nextra-index-url = https://pypi.ngc.example\nno-index = true\n",
    "etc/pip/constraint.txt": "delta<2\n",
}
CONSTRAINED = {"PIP_CONSTRAINT": "/etc/pip/constraint.txt", "PIP_NO_INDEX": "1"}
SECRET = "s3cret-of-the-index"


@pytest.fixture(scope="session")
def python_base(scratch, missing):
    if tools := missing_tools():
        missing(f"not installed: {', '.join(tools)}")
    return PythonBase(scratch / "python-base")


@pytest.fixture
def project(scratch, tmp_path):
    """A project of the test's own, whose home is on a disk with room."""
    root = tmp_path / "project"
    (root / "lockfiles").mkdir(parents=True)
    (root / "dockerfiles" / "small").mkdir(parents=True)
    (root / "lockfiles" / "small.yaml").write_text(INTENT)
    (root / "dockerfiles" / "small" / "Dockerfile").write_text(DOCKERFILE)
    home = scratch / f"requirements-{tmp_path.name}"
    yield Project(root, home)
    shutil.rmtree(home, ignore_errors=True)


class Listening:
    """An engine, and all that is said in its containers."""

    def __init__(self, engine):
        self.engine = engine
        self.lines = []

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def run(self, request, on_line):
        def both(line):
            self.lines.append(line)
            on_line(line)

        return self.engine.run(request, both)


@pytest.fixture
def engine(selected, scratch):
    return Listening(select(scratch / "engines-home"))


@pytest.fixture
def index(monkeypatch):
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with PackageIndex() as found:
        monkeypatch.setenv("PIP_INDEX_URL", found.simple)
        yield found


@pytest.fixture
def base(python_base, project):
    return python_base.image(Store(project.store), installed={"kept": "1.0", "old": "1.0"})


@pytest.fixture
def resolve(project, engine, client):
    """Resolve groups, given as keyword → list of packages or `RequirementGroup` fields."""

    def run(inputs, indexes=(), **groups):
        found = []
        for name, wanted in groups.items():
            fields = wanted if isinstance(wanted, dict) else {"packages": wanted}
            texts = {key: tuple(fields.get(key, ())) for key in ("packages", "files", "archives")}
            found.append(RequirementGroup(name, **texts))
        wanted = Requirements("base", tuple(indexes), tuple(found))
        return resolve_requirements(wanted, project, inputs, "linux/amd64", engine, client, "small")

    return run


def files(inputs, group=None):
    return [item.file for item in inputs if group in (None, item.group)]


def source(store, **texts):
    """A source tree `tree` with these files; `__` stands for `/`."""
    rows = sorted((name.replace("__", "/") + ".txt", text.encode()) for name, text in texts.items())
    content = (
        b"".join(
            archive.header(path, "file", len(data)) + data + archive.padding(len(data))
            for path, data in rows
        )
        + archive.END
    )
    return stored(store, "git", "tree", ".", "tree.tar", content)


def stored(store, kind, group, name, file, content):
    digest = Digest.of_bytes(content)
    with store.receive(digest, len(content)) as reception:
        if not reception.done:
            reception.write(content)
            reception.finish()
    return Input(kind, group, name, "", file, "https://upstream.example/x", digest, len(content))


def archive_with(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for path, content in members:
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def replay(engine, project, base, inputs, tmp_path, *wanted):
    """Install from the store alone, in a container; returns name → version."""
    folder = tmp_path / "replay"
    for item in inputs:
        place = folder / item.file
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Store(project.store).path(item.sha256), place)
    script = (
        "python3 -m venv --without-pip --system-site-packages /tmp/v && "
        "/tmp/v/bin/python -m pip install -q --no-index --find-links /in --find-links /in/build "
        f"{' '.join(map(repr, wanted))} && "
        "/tmp/v/bin/python -m pip list --local --format json"
    )
    (manifest,) = {item.version for item in base}
    images = json.loads((Store(project.store).path(Digest.parse(manifest))).read_bytes())
    lines = []
    code = engine.run(
        RunRequest(
            image=images["config"]["digest"].partition(":")[2],
            argv=("sh", "-c", script),
            environment={"HOME": "/tmp", "PIP_CONFIG_FILE": "/dev/null"},
            mounts=(Mount(folder, "/in"),),
        ),
        lines.append,
    )
    assert code == 0, lines
    return {row["name"]: row["version"] for row in json.loads(lines[-1])}


def test_a_closure_is_found_and_replayed_without_a_network(
    python_base, project, engine, index, resolve, tmp_path
):
    """Markers, includes, extras, constraints, a source distribution, what the image has."""
    store = Store(project.store)
    base = python_base.image(
        store, installed={"kept": "1.0", "old": "1.0"}, files=NGC, environment=CONSTRAINED
    )
    tree = source(
        store,
        requirements="-c more/constraints.txt\nalpha-x[fast] >= 1 ; python_version >= '3.8'  # why\n"
        "absent ; sys_platform == 'win32'\n--extra-index-url https://unused.example/simple\nkept\n",
        **{"requirements-dev": "-r requirements.txt\n--pre\nbeta \\\n  == 2.0\n"},
        more__constraints="limited<3\n",
    )
    index.offer(
        wheel(
            "alpha-x",
            "1.0+standin",
            requires=["old>=2", "limited"],
            extras={"fast": ["speed"]},
        ),
        wheel("alpha-x", "2.0", tag="cp27-cp27mu-manylinux1_x86_64"),
        sdist("beta", "2.0", build_requires=["gamma>1"], dynamic_build_requires=["delta"]),
    )
    index.populate(
        {
            "kept==1.0": {},
            "kept==2.0": {},
            "old==1.0": {},
            "old==2.0": {},
            "limited==2.5": {},
            "limited==3.0": {},
            "speed==9.0": {},
            "gamma==1.0": {},
            "gamma==2.0": {"requires": ["epsilon"]},
            "epsilon==1.0": {},
            "delta==1.0": {},
            "delta==2.0": {},
        }
    )
    index.yanked["speed-9.1-py3-none-any.whl"] = "broken"
    index.offer(wheel("speed", "9.1"))
    # The index of the file is asked, and has nothing.
    with PackageIndex() as unused:
        os.environ["KIT_MIRRORS"] = f"https://unused.example/={unused.url}/"
        try:
            found = resolve(
                [*base, tree], wheel={"files": ["tree/requirements-dev.txt"]}, tools=["gamma"]
            )
            again = resolve(
                [*base, tree], wheel={"files": ["tree/requirements-dev.txt"]}, tools=["gamma"]
            )
        finally:
            del os.environ["KIT_MIRRORS"]
        assert unused.asked("/simple/beta/")
    assert found == again
    assert files(found, "wheel") == [
        "beta-2.0.tar.gz",
        "alpha_x-1.0+standin-py3-none-any.whl",
        "build/delta-1.0-py3-none-any.whl",
        "build/epsilon-1.0-py3-none-any.whl",
        "build/gamma-2.0-py3-none-any.whl",
        "limited-2.5-py3-none-any.whl",
        "old-2.0-py3-none-any.whl",
        "speed-9.0-py3-none-any.whl",
    ]
    assert files(found, "tools") == [
        "epsilon-1.0-py3-none-any.whl",
        "gamma-2.0-py3-none-any.whl",
    ]
    assert {item.location for item in found} == {""}
    (alpha,) = (item for item in found if item.name == "alpha-x")
    assert (alpha.kind, alpha.version) == ("wheel", "1.0+standin")
    assert alpha.sha256 == Digest.of_bytes(index.projects["alpha-x"][alpha.file])
    # The build reads the files of one group, with no index at all.
    installed = replay(
        engine,
        project,
        base,
        [item for item in found if item.group == "wheel"],
        tmp_path,
        "alpha-x[fast]",
        "beta==2.0",
        "limited<3",
    )
    assert installed == {
        "alpha-x": "1.0+standin",
        "beta": "2.0",
        "limited": "2.5",
        "old": "2.0",
        "speed": "9.0",
    }
    # What was taken lies in the store; a second machine gets the same from the index.
    other = Project(project.root, project.home / "other")
    report = fetch(other, Lock("small", Digest("1" * 64), tuple(found)), client=Client())
    assert report.fetched == len({item.sha256 for item in found})
    assert not list((project.home / "requirements").glob("*/*")), "nothing is left of the work"


@pytest.mark.only("docker")
def test_stages_see_those_they_stand_on_and_no_others(project, base, index, resolve):
    index.populate(
        {
            "first==1.0": {"requires": ["both"]},
            "both==1.0": {},
            "second==1.0": {"requires": ["first", "both"]},
            "third==1.0": {"requires": ["second<9", "first"]},
        }
    )
    found = resolve(base, devel=["first"], wheel=["second"], release=["third"], tools=["both"])
    assert [(item.group, item.name) for item in found] == [
        ("devel", "both"),
        ("devel", "first"),
        ("wheel", "second"),
        ("release", "second"),
        ("release", "third"),
        ("tools", "both"),
    ]


@pytest.mark.only("docker")
def test_wheels_of_archives_come_first(project, base, index, resolve):
    """Pinned to what the archive has, the requirement asks no index for it."""
    store = Store(project.store)
    names = [
        wheel("tensorrt", "10.7.0.23+standin", tag=f"cp{version}-none-any", requires=["needed"])
        for version in (310, 311, 312)
    ]
    members = [(f"TensorRT-10.7.0.23/python/{name}", content) for name, content in names]
    members.append(("TensorRT-10.7.0.23/lib/libnvinfer.so", b"x" * 5000))
    tar = stored(store, "file", "devel", "trt.tar.gz", "trt.tar.gz", archive_with(*members))
    index.populate({"needed==1.0": {}, "tensorrt==99.0": {}})
    place = "devel/trt.tar.gz!*/python/tensorrt-*-cp{python}-*.whl"
    found = resolve(
        [*base, tar],
        devel={"archives": [place]},
        wheel=["tensorrt~=10.7.0"],
    )
    assert [(item.group, item.file) for item in found] == [("devel", "needed-1.0-py3-none-any.whl")]
    with pytest.raises(KitError, match=r"no member matches .*tensorrt_lean-\*") as caught:
        resolve([*base, tar], devel={"archives": [place.replace("tensorrt-", "tensorrt_lean-")]})
    assert "cp310-none-any.whl" in str(caught.value)
    assert caught.value.exit_code == ExitCode.USAGE


class Planting:
    """An engine whose containers leave links to a folder of the host wherever they can write."""

    def __init__(self, engine, target):
        self.engine = engine
        self.target = target

    def __getattr__(self, name):
        return getattr(self.engine, name)

    def run(self, request, on_line):
        code = self.engine.run(request, on_line)
        for mount in request.mounts:
            for name in ("archives", "trees"):
                if mount.writable and not (mount.source / name).exists():
                    (mount.source / name).symlink_to(self.target)
        return code


@pytest.mark.only("docker")
def test_what_a_container_writes_leads_nowhere(project, base, index, engine, client, tmp_path):
    """Files for the container never go where the container could have put a link before."""
    store = Store(project.store)
    outside = tmp_path / "outside"
    outside.mkdir()
    name, content = wheel("tensorrt", "1.0", tag="cp311-none-any")
    tar = stored(store, "file", "devel", "t.tar", "t.tar", archive_with((f"t/{name}", content)))
    index.populate({"alpha==1.0": {}})
    group = RequirementGroup("devel", ("alpha",), ("tree/r.txt",), ("devel/t.tar!t/*.whl",))
    with contextlib.suppress(KitError):  # whatever comes of that wheel there
        resolve_requirements(
            Requirements("base", (), (group,)),
            project,
            [*base, tar, source(store, r="alpha\n")],
            "linux/amd64",
            Planting(engine, outside),
            client,
            "small",
        )
    assert list(outside.iterdir()) == []


ANSWERS = ["[]", "{}", "[" * 100_000, '{"python": 3, "pip": [], "failed": null, "install": []}']


class Answering(Planting):
    """An engine whose containers answer what they want, or leave something else in its place."""

    def run(self, request, on_line):
        (place,) = [mount.source for mount in request.mounts if mount.writable]
        self.target(place / "result.json")
        return 0


@pytest.mark.only("docker")
@pytest.mark.parametrize("answer", [*ANSWERS, "pipe", "device", "folder"])
def test_an_answer_that_is_none(project, base, index, engine, client, answer):
    plant = {
        "pipe": os.mkfifo,
        "device": lambda path: path.symlink_to("/dev/zero"),
        "folder": lambda path: path.mkdir(),
    }.get(answer, lambda path: path.write_text(answer))
    wanted = Requirements("base", (), (RequirementGroup("devel", ("alpha",), (), ()),))
    with pytest.raises(KitError) as caught:
        resolve_requirements(
            wanted, project, base, "linux/amd64", Answering(engine, plant), client, "small"
        )
    assert caught.value.exit_code in (ExitCode.ENVIRONMENT, ExitCode.CONTENT)
    assert not (project.home / "requirements" / "small").exists()


@pytest.mark.only("docker")
def test_an_index_that_the_intent_names(project, base, index, resolve, client, monkeypatch):
    """Its files keep their upstream address, wherever this site has them."""
    with PackageIndex() as second:
        second.offer(wheel("nv-only", "1.0"), wheel("nv-both", "2.0+nv"))
        index.offer(wheel("nv-both", "1.0"), wheel("plain", "1.0"))
        monkeypatch.setenv("KIT_MIRRORS", f"https://pypi.nvidia.example/={second.url}/")
        found = resolve(
            base,
            indexes=["https://pypi.nvidia.example/simple"],
            wheel=["nv-only", "nv-both", "plain"],
        )
        assert {item.name: item.location for item in found} == {
            "nv-both": "https://pypi.nvidia.example/files/nv_both-2.0+nv-py3-none-any.whl",
            "nv-only": "https://pypi.nvidia.example/files/nv_only-1.0-py3-none-any.whl",
            "plain": "",
        }
        other = Project(project.root, project.home / "other")
        lock = Lock("small", Digest("1" * 64), tuple(found))
        assert fetch(other, lock, client=client).fetched == 3
        second.files.clear()
        shutil.rmtree(other.home)
        with pytest.raises(KitError, match=r"nv-.* has vanished: .*/files/nv_"):
            fetch(other, lock, client=client)


SPY = """
import glob, os, socket, sys, urllib.request
def get_requires_for_build_wheel(config_settings=None):
    print("ENVIRONMENT", dict(os.environ))
    for top, folders, names in os.walk("/kit"):
        for name in names:
            try:
                print("FILE", name, open(os.path.join(top, name), errors="replace").read(20000))
            except OSError as error:
                print("FILE", name, error)
    index = os.environ["PIP_INDEX_URL"]
    print("PAGE", urllib.request.urlopen(index + "/spy/").read())
    for path in ("/../../etc/passwd", "/%2e%2e/etc/passwd", "/nothing"):
        try:
            print("PATH", urllib.request.urlopen(index + path).read())
        except OSError as error:
            print("PATH", error)
    print("INTERFACES", sorted(os.listdir("/sys/class/net")))
    try:
        socket.create_connection(("192.0.2.1", 9), 2)
        print("OUTSIDE reached")
    except OSError as error:
        print("OUTSIDE", error)
    sys.exit("that is all")
def build_wheel(*arguments): pass
"""


def test_a_hostile_package_finds_no_secret_and_no_network(
    project, base, engine, index, resolve, monkeypatch
):
    index.required_header = ("Authorization", "Basic bWU6czNjcmV0LW9mLXRoZS1pbmRleA==")
    monkeypatch.setenv("PIP_INDEX_URL", index.simple.replace("://", f"://me:{SECRET}@"))
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("https_proxy", f"http://me:{SECRET}@127.0.0.1:9")
    index.offer(sdist("spy", "1.0", files={"backend.py": SPY}))
    with pytest.raises(KitError) as caught:
        resolve(base, wheel=["spy"])
    said = "\n".join(engine.lines)
    assert "PAGE b'<!DOCTYPE html>" in said
    assert SECRET not in said + str(caught.value)
    assert index.url.partition("://")[2] not in said, "not even where the index is"
    assert said.count("PATH HTTP Error 404") == 3, said
    assert "INTERFACES ['lo']" in said
    assert "OUTSIDE [Errno 101] Network is unreachable" in said
    assert "that is all" in str(caught.value)


@pytest.mark.only("docker")
@one_engine
def test_wrong_login(base, index, resolve, monkeypatch):
    index.required_header = ("Authorization", "Basic bWU6czNjcmV0LW9mLXRoZS1pbmRleA==")
    monkeypatch.setenv("PIP_INDEX_URL", index.simple.replace("://", "://me:wr0ng@"))
    with pytest.raises(KitError, match="refuses with 401") as caught:
        resolve(base, wheel=["alpha"])
    assert "wr0ng" not in str(caught.value)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


@pytest.mark.only("docker")
@one_engine
@pytest.mark.parametrize("status", [403, 503])
def test_an_index_that_fails_does_not_just_count_as_empty(base, index, resolve, status):
    """Without the page pip would have taken the older release that another page offers."""
    with PackageIndex() as second:
        second.offer(wheel("alpha", "1.0"))
        index.offer(wheel("alpha", "2.0"))
        index.forever["/simple/alpha/"] = Fault(status=status)
        with pytest.raises(KitError, match=str(status)) as caught:
            resolve(base, indexes=[second.simple], wheel=["alpha"])
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


@pytest.mark.only("docker")
@one_engine
def test_the_page_names_a_file_that_is_not_there(base, index, resolve):
    index.offer(wheel("alpha", "1.0"))
    del index.files["/files/alpha-1.0-py3-none-any.whl"]
    with pytest.raises(KitError, match="not found, though the page of its index names it"):
        resolve(base, wheel=["alpha"])


@pytest.mark.only("docker")
@one_engine
@pytest.mark.parametrize("metadata", [False, True])
def test_other_content_than_the_index_says(project, base, index, resolve, client, metadata):
    """With metadata beside the file pip may never ask for it: then fetching finds out."""
    index.says_metadata = metadata
    index.offer(wheel("alpha", "1.0"))
    index.stated["alpha-1.0-py3-none-any.whl"] = "0" * 64

    def lock_and_fetch():
        found = resolve(base, wheel=["alpha"])
        fetch(project, Lock("small", Digest("1" * 64), tuple(found)), client=client)

    with pytest.raises(KitError, match="wrong content") as caught:
        lock_and_fetch()
    assert caught.value.exit_code == ExitCode.CONTENT


@pytest.mark.only("docker")
@one_engine
def test_an_index_that_says_no_digest(project, base, index, resolve):
    index.says_digest, index.speaks_json = False, False
    index.offer(wheel("alpha", "1.0", requires=["beta"]), sdist("beta", "1.0"))
    found = resolve(base, wheel=["alpha"])
    assert [Digest.of_bytes(index.files[f"/files/{item.file}"]) for item in found] == [
        item.sha256 for item in found
    ]


@pytest.mark.only("docker")
@one_engine
def test_requirements_that_contradict_each_other(base, index, resolve):
    index.populate(
        {
            "alpha==1.0": {"requires": ["gamma<2"]},
            "beta==1.0": {"requires": ["gamma>=2"]},
            "gamma==1.0": {},
            "gamma==2.0": {},
        }
    )
    with pytest.raises(KitError) as caught:
        resolve(base, release=["alpha", "beta"])
    text = str(caught.value)
    assert text.startswith("requirements: release: the pip of image base: Cannot install ")
    assert "alpha 1.0 depends on gamma<2" in text
    assert "beta 1.0 depends on gamma>=2" in text
    assert "pip.pypa.io" not in text
    assert "To fix this" not in text
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.only("docker")
@one_engine
def test_there_is_no_such_package_or_version(base, index, resolve):
    index.populate({"alpha==1.0": {}, "alpha==1.5": {}})
    with pytest.raises(KitError, match="finds nothing for no-such at http://127") as caught:
        resolve(base, wheel=["no-such"])
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(KitError, match=r"finds no alpha==9 that fits; there are … 1\.0, 1\.5"):
        resolve(base, wheel=["alpha==9"])


STUB = '[build-system]\nrequires = ["nvidia-stub"]\nbuild-backend = "nvidia_stub.buildapi"\n'


@pytest.mark.only("docker")
@one_engine
def test_a_placeholder_says_which_index_has_the_package(base, index, resolve, monkeypatch):
    """In the shape of tensorrt_llm-0.10.0.tar.gz: two files, none of them code."""
    with PackageIndex() as nvidia:
        nvidia.offer(wheel("tensorrt-llm", "0.10.0"))
        monkeypatch.setenv("KIT_MIRRORS", f"https://pypi.nvidia.com/={nvidia.url}/")
        index.offer(
            sdist("tensorrt-llm", "0.10.0", files={"pyproject.toml": STUB}),
            wheel("nvidia-stub", "0.1.8", files={"nvidia_stub/buildapi.py": "1 / 0\n"}),
        )
        with pytest.raises(
            KitError, match=r"wheel: tensorrt_llm-0\.10\.0\.tar\.gz is a placeh"
        ) as e:
            resolve(base, wheel=["tensorrt-llm"])
        assert "https://pypi.nvidia.com" in str(e.value)
        assert e.value.hint == (
            "add https://pypi.nvidia.com to `indexes:` below `requirements:` of the intent"
        )
        found = resolve(base, indexes=["https://pypi.nvidia.com"], wheel=["tensorrt-llm"])
        assert files(found) == ["tensorrt_llm-0.10.0-py3-none-any.whl"]
        nvidia.offer(wheel("tensorrt-llm", "0.10.0", tag="cp27-cp27mu-manylinux1_x86_64"))
        nvidia.remove("tensorrt-llm", files(found)[0])
        with pytest.raises(KitError, match="that index was asked and has no wheel that fits"):
            resolve(base, indexes=["https://pypi.nvidia.com"], wheel=["tensorrt-llm"])


@pytest.mark.only("docker")
@one_engine
def test_constraints_of_the_base_hold_up_to_the_release_that_empties_them(
    python_base, project, index, resolve
):
    base = python_base.image(Store(project.store), files=NGC, environment=CONSTRAINED)
    index.populate({"delta==1.0": {}, "delta==2.0": {}})
    intent = project.root / "lockfiles" / "small.yaml"
    chosen = {}
    for release in ("0.17.0", "0.18.0", "1.2.1"):
        intent.write_text(f'{INTENT}release: "{release}"\n')
        chosen[release] = [item.version for item in resolve(base, devel=["delta"])]
    assert chosen == {"0.17.0": ["1.0"], "0.18.0": ["2.0"], "1.2.1": ["2.0"]}


@pytest.mark.only("docker")
@one_engine
def test_images_that_cannot(python_base, project, index, resolve):
    store = Store(project.store)
    pip = "usr/lib/python3/dist-packages/pip"
    bare = python_base.image(store, without=(pip,))
    with pytest.raises(KitError, match=r"image base: its Python 3\.11 has no pip") as caught:
        resolve(bare, wheel=["alpha"])
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    old = python_base.image(
        store,
        files={"opt/old/pip.py": '__version__ = "22.1.2"\n'},
        environment={"PYTHONPATH": "/opt/old"},
    )
    with pytest.raises(KitError, match=r"expected pip 22\.2 or newer.*found 22\.1\.2") as caught:
        resolve(old, wheel=["alpha"])
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    with pytest.raises(KitError, match="there is no image 'base' among the images"):
        resolve([], wheel=["alpha"])


@pytest.mark.only("docker")
def test_an_image_without_python(python_base, project, index, resolve):
    base = python_base.image(
        Store(project.store), without=("usr/bin/python3", "usr/bin/python3.11")
    )
    with pytest.raises(KitError, match="image base: there is no python3 in it") as caught:
        resolve(base, wheel=["alpha"])
    assert caught.value.exit_code == ExitCode.ENVIRONMENT


@one_engine
def test_by_the_command_line(python_base, project, base, index, selected, tmp_path, missing):
    """The image from a registry, a file from its URL; locked, fetched from nothing, locked again."""
    if shutil.which("docker-registry") is None or shutil.which("skopeo") is None:
        missing("docker-registry or skopeo is not installed")
    index.offer(wheel("alpha", "1.0"), sdist("beta", "1.0", build_requires=["alpha"]))
    layout = python_base.folder / "layout"
    tar = index.put(
        "/trt.tar.gz",
        archive_with(("a/python/tensorrt-1.0-cp311-none-any.whl", wheel("tensorrt", "1.0")[1])),
    )
    with DockerRegistry(tmp_path / "registry") as registry, PackageIndex() as nvidia:
        nvidia.offer(wheel("gamma", "1.0", requires=["tensorrt==1.0"]))
        reference = f"{registry.host}/nvidia/pytorch:24.11-py3"
        subprocess.run(
            [
                *("skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false"),
                *("--dest-compress-format", "gzip"),
                *(f"oci:{layout}:localhost/python-base", f"docker://{reference}"),
            ],
            check=True,
        )
        (project.root / "lockfiles" / "small.yaml").write_text(
            f"""{INTENT}images:
  - {{name: base, reference: "nvcr.io/nvidia/pytorch:24.11-py3"}}
files:
  - {{name: trt.tar.gz, group: devel, url: "{tar}"}}
requirements:
  base: base
  indexes: [https://pypi.nvidia.com]
  groups:
    devel: {{archives: ["devel/trt.tar.gz!*/python/tensorrt-*-cp{{python}}-*.whl"]}}
    wheel: {{packages: [beta, gamma]}}
"""
        )
        environment = {
            **os.environ,
            "KIT_ROOT": str(project.root),
            "KIT_HOME": str(project.home),
            "KIT_MIRRORS": f"nvcr.io/=http://{registry.host}/ https://pypi.nvidia.com/={nvidia.url}/",
        }

        def kit(*words):
            done = subprocess.run(
                [sys.executable, "-m", "kit", *words],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            return project.lock_path("small").read_text()

        first = kit("lock", "small")
        assert 'file: "build/alpha-1.0-py3-none-any.whl"' in first
        assert "https://pypi.nvidia.com/files/gamma-1.0-py3-none-any.whl" in first
        assert "127.0.0.1" not in first.replace(tar, "")
        shutil.rmtree(project.home)
        kit("fetch", "small")
        assert kit("lock", "small") == first


CHILD = """
import pickle, sys
from pathlib import Path
from kit.images import select
from kit.locks.http import Client
from kit.locks.requirements import resolve_requirements
from kit.project import Project
wanted, inputs, root, home, engines = pickle.loads(Path(sys.argv[1]).read_bytes())
project = Project(root, home)
print("READY", flush=True)
found = resolve_requirements(
    wanted, project, inputs, "linux/amd64", select(engines), Client(), "small"
)
print([item.file for item in found])
"""


def test_killed_in_the_middle_of_a_download(project, base, index, scratch, tmp_path, resolve):
    big = wheel("big", "1.0", os.urandom(3 << 20))
    index.offer(big)
    index.forever[f"/files/{big[0]}"] = Fault(bytes_per_second=200_000)
    group = RequirementGroup("wheel", ("big",), (), ())
    wanted = Requirements("base", (), (group,))
    place = tmp_path / "job"
    place.write_bytes(
        pickle.dumps((wanted, base, project.root, project.home, scratch / "engines-home"))
    )
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, place], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    digest, store = Digest.of_bytes(big[1]), Store(project.store)
    try:
        while store.received(digest) < 200_000:
            assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    kept = store.received(digest)
    assert kept
    index.forever.clear()
    assert files(resolve(base, wheel=["big"])) == [big[0]]
    (last,) = [seen for seen in index.asked(f"/files/{big[0]}") if seen.range]
    assert int(last.range.removeprefix("bytes=").rstrip("-")) >= kept
    assert damaged(store) == []
    assert not list((project.home / "requirements").glob("*/*"))


@pytest.mark.only("docker")
@one_engine
def test_pins_that_only_another_address_could_meet(project, base, index, resolve):
    tree = source(Store(project.store), requirements="alpha\nbeta @ git+https://git.example/x\n")
    with pytest.raises(KitError, match=r"tree/requirements.txt:2: .*cannot be pinned") as caught:
        resolve([*base, tree], wheel={"files": ["tree/requirements.txt"]})
    assert caught.value.exit_code == ExitCode.USAGE
