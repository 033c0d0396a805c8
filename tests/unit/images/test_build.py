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
    return Project(tmp_path, tmp_path / "home")


def _key(place):
    return build._Build(place, "rehearsal", None, print)._key()


def test_key_changes_with_lock_and_sources_and_with_nothing_else(place):
    first = _key(place)
    source = place.root / "dockerfiles" / "rehearsal" / "src" / "kit_rehearsal" / "gpt2.py"
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


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("# syntax=docker/dockerfile:1\nFROM ${BASE}\n", "Dockerfile:1: a `# syntax=` line"),
        ("FROM ${BASE}\nADD https://example.org/x /x\n", "Dockerfile:2: ADD from a URL"),
        ("FROM ${BASE}\nADD --chmod=644 http://x/y /x\n", "Dockerfile:2: ADD from a URL"),
        ("FROM ${BASE}\nadd git@github.com:o/r.git#v1 /x\n", "Dockerfile:2: ADD from a URL"),
        ("ARG BASE\nFROM debian:12\n", "Dockerfile:2: FROM debian:12: expected an ARG"),
        ("FROM ${BASE}\nCOPY --from=alpine /x /x\n", "Dockerfile:2: --from=alpine"),
        ("FROM ${BASE}\nRUN --mount=type=bind,from=a:1,target=/x true\n", "--from=a:1"),
        ("FROM ${BASE}\nRUN --network=host curl x\n", "Dockerfile:2: --network=host"),
        ("FROM --platform=linux/amd64 debian\n", "FROM debian: expected an ARG"),
    ],
)
def test_dockerfile_that_would_reach_the_network_is_refused(tmp_path, text, complaint):
    path = tmp_path / "Dockerfile"
    path.write_text(text)
    with pytest.raises(KitError) as caught:
        dockerfile.check(path)
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
    assert dockerfile.mount_points(text) == {"in"}


def test_stages_and_arguments_are_fine(tmp_path):
    path = tmp_path / "Dockerfile"
    path.write_text(
        "ARG BASE\nFROM ${BASE} AS wheel\nRUN true\nFROM scratch AS x\nFROM wheel AS y\n"
        "COPY --from=wheel /a /a\nCOPY --from=0 /b /b\nADD local.tar /c\n"
        "RUN --mount=type=bind,from=x,source=/,target=/x --network=none true\n"
    )
    dockerfile.check(path)
    dockerfile.check(ROOT / "dockerfiles" / "rehearsal" / "Dockerfile")
    assert path.exists()
