from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.examples.fingerprints import Fingerprints

if TYPE_CHECKING:
    from pathlib import Path

OLD = 1_600_000_000


def put(path: Path, content: bytes, changed: float = OLD) -> Path:
    path.write_bytes(content)
    os.utime(path, (changed, changed))
    return path


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files whose content was read."""
    names: list[str] = []
    original = Digest.of_file

    def of_file(path: Path) -> Digest:
        names.append(path.name)
        return original(path)

    monkeypatch.setattr(Digest, "of_file", of_file)
    return names


def test_a_file_is_read_once_in_all_processes(tmp_path: Path, hashed: list[str]) -> None:
    put(tmp_path / "a", b"x")
    memory = tmp_path / "memory" / "m.json"
    for _ in range(2):
        seen = Fingerprints(memory)
        for _ in range(2):
            (file,) = seen.files(tmp_path, ["a"])
            assert (file.path, file.size) == ("a", 1)
            assert file.sha256 == Digest.of_bytes(b"x").hex
        seen.remember()
    assert hashed == ["a"]


@pytest.mark.parametrize("how", ["content", "time", "another file"])
def test_a_changed_one_is_read_again(tmp_path: Path, hashed: list[str], how: str) -> None:
    path = put(tmp_path / "a", b"x")
    seen = Fingerprints(tmp_path / "m.json")
    seen.files(tmp_path, ["a"])
    seen.remember()
    if how == "content":
        put(path, b"yy")
    elif how == "time":
        put(path, b"z", OLD + 1)
    else:
        put(tmp_path / "new", b"z").replace(path)
    (file,) = Fingerprints(tmp_path / "m.json").files(tmp_path, ["a"])
    assert file.sha256 == Digest.of_bytes(path.read_bytes()).hex
    assert hashed == ["a", "a"]


def test_what_may_still_change_within_a_tick_is_not_kept(tmp_path: Path, hashed: list[str]) -> None:
    (tmp_path / "a").write_bytes(b"x")
    for _ in range(2):
        seen = Fingerprints(tmp_path / "m.json")
        seen.files(tmp_path, ["a"])
        seen.remember()
    assert hashed == ["a", "a"]


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'[[1,2,3,4,"no digest"]]', b"\xff"])
def test_a_damaged_memory_is_none(tmp_path: Path, content: bytes) -> None:
    put(tmp_path / "a", b"x")
    (tmp_path / "m.json").write_bytes(content)
    (file,) = Fingerprints(tmp_path / "m.json").files(tmp_path, ["a"])
    assert file.sha256 == Digest.of_bytes(b"x").hex


def test_only_files_have_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KitError, match="regular file") as caught:
        Fingerprints().files(tmp_path, ["pipe"])
    assert caught.value.exit_code == ExitCode.CONTENT
    put(tmp_path / "back\\slash", b"x")
    with pytest.raises(KitError, match="cannot be recorded"):
        Fingerprints().files(tmp_path, ["back\\slash"])
