from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from kit.artifacts import engine as engines
from kit.artifacts import repository, source, wheel
from kit.artifacts.image import ImageContents
from kit.compat.facts import Facts, container
from kit.compat.verdict import Verdict, judge
from kit.data import releases
from kit.observation import Observation
from tests.unit.compat.test_verdict import engine, plan_head
from tests.unit.host.conftest import host

if TYPE_CHECKING:
    from pathlib import Path


def image(
    *seen: tuple[str, str] | tuple[str, str, str] | tuple[str, str, str, str], **other: Any
) -> ImageContents:
    """An image with these components: name, version, place, way."""
    observations = []
    for row in seen:
        component, version = row[:2]
        where = row[2] if len(row) > 2 else f"opt/{component}"
        how = row[3] if len(row) > 3 else "dist-info"
        observations.append(Observation(component, version, where, how))
    content: dict[str, Any] = {
        "reference": "site/server:1",
        "manifest_digest": f"sha256:{'a' * 64}",
        "image_id": f"sha256:{'b' * 64}",
        "architecture": "amd64",
        "os": "linux",
        "size": 1,
        "layers": 1,
        "environment": {},
        "labels": {},
        "observations": tuple(observations),
        "probed": None,
        "unprobed": "",
    }
    return ImageContents(**{**content, **other})


def rows(verdict: Verdict, rule: str) -> list[tuple[str, str]]:
    return [(item.component, item.status) for item in verdict.findings if item.rule == rule]


def good(release: str = "0.16.0") -> list[tuple[str, str]]:
    return [
        ("tensorrt_llm", release),
        ("tensorrt", releases.value(release, "tensorrt")),
        ("python", "3.12.3"),
        ("cuda", "12.6.3"),
        ("torch", "2.6.0a0+df5bbc09d1.nv24.11"),
        ("numpy", "1.26.4"),
        ("nccl", "2.23.4"),
    ]


# --- images ----------------------------------------------------------------------------------


def test_image_of_the_release_fits(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="0.16.0")
    verdict = judge(Facts(engine=engines.look(folder), image=image(*good())))
    assert verdict.answer == "compatible", verdict.table()
    assert not [item for item in verdict.findings if item.status != "ok"], verdict.table()


def test_image_of_another_release_and_tensorrt(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="0.15.0", heads=[plan_head("10.6.0.26")])
    verdict = judge(Facts(engine=engines.look(folder), image=image(*good())))
    assert ("image release", "mismatch") in rows(verdict, "image-release")
    assert rows(verdict, "tensorrt-plan") == [("image TensorRT", "mismatch")]


def test_what_the_image_has_counts_more_than_the_table(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="0.16.0", heads=[plan_head("10.8.0.43")])
    changed = [row for row in good() if row[0] != "tensorrt"] + [("tensorrt", "10.8.0.43")]
    verdict = judge(Facts(engine=engines.look(folder), image=image(*changed)))
    assert rows(verdict, "tensorrt-plan") == [("image TensorRT", "ok")]
    assert {status for _, status in rows(verdict, "tensorrt-release")} == {"warning"}
    assert verdict.answer == "compatible"


def test_image_without_anything_known_is_unknown() -> None:
    assert judge(Facts(release="0.16.0", image=image())).answer == "unknown"


@pytest.mark.parametrize(
    ("change", "rule", "status"),
    [
        (("python", "3.11.2"), "image-versions", "mismatch"),
        (("cuda", "12.8.0"), "image-versions", "warning"),
        (("torch", "2.7.1+cu128"), "image-torch", "mismatch"),
        (("torch", "2.5.1+cu124"), "image-torch", "warning"),
        (("numpy", "2.1.2"), "image-numpy", "mismatch"),
        (
            ("driver", "560.35.05", "usr/lib/libcuda.so.1", "library name"),
            "image-driver",
            "warning",
        ),
    ],
)
def test_one_thing_that_is_off(change: tuple[str, str], rule: str, status: str) -> None:
    seen = [row for row in good() if row[0] != change[0]] + [change]
    verdict = judge(Facts(release="0.16.0", image=image(*seen)))
    assert status in {found for _, found in rows(verdict, rule)}, verdict.table()


@pytest.mark.parametrize(
    ("path", "probed", "warns"),
    [
        ("/opt/conda/bin:/usr/bin", None, True),
        ("/usr/bin", None, False),
        ("/usr/bin", {"conda": "/opt/conda/bin/conda"}, True),
        ("/opt/conda/bin", {"conda": None}, False),
    ],
)
def test_conda_matters_on_the_path(path: str, probed: dict[str, Any] | None, warns: bool) -> None:
    seen = [*good(), ("conda", "24.1", "/opt/conda/conda-meta", "folder")]
    inside = image(*seen, environment={"PATH": path}, probed=probed)
    assert bool(rows(judge(Facts(release="0.16.0", image=inside)), "image-conda")) is warns


def test_driver_of_cuda_compat_is_meant_to_be_there() -> None:
    place = "usr/local/cuda/compat/libcuda.so.560.35.05"
    seen = [*good(), ("driver", "560.35.05", place, "library name")]
    assert not rows(judge(Facts(release="0.16.0", image=image(*seen))), "image-driver")


@pytest.mark.parametrize(("second", "status"), [("10.7.0", "warning"), ("10.3.0", "mismatch")])
def test_two_tensorrt(second: str, status: str) -> None:
    twice = [
        ("tensorrt", "10.7.0", "usr/local/tensorrt/lib/libnvinfer.so.10.7.0", "library name"),
        ("tensorrt", second, "usr/lib/x86_64-linux-gnu/libnvinfer.so.10", "library name"),
    ]
    seen = [row for row in good() if row[0] != "tensorrt"] + twice
    verdict = judge(Facts(release="0.16.0", image=image(*seen)))
    assert rows(verdict, "image-twice") == [("image TensorRT", status)]


def test_probe_wins_over_the_environment() -> None:
    seen = [
        ("tensorrt", "10.7.0.23", "probe", "probe"),
        ("tensorrt", "10.6.0.26", "TRT_VERSION", "environment"),
        ("tensorrt_llm", "0.16.0"),
    ]
    verdict = judge(Facts(release="0.16.0", image=image(*seen, probed={"tensorrt": "10.7.0"})))
    assert rows(verdict, "image-probe") == [("image tensorrt", "warning")]
    assert verdict.answer == "compatible"


def test_rehearsal_image_is_none_for_a_real_engine(tmp_path: Path) -> None:
    labels = {"org.trtllm-kit.backend": "rehearsal", "org.trtllm-kit.releases": "0.9.0 0.16.0"}
    folder = engine(tmp_path, version="0.16.0")
    verdict = judge(Facts(engine=engines.look(folder), image=image(labels=labels)))
    assert rows(verdict, "image-backend") == [("image backend", "mismatch")]
    assert rows(verdict, "image-release") == [("image release", "ok")]


def test_image_for_another_processor() -> None:
    verdict = judge(
        Facts(image=image(*good(), architecture="arm64"), host=host(), host_where="this host")
    )
    assert rows(verdict, "host-architecture") == [("image architecture", "mismatch")]


# --- wheels ----------------------------------------------------------------------------------


def made_wheel(folder: Path, tag: str = "cp312-cp312-linux_x86_64", **metadata: str) -> Path:
    import zipfile

    path = folder / f"tensorrt_llm-0.16.0-{tag}.whl"
    lines = ["Metadata-Version: 2.1", "Name: tensorrt_llm", "Version: 0.16.0"]
    wanted = {"tensorrt": "tensorrt~=10.7.0", "torch": "torch>=2.5.1,<=2.6.0a0", **metadata}
    lines += [f"Requires-Dist: {text}" for text in wanted.values()]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tensorrt_llm/libs/libtensorrt_llm.so", b"\x7fELF" + bytes(64))
        archive.writestr("tensorrt_llm-0.16.0.dist-info/METADATA", "\n".join(lines) + "\n")
        archive.writestr("tensorrt_llm-0.16.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr("tensorrt_llm-0.16.0.dist-info/RECORD", "")
    return path


def test_wheel_of_the_release_in_its_image(tmp_path: Path) -> None:
    found = wheel.look(made_wheel(tmp_path))
    verdict = judge(Facts(release="0.16.0", wheel=found, image=image(*good())))
    assert verdict.answer == "compatible", verdict.table()
    assert judge(Facts(release="0.15.0", wheel=found)).answer == "incompatible"


@pytest.mark.parametrize(
    ("tag", "metadata", "rule"),
    [
        ("cp310-cp310-linux_x86_64", {}, "wheel-python"),
        ("cp312-cp312-linux_aarch64", {}, "wheel-platform"),
        ("cp312-cp312-manylinux_2_39_x86_64", {}, "wheel-platform"),
        ("cp312-cp312-linux_x86_64", {"tensorrt": "tensorrt~=10.8.0"}, "wheel-requirements"),
        ("cp312-cp312-linux_x86_64", {"torch": "torch==2.7.0"}, "wheel-requirements"),
    ],
)
def test_wheel_for_something_else(
    tmp_path: Path, tag: str, metadata: dict[str, str], rule: str
) -> None:
    found = wheel.look(made_wheel(tmp_path, tag, **metadata))
    inside = image(*good(), ("glibc", "2.35"))
    verdict = judge(Facts(release="0.16.0", wheel=found, image=inside))
    assert "mismatch" in {status for _, status in rows(verdict, rule)}, verdict.table()


def test_source_distribution_is_no_wheel(tmp_path: Path) -> None:
    import io
    import tarfile

    path = tmp_path / "tensorrt-9.1.0.post12.dev4.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        text = b"Metadata-Version: 2.1\nName: tensorrt\nVersion: 9.1.0.post12.dev4\n"
        member = tarfile.TarInfo("tensorrt-9.1.0.post12.dev4/PKG-INFO")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    verdict = judge(Facts(wheel=wheel.look(path)))
    assert rows(verdict, "wheel-real") == [("wheel tensorrt", "mismatch")]


# --- checkouts -------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "TensorRT-LLM"
    (folder / "tensorrt_llm").mkdir(parents=True)
    (folder / "tensorrt_llm/version.py").write_text('__version__ = "0.16.0"\n')
    (folder / "3rdparty/cutlass").mkdir(parents=True)
    (folder / "3rdparty/cutlass/README.md").write_text("x")
    (folder / ".gitmodules").write_text(
        '[submodule "3rdparty/cutlass"]\n\tpath = 3rdparty/cutlass\n'
        "\turl = https://github.com/NVIDIA/cutlass.git\n"
    )
    (folder / ".gitattributes").write_text("*.a filter=lfs diff=lfs merge=lfs -text\n")
    (folder / "examples/gpt").mkdir(parents=True)
    (folder / "examples/gpt/requirements.txt").write_text("tensorrt_llm==0.16.0\n")
    return folder


def of_tree(folder: Path, **other: Any) -> Verdict:
    return judge(Facts(source=source.look(folder), **other))


def test_checkout_of_the_release(tree: Path) -> None:
    verdict = of_tree(tree, release="0.16.0")
    # An archive has no git data: which commit the submodule is at cannot be told.
    assert rows(verdict, "source-submodules") == [("submodule 3rdparty/cutlass", "unknown")]
    assert verdict.answer == "unknown"
    assert of_tree(tree, release="0.15.0").answer == "incompatible"


def test_absent_submodule(tree: Path) -> None:
    shutil.rmtree(tree / "3rdparty/cutlass")
    verdict = of_tree(tree)
    assert rows(verdict, "source-submodules") == [("submodule 3rdparty/cutlass", "mismatch")]
    assert "git -C" in verdict.sentence()


def test_pointer_that_was_not_fetched(tree: Path) -> None:
    place = tree / "cpp/tensorrt_llm/batch_manager/x86_64-linux-gnu"
    place.mkdir(parents=True)
    (place / "libtensorrt_llm_batch_manager_static.a").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'1' * 64}\nsize 4096\n"
    )
    verdict = of_tree(tree)
    assert rows(verdict, "source-lfs") == [("source LFS objects", "mismatch")]
    assert "lfs pull" in verdict.sentence()


def test_examples_of_another_release(tree: Path) -> None:
    (tree / "examples/gpt/requirements.txt").write_text("tensorrt_llm==0.17.0\n")
    assert rows(of_tree(tree), "source-examples") == [("source examples", "mismatch")]


def test_examples_of_another_tag_than_the_wheel(tree: Path, tmp_path: Path) -> None:
    (tree / "tensorrt_llm/version.py").write_text('__version__ = "0.15.0"\n')
    verdict = of_tree(tree, wheel=wheel.look(made_wheel(tmp_path)))
    assert rows(verdict, "source-release") == [("source release", "mismatch")]


# --- model repositories ----------------------------------------------------------------------


def made_repository(folder: Path, engine_dir: str, batch: str = "4") -> Path:
    model = folder / "tensorrt_llm"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(
        f'name: "tensorrt_llm"\nbackend: "tensorrtllm"\nmax_batch_size: {batch}\n'
        'parameters: { key: "gpt_model_path" value: { string_value: '
        f'"{engine_dir}" }} }}\n'
    )
    return folder


def served(folder: Path, engine_dir: Path) -> Verdict:
    return judge(Facts(repository=repository.look(folder), engine=engines.look(engine_dir)))


def limited(folder: Path, batch: int) -> Path:
    path = engine(folder, version="0.16.0") / "config.json"
    content = json.loads(path.read_text())
    content["build_config"] = {"max_batch_size": batch}
    path.write_text(json.dumps(content))
    return folder


def test_repository_that_serves_the_engine(tmp_path: Path) -> None:
    where = limited(tmp_path / "engine", 8)
    folder = made_repository(tmp_path / "models", str(where))
    verdict = served(folder, where)
    assert rows(verdict, "repository-engine") == [("repository tensorrt_llm gpt_model_path", "ok")]
    assert rows(verdict, "repository-limits") == [("repository tensorrt_llm batch", "ok")]


def test_batch_beyond_the_engine(tmp_path: Path) -> None:
    where = limited(tmp_path / "engine", 2)
    verdict = served(made_repository(tmp_path / "models", str(where)), where)
    assert rows(verdict, "repository-limits") == [("repository tensorrt_llm batch", "mismatch")]


def test_placeholder_that_nobody_filled_in(tmp_path: Path) -> None:
    where = limited(tmp_path / "engine", 8)
    verdict = served(made_repository(tmp_path / "models", "${engine_dir}"), where)
    assert ("repository placeholder left", "mismatch") in rows(verdict, "repository")
    assert "engine_dir" in verdict.sentence()


def test_path_in_the_container_cannot_be_told_from_here(tmp_path: Path) -> None:
    where = limited(tmp_path / "engine", 8)
    verdict = served(made_repository(tmp_path / "models", "/engines/gpt"), where)
    assert rows(verdict, "repository-engine")[0][1] == "unknown"
    assert verdict.answer == "unknown"


def test_container_is_asked_for_the_release_of_the_engine(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="0.15.0", heads=[plan_head("10.6.0.26")])
    verdict = judge(Facts(engine=engines.look(folder), triton=container("24.12")))
    assert verdict.answer == "incompatible"
    assert "use 24.11 or rebuild with 0.16.0" in verdict.sentence()


def test_the_documented_example(tmp_path: Path) -> None:
    """An engine of TensorRT 9.2.0.5, whose config.json names no release, for 23.11."""
    folder = engine(tmp_path, version=None, heads=[plan_head("9.2.0.5")])
    verdict = judge(Facts(engine=engines.look(folder), triton=container("23.11")))
    assert verdict.answer == "incompatible"
    assert "engine was built by TensorRT 9.2.0.5, tritonserver:23.11 loads 9.2.0.4" in (
        verdict.sentence()
    )
    assert "24.01" in verdict.sentence()
    assert "rebuild in 23.11" in verdict.sentence()
