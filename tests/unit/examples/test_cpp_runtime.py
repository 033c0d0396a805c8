"""Examples that are programs: read, planned for every release, run and recorded."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kit.data import releases
from kit.errors import KitError
from kit.examples import catalogue, dialect, program
from kit.examples.plan import plan
from kit.project import Project

if TYPE_CHECKING:
    from pathlib import Path

CPP = program.find("cpp-runtime")


def write(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "CMakeLists.txt").touch()
    (folder / "main.cpp").touch()
    path = folder / "program.yaml"
    path.write_text(f"schema: kit.program/1\ndescription: d\n{text}", encoding="utf-8")
    return path


def test_is_in_the_catalogue_beside_the_recipes() -> None:
    assert "cpp-runtime" in catalogue.names()
    assert catalogue.find("cpp-runtime") == CPP
    assert catalogue.find("gpt2-tiny").name == "gpt2-tiny"
    with pytest.raises(KitError, match="cpp-runtime") as caught:
        catalogue.find("cpp-runtme")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("release", CPP.releases)
def test_configure_build_run(release: str) -> None:
    steps = plan(CPP, release, "/app/tensorrt_llm").steps
    assert [step.name for step in steps] == ["configure", "build", "run"]
    assert "-DTRTLLM_ROOT=/app/tensorrt_llm" in steps[0].argv
    assert steps[2].argv[0] == steps[1].produces[0]
    assert steps[2].argv[1] == steps[2].produces[0]
    for step in steps:
        assert all(path.startswith(f"{dialect.WORK}/") for path in step.produces)


def test_is_meant_for_all_releases_of_the_tables() -> None:
    assert CPP.releases == tuple(releases.select(">=0.5.0,<=1.2.1"))


def test_another_release_is_refused_with_the_nearest(tmp_path: Path) -> None:
    old = program.load(
        write(tmp_path / "old", "name: old\nfiles: [CMakeLists.txt]\nreleases: '<=0.9.0'\n")
    )
    with pytest.raises(KitError, match=r"not meant for release 0\.16\.0.*0\.9\.0") as caught:
        plan(old, "0.16.0")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: other\nfiles: [CMakeLists.txt]\nreleases: '>=0.5.0'\n", "name of the folder"),
        ("name: bad\nfiles: [CMakeLists.txt, b.cpp]\nreleases: '>=0.5.0'\n", "there is no b.cpp"),
        ("name: bad\nfiles: [main.cpp]\nreleases: '>=0.5.0'\n", "CMakeLists.txt"),
        ("name: bad\nfiles: [CMakeLists.txt]\nreleases: '>9'\n", "release"),
        ("name: bad\nfiles: [CMakeLists.txt]\nreleases: '>=0.5.0'\nmore: 1\n", "more"),
        ("name: bad\nfiles: [../old]\nreleases: '>=0.5.0'\n", "old"),
    ],
)
def test_malformed_entries_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(KitError, match=said):
        program.load(write(tmp_path / "bad", text))


def test_its_files_can_be_read_by_any_user(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        folder = program.mountable(Project(tmp_path, tmp_path / "home"), CPP)
    finally:
        os.umask(old)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.name for path in folder.iterdir()} == set(CPP.files)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_digest_is_of_the_files(tmp_path: Path) -> None:
    text = "name: one\nfiles: [CMakeLists.txt, main.cpp]\nreleases: '>=0.5.0'\n"
    before = program.load(write(tmp_path / "one", text))
    digest = before.digest
    (tmp_path / "one" / "main.cpp").write_text("int main() {}\n", encoding="utf-8")
    assert before.digest != digest
