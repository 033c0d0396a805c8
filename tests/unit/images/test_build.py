"""What a build depends on, and what it refuses to do."""

from __future__ import annotations

import shutil

import pytest

from kit.errors import ExitCode, KitError
from kit.images import build, dockerfile
from kit.project import Project
from tests.conftest import ROOT


@pytest.fixture
def place(tmp_path):
    for name in ("lockfiles", "dockerfiles"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    (tmp_path / "kit" / "data").mkdir(parents=True)
    shutil.copy(ROOT / "kit" / "data" / "cli.json", tmp_path / "kit" / "data")
    return Project(tmp_path, tmp_path / "home")


def _key(place):
    return build._Build(place, "rehearsal", build.Choices()).key()


def test_key_changes_with_lock_and_sources_and_with_nothing_else(place):
    first = _key(place)
    source = place.root / "dockerfiles" / "rehearsal" / "src" / "kit_rehearsal" / "decoder.py"
    source.chmod(0o600)
    assert _key(place) == first
    source.write_text(source.read_text() + "\n# changed\n")
    assert _key(place) != first


def test_build_refuses_a_lock_of_another_intent(place):
    intent = place.intent_path("rehearsal")
    intent.write_text(intent.read_text().replace("mpi4py==3.1.5", "mpi4py==3.1.6"))
    with pytest.raises(KitError) as caught:
        _key(place)
    assert caught.value.exit_code is ExitCode.CONTENT
    assert caught.value.hint == "kit lock rehearsal"


def test_build_without_inputs_says_fetch(place):
    with pytest.raises(KitError) as caught:
        build.build(place, "rehearsal", None, print)
    assert caught.value.exit_code is ExitCode.ENVIRONMENT
    assert caught.value.hint == "kit fetch rehearsal"


def test_litter_of_editors_and_builds_does_not_count(place):
    first = _key(place)
    folder = place.root / "dockerfiles" / "rehearsal"
    (folder / "src" / "build" / "lib").mkdir(parents=True)
    for name in (".Dockerfile.swp", "Dockerfile~", "src/build/lib/stale.py"):
        (folder / name).write_text("old")
    assert _key(place) == first


@pytest.mark.parametrize("damage", ["gone", "link"])
def test_context_file_that_is_none_is_refused(place, damage):
    source = place.root / "kit" / "data" / "cli.json"
    source.unlink()
    if damage == "link":
        source.symlink_to("/etc/hostname")
    with pytest.raises(KitError, match=r"cli\.json: no plain file") as caught:
        _key(place)
    assert caught.value.exit_code is ExitCode.USAGE


def test_stack_of_another_machine_is_refused(place, monkeypatch):
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    with pytest.raises(KitError, match="for linux/amd64, this host is linux/arm64") as caught:
        build.build(place, "rehearsal", None, print)
    assert caught.value.exit_code is ExitCode.ENVIRONMENT


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# syntax=docker/dockerfile:1\nFROM ${BASE}\n", "Dockerfile:1: a parser directive"),
        ("// syntax = docker/dockerfile:1\nFROM ${BASE}\n", "Dockerfile:1: a parser directive"),
        ("# escape=`\nFROM ${BASE}\n", "Dockerfile:1: a parser directive"),
        ("FROM ${BASE} AS a\nADD https://example.org/x /x\n", "Dockerfile:2: ADD can download"),
        ('FROM ${BASE} AS a\nadd ["http://x/y", "/x"]\n', "Dockerfile:2: ADD can download"),
        ("ARG BASE\nFROM debian:12\n", "Dockerfile:2: FROM debian:12: expected one of"),
        ("ARG O=alpine\nFROM ${O}\n", "Dockerfile:2: FROM ${O}: expected one of"),
        ("ARG BASE=alpine\nFROM ${BASE}\n", "Dockerfile:1: ARG BASE=alpine"),
        ("FROM ${BASE} AS a\nCOPY --from=alpine /x /x\n", "Dockerfile:2: --from=alpine"),
        ("FROM ${BASE} AS a\nCOPY --from=${X} /x /x\n", "Dockerfile:2: --from=${X}"),
        ("FROM ${BASE} AS a\nRUN --mount=type=bind,from=a:1,target=/x true\n", "--from=a:1"),
        ("FROM ${BASE} AS a\nRUN --mount=type=cache,target=/x true\n", "--mount=type=cache"),
        ("FROM ${BASE} AS a\nRUN --network=host curl x\n", "Dockerfile:2: --network=host"),
        ("FROM ${BASE} AS a\nRUN --mount=type=secret,id=x true\n", "--mount=type=secret"),
        (
            "FROM ${BASE} AS a\nRUN --mount=type=cache,id=ccache,target=/x true\n",
            "only type=cache,id=ccache,target=/ccache",
        ),
        ("FROM ${BASE} AS a\nRUN --mount=type=bind,target=/x,rw true\n", "inputs are read"),
        ("FROM ${BASE} AS a\nCOPY --from=0 /x /x\n", "--from=0: expected a stage"),
        ("FROM ${BASE}\nRUN true\n", "every stage has a name"),
        ("FROM ${BASE} AS a\nFROM a AS A\n", "stage 'a' stands twice"),
        ("RUN true\nFROM ${BASE} AS a\n", "RUN before the first FROM"),
        ("FROM ${BASE} AS a\nADD\thttps://x/y /y\n", "Dockerfile:2: ADD can download"),
        ("FROM ${BASE} AS a\nRUN a \\\\\nADD https://x/y /y\n", ":2: two backslashes"),
        ('FROM ${BASE} AS a\nLABEL a="b <<E c"\nADD https://x/y /y\n', ":3: ADD can"),
        ("FROM ${BASE} AS a\nRUN echo 'b <<E c'\nADD https://x/y /y\n", ":2: here-document E"),
        ('FROM ${BASE} AS a\nRUN --mount="type=secret,id=x" true\n', "expected no quote"),
        ("FROM ${BASE} AS a\nRUN --mount=Type=secret,id=x true\n", "--mount=type=secret"),
        ("FROM ${BASE} AS a\nRUN --mount=type=bind,target=/x,ro=false true\n", "are read"),
        ("ARG A=1\nARG B=${A}\nFROM ${BASE} AS a\nARG B\n", ":2: ARG B=${A}: expected a"),
        ("FROM --platform=linux/amd64 debian\n", "FROM debian: expected one of"),
    ],
)
def test_dockerfile_that_would_reach_the_network_is_refused(tmp_path, text, complaint):
    path = tmp_path / "Dockerfile"
    path.write_text(text)
    with pytest.raises(KitError) as caught:
        dockerfile.read(path, ["BASE", "DEVEL"])
    assert caught.value.exit_code is ExitCode.USAGE
    assert complaint in str(caught.value)


def test_instructions_join_lines_and_skip_comments_and_documents():
    text = (
        "# a comment\nRUN a \\\n  # inside\n  b\n"
        "COPY <<EOF /x\nFROM debian\nEOF\nRUN --mount=type=bind,target=/in,source=. true\n"
    )
    steps = list(dockerfile.instructions(text))
    assert [(step.line, step.name) for step in steps] == [(2, "RUN"), (5, "COPY"), (8, "RUN")]
    assert steps[0].words == ("a", "b")
    assert dockerfile.mount_points(steps) == {"in"}
    assert [step.text for step in steps[:2]] == [
        "RUN a \\\n  b",
        "COPY <<EOF /x\nFROM debian\nEOF",
    ]
    blank = list(dockerfile.instructions("RUN a \\\n\n  b\nFROM x\n"))
    assert [(step.name, step.words) for step in blank] == [("RUN", ("a", "b")), ("FROM", ("x",))]
    shifted = list(dockerfile.instructions("RUN echo $((1<<2)) a<<b\nFROM x\n"))
    assert [step.name for step in shifted] == ["RUN", "FROM"]


def test_stages_and_arguments_are_fine(tmp_path):
    path = tmp_path / "Dockerfile"
    path.write_text(
        "ARG BASE\nFROM ${BASE} AS wheel\nRUN true\nFROM scratch AS x\nFROM wheel AS y\n"
        "COPY --from=wheel /a /a\n"
        "RUN --mount=type=bind,from=x,source=/,target=/x --network=none true\n"
        "RUN --mount=type=cache,id=ccache,target=/ccache true\n"
    )
    dockerfile.read(path, ["BASE"])
    rehearsal = ROOT / "dockerfiles" / "rehearsal" / "Dockerfile"
    dockerfile.read(rehearsal, ["BASE", "DEVEL"])
    assert path.exists()
