"""What comes out of a wheel stage's layer, and what is refused."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys

import pytest

from kit.commands import wheels
from kit.errors import KitError
from kit.images.layer import Entry, LayerWriter

FILES = {"tensorrt_llm-0.16.0.whl": b"wheel", "include/tensorrt_llm/a.h": b"header"}


def layer(tmp_path, files, sums=None):
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  ./{name}\n" for name, content in FILES.items()
    ]
    content = {**files, "SHA256SUMS": "".join(sums or lines).encode()}
    path = tmp_path / "layer"
    with path.open("wb") as stream:
        writer = LayerWriter(stream, 0)
        writer.add(Entry("etc/passwd", "file", 0o644, size=1), io.BytesIO(b"x"))
        for name, data in content.items():
            writer.add(Entry(f"out/{name}", "file", 0o755, size=len(data)), io.BytesIO(data))
        writer.close()
    return path


def test_everything_of_out_and_nothing_else(tmp_path):
    paths = wheels.take(layer(tmp_path, FILES), tmp_path / "build")
    found = {
        path.relative_to(tmp_path / "build").as_posix(): path.read_bytes()
        for path in (tmp_path / "build").rglob("*")
        if path.is_file()
    }
    assert found.pop("SHA256SUMS")
    assert found == FILES
    assert len(paths) == 3


def test_a_file_of_two_names(tmp_path):
    """Layers keep its bytes once, under the name that sorts first."""
    path = tmp_path / "layer"
    line = f"{hashlib.sha256(b'x').hexdigest()}  ./"
    sums = f"{line}a.whl\n{line}b.whl\n".encode()
    with path.open("wb") as stream:
        writer = LayerWriter(stream, 0)
        writer.add(Entry("out/SHA256SUMS", "file", 0o644, size=len(sums)), io.BytesIO(sums))
        writer.add(Entry("out/a.whl", "file", 0o644, size=1), io.BytesIO(b"x"))
        writer.add(Entry("out/b.whl", "hardlink", 0o644, link="out/a.whl"))
        writer.close()
    wheels.take(path, tmp_path / "build")
    assert (tmp_path / "build" / "b.whl").read_bytes() == b"x"


def test_a_second_time_replaces(tmp_path):
    wheels.take(layer(tmp_path, FILES), tmp_path / "build")
    wheels.take(layer(tmp_path, FILES), tmp_path / "build")
    assert (tmp_path / "build" / "tensorrt_llm-0.16.0.whl").read_bytes() == b"wheel"


@pytest.mark.parametrize(
    ("files", "sums", "said"),
    [
        ({**FILES, "tensorrt_llm-0.16.0.whl": b"other"}, None, "expected"),
        ({}, None, "found None"),
        (FILES, ["nonsense\n"], "expected nonsense"),
    ],
)
def test_what_is_not_as_listed_is_refused(tmp_path, files, sums, said):
    with pytest.raises(KitError, match=said) as caught:
        wheels.take(layer(tmp_path, files, sums), tmp_path / "build")
    assert caught.value.exit_code == 4


def test_a_layer_of_another_stage_is_refused(tmp_path):
    path = tmp_path / "layer"
    with path.open("wb") as stream:
        LayerWriter(stream, 0).close()
    with pytest.raises(KitError, match="no /out/SHA256SUMS"):
        wheels.take(path, tmp_path / "build")


def asked(text):
    return subprocess.run(
        [sys.executable, "-m", "kit.commands.built"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )


def test_engine_and_name_of_a_built_image():
    report = {"engine": {"name": "podman", "version": "4.3.1"}, "reference": "localhost/a:latest"}
    done = asked(json.dumps(report))
    assert (done.returncode, done.stdout) == (0, "podman localhost/a:latest\n")


@pytest.mark.parametrize("text", ["", "{}", "[]"])
def test_no_report_is_an_error(text):
    done = asked(text)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "kit build" in done.stderr
