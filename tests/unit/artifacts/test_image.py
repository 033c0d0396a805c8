from __future__ import annotations

import gzip
import json
import os
import random
import tarfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kit.artifacts import image, stored
from kit.compat import image as probing
from kit.compat import probe
from kit.digest import Digest
from kit.errors import ExitCode, KitError
from kit.files import write_json
from kit.project import Project
from tests.unit.artifacts.images import (
    INDEX,
    Image,
    docker_archive,
    layer,
    layout,
    oci,
    oci_archive,
    sha,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from kit.artifacts.image import ImageContents

SITE = "usr/local/lib/python3.12/dist-packages"
STATUS = b"""Package: libnvinfer10
Status: install ok installed
Version: 10.7.0.23-1+cuda12.6

Package: libc6
Status: install ok installed
Version: 2.39-0ubuntu8.3

Package: libopenmpi3
Status: deinstall ok config-files
Version: 4.1.2-2ubuntu1

Package: python3.12
Status: install ok installed
Version: 3.12.3-1ubuntu0.3
"""
HEADER = b"""#define NV_TENSORRT_MAJOR 10 //!< TensorRT major version.
#define NV_TENSORRT_MINOR 7 //!< TensorRT minor version.
#define NV_TENSORRT_PATCH 0 //!< TensorRT patch version.
#define NV_TENSORRT_BUILD 23 //!< TensorRT build number.
"""
BASE = {
    "usr/lib/": None,
    "lib": "usr/lib",
    "etc/os-release": "../usr/lib/os-release",
    "usr/lib/os-release": b'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 24.04.1 LTS"\n',
    "var/lib/dpkg/status": STATUS,
    "usr/local/cuda": "/etc/alternatives/cuda",
    "usr/local/cuda-12.6/version.json": b'{"cuda": {"name": "CUDA SDK", "version": "12.6.3"}}',
    "usr/local/cuda-12.6/lib64/libcudart.so.12.6.77": b"x",
    "usr/local/cuda-12.6/lib64/stubs/libcuda.so": b"x",
    "usr/local/cuda-12.6/compat/libcuda.so.560.35.05": b"x",
    "usr/lib/x86_64-linux-gnu/libnvinfer.so.10.7.0": b"x",
    "usr/lib/x86_64-linux-gnu/libnvinfer.so.10": "libnvinfer.so.10.7.0",
    "usr/lib/x86_64-linux-gnu/libnvinfer_plugin.so.10.7.0": b"x",
    "usr/lib/x86_64-linux-gnu/libpython3.12.so.1.0": b"x",
    "usr/include/x86_64-linux-gnu/NvInferVersion.h": HEADER,
    "opt/hpcx/ompi/lib/libmpi.so.40.30.5": b"x",
    f"{SITE}/numpy-1.26.4.dist-info/METADATA": b"Name: numpy\n",
    f"{SITE}/torch/version.py": b"__version__ = '2.6.0a0+df5bbc09d1.nv24.11'\ncuda: str = '12.6'\n",
    f"{SITE}/torch/share/cmake/Torch/TorchConfig.cmake": b'set(F "-D_GLIBCXX_USE_CXX11_ABI=1")\n',
    f"{SITE}/tensorrt_llm/version.py": b'__version__ = "0.16.0"\n',
    f"{SITE}/setuptools/_vendor/wheel-0.43.0.dist-info/METADATA": b"",
    "opt/tritonserver/TRITON_VERSION": b"2.53.0\n",
    "opt/tritonserver/backends/tensorrtllm/libtriton_tensorrtllm.so": b"x",
    "opt/conda/conda-meta/history": b"",
    "opt/conda/pkgs/numpy-2.0.0/lib/python3.12/site-packages/numpy-2.0.0.dist-info/METADATA": b"",
}
CONFIG = {
    "Env": [
        "PATH=/opt/conda/bin:/usr/bin",
        "CUDA_VERSION=12.6.3.001",
        "TRT_VERSION=10.7.0.23",
        "NVIDIA_TRITON_SERVER_VERSION=24.12",
        "NVIDIA_API_KEY=nvapi-secret",
        "HF_TOKEN=hf_secret",
        "DATABASE=postgres://me:secret@db",
        "CUDNN_VERSION=\x1b[31m9",
    ],
    "Labels": {"com.nvidia.nccl.version": "2.23.4", "maintainer": "me"},
}


def look(reference: str, project: Project) -> ImageContents:
    """Without the probe: it would ask the engines of this host."""
    return image.look(reference, project, probe=False)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path, tmp_path / "home")


def of_layers(tmp_path: Path, project: Project, *layers: bytes) -> ImageContents:
    return look(str(oci(tmp_path / "layout", Image(list(layers)))), project)


def seen(found: ImageContents) -> set[tuple[str, str | None]]:
    return {(item.component, item.version) for item in found.observations}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("writer", [oci, oci_archive, docker_archive])
def test_versions_of_an_image(
    tmp_path: Path, project: Project, writer: Callable[[Path, Image], Path], packed: bool
) -> None:
    top = layer({"usr/bin/python3.12": b"x"})
    layers = [gzip.compress(one) if packed else one for one in (layer(BASE), top, top)]
    one = Image(layers, CONFIG)
    found = look(str(writer(tmp_path / "image.tar", one)), project)
    assert found.manifest_digest == (None if writer is docker_archive else sha(one.manifest))
    assert found.image_id == sha(one.configuration)
    assert (found.architecture, found.os, found.layers) == ("amd64", "linux", 3)
    assert found.size == sum(map(len, layers))
    assert seen(found) == {
        ("cuda", "12.6.3.001"),
        ("tensorrt", "10.7.0.23"),
        ("triton_container", "24.12"),
        ("nccl", "2.23.4"),
        ("os", "Ubuntu 24.04.1 LTS"),
        ("cuda", "12.6.3"),
        ("cudart", "12.6.77"),
        ("cuda_compat", "560.35.05"),
        ("tensorrt", "10.7.0"),
        ("tensorrt_plugin", "10.7.0"),
        ("libmpi", "40.30.5"),
        ("glibc", "2.39"),
        ("python", "3.12.3"),
        ("python", "3.12"),
        ("numpy", "1.26.4"),
        ("torch", "2.6.0a0+df5bbc09d1.nv24.11"),
        ("torch_cuda", "12.6"),
        ("torch_cxx11_abi", "1"),
        ("tensorrt_llm", "0.16.0"),
        ("tritonserver", "2.53.0"),
        ("triton_backend:tensorrtllm", None),
        ("conda", None),
    }
    assert {item.where for item in found.observations if item.version == "3.12"} == {
        "/usr/bin/python3.12",
        "/usr/lib/x86_64-linux-gnu/libpython3.12.so.1.0",
    }
    assert found.versions("tensorrt") == ("10.7.0.23", "10.7.0")
    assert [item.where for item in found.installs("tensorrt")] == [
        "/usr/lib/x86_64-linux-gnu/libnvinfer.so.10.7.0"
    ]
    assert "secret" not in repr(found)
    assert found.environment["PATH"] == "/opt/conda/bin:/usr/bin"
    assert found.unprobed == "it was not asked for"


def test_exact_build_of_a_header_with_indirect_numbers(tmp_path: Path, project: Project) -> None:
    header = "".join(
        f"#define TRT_{part}_ENTERPRISE {number}\n#define NV_TENSORRT_{part} TRT_{part}_ENTERPRISE\n"
        for part, number in {"MAJOR": 10, "MINOR": 13, "PATCH": 0, "BUILD": 35}.items()
    )
    found = of_layers(
        tmp_path, project, layer({"opt/trt/include/NvInferVersion.h": header.encode()})
    )
    assert found.versions("tensorrt") == ("10.13.0.35",)


def test_upper_layers_win(tmp_path: Path, project: Project) -> None:
    lower = {
        "usr/lib/libnccl.so.2.23.4": b"x",
        "usr/lib/libcudnn.so.9.5.1": b"x",
        f"{SITE}/numpy-1.26.4.dist-info/METADATA": b"",
        f"{SITE}/mpi4py-3.1.5.dist-info/METADATA": b"",
        "opt/trt/lib/libnvinfer.so.10.6.0": b"x",
        "opt/old/lib/libnvinfer.so.10.5.0": b"x",
        "usr/local/mpi/lib/libmpi.so.40.30.4": b"x",
        "usr/lib/os-release": b"PRETTY_NAME=lower\n",
        "lib": "usr/lib",
    }
    upper = {
        "usr/lib/.wh.libnccl.so.2.23.4": b"",
        "lib/.wh.libcudnn.so.9.5.1": b"",
        f"{SITE}/numpy-2.1.0.dist-info/METADATA": b"",
        f"{SITE}/.wh.numpy-1.26.4.dist-info": b"",
        f"{SITE}/.wh.nothing": b"",
        "opt/trt/lib/libnvinfer.so.10.7.0": b"x",
        "opt/trt/lib/.wh..wh..opq": b"",
        "opt/old": "trt",
        "usr/local/mpi": b"now a file",
        "usr/lib/os-release": b"PRETTY_NAME=upper\n",
    }
    found = of_layers(tmp_path, project, layer(lower), layer(upper))
    assert seen(found) == {
        ("numpy", "2.1.0"),
        ("mpi4py", "3.1.5"),
        ("tensorrt", "10.7.0"),
        ("os", "upper"),
    }


def test_two_installs_are_two_real_files(tmp_path: Path, project: Project) -> None:
    files = {
        "usr/lib/libnvinfer.so.10.7.0": b"x",
        "opt/again/libnvinfer.so.10.7.0": "=usr/lib/libnvinfer.so.10.7.0",
        "opt/linked/libnvinfer.so.10.7.0": "/usr/lib/libnvinfer.so.10.7.0",
        f"{SITE}/tensorrt_libs/libnvinfer.so.10": b"x",
        f"{SITE}/tensorrt_libs/libnvinfer_plugin.so.10": b"x",
        f"{SITE}/tensorrt_cu12_libs-10.6.0.dist-info/METADATA": b"",
        f"{SITE}/nvidia/nccl/lib/libnccl.so.2": b"x",
        f"{SITE}/nvidia_nccl_cu12-2.21.5.dist-info/METADATA": b"",
    }
    found = of_layers(tmp_path, project, layer(files))
    assert {(item.version, item.where) for item in found.installs("tensorrt")} == {
        ("10.7.0", "/usr/lib/libnvinfer.so.10.7.0"),
        ("10.6.0", f"/{SITE}/tensorrt_libs/libnvinfer.so.10"),
    }
    assert found.versions("nccl") == ("2.21.5",)
    above = layer({"usr/lib/.wh.libnvinfer.so.10.7.0": b""})
    found = look(str(oci(tmp_path / "above", Image([layer(files), above]))), project)
    assert "/opt/again/libnvinfer.so.10.7.0" in [o.where for o in found.installs("tensorrt")]


def test_driver_that_was_committed_into_an_image(tmp_path: Path, project: Project) -> None:
    folder = "usr/lib/x86_64-linux-gnu"
    files = {f"{folder}/libcuda.so.550.54.15": b"", f"{folder}/libnvidia-ml.so.1": b"x"}
    found = of_layers(tmp_path, project, layer(files))
    assert {(item.version, item.how) for item in found.observations} == {
        ("550.54.15", "library name, an empty file"),
        (None, "library name"),
    }
    assert {item.component for item in found.observations} == {"driver"}


def test_name_without_a_version_is_looked_up(tmp_path: Path, project: Project) -> None:
    metadata = b"Metadata-Version: 2.1\nName: Some.Thing\nVersion: 1.2\n\nName: other\n"
    files = {f"{SITE}/some.egg-info/PKG-INFO": metadata, f"{SITE}/a-1.0-py3.12.egg-info": b""}
    found = of_layers(tmp_path, project, layer(files))
    assert seen(found) == {("some_thing", "1.2"), ("a", "1.0")}


def test_names_cannot_write_to_a_terminal(tmp_path: Path, project: Project) -> None:
    files = {"a\x1b[31m/x-\x9b1.dist-info/METADATA": b"", "b\udcff/libmpi.so.1.2": b""}
    one = Image([layer(files)], {"Env": ["CUDA_X=\x1b[2J"], "Labels": {"com.nvidia.\x1b": "\n"}})
    found = look(str(oci(tmp_path / "l", one)), project)
    shown = [found.environment["CUDA_X"], *found.labels, *found.labels.values()]
    shown += [f"{item.version}{item.where}" for item in found.observations]
    assert len(found.observations) == 2
    assert all(text.isprintable() for text in shown)


def test_packages_of_an_image_without_dpkg(tmp_path: Path, project: Project) -> None:
    stanza = b"Package: libnccl2\nVersion: 2.22.3-1+cuda12.6\n"
    files = {"var/lib/dpkg/status.d/libnccl2": stanza, "var/lib/dpkg/status.d/x.md5sums": stanza}
    found = of_layers(tmp_path, project, layer(files))
    assert [(o.component, o.version, o.where) for o in found.observations] == [
        ("nccl", "2.22.3", "/var/lib/dpkg/status.d/libnccl2: libnccl2")
    ]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names(tmp_path: Path, project: Project, form: int) -> None:
    deep = "/".join(["a" * 60] * 6)
    files = {f"./{deep}/libnccl.so.2.19.3": b"x", f"{deep}/é/libmpi.so.40.30.5": b"x"}
    found = of_layers(tmp_path, project, layer(files, form))
    assert {item.where for item in found.observations} == {
        f"/{deep}/libnccl.so.2.19.3",
        f"/{deep}/é/libmpi.so.40.30.5",
    }


def test_of_several_architectures_the_hosts_is_taken(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    intel, arm = Image([layer({"a": b""})]), Image([layer({"b": b""})], architecture="arm64")
    attestation = {**intel.descriptor(), "digest": "sha256:" + "0" * 64}
    attestation["platform"] = {"os": "unknown", "architecture": "unknown"}
    rows = [intel.descriptor(), arm.descriptor(), attestation]
    nested = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": rows}).encode()
    outer = {
        "mediaType": INDEX,
        "digest": sha(nested),
        "size": len(nested),
        "annotations": {"org.opencontainers.image.ref.name": "all"},
    }
    folder = layout(tmp_path / "l", [outer], [nested, *intel.blobs(), *arm.blobs()])
    monkeypatch.setattr(stored.platform, "machine", lambda: "aarch64")
    for reference in (f"{folder}", f"{folder}:all", f"{folder}@{sha(nested)}"):
        assert look(reference, project).architecture == "arm64"
    by_digest = image.look(f"{folder}@{sha(intel.manifest)}", project)
    assert by_digest.architecture == "amd64"
    assert by_digest.unprobed == "the image is for amd64, this host is arm64"
    monkeypatch.setattr(stored.platform, "machine", lambda: "riscv64")
    with pytest.raises(KitError, match="several images, name one") as caught:
        look(str(folder), project)
    assert caught.value.exit_code == ExitCode.USAGE


def test_one_of_several_images_by_name(tmp_path: Path, project: Project) -> None:
    first, second = Image([layer({"a": b""})]), Image([layer({"b": b""})])
    rows = [first.descriptor("localhost/one:latest"), second.descriptor("two:latest")]
    folder = layout(tmp_path / "l", rows, [*first.blobs(), *second.blobs()])
    for name in ("localhost/one:latest", "one:latest"):
        assert look(f"{folder}:{name}", project).manifest_digest == sha(first.manifest)
    with pytest.raises(
        KitError, match="no single image three; it holds: localhost/one:latest, two"
    ):
        look(f"{folder}:three", project)
    with pytest.raises(KitError) as caught:
        look(str(folder), project)
    assert caught.value.hint == f"kit inspect {folder}:localhost/one:latest"


def test_earlier_answer_of_the_probe_comes_first(tmp_path: Path, project: Project) -> None:
    one = Image([layer({f"{SITE}/numpy-1.26.4.dist-info/METADATA": b""})])
    answer = {**probe.versions(), "tensorrt": "10.7.0", "tensorrt_build": "10.7.0.23"}
    answer["distributions"] = {"numpy": "2.0.0", "tensorrt-llm": "0.16.0"}
    digest = Digest.of_bytes(one.manifest)
    write_json(project.home / "probes" / f"{digest.hex}.json", answer)
    found = image.look(str(oci(tmp_path / "l", one)), project, probe=False)
    assert found.probed == answer == probing.cached(project, digest)
    assert found.unprobed == ""
    assert found.versions("numpy") == ("2.0.0", "1.26.4")
    assert found.versions("tensorrt") == ("10.7.0.23",)
    assert found.versions("tensorrt_llm") == ("0.16.0",)


def read_by_this_process() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_large_layer_costs_what_is_read_of_it(tmp_path: Path, project: Project) -> None:
    path = tmp_path / "layer"
    large = 15 << 30
    with path.open("wb") as stream:
        for number in range(3):
            member = tarfile.TarInfo(f"model/shard-{number}.bin")
            member.size = large // 3
            stream.write(member.tobuf(tarfile.GNU_FORMAT))
            stream.truncate(stream.tell() + large // 3)
            stream.seek(0, os.SEEK_END)
        stream.write(layer({f"{SITE}/numpy-1.26.4.dist-info/METADATA": b""}))
    size = path.stat().st_size
    digest = "sha256:" + "1" * 64
    config = {"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [digest]}}
    config_bytes = json.dumps(config).encode()
    row = {"digest": sha(config_bytes), "size": len(config_bytes)}
    manifest = json.dumps({"config": row, "layers": [{"digest": digest, "size": size}]}).encode()
    index = {"digest": sha(manifest), "size": len(manifest)}
    folder = layout(tmp_path / "l", [index], [manifest, config_bytes])
    path.rename(folder / "blobs" / "sha256" / digest[7:])
    before = read_by_this_process()
    found = look(str(folder), project)
    assert found.versions("numpy") == ("1.26.4",)
    assert found.size == size > large
    assert read_by_this_process() - before < 1 << 20


def test_bomb_is_stopped_in_flat_memory(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.artifacts.layers._RATIO_FROM", 8 << 20)
    member = tarfile.TarInfo("zeros")
    member.size = 64 << 20
    plain = member.tobuf() + bytes(64 << 20)
    bomb = gzip.compress(plain)
    assert len(plain) > 500 * len(bomb)
    folder = oci(tmp_path / "l", Image([bomb]))
    del plain
    tracemalloc.start()
    try:
        with pytest.raises(KitError, match="gzip bomb") as caught:
            look(str(folder), project)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.exit_code == ExitCode.CONTENT


def test_gzip_in_several_members_and_padding(tmp_path: Path, project: Project) -> None:
    plain = layer({"usr/lib/libnccl.so.2.23.4": b"x" * 5000})
    packed = gzip.compress(plain[:700]) + gzip.compress(plain[700:]) + bytes(700)
    folder = oci(tmp_path / "l", Image([packed]))
    assert look(str(folder), project).versions("nccl") == ("2.23.4",)


def pax(records: bytes, size: int | None = None) -> bytes:
    member = tarfile.TarInfo("pax")
    member.type = tarfile.XHDTYPE
    member.size = len(records) if size is None else size
    return member.tobuf() + records + bytes(-len(records) % 512)


def test_hostile_members_are_one_error(tmp_path: Path, project: Project) -> None:
    negative = bytearray(tarfile.TarInfo("a").tobuf())
    negative[124:136] = b"\xff" * 12
    negative[148:156] = b" " * 8
    negative[148:156] = b"%06o\0 " % sum(negative)
    cases = {
        "climbs out": layer({"../etc/passwd": b""}),
        "climbs out ": layer({"a/../../b": b""}),
        "climbs out  ": layer({"a": "=../../etc/shadow"}),
        "no name that a file can have": pax(b"12 path=a\0b\n") + layer({"x": b""}),
        "no name": pax(b"17012 path=" + b"a" * 17000 + b"\n") + layer({"x": b""}),
        "extended header cannot be read": pax(b"99 path=a\n") + layer({"x": b""}),
        "extended header of 2097152": pax(b"", 2 << 20),
        "a size of": pax(b"13 size=-512\n") + layer({"x": b""}),
        "header without numbers": bytes(negative),
        "wrong checksum": b"\0" * 100 + layer({"x": b""})[100:],
        "cut short": layer({"x": b"y" * 2000})[:1024],
        "cut short ": layer({"x": b"y"})[:300],
        "damaged gzip": b"\x1f\x8b" + b"x" * 600,
        "gzip stream is cut short": gzip.compress(layer({"x": os.urandom(3000)}))[:-2000],
    }
    for number, (message, content) in enumerate(cases.items()):
        folder = oci(tmp_path / str(number), Image([content]))
        with pytest.raises(KitError, match=message.strip()) as caught:
            look(str(folder), project)
        assert caught.value.exit_code == ExitCode.CONTENT, message


def test_too_many_members(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    many = layer({str(number): b"" for number in range(30)})
    folder = oci(tmp_path / "l", Image([many, many]))
    monkeypatch.setattr("kit.artifacts.tar._MEMBER_LIMIT", 60)
    look(str(folder), project)
    monkeypatch.setattr("kit.artifacts.tar._MEMBER_LIMIT", 59)
    with pytest.raises(KitError, match="more than 59 members"):
        look(str(folder), project)
    monkeypatch.setattr("kit.artifacts.tree._KEPT_LIMIT", 9)
    names = {f"{number}/libmpi.so.40.30.5": b"" for number in range(10)}
    with pytest.raises(KitError, match="not a real image"):
        look(str(oci(tmp_path / "m", Image([layer(names)]))), project)


@pytest.mark.parametrize(
    ("head", "name"), [(b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz")]
)
def test_other_compression_is_refused_with_the_reason(
    tmp_path: Path, project: Project, head: bytes, name: str
) -> None:
    folder = oci(tmp_path / "l", Image([head + bytes(2000)]))
    with pytest.raises(KitError, match=f"compressed by {name}") as caught:
        look(str(folder), project)
    assert caught.value.exit_code == ExitCode.ENVIRONMENT
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("skopeo copy")


@pytest.mark.parametrize(
    ("magic", "hint"), [(b"\x1f\x8b", "gunzip"), (b"\x28\xb5\x2f\xfd", "zstd")]
)
def test_compressed_archive_is_refused(
    tmp_path: Path, project: Project, magic: bytes, hint: str
) -> None:
    path = tmp_path / "image.tar.gz"
    path.write_bytes(magic + bytes(1000))
    with pytest.raises(KitError, match="compressed archive") as caught:
        look(str(path), project)
    assert caught.value.exit_code == ExitCode.USAGE
    assert (caught.value.hint or "").startswith(hint)


def test_documents_are_verified(tmp_path: Path, project: Project) -> None:
    one = Image([layer({"a": b""})])

    def broken(name: str, change: Callable[[Path], None]) -> str:
        folder = oci(tmp_path / name, one)
        change(folder)
        with pytest.raises(KitError) as caught:
            look(str(folder), project)
        assert caught.value.exit_code == ExitCode.CONTENT
        return str(caught.value)

    def blob(folder: Path, content: bytes) -> Path:
        return folder / "blobs" / "sha256" / sha(content)[7:]

    assert "expected sha256:" in broken(
        "manifest", lambda f: blob(f, one.manifest).write_bytes(one.manifest + b" ") and None
    )
    assert "expected sha256:" in broken(
        "config", lambda f: blob(f, one.configuration).write_bytes(b"{}") and None
    )
    assert "is missing" in broken("layer", lambda f: blob(f, one.layers[0]).unlink())
    assert "bytes, found" in broken(
        "short", lambda f: blob(f, one.layers[0]).write_bytes(one.layers[0][:-512]) and None
    )
    assert "no blob" in broken("none", lambda f: blob(f, one.manifest).unlink())
    assert "expected at most" in broken(
        "large", lambda f: os.truncate(blob(f, one.manifest), 5 << 20)
    )
    deep = '{"manifests":' + "[" * 100_000
    assert "JSON" in broken("deep", lambda f: (f / "index.json").write_text(deep) and None)
    for index in (
        '{"manifests": []}',
        "{}",
        '{"manifests": [3]}',
        '{"manifests": [{"digest": 1}]}',
    ):
        broken(str(hash(index)), lambda f, text=index: (f / "index.json").write_text(text) and None)
    loop = json.dumps({"manifests": [{"mediaType": INDEX, "digest": sha(b"loop"), "size": 4}]})
    assert "no blob" in broken("loop", lambda f: (f / "index.json").write_text(loop) and None)


def test_index_inside_of_index_ends(tmp_path: Path, project: Project) -> None:
    content = json.dumps({"manifests": []}).encode()
    blobs = [content]
    for _ in range(6):
        row = {"mediaType": INDEX, "digest": sha(content), "size": len(content)}
        content = json.dumps({"manifests": [row]}).encode()
        blobs.append(content)
    folder = layout(tmp_path / "l", json.loads(content)["manifests"], blobs)
    with pytest.raises(KitError, match="too deep"):
        look(str(folder), project)


@pytest.mark.parametrize("writer", [oci_archive, docker_archive])
def test_cut_archive_is_never_a_traceback(
    tmp_path: Path, project: Project, writer: Callable[[Path, Image], Path]
) -> None:
    files = {f"{SITE}/numpy-1.26.4.dist-info/METADATA": b"", "x": b"y" * 600}
    whole = writer(tmp_path / "image.tar", Image([layer(files), gzip.compress(layer(files))]))
    content = whole.read_bytes().rstrip(b"\0")
    refused = 0
    for length in range(0, len(content), 100):
        whole.write_bytes(content[:length])
        try:
            look(str(whole), project)
        except KitError as error:
            assert error.exit_code in (ExitCode.CONTENT, ExitCode.USAGE)  # noqa: PT017
            refused += 1
    assert refused > len(content) // 100 - 10


@pytest.mark.parametrize("packed", [False, True])
def test_flipped_bytes_are_never_a_traceback(
    tmp_path: Path, project: Project, packed: bool
) -> None:
    dice = random.Random(7)
    plain = layer({**BASE, "a/" * 80 + "libnccl.so.2.1.0": b"x"})
    folder = oci(tmp_path / "l", Image([gzip.compress(plain) if packed else plain]))
    path = max((folder / "blobs/sha256").iterdir(), key=lambda file: file.stat().st_size)
    whole = path.read_bytes()
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(dice.randrange(1, 5)):
            content[dice.randrange(len(content))] = dice.randrange(256)
        path.write_bytes(content)
        try:
            look(str(folder), project)
        except KitError as error:
            assert error.exit_code in (ExitCode.CONTENT, ExitCode.ENVIRONMENT)  # noqa: PT017


@pytest.mark.parametrize("reference", ["./nothing", "/no/such/image.tar", "nothing.tar"])
def test_no_such_file(project: Project, reference: str) -> None:
    with pytest.raises(KitError, match="no such file") as caught:
        look(reference, project)
    assert caught.value.exit_code == ExitCode.USAGE


def test_file_that_is_no_image(tmp_path: Path, project: Project) -> None:
    path = tmp_path / "x"
    path.write_text("not an image" * 100)
    with pytest.raises(KitError, match="no tar archive"):
        look(str(path), project)
    path.write_bytes(layer({"a": b"b"}))
    with pytest.raises(KitError, match="neither an OCI layout nor a saved image"):
        look(str(path), project)


def refused(tmp_path: Path, project: Project, *layers: bytes) -> str:
    tracemalloc.start()
    with pytest.raises(KitError) as caught:
        of_layers(tmp_path, project, *layers)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.exit_code == ExitCode.CONTENT
    assert peak < 120 << 20
    return str(caught.value)


def of_names(names: list[str]) -> bytes:
    return gzip.compress(layer(dict.fromkeys(names, b"")), 1)


def test_indexes_that_name_each_other_many_times_are_read_once(
    tmp_path: Path, project: Project
) -> None:
    """Two thousand rows, each an index of two thousand rows, and so on: without end to walk."""
    blobs = [json.dumps({"manifests": []}).encode()]
    rows: list[dict[str, str]] = []
    for _ in range(3):
        rows = [{"mediaType": INDEX, "digest": sha(blobs[-1])}] * 2000
        blobs.append(json.dumps({"manifests": rows}).encode())
    rows = [{"mediaType": INDEX, "digest": sha(blobs[-2])}] * 2000
    folder = layout(tmp_path / "image", rows, blobs)
    with pytest.raises(KitError, match="holds no image") as caught:
        look(str(folder), project)
    assert caught.value.exit_code == ExitCode.CONTENT


def test_indexes_of_many_bytes_are_refused(
    tmp_path: Path, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stored, "_INDEXES_LIMIT", 100)
    inner = json.dumps({"manifests": [], "pad": "x" * 200}).encode()
    folder = layout(tmp_path / "image", [{"mediaType": INDEX, "digest": sha(inner)}], [inner])
    with pytest.raises(KitError, match="bytes of indexes in indexes"):
        look(str(folder), project)


def test_paths_of_thousands_of_folders_fill_no_memory(tmp_path: Path, project: Project) -> None:
    names = [f"{n}/" + "x/" * 3000 + "y-1.dist-info/METADATA" for n in range(100)]
    assert "files that hold versions" in refused(tmp_path, project, of_names(names))


def test_long_names_fill_no_memory(tmp_path: Path, project: Project) -> None:
    names = [f"{n}/" + "x" * 15000 + "/y-1.dist-info/METADATA" for n in range(1000)]
    assert "characters of names" in refused(tmp_path, project, of_names(names))


def test_long_links_fill_no_memory(tmp_path: Path, project: Project) -> None:
    members: dict[str, bytes | str | None] = {"usr/lib/libnvinfer.so.10": "x" * 500_000}
    assert "a link of 500000 characters" in refused(tmp_path, project, layer(members))


def test_many_records_of_packages_fill_no_memory(tmp_path: Path, project: Project) -> None:
    stanzas = b"Package: libc6\nVersion: 2\n\n" * 2000
    places = [f"var/lib/dpkg/status.d/{n}" for n in range(30)]
    content = gzip.compress(layer(dict.fromkeys(places, stanzas)))
    assert "more than 50000 versions" in refused(tmp_path, project, content)


def test_many_contents_fill_no_memory(tmp_path: Path, project: Project) -> None:
    places = [f"var/lib/dpkg/status.d/{n}" for n in range(1000)]
    content = gzip.compress(layer(dict.fromkeys(places, bytes(60_000))), 1)
    assert "bytes that hold versions" in refused(tmp_path, project, content)


def test_long_names_of_an_archive_are_passed_over(tmp_path: Path, project: Project) -> None:
    path = oci_archive(tmp_path / "image.tar", Image([layer(BASE)]))
    with tarfile.open(path, "a") as archive:
        for number in range(2000):
            archive.addfile(tarfile.TarInfo(f"{number}/" + "x" * 15_000))
    tracemalloc.start()
    assert look(str(path), project).layers == 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
