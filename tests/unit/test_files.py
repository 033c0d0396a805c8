import errno
import json
import multiprocessing
import os
import resource
import signal
import stat
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit import files
from kit.errors import ExitCode, KitError
from kit.files import (
    atomic_writer,
    disk_errors,
    explained,
    free_bytes,
    locked,
    make_folder,
    safe_member,
    write_bytes,
    write_json,
)


def test_a_file_is_whole_or_as_it_was(tmp_path):
    path = tmp_path / "new" / "file"
    write_bytes(path, b"first")

    def fail_halfway():
        with atomic_writer(path) as stream:
            stream.write(b"sec")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_bytes() == b"first"
    assert list(path.parent.iterdir()) == [path]


def test_mode_and_content(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"x", mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_json_is_the_same_for_equal_content(tmp_path):
    write_json(tmp_path / "a", {"b": 1, "a": "ä"})
    write_json(tmp_path / "b", {"a": "ä", "b": 1})
    text = (tmp_path / "a").read_bytes()
    assert text == (tmp_path / "b").read_bytes()
    assert json.loads(text) == {"a": "ä", "b": 1}
    assert text.endswith(b"}\n")


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk full while writing"),
        (errno.EDQUOT, "disk full while writing"),
        (errno.EROFS, "may not write"),
        (errno.EACCES, "may not read or write"),
        (errno.EPERM, "may not read or write"),
        (errno.ENOTDIR, "a file stands where a folder is expected"),
        (errno.EIO, "the disk fails"),
        (errno.EFBIG, "too large"),
    ],
)
def test_what_disks_do_is_explained(tmp_path, number, words):
    with pytest.raises(KitError, match=words) as caught, disk_errors(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "file") in str(caught.value)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint


@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES, errno.ENOTDIR, errno.EIO]
)
def test_an_error_that_names_no_file_is_explained_too(number):
    found = explained(OSError(number, os.strerror(number)), None)
    assert found is not None
    assert found.exit_code == ExitCode.ENVIRONMENT
    assert "None" not in str(found)


def test_an_error_is_explained_by_the_file_it_names(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as caught:
        (tmp_path / "file" / "below").read_bytes()
    assert str(tmp_path / "file" / "below") in str(explained(caught.value))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_another_home_helps_only_what_is_in_it(tmp_path, monkeypatch, number):
    monkeypatch.setenv("KIT_HOME", str(tmp_path / "home"))
    error = OSError(number, os.strerror(number))
    inside = explained(error, tmp_path / "home" / "store" / "file")
    outside = explained(error, tmp_path / "my runs" / "file")
    assert inside is not None
    assert outside is not None
    assert str(inside.hint).startswith("export KIT_HOME=<")
    assert "KIT_HOME" not in str(outside.hint)
    assert str(outside.hint).endswith(f" {tmp_path}"), "the nearest folder that is there"
    (tmp_path / "my runs").mkdir()
    outside = explained(error, tmp_path / "my runs" / "file")
    assert outside is not None
    assert str(outside.hint).endswith(f" '{tmp_path}/my runs'")


def test_a_folder_that_cannot_be_made_is_explained(tmp_path):
    make_folder(tmp_path / "a" / "b")
    make_folder(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/1/nothing/below")):
        with pytest.raises(KitError) as caught:
            make_folder(path)
        assert str(path) in str(caught.value)
        assert caught.value.exit_code == ExitCode.ENVIRONMENT
        assert caught.value.hint


def test_other_errors_pass(tmp_path):
    assert explained(FileNotFoundError(errno.ENOENT, "no", "x"), tmp_path) is None
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path):
        raise FileNotFoundError(errno.ENOENT, "no", "x")


def test_a_limit_on_file_size_is_explained(tmp_path):
    """A real limit of a real process."""

    def write_too_much(queue):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            write_bytes(tmp_path / "file", b"x" * 100_000)
        except KitError as error:
            queue.put((error.exit_code, str(error)))

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=write_too_much, args=(queue,))
    process.start()
    code, message = queue.get(timeout=20)
    process.join()
    assert code == ExitCode.ENVIRONMENT
    assert "too large" in message
    assert list(tmp_path.iterdir()) == []


def test_free_bytes_of_a_folder_that_is_not_there_yet(tmp_path):
    assert free_bytes(tmp_path / "a" / "b") > 0


def test_a_lock_keeps_others_out_until_its_holder_dies(tmp_path):
    path = tmp_path / "folder" / "lock"
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold():
        with locked(path):
            held.set()
            time.sleep(60)

    holder = context.Process(target=hold)
    holder.start()
    assert held.wait(20)
    got = context.Event()

    def wait():
        with locked(path):
            got.set()

    waiter = context.Process(target=wait)
    waiter.start()
    assert not got.wait(0.3)
    holder.kill()
    assert got.wait(20)
    holder.join()
    waiter.join()


@pytest.mark.parametrize(
    "name", ["", ".", "/etc/passwd", "../x", "a/../../b", "a/..", "a\0b", "//x"]
)
def test_names_that_climb_out_are_refused(name):
    with pytest.raises(KitError, match="outside its folder") as caught:
        safe_member(name, "archive.tar")
    assert caught.value.exit_code == ExitCode.CONTENT
    assert "archive.tar" in str(caught.value)


@given(st.text())
def test_what_is_accepted_stays_inside(name):
    try:
        member = safe_member(name, "x")
    except KitError:
        return
    inside = os.path.normpath(os.path.join("/root/folder", *member.parts))  # noqa: PTH118
    assert inside.startswith("/root/folder/")


def test_content_of_a_plain_file_alone(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x" * 10)
    assert files.content(path, 10) == b"x" * 10
    with pytest.raises(KitError, match="at most 9 bytes"):
        files.content(path, 9)
    os.mkfifo(tmp_path / "pipe")
    for odd in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(KitError, match="regular file"):
            files.content(odd, 9)


@pytest.mark.parametrize("number", [errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR])
def test_a_name_that_cannot_be_a_file_is_a_wrong_request(number):
    found = files.explained(OSError(number, os.strerror(number), "x"))
    assert found is not None
    assert found.exit_code == ExitCode.USAGE


def test_a_disk_without_a_flush_of_folders_has_its_files(tmp_path):
    """`/proc` refuses one as some network file systems do."""
    files.sync_folder(Path("/proc/self"))
    files.write_bytes(tmp_path / "file", b"content")
    files.sync_files(tmp_path)
    files.sync_disk(tmp_path)


def test_a_folder_that_cannot_be_flushed_is_told(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        files.sync_folder(tmp_path)
