import os

import pytest

from kit import project
from kit.errors import ExitCode, KitError


@pytest.fixture
def root(tmp_path, monkeypatch):
    folder = tmp_path / "checkout"
    (folder / "lockfiles").mkdir(parents=True)
    (folder / "dockerfiles").mkdir()
    (folder / "lockfiles" / "rehearsal.yaml").touch()
    (folder / "lockfiles" / "rehearsal.lock.yaml").touch()
    (folder / "lockfiles" / "trtllm-0.16.0.yaml").touch()
    for name in ("KIT_ROOT", "KIT_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    return folder


def test_found_from_below(root, monkeypatch):
    below = root / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert project.find().root == root


def test_found_by_name(root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KIT_ROOT", str(root))
    assert project.find().root == root


def test_a_wrong_root_is_refused(root, monkeypatch, tmp_path):
    monkeypatch.setenv("KIT_ROOT", str(tmp_path))
    with pytest.raises(KitError, match="KIT_ROOT") as caught:
        project.find()
    assert caught.value.exit_code == ExitCode.USAGE


def test_elsewhere_the_project_the_kit_came_with(root, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (project.find().root / "lockfiles").is_dir()


def test_the_home(root, monkeypatch, tmp_path):
    monkeypatch.chdir(root)
    assert project.find().home == tmp_path / "user" / ".cache" / "trtllm-kit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert project.find().home == tmp_path / "cache" / "trtllm-kit"
    monkeypatch.setenv("KIT_HOME", "relative")
    found = project.find()
    assert found.home == root / "relative"
    assert found.store == root / "relative" / "store"
    assert found.images == root / "relative" / "images"


def test_a_user_without_a_home(root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    with pytest.raises(KitError, match="no home folder") as caught:
        project.find()
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    monkeypatch.setenv("KIT_HOME", "/somewhere")
    assert str(project.find().home) == "/somewhere"


def test_stacks_and_their_files(root):
    found = project.Project(root, root / "home")
    assert found.stacks == ["rehearsal", "trtllm-0.16.0"]
    assert found.intent_path("rehearsal") == root / "lockfiles" / "rehearsal.yaml"
    assert found.lock_path("trtllm-0.16.0").name == "trtllm-0.16.0.lock.yaml"


@pytest.mark.parametrize("stack", ["rehearsl", "../x", "rehearsal.lock", ""])
def test_an_unknown_stack_names_the_nearest(root, stack):
    with pytest.raises(KitError, match="unknown stack") as caught:
        project.Project(root, root).intent_path(stack)
    assert caught.value.exit_code == ExitCode.USAGE
