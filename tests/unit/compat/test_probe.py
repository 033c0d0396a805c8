from __future__ import annotations

import ast
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import fields
from importlib import metadata
from typing import TYPE_CHECKING

import pytest

from kit.compat import image, probe
from kit.compat.host import host_facts
from kit.compat.script import mountable
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.images import cdi
from kit.manifests import record
from kit.project import Project
from tests.unit.examples.local import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kit.images.engine import RunRequest


def test_probe_says_what_is_here() -> None:
    done = subprocess.run(
        [sys.executable, probe.__file__], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.removeprefix(probe.MARK))
    assert found["python"] == platform.python_version()
    assert found["distributions"]["pytest"] == metadata.version("pytest")
    assert set(found) == probe.KEYS
    assert found["glibc"] == os.confstr("CS_GNU_LIBC_VERSION").split()[1]  # type: ignore[union-attr]
    assert found["mpirun"] == shutil.which("mpirun")


@pytest.mark.parametrize("name", ["kit/compat/probe.py", "kit/examples/launcher.py"])
def test_what_is_mounted_needs_nothing_but_an_old_python(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(), feature_version=(3, 8))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        )
    }
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize(
    ("number", "expected"),
    [(8601, "8.6.1"), (9100, "9.1.0"), (100001, "10.0.1"), (101401, "10.14.1")],
)
def test_tensorrt_numbers(monkeypatch: pytest.MonkeyPatch, number: int, expected: str) -> None:
    monkeypatch.setattr(probe, "call", lambda *_: number)
    assert probe.tensorrt() == expected


@pytest.mark.parametrize(
    ("number", "expected"), [(2708, "2.7.8"), (21903, "2.19.3"), (22304, "2.23.4")]
)
def test_nccl_numbers(monkeypatch: pytest.MonkeyPatch, number: int, expected: str) -> None:
    def call(library: str, function: str, place: object) -> int:
        place._obj.value = number  # type: ignore[attr-defined]
        return 0

    monkeypatch.setattr(probe, "call", call)
    assert probe.nccl() == expected


@pytest.mark.parametrize(("number", "expected"), [(8907, "8.9.7"), (90701, "9.7.1"), (None, None)])
def test_cudnn_numbers(
    monkeypatch: pytest.MonkeyPatch, number: int | None, expected: str | None
) -> None:
    monkeypatch.setattr(probe, "call", lambda *_: number)
    assert probe.cudnn() == expected


def test_exact_build_of_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {"Major": 10, "Minor": 7, "Patch": 0, "Build": 23}
    asked = []

    def call(library: str, function: str) -> int | None:
        asked.append(library)
        return numbers.get(function.removeprefix("getInferLib").removesuffix("Version"))

    monkeypatch.setattr(probe, "call", call)
    assert probe.tensorrt_build() == "10.7.0.23"
    assert set(asked) == {"libnvinfer.so"}
    del numbers["Build"]
    (tmp_path / "tensorrt_libs").mkdir()
    (tmp_path / "tensorrt_libs/libnvinfer.so.10").write_text("x")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert probe.tensorrt_build() is None
    assert asked[-1] == f"{tmp_path}/tensorrt_libs/libnvinfer.so.10"


def test_real_files_of_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "libnvinfer.so.10.7.0").write_text("x")
    (tmp_path / "libnvinfer.so.10").symlink_to("libnvinfer.so.10.7.0")
    (tmp_path / "libnvinfer.so").symlink_to("nothing")
    (tmp_path / "libnvinfer_plugin.so.10").write_text("x")
    (tmp_path / "libmpi.so.40").mkdir()
    before = probe.libraries()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path}:/no/such/folder:")
    expected = [*before["libnvinfer"], f"{tmp_path}/libnvinfer.so.10.7.0"]
    assert probe.libraries() == {**before, "libnvinfer": sorted(expected)}


def test_torch_is_read_and_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "torch"
    (folder / "share/cmake/Torch").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert probe.torch() == {"version": None, "cuda": None, "cxx11_abi": None}
    (folder / "version.py").write_text("__version__ = '2.1.0a0+32f93b1'\ncuda: str = '12.2'\n")
    cmake = folder / "share/cmake/Torch/TorchConfig.cmake"
    cmake.write_text('set(TORCH_CXX_FLAGS "-D_GLIBCXX_USE_CXX11_ABI=0")\n')
    assert probe.torch() == {"version": "2.1.0a0+32f93b1", "cuda": "12.2", "cxx11_abi": "0"}
    monkeypatch.setattr(sys, "path", [])
    assert probe.torch() is None


def test_absent_libraries_are_null() -> None:
    assert probe.call("libno-such-thing.so", "version") is None
    assert probe.call("libc.so.6", "no_such_function_at_all") is None


class Asked:
    """An engine that answers with fixed lines."""

    name = "fixed"

    def __init__(self, *lines: str, code: int = 0) -> None:
        self.lines, self.code, self.runs = lines, code, 0

    def run(self, request: RunRequest, on_line: Callable[[str], None]) -> int:
        self.runs += 1
        for line in self.lines:
            on_line(line)
        return self.code


DIGEST = Digest.of_bytes(b"image")


def test_image_is_asked_once(tmp_path: Path) -> None:
    project = Project(tmp_path, tmp_path)
    engine = Asked("warning: x", probe.MARK + json.dumps(probe.versions()))
    first = image.versions(project, engine, "ref", DIGEST)  # type: ignore[arg-type]
    again = image.versions(project, engine, "ref", DIGEST)  # type: ignore[arg-type]
    assert first == again == image.cached_versions(project, DIGEST)
    assert set(first) == {field.name for field in fields(record.Versions)}
    assert image.cached(project, DIGEST) == probe.versions()
    assert image.ask(project, engine, "ref", DIGEST) == probe.versions()  # type: ignore[arg-type]
    assert engine.runs == 1
    assert (tmp_path / "probes" / f"{DIGEST.hex}.json").is_file()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"python": "3"}'])
def test_another_cache_is_no_answer(tmp_path: Path, content: str) -> None:
    path = tmp_path / "probes" / f"{DIGEST.hex}.json"
    path.parent.mkdir()
    path.write_text(content)
    assert image.cached_versions(Project(tmp_path, tmp_path), DIGEST) is None


@pytest.mark.parametrize(
    "change",
    [
        {"more": 1},
        {"python": None},
        {"cuda": 12},
        {"distributions": {"numpy": None}},
        {"distributions": []},
        {"torch": {"version": 2}},
        {"torch": "2"},
        {"libraries": {"libmpi": "x"}},
        {"libraries": {"libmpi": [1]}},
    ],
)
def test_an_image_may_say_anything(tmp_path: Path, change: dict[str, object]) -> None:
    project = Project(tmp_path, tmp_path)
    engine = Asked(probe.MARK + json.dumps({**probe.versions(), **change}))
    with pytest.raises(KitError, match="could not be probed"):
        image.versions(project, engine, "ref", DIGEST)  # type: ignore[arg-type]
    assert not (tmp_path / "probes").exists()


@pytest.mark.parametrize("line", ["[" * 100_000, "{", "", "null", '"' + "x" * (5 << 20) + '"'])
def test_no_answer_of_an_image_breaks_the_kit(tmp_path: Path, line: str) -> None:
    with pytest.raises(KitError, match="could not be probed") as caught:
        image.ask(Project(tmp_path, tmp_path), Asked(probe.MARK + line), "ref", DIGEST)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 2000


def test_answer_as_observations() -> None:
    answer = {
        **dict.fromkeys(probe.KEYS),
        "python": "3.12.3",
        "tensorrt": "10.7.0",
        "tensorrt_build": "10.7.0.23",
        "torch": {"version": "2.6.0a0", "cuda": None, "cxx11_abi": "1"},
        "libraries": {},
        "conda": "/opt/conda/bin/conda",
        "distributions": {"torch": "2.6", "tensorrt": "10.7.0.post1", "tensorrt-llm": "0.16.0"},
    }
    found = {(item.component, item.version) for item in image.observations(answer)}
    assert found == {
        ("python", "3.12.3"),
        ("tensorrt", "10.7.0.23"),
        ("torch", "2.6.0a0"),
        ("torch_cxx11_abi", "1"),
        ("conda", None),
        ("tensorrt_llm", "0.16.0"),
    }


def test_image_without_python_is_explained(tmp_path: Path) -> None:
    engine = Asked("exec: python3: not found", code=127)
    with pytest.raises(KitError, match="ended with 127\n  exec: python3: not found") as caught:
        image.versions(Project(tmp_path, tmp_path), engine, "ref", DIGEST)  # type: ignore[arg-type]
    assert caught.value.exit_code == ExitCode.CONTENT


def test_host_is_described_without_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = host_facts()
    assert found["cores"] >= 1
    assert found["memory_bytes"] > 1 << 28
    assert os.uname().nodename not in json.dumps(found)
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\necho 'NVIDIA H200, 9.0, 143771, 550.90.07'\necho 'NVIDIA H200 MIG, 9.0, [N/A], 550.90.07'\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(cdi, "smi", lambda: str(program))
    found = host_facts()
    assert found["driver"] == "550.90.07"
    assert found["gpus"] == [
        {"name": "NVIDIA H200", "compute_capability": "9.0", "memory_bytes": 143771 << 20},
        {"name": "NVIDIA H200 MIG", "compute_capability": "9.0", "memory_bytes": None},
    ]
    program.write_text("#!/bin/sh\nexit 9\n")
    assert host_facts()["gpus"] == []
    assert host_facts()["driver"] is None
    monkeypatch.setattr(cdi, "smi", lambda: None)
    assert host_facts()["gpus"] == []


def test_scripts_are_copied_once_and_again_when_damaged(
    tmp_path: Path,
) -> None:
    project = Project(tmp_path, tmp_path / "home")
    source = tmp_path / "script.py"
    source.write_text("print()")
    source.chmod(0o600)
    before = os.umask(0o077)
    try:
        copy = mountable(project, source)
    finally:
        os.umask(before)
    assert copy.name == f"{Digest.of_bytes(b'print()').short}-script.py"
    assert [path.stat().st_mode & 0o777 for path in (copy.parent, copy)] == [0o755, 0o644]
    first = copy.stat()
    assert mountable(project, source) == copy
    assert copy.stat() == first
    copy.chmod(0o600)
    copy.write_text("other")
    assert mountable(project, source).read_text() == "print()"
    assert copy.stat().st_mode & 0o777 == 0o644
    source.write_text("pass")
    assert mountable(project, source) != copy
