from __future__ import annotations

import io
import random
import tarfile
import tracemalloc
import zipfile
from typing import TYPE_CHECKING

import pytest

from kit.artifacts import wheel
from kit.errors import ExitCode, KitError
from kit.observation import Observation

if TYPE_CHECKING:
    from pathlib import Path

METADATA = """Metadata-Version: 2.1
Name: tensorrt-llm
Version: 0.16.0
Summary: something
  that goes on
Requires-Python: >=3.7, <4
Requires-Dist: tensorrt~=10.7.0
Requires-Dist: torch<=2.6.0a0,>=2.5.0a0
Requires-Dist: nvidia-nccl-cu12
Requires-Dist: x; extra == "devel"

Requires-Dist: not-a-field
"""
NAME = "tensorrt_llm-0.16.0-cp312-cp312-linux_x86_64.whl"
INFO = "tensorrt_llm-0.16.0.dist-info"


def write(folder: Path, name: str = NAME, metadata: str = METADATA, **files: bytes) -> Path:
    path = folder / name
    info = "-".join(name.split("-")[:2]) + ".dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for place, content in files.items():
            archive.writestr(place, content)
        archive.writestr(f"{info}/METADATA", metadata)
        archive.writestr(f"{info}/RECORD", "")
    return path


def test_wheel(tmp_path: Path) -> None:
    path = write(tmp_path, **{"tensorrt_llm/libs/libtensorrt_llm.so": b"x", "a/b.so.12": b""})
    found = wheel.look(path)
    assert (found.kind, found.name, found.version) == ("wheel", "tensorrt-llm", "0.16.0")
    assert (found.python, found.abi, found.platform) == (("cp312",), ("cp312",), ("linux_x86_64",))
    assert (found.local, found.build, found.glibc) == (None, None, None)
    assert found.requires_python == ">=3.7, <4"
    assert found.requires_dist[-1] == 'x; extra == "devel"'
    assert found.tensorrt == "tensorrt~=10.7.0"
    assert found.torch == "torch<=2.6.0a0,>=2.5.0a0"
    assert found.libraries == ("a/b.so.12", "tensorrt_llm/libs/libtensorrt_llm.so")
    assert not found.is_stub
    assert found.size == path.stat().st_size
    assert found.observations == (
        Observation("tensorrt_llm", "0.16.0", str(path), "METADATA"),
        Observation("requires:tensorrt", "tensorrt~=10.7.0", str(path), "METADATA"),
        Observation("requires:torch", "torch<=2.6.0a0,>=2.5.0a0", str(path), "METADATA"),
    )


def test_local_label_build_and_glibc(tmp_path: Path) -> None:
    name = "torch-2.1.0a0+32f93b1-1-cp310-cp310-manylinux_2_28_x86_64.manylinux2014_x86_64.whl"
    found = wheel.look(write(tmp_path, name, "Name: torch\nVersion: 2.1.0a0+32f93b1\n"))
    assert (found.local, found.build, found.glibc) == ("32f93b1", "1", "2.17")
    assert found.is_stub


@pytest.mark.parametrize(
    ("name", "is_stub"),
    [
        ("tensorrt", True),
        ("nvidia_cudnn_cu12", True),
        ("tensorrt_cu12_libs", True),
        ("numpy", False),
    ],
)
def test_wheel_without_libraries(tmp_path: Path, name: str, is_stub: bool) -> None:
    path = write(tmp_path, f"{name}-1.0-py3-none-any.whl", f"Name: {name}\nVersion: 1.0\n")
    assert wheel.look(path).is_stub is is_stub


def sdist(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def test_source_distribution(tmp_path: Path) -> None:
    path = sdist(
        tmp_path / "tensorrt_cu12-10.7.0.post1.tar.gz",
        {
            "tensorrt_cu12-10.7.0.post1/setup.py": b"import os",
            "tensorrt_cu12-10.7.0.post1/PKG-INFO": b"Name: tensorrt_cu12\nVersion: 10.7.0.post1\n",
        },
    )
    found = wheel.look(path)
    assert (found.kind, found.name, found.version) == (
        "source distribution",
        "tensorrt_cu12",
        "10.7.0.post1",
    )
    assert found.is_stub
    assert found.python == found.platform == ()
    bare = wheel.look(sdist(tmp_path / "some-thing-1.2.tar.gz", {"setup.py": b""}))
    assert (bare.name, bare.version, bare.is_stub) == ("some-thing", "1.2", False)


@pytest.mark.parametrize("name", ["a.whl", "a-1.0.whl", "a.zip", "a.tar.gz"])
def test_other_names_are_usage_errors(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(KitError, match="expected NAME-VERSION") as caught:
        wheel.look(tmp_path / name)
    assert caught.value.exit_code == ExitCode.USAGE
    with pytest.raises(KitError, match="no such file"):
        wheel.look(tmp_path / "b-1-py3-none-any.whl")


def refused(path: Path) -> str:
    with pytest.raises(KitError) as caught:
        wheel.look(path)
    assert caught.value.exit_code == ExitCode.CONTENT
    return str(caught.value)


def test_hostile_wheels(tmp_path: Path) -> None:
    assert "outside of the wheel" in refused(write(tmp_path, **{"/etc/passwd": b""}))
    assert "climbs out" in refused(write(tmp_path, **{"../x.so": b""}))
    assert "METADATA 0.16.1" not in refused(write(tmp_path, metadata="Name: a\n"))
    assert "METADATA tensorrt-llm 9" in refused(
        write(tmp_path, metadata="Name: tensorrt-llm\nVersion: 9\n")
    )
    assert "expected one Name" in refused(
        write(tmp_path, metadata="Name: a\nName: b\nVersion: 1\n")
    )
    with zipfile.ZipFile(tmp_path / NAME, "w") as out:
        out.writestr(f"{INFO}/METADATA", METADATA)
        out.writestr("a.py", "")
        with pytest.warns(UserWarning, match="Duplicate"):
            out.writestr("a.py", "other")
    assert "stands twice" in refused(tmp_path / NAME)
    with zipfile.ZipFile(tmp_path / NAME, "w") as out:
        out.writestr("a.py", "")
    assert "0 METADATA files" in refused(tmp_path / NAME)
    (tmp_path / NAME).write_bytes(b"x" * 100)
    assert "list of files is missing" in refused(tmp_path / NAME)


def test_metadata_bomb_in_flat_memory(tmp_path: Path) -> None:
    path = write(tmp_path, metadata=METADATA + "a" * (100 << 20))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    try:
        assert "METADATA of more than" in refused(path)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def test_endless_list_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, **{f"{number}.py": b"" for number in range(50)})
    monkeypatch.setattr(wheel, "_FILES_LIMIT", 51)
    assert "more than 51 files" in refused(path)
    monkeypatch.setattr(wheel, "_DIRECTORY_LIMIT", 100)
    assert "not a real wheel" in refused(path)


@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_damage_is_never_a_traceback(tmp_path: Path, kind: str) -> None:
    dice = random.Random(11)
    if kind == "whl":
        path = write(tmp_path, **{"tensorrt_llm/libs/libtensorrt_llm.so": b"x" * 3000})
    else:
        path = sdist(tmp_path / "a-1.tar.gz", {"a-1/PKG-INFO": b"Name: a\nVersion: 1\n" * 1})
    whole = path.read_bytes()
    cuts = [whole[:length] for length in range(0, len(whole), 100 if kind == "whl" else 10)]
    flips = []
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(dice.randrange(1, 4)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        flips.append(bytes(content))
    for content in (*cuts, *flips):
        path.write_bytes(content)
        try:
            wheel.look(path)
        except KitError as error:
            assert error.exit_code == ExitCode.CONTENT  # noqa: PT017
    # An archive's end marks are padded: what is cut off of them was nothing.
    for content in cuts[:-1] if kind == "whl" else cuts[:8]:
        path.write_bytes(content)
        refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression_is_one_error(tmp_path: Path, method: int) -> None:
    path = tmp_path / NAME
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{INFO}/METADATA", METADATA)
    content = bytearray(path.read_bytes())
    place = content.find(b"METADATA") + len("METADATA")
    content[place + 4 : place + 24] = bytes(20)  # its own check would raise what nobody expects
    path.write_bytes(content)
    with pytest.raises(KitError, match=f"method {method}") as caught:
        wheel.look(path)
    assert caught.value.exit_code == ExitCode.CONTENT
