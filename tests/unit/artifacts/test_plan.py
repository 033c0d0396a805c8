"""Heads of engine files."""

import gzip
import os
import random
import struct

import pytest

from kit.artifacts import plan
from kit.errors import ExitCode, KitError
from tests.unit.artifacts import folders


def look(tmp_path, content):
    path = tmp_path / "rank0.engine"
    path.write_bytes(content)
    return plan.look(path)


def test_a_real_plan():
    found = plan.look(folders.REAL_HEAD)
    assert (found.backend, found.tensorrt, found.problem) == ("TensorRT", "8.6.0.12", None)
    (seen,) = found.observations
    assert (seen.component, seen.version, seen.how) == ("tensorrt", "8.6.0.12", "header")


def test_a_rehearsal_engine(tmp_path):
    found = look(tmp_path, folders.rehearsal("0.9.0", rank=1, world_size=2))
    assert (found.backend, found.tensorrt, found.problem) == ("rehearsal", None, None)
    assert found.rehearsal == plan.Rehearsal("0.9.0", 1, 2, "float16")
    assert found.observations[0].version == "0.9.0+rehearsal"


def test_a_rehearsal_engine_of_the_next_format(tmp_path):
    content = bytearray(folders.rehearsal("0.9.0", rank=1, world_size=2))
    content[16:20] = struct.pack("<I", 2)
    found = look(tmp_path, bytes(content))
    assert found.problem is None
    assert found.rehearsal == plan.Rehearsal("0.9.0", 1, 2, "float16")


def test_a_rehearsal_engine_with_a_plan_is_never_a_plan(tmp_path):
    found = look(tmp_path, folders.rehearsal_plan())
    assert (found.backend, found.builder, found.problem) == ("rehearsal", "TensorRT", None)
    # No release's TensorRT is asked to be this one.
    assert found.tensorrt is None
    built = found.rehearsal.plan
    said = (built.tensorrt, built.compute_capability, built.optimization_level)
    assert said == ("8.6.0.12", "9.0", 0)
    assert [(item.component, item.version) for item in found.observations] == [
        ("tensorrt_llm", "0.16.0+rehearsal"),
        ("tensorrt", "8.6.0.12"),
    ]


@pytest.mark.parametrize("body", [b"", b"KIT-" + bytes(60), b"ftrt" + bytes(60), b"ftrt"])
def test_what_is_no_plan_in_a_rehearsal_engine(tmp_path, body):
    found = look(tmp_path, folders.rehearsal_plan(body=body))
    assert found.backend == "rehearsal"
    assert found.problem


def test_every_cut_of_a_rehearsal_engine_with_a_plan_is_seen(tmp_path):
    whole = folders.rehearsal_plan()
    for length in range(len(whole)):
        assert look(tmp_path, whole[:length]).problem, length
    assert look(tmp_path, whole + b"!").problem


def test_every_cut_of_a_rehearsal_engine_is_seen(tmp_path):
    whole = folders.rehearsal()
    for length in range(len(whole)):
        found = look(tmp_path, whole[:length])
        assert found.problem, length
    assert look(tmp_path, whole + b"x").problem


def test_every_cut_of_a_plans_header_is_seen(tmp_path):
    whole = folders.plan()
    for length in range(28):
        assert look(tmp_path, whole[:length]).problem, length
    for length in range(28, len(whole) + 1):  # the rest of a plan is documented nowhere
        assert look(tmp_path, whole[:length]).tensorrt == "10.7.0.23"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty file"),
        (folders.pointer(4711), "a Git LFS pointer to a file of 4711 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer to a file, not"),
        (bytes(5000), "zeros"),
        (gzip.compress(folders.plan(), mtime=0), "gzip data"),
        (b"PK\x03\x04" + bytes(100), "a zip archive"),
        (b"\n<!DOCTYPE HTML><html>404</html>", "a web page"),
        (struct.pack("<I", 30) + b'{"description": "YOLO", "a": 1}ftrt' + bytes(99), "Ultralytics"),
        (b'{"error": "not found"}', "JSON text"),
        (b"\x7fELF" + bytes(60), "a program or library"),
        (b"something else entirely", "begins with 736f6d65"),
        (b"ftrt" + b"\1\0\0\0" + bytes(40), "serialization version 1"),
        (b"ftrt" + bytes(40), "names no TensorRT version"),
    ],
)
def test_what_is_no_engine_says_what_it_is(tmp_path, content, problem):
    found = look(tmp_path, content)
    assert problem in found.problem
    assert found.tensorrt is None


def test_flipped_bytes_never_raise(tmp_path):
    chance = random.Random(7)
    kinds = folders.plan(), folders.rehearsal(), folders.rehearsal_plan(), folders.tensors()
    for whole in kinds:
        for _ in range(300):
            content = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                content[chance.randrange(len(content))] = chance.randrange(256)
            look(tmp_path, bytes(content))


def test_lengths_that_lie_take_no_memory(tmp_path):
    magic = b"KIT-REHEARSAL\0\0\0"
    assert "truncated" in look(tmp_path, magic + struct.pack("<II", 1, 0xFFFFFFFF)).problem
    path = tmp_path / "rank0.engine"
    path.write_bytes(magic + struct.pack("<II", 1, 0xFFFFFFF0))
    os.truncate(path, 5 << 30)
    assert plan.look(path).problem
    assert "format 4" in look(tmp_path, magic + struct.pack("<II", 4, 0)).problem
    lying = folders.rehearsal_plan(layer_bytes=1 << 60)
    assert "truncated" in look(tmp_path, lying).problem


def test_no_file(tmp_path):
    with pytest.raises(KitError) as error:
        plan.look(tmp_path / "no")
    assert error.value.exit_code == ExitCode.USAGE
    with pytest.raises(KitError) as error:
        plan.look(tmp_path)
    assert error.value.exit_code == ExitCode.CONTENT
