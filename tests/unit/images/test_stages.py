"""What a stage depends on, and the Dockerfile that builds it alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images import context, stages
from kit.images.builder import Builder
from kit.images.dockerfile import filled
from kit.images.family import load_family
from kit.images.oci import Layout
from kit.images.podman import Podman
from kit.locks import intent as intents
from kit.locks.lock import Input, Lock, Unresolved
from kit.project import Project
from kit.store import Store

FAMILY = """\
schema: kit.family/1
image: base
stages:
  - {name: devel, groups: [devel], reads: [install/devel.sh]}
  - {name: wheel, groups: [wheel, "extra?"], reads: [install]}
  - {name: release, groups: [trtllm], reads: []}
  - {name: tool, groups: [], reads: []}
"""
DOCKERFILE = """\
ARG BASE
ARG SHARED=one
FROM ${BASE} AS devel
SHELL ["/bin/bash", "-c"]
ARG SHARED
ARG VERSION
RUN echo "$VERSION"  # devel
FROM devel AS wheel
ARG JOBS
ARG ARCHS="80-real"
RUN --mount=type=bind,from=${BASE},source=/,target=/base \\
    --mount=type=bind,from=DEVEL,target=/d make -j$JOBS from=devel
FROM devel AS release
COPY --from=wheel /a /a
FROM ${BASE} AS tool
RUN true
"""
INTENT = """\
schema: kit.intent/1
stack: small
family: small
platform: linux/amd64
epoch: 1700000000
arguments: {VERSION: "1.2"}
images:
- {name: base, reference: "nvcr.io/x/y:1"}
sources:
- {name: trtllm, url: "https://github.com/x/y.git", commit: "1111111111111111111111111111111111111111"}
"""


def _input(kind, group, file, content="x", version=""):
    return Input(kind, group, file, version, file, "", Digest.of_bytes(content.encode()), 5)


INPUTS = (
    _input("oci", "base", "blobs/a", version="sha256:" + "a" * 64),
    _input("wheel", "devel", "a.whl"),
    _input("deb", "devel", "a.deb"),
    _input("file", "wheel", "b.tar"),
    _input("git", "trtllm", "."),
)


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "dockerfiles" / "small"
    (folder / "install").mkdir(parents=True)
    (tmp_path / "lockfiles").mkdir()
    (folder / "family.yaml").write_text(FAMILY)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    (folder / "install" / "devel.sh").write_text("true\n")
    (folder / "install" / "wheel.sh").write_text("true\n")
    (tmp_path / "lockfiles" / "small.yaml").write_text(INTENT)
    return Project(tmp_path, tmp_path / "home")


def _recipe(place, **overrides):
    wanted = intents.load(place.intent_path("small"))
    return stages.recipe(place, wanted, overrides, dict(wanted.arguments))


def _lock(*inputs, unresolved=()):
    return Lock("small", Digest("1" * 64), tuple(sorted(inputs or INPUTS)), (), unresolved)


def _keys(place, lock=None, **overrides):
    plans = _recipe(place, **overrides).plan(lock or _lock(), "release")
    return {plan.name: plan.key for plan in plans}


def _changed(before, after):
    return [name for name in before if before[name] != after[name]]


def test_only_what_the_target_needs(place):
    recipe = _recipe(place)
    assert recipe.default_target == "release"
    assert [plan.name for plan in recipe.plan(_lock(), "release")] == ["devel", "wheel", "release"]
    assert [plan.name for plan in recipe.plan(_lock(), "tool")] == ["tool"]
    with pytest.raises(KitError, match="--target tol: no such stage; did you mean tool") as caught:
        recipe.plan(_lock(), "tol")
    assert caught.value.exit_code is ExitCode.USAGE


def test_context_holds_what_the_stage_reads(place):
    devel, wheel, release = _recipe(place).plan(_lock(), "release")
    assert [item.file for item in devel.inputs] == ["a.deb", "a.whl"]
    assert sorted(wheel.files) == ["install/devel.sh", "install/wheel.sh"]
    assert (release.sources, release.inputs) == (("trtllm",), ())
    assert [item.kind for item in release.tree_inputs] == ["git"]


def test_file_that_is_edited_while_stages_before_are_built(place):
    """What came of it would be kept under the key of what it was."""
    recipe = _recipe(place)
    wheel = replace(recipe.plan(_lock(), "wheel")[-1], inputs=())
    (place.root / "dockerfiles" / "small" / "install" / "wheel.sh").write_text("false\n")
    folder = place.home / "context"
    with pytest.raises(KitError, match=r"wheel\.sh: changed since this build began") as caught:
        context.fill(folder, "FROM x", wheel, place, _lock(), Store(place.store))
    assert caught.value.exit_code is ExitCode.CONTENT


def test_leftovers_are_cleared_and_nothing_of_another_stack_at_work(place):
    """The name of a stack may begin with that of another one."""
    layout, store = Layout(place.images), Store(place.store)
    recipe = _recipe(place)
    longer = replace(recipe, intent=replace(recipe.intent, stack="small-too"))
    engine = Podman(place.home)
    mine, other = (
        Builder(place, one, _lock(), layout, store, engine, 1, print, "kit build")
        for one in (recipe, longer)
    )
    left, at_work = (layout.root / f"{one._spool}x" for one in (mine, other))
    left.mkdir(parents=True)
    at_work.mkdir()
    assert mine.run([], fresh=False) == []
    assert not left.exists()
    assert at_work.is_dir()


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        ("file", ["wheel", "release"]),
        ("base", ["devel", "wheel", "release"]),
        ("source", ["release"]),
        ("script of wheel", ["wheel", "release"]),
        ("script of both", ["devel", "wheel", "release"]),
        ("comment", []),
        ("step of release", ["release"]),
        ("shared default", ["devel", "wheel", "release"]),
        ("end of a quoted default", ["devel", "wheel", "release"]),
    ],
)
def test_key_changes_with_what_the_stage_reads(place, change, changed):
    before = _keys(place)
    folder = place.root / "dockerfiles" / "small"
    lock = _lock()
    text = DOCKERFILE
    if change == "file":
        lock = _lock(*INPUTS[:3], _input("file", "wheel", "b.tar", "y"), INPUTS[4])
    elif change == "base":
        lock = _lock(replace(INPUTS[0], version="sha256:" + "b" * 64), *INPUTS[1:])
    elif change == "source":
        lock = _lock(*INPUTS[:4], _input("git", "trtllm", ".", "y"))
    elif change == "script of wheel":
        (folder / "install" / "wheel.sh").write_text("false\n")
    elif change == "script of both":
        (folder / "install" / "devel.sh").write_text("false\n")
    elif change == "comment":
        text = text.replace("FROM devel AS wheel", "# why\nFROM devel AS wheel")
    elif change == "step of release":
        text = text.replace("/a /a", "/a /b")
    elif change == "shared default":
        text = text.replace("SHARED=one", "SHARED=two")
    else:
        (folder / "Dockerfile").write_text(text.replace("SHARED=one", 'SHARED="one two"'))
        before = _keys(place)
        text = text.replace("SHARED=one", 'SHARED="one three"')
    (folder / "Dockerfile").write_text(text)
    assert _changed(before, _keys(place, lock)) == changed


def test_arguments_count_for_the_stages_that_declare_them(place):
    before = _keys(place)
    assert _changed(before, _keys(place, VERSION="1.3")) == ["devel", "wheel", "release"]
    assert _changed(before, _keys(place, ARCHS="90-real")) == ["wheel", "release"]
    assert _changed(before, _keys(place, ARCHS="80-real")) == []
    assert _recipe(place, VERSION="1.2").overrides == {}
    assert _recipe(place, VERSION="1.3").overrides == {"VERSION": "1.3"}
    for name in ("VERSON", "JOBS", "SOURCE_DATE_EPOCH", "BASE"):
        with pytest.raises(KitError, match=f"--arg {name}: the Dockerfile has no such ARG"):
            _recipe(place, **{name: "1"})


def test_dockerfile_of_one_stage(place):
    recipe = _recipe(place)
    wheel = recipe.plan(_lock(), "wheel")[-1]
    images = {"devel": "localhost/x-devel:1", "BASE": "localhost/x-base:2"}
    assert recipe.text(wheel, images, fresh=True).split("\n") == [
        "ARG SHARED=one",
        "FROM localhost/x-devel:1 AS wheel",
        'SHELL ["/bin/bash", "-c"]',
        "ARG CCACHE_RECACHE=1",
        "ARG JOBS",
        'ARG ARCHS="80-real"',
        "RUN --mount=type=bind,from=localhost/x-base:2,source=/,target=/base \\",
        "    --mount=type=bind,from=localhost/x-devel:1,target=/d make -j$JOBS from=devel",
        "",
    ]
    assert "CCACHE_RECACHE" not in recipe.text(wheel, images, fresh=False)


def test_lock_that_lacks_a_group(place):
    without = [item for item in INPUTS if item.group != "wheel"]
    with pytest.raises(KitError, match="stage wheel: the lock of small has no group 'wheel'"):
        _recipe(place).plan(_lock(*without), "release")
    gap = Unresolved("wheel", "wheel", "*", "", "", "no network")
    plans = _recipe(place).plan(_lock(*without, unresolved=(gap,)), "release")
    assert [plan.key for plan in plans] == [None, None, None]
    assert [plan.key for plan in _recipe(place).plan(None, "release")] == [None, None, None]


def test_stage_that_the_family_does_not_know(place):
    path = place.root / "dockerfiles" / "small" / "Dockerfile"
    path.write_text(DOCKERFILE.replace("AS wheel", "AS wheels").replace("=wheel", "=wheels"))
    with pytest.raises(KitError, match="unknown stage 'wheels'; did you mean wheel"):
        _recipe(place).plan(_lock(), "release")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (FAMILY.replace("image: base\n", ""), "expected either `image`"),
        (FAMILY.replace("name: tool", "name: wheel"), "stage 'wheel' stands twice"),
        (FAMILY.replace("name: tool", "name: Tool"), "not the name of a stage: 'Tool'"),
        (FAMILY.replace("[install]", "[../secret]"), "outside its folder"),
        (FAMILY.replace("name: tool,", "name: tool, read: [],"), "unknown key 'read'"),
        (FAMILY.replace("[install]", "[arguments]"), "a context has its own 'arguments'"),
    ],
)
def test_family_that_is_wrong(tmp_path, text, complaint):
    path = tmp_path / "family.yaml"
    path.write_text(text)
    with pytest.raises(KitError, match=complaint) as caught:
        load_family(path)
    assert caught.value.exit_code is ExitCode.USAGE


def test_step_as_a_person_reads_it():
    text = "RUN --mount=type=bind,target=/c \\\n    sh $A ${B} $C"
    assert filled(text, {"A": "1", "B": "2"}) == "RUN --mount=type=bind,target=/c sh 1 2 $C"
    assert filled("RUN <<EOF\nx\nEOF", {}) == "RUN <<EOF …"


def test_at_least_one_job():
    assert stages.default_jobs() >= 1
