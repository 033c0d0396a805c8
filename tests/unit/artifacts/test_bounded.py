"""Nothing that stands in a file makes its reader hang, swell, or die."""

import contextlib
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from kit.artifacts import bounded
from kit.errors import ExitCode, KitError


def refused(call, exit_code=ExitCode.CONTENT):
    with pytest.raises(KitError) as error:
        call()
    assert error.value.exit_code == exit_code
    return str(error.value)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not valid JSON"),
        (b"{", ":1:2: not valid JSON"),
        (b'{"a": 1,\n "b" 2}', ":2:6: not valid JSON"),
        (b"[1]", "expected a JSON object, found a list"),
        (b"null", "found null"),
        (b'{"a": 1, "a": 2}', "key 'a' stands twice"),
        (b'{"x": {"a": 1, "b": 0, "a": 2}}', "key 'a' stands twice"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "a number of 10000 digits"),
        (b'{"a": ' * 200_000, "nested too deep"),
        (b'{"a": [' + b"[]," * 600_000 + b"[]]}", "more than 400000 values"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"\x80", "not valid JSON"),
    ],
)
def test_what_is_refused(content, problem):
    assert problem in refused(lambda: bounded.loads(content, "config.json"))


def test_numbers_beyond_all_bounds_are_no_counts():
    found = bounded.loads(
        b'{"a": NaN, "b": 1e999, "c": 99999999999999999999, "d": -1, "e": true, "f": 3}', "x"
    )
    assert [bounded.count(found, key) for key in "abcdef"] == [None] * 5 + [3]


def test_wrong_types_are_nothing():
    found = {"a": {"b": [1, "x", None, {}]}, "c": "", "d": "y" * 5000}
    assert bounded.text(found, "a", "b") is None
    assert bounded.text(found, "c") is None
    assert bounded.text(found, "d") is None
    assert bounded.texts(found, "a", "b") == ("x",)
    assert bounded.mapping(found, "a", "b") == {}
    assert bounded.at(found, "a", "b", "c") is None


def test_a_file_of_a_gigabyte_is_not_read(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as stream:
        stream.write(b"{")
        stream.truncate(1 << 30)
    tracemalloc.start()
    message = refused(lambda: bounded.json_object(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "1.1 GB: expected at most 12.6 MB" in message
    assert peak < 64 << 20


def test_pipes_devices_folders_and_circles_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (tmp_path / "pipe", tmp_path):
        assert "expected a file" in refused(lambda path=path: bounded.content(path))
    assert "symbolic links" in refused(lambda: bounded.content(tmp_path / "circle"))
    assert "symbolic links" in refused(lambda: bounded.names(tmp_path / "circle"))
    (tmp_path / "zero").symlink_to("/dev/zero")
    assert "expected a file" in refused(lambda: bounded.content(tmp_path / "zero"))


def test_what_is_not_there_is_a_wrong_request(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "no", tmp_path / "file" / "no"):
        refused(lambda path=path: bounded.content(path), ExitCode.USAGE)
        refused(lambda path=path: bounded.names(path), ExitCode.USAGE)


def test_a_folder_with_too_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded, "ENTRIES_LIMIT", 3)
    for name in "abc":
        (tmp_path / name).touch()
    assert bounded.names(tmp_path) == ("a", "b", "c")
    (tmp_path / "d").touch()
    assert "more than 3 files" in refused(lambda: bounded.names(tmp_path))


def test_what_json_writes_is_read_back():
    document = {"a": [1, 2.5, None, True, {"b": "\ud800 ü"}]}
    assert bounded.loads(json.dumps(document).encode(), "x") == document


def test_names_that_no_file_can_have(tmp_path):
    assert "too long" in refused(lambda: bounded.names(tmp_path / ("n" * 300)))
    assert "too long" in refused(lambda: bounded.content(tmp_path / ("n" * 300)))
    assert "no file name" in refused(lambda: bounded.names(tmp_path / "a\0b"), ExitCode.USAGE)
    assert not bounded.is_file(tmp_path / ("n" * 300))


def test_a_file_that_refuses_to_be_read():
    """Reading this one is an invalid argument: it is there to be written a size first."""
    path = Path("/proc/self/attr/exec")
    with contextlib.suppress(OSError):
        path.read_bytes()
        pytest.skip("this kernel has an answer")
    assert "cannot be read: Invalid argument" in refused(lambda: bounded.head(path, 10))
