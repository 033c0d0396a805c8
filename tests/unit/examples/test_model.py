from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING

import pytest

from kit.errors import ExitCode, KitError
from kit.examples import model
from kit.examples.model import materialise
from kit.locks import lock as locks
from kit.store import Store
from tests.unit.examples.local import MODEL, make_project

if TYPE_CHECKING:
    from pathlib import Path

    from kit.locks.lock import Lock
    from kit.project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path)


@pytest.fixture
def lock(project: Project) -> Lock:
    return locks.load(project.lock_path("rehearsal"))


def test_folder_holds_what_the_lock_says(project: Project, lock: Lock) -> None:
    found = materialise(project, lock, "gpt2-tiny")
    assert {p.name: p.read_bytes() for p in found.folder.iterdir()} == {
        p.name: p.read_bytes() for p in MODEL.iterdir()
    }
    assert found.folder.stat().st_mode & 0o005 == 0o005
    for path in found.folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o444
        assert path.stat().st_nlink == 2


def test_copies_where_links_cannot_be(
    project: Project, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(18, "cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    found = materialise(project, lock, "gpt2-tiny")
    assert all(path.stat().st_mode & 0o777 == 0o444 for path in found.folder.iterdir())


def test_modes_do_not_depend_on_the_umask(
    project: Project, lock: Lock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nested = tuple(
        dataclasses.replace(item, file=f"deep/er/{item.file}") for item in lock.select(kind="model")
    )
    before = os.umask(0o077)
    try:
        found = materialise(project, dataclasses.replace(lock, inputs=nested), "gpt2-tiny")
    finally:
        os.umask(before)
    folders = [found.folder, found.folder / "deep", found.folder / "deep" / "er"]
    assert [path.stat().st_mode & 0o777 for path in folders] == [0o755] * 3
    assert {path.stat().st_mode & 0o777 for path in folders[2].iterdir()} == {0o444}


def test_a_closed_folder_is_made_again(project: Project, lock: Lock) -> None:
    found = materialise(project, lock, "gpt2-tiny")
    found.folder.chmod(0o700)
    materialise(project, lock, "gpt2-tiny")
    assert found.folder.stat().st_mode & 0o777 == 0o755


def test_second_use_hashes_nothing(
    project: Project, lock: Lock, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = materialise(project, lock, "gpt2-tiny")
    monkeypatch.setattr(model, "_assemble", lambda *_: pytest.fail("made again"))
    assert materialise(project, lock, "gpt2-tiny") == first


def test_changed_folder_is_made_again(project: Project, lock: Lock) -> None:
    found = materialise(project, lock, "gpt2-tiny")
    (found.folder / "extra").write_text("x")
    (found.folder / "config.json").unlink()
    materialise(project, lock, "gpt2-tiny")
    assert {p.name for p in found.folder.iterdir()} == {p.name for p in MODEL.iterdir()}


def test_altered_store_is_found(project: Project, lock: Lock) -> None:
    materialise(project, lock, "gpt2-tiny")
    item = lock.select(kind="model")[0]
    path = Store(project.store).path(item.sha256)
    path.chmod(0o644)
    path.write_bytes(b"x" * item.size)
    with pytest.raises(KitError, match="damaged in the store") as caught:
        materialise(project, lock, "gpt2-tiny")
    assert caught.value.exit_code == ExitCode.CONTENT
    assert not [
        p for p in (project.home / "models").iterdir() if p.name.startswith(".") and p.is_dir()
    ]


def test_missing_input_says_what_to_fetch(project: Project, lock: Lock) -> None:
    Store(project.store).discard(lock.select(kind="model")[0].sha256)
    with pytest.raises(KitError) as caught:
        materialise(project, lock, "gpt2-tiny")
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint == "kit fetch rehearsal"


def test_unknown_model_names_the_nearest(project: Project, lock: Lock) -> None:
    with pytest.raises(KitError, match="did you mean gpt2-tiny") as caught:
        materialise(project, lock, "gpt2-tine")
    assert caught.value.exit_code == ExitCode.USAGE
