"""What lies at a path, by shape and magic."""

import gzip
import io
import os
import tarfile

import pytest

from kit.artifacts import kind
from kit.errors import ExitCode, KitError
from tests.unit.artifacts import folders


def tar(*names):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("rank0.engine", folders.plan(), "plan"),
        ("rank0.engine", b"", "plan"),
        ("whatever", folders.plan(), "plan"),
        ("whatever", folders.rehearsal(), "plan"),
        ("rank0.engine", folders.pointer(), "lfs-pointer"),
        ("x.whl", b"PK\x03\x04", "wheel"),
        ("x.whl", folders.pointer(), "lfs-pointer"),
        ("kit-1.0.tar.gz", gzip.compress(tar("kit-1.0/setup.py"), mtime=0), "sdist"),
        ("kit-1.0.tar.gz", gzip.compress(tar("other/setup.py"), mtime=0), "unknown"),
        ("image.tar.gz", gzip.compress(tar("manifest.json"), mtime=0), "image-archive"),
        ("image.tar", tar("blobs/", "oci-layout"), "image-archive"),
        ("image.tar", tar("ab" * 32 + "/layer.tar"), "image-archive"),
        ("photos.tar", tar("a.jpg"), "unknown"),
        ("x.tar.gz", b"\x1f\x8b damaged", "unknown"),
        ("model.safetensors", folders.tensors(), "safetensors"),
        ("model.cache", b"x", "timing-cache"),
        ("libnvinfer.so", b"\x7fELF\2\1\1", "elf"),
        ("x.lock.yaml", b"# comment\nschema: kit.lock/1\nstack: x\n", "lock"),
        ("manifest.json", b'{"a": 1, "schema": "kit.manifest/1"}', "manifest"),
        ("host.json", b'{"schema": "kit.host/1"}', "host-facts"),
        ("other.json", b'{"schema": 5}', "unknown"),
        ("broken.json", b'{"schema"', "unknown"),
        ("empty", b"", "unknown"),
    ],
)
def test_files(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    assert kind.of(path) == expected


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"config.json": folders.version_config()}, "engine"),
        ({"config.json": folders.builder_config()}, "engine"),
        ({"gpt_float16_tp1_rank0.engine": b""}, "engine"),
        ({"encoder/rank0.engine": b"", "decoder/rank0.engine": b""}, "engine"),
        ({"config.json": {"architecture": "X"}, "rank0.safetensors": b""}, "checkpoint"),
        ({"rank0.safetensors": b""}, "checkpoint"),
        ({"2-gpu/config.ini": ""}, "checkpoint"),
        ({"config.ini": ""}, "checkpoint"),
        ({"config.json": {"model_type": "llama"}}, "snapshot"),
        ({"models--a--b/snapshots/x": b""}, "unknown"),
        ({"tensorrt_llm/config.pbtxt": ""}, "model-repository"),
        ({"config.pbtxt": ""}, "model-repository"),
        ({"oci-layout": "{}", "index.json": {"manifests": []}}, "oci-layout"),
        ({"bundle.json": '{"schema": "kit.bundle/1"'}, "bundle"),
        ({"bundle.json": {"schema": "other"}}, "unknown"),
        ({"part-0002": b""}, "bundle"),
        ({"manifest.json": {"schema": "kit.manifest/1"}, "engine/x": b""}, "manifest"),
        ({"manifest.json": [{"Config": "x"}]}, "unknown"),
        ({"tensorrt_llm/version.py": "__version__ = '1'", "setup.py": ""}, "source"),
        ({"config.json": {"a": 1}}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_folders(tmp_path, files, expected):
    assert kind.of(folders.write(tmp_path, files)) == expected


def test_a_hub_cache(tmp_path):
    (tmp_path / "models--a--b" / "snapshots").mkdir(parents=True)
    assert kind.of(tmp_path / "models--a--b") == "snapshot"


def test_a_broken_configuration_is_said(tmp_path):
    folders.write(tmp_path, {"config.json": "{", "rank0.engine": folders.plan()})
    with pytest.raises(KitError) as error:
        kind.of(tmp_path)
    assert error.value.exit_code == ExitCode.CONTENT


def test_nothing_there_and_no_file(tmp_path):
    with pytest.raises(KitError) as error:
        kind.of(tmp_path / "no")
    assert error.value.exit_code == ExitCode.USAGE
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(KitError) as error:
        kind.of(tmp_path / "pipe")
    assert error.value.exit_code == ExitCode.CONTENT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nvcr.io/nvidia/tritonserver:24.12-trtllm-python-py3", True),
        ("localhost:5000/kit/x@sha256:" + "a" * 64, True),
        ("ubuntu:24.04", True),
        ("ubuntu", False),
        ("runs/engine", False),
        ("./engine:x", False),
        ("/engine:x", False),
        ("Upper/Case:1", False),
        ("a b:1", False),
        ("--flag:x", False),
    ],
)
def test_names_of_images(text, expected):
    assert kind.is_reference(text) is expected


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize(
    ("name", "members", "expected"),
    [
        ("foo-1.0.tar.gz", ["foo-1.0/", "foo-1.0/PKG-INFO"], "sdist"),
        ("image.tar.gz", ["./", "./blobs/", "./oci-layout"], "image-archive"),
        ("image.tar.gz", ["notes.txt", "oci-layout"], "unknown"),
    ],
)
def test_archives_that_begin_with_extended_headers(tmp_path, form, name, members, expected):
    path = tmp_path / name
    with tarfile.open(path, "w:gz", format=form) as archive:
        for place in members:
            member = tarfile.TarInfo(place)
            member.type = tarfile.DIRTYPE if place.endswith("/") else tarfile.REGTYPE
            member.pax_headers = {"mtime": "1696398499.373079"}
            archive.addfile(member)
    assert kind.of(path) == expected
