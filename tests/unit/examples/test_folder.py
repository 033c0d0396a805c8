from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest

from kit.errors import KitError
from kit.examples import folder as folders
from kit.examples.folder import RunFolder, run_folder

if TYPE_CHECKING:
    from pathlib import Path

NOW = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)


def visible(place: Path) -> list[str]:
    return sorted(path.name for path in place.iterdir() if not path.name.startswith("."))


def test_hidden_until_named_and_gone_if_never(tmp_path: Path) -> None:
    place = tmp_path / "runs" / "example" / "0.9.0"
    with run_folder(tmp_path / "runs", "example", "0.9.0") as folder:
        (folder.work / "file").write_text("x")
        (folder.logs / "run.log").write_text("said")
        assert visible(place) == []
    assert list(place.iterdir()) == []


def test_finished_folder_is_whole(tmp_path: Path) -> None:
    with run_folder(tmp_path / "runs", "example", "0.9.0") as folder:
        (folder.work / "file").write_text("x")
        (folder.logs / "run.log").write_text("said")
        found = folder.finish()
    assert sorted(p.name for p in found.iterdir()) == ["file", "logs"]
    assert (found / "logs" / "run.log").read_text() == "said"
    assert found.stat().st_mode & 0o777 == 0o755
    assert visible(found.parent) == [found.name]


def test_names_of_one_second_are_numbered_across_good_and_bad(tmp_path: Path) -> None:
    names = []
    for number in range(4):
        with run_folder(tmp_path / "runs", "example", "0.9.0") as made:
            folder = RunFolder(made.hidden, NOW)
            (folder.work / "file").write_text("x")
            (folder.logs / "run.log").write_text("x")
            names.append((folder.fail() if number % 2 else folder.finish()).name)
    stamp = "20260102T030405Z"
    assert names == [f"{stamp}-1", f"{stamp}-2-failed", f"{stamp}-3", f"{stamp}-4-failed"]


def test_a_name_taken_meanwhile_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = tmp_path / "runs" / "example" / "0.9.0" / "20260102T030405Z-1"
    with run_folder(tmp_path / "runs", "example", "0.9.0") as made:
        folder = RunFolder(made.hidden, NOW)
        exists = type(taken).exists

        def race(path: Path) -> bool:
            was_there = exists(path)
            if path == taken and not was_there:
                taken.mkdir()
                (taken / "other").write_text("x")
            return was_there

        monkeypatch.setattr(type(taken), "exists", race)
        found = folder.finish()
        monkeypatch.undo()
    assert found.name == "20260102T030405Z-2"
    assert (taken / "other").exists()


def test_a_command_may_not_make_the_logs(tmp_path: Path) -> None:
    with run_folder(tmp_path / "runs", "example", "0.9.0") as folder:
        (folder.work / "logs").symlink_to(tmp_path)
        with pytest.raises(KitError, match="made logs/"):
            folder.finish()


def test_a_folder_that_its_owner_removes_meanwhile_is_nobodys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "runs" / "example" / "0.9.0" / ".run-gone"
    gone.mkdir(parents=True)
    (gone.parent / ".run-file").write_text("x")
    lock = folders.lock_folder

    def remove_first(folder: Path) -> int | None:
        if folder == gone:
            gone.rmdir()
        return lock(folder)

    monkeypatch.setattr(folders, "lock_folder", remove_first)
    with run_folder(tmp_path / "runs", "example", "0.9.0") as folder:
        assert folder.work.is_dir()
    assert not gone.exists()


def test_folders_at_work_are_left_alone_and_abandoned_ones_removed(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    abandoned = runs / "example" / "0.9.0" / ".run-abandoned"
    (abandoned / "work").mkdir(parents=True)
    with run_folder(runs, "example", "0.9.0") as first:
        assert not abandoned.exists()
        with run_folder(runs, "example", "0.16.0"):
            assert first.work.is_dir()
        assert first.work.is_dir()
