from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from kit.artifacts import checkpoint, repository, source, wheel
from kit.artifacts import engine as engines
from kit.artifacts.image import ImageContents
from kit.compat.facts import Facts, container
from kit.compat.verdict import Verdict, judge
from kit.data import releases
from kit.observation import Observation
from tests.unit.compat.test_verdict import engine, plan_head
from tests.unit.host.conftest import host

if TYPE_CHECKING:
    from collections.abc import Callable
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


# --- what an image says of itself, and what is in it -------------------------------------------

NAMED = ("tensorrt", "10.7.0", "usr/lib/libnvinfer.so.10.7.0", "library name")


def loaded(folder: Path, *seen: tuple[str, ...]) -> Verdict:
    rest = [row for row in good() if row[0] not in {item[0] for item in seen}]
    inside = image(*rest, *seen)  # type: ignore[arg-type]
    found = engines.look(engine(folder, version="0.16.0"))
    return judge(Facts(engine=found, image=inside))


@pytest.mark.parametrize(
    "exact",
    [
        ("tensorrt", "10.7.0.23", "TRT_VERSION", "environment"),
        ("tensorrt", "10.7.0.23", "usr/include/NvInferVersion.h", "header"),
        ("tensorrt", "10.7.0.23", "var/lib/dpkg/status: libnvinfer10", "dpkg"),
    ],
)
def test_three_numbers_of_a_library_do_not_contradict_four(
    tmp_path: Path, exact: tuple[str, ...]
) -> None:
    verdict = loaded(tmp_path, NAMED, exact)
    assert verdict.answer == "compatible", verdict.table()


def test_variable_of_the_base_image_does_not_count_beside_what_is_installed(tmp_path: Path) -> None:
    header = ("tensorrt", "10.7.0.23", "usr/local/tensorrt/include/NvInferVersion.h", "header")
    stale = ("tensorrt", "10.6.0.26", "TRT_VERSION", "environment")
    torch = ("torch", "2.6.0a0+df5bbc09d1.nv24.11", "torch/version.py", "version.py")
    short = ("torch", "2.6.0a0+df5bbc0", "PYTORCH_VERSION", "environment")
    verdict = loaded(tmp_path, stale, short, NAMED, header, torch)
    assert verdict.answer == "compatible", verdict.table()
    assert {item.status for item in verdict.findings} == {"ok"}, verdict.table()


def test_three_numbers_alone_leave_it_open(tmp_path: Path) -> None:
    assert rows(loaded(tmp_path, NAMED), "tensorrt-plan") == [("image TensorRT", "unknown")]


def test_image_for_a_processor_that_it_does_not_name() -> None:
    inside = image(*good(), architecture="unknown")
    verdict = judge(Facts(image=inside, host=host(), host_where="this host"))
    assert rows(verdict, "host-architecture") == [("image architecture", "unknown")]


# --- engines of several parts --------------------------------------------------------------------


def test_parts_of_several_releases_with_one_tensorrt(tmp_path: Path) -> None:
    head = [plan_head("10.4.0.26")]
    engine(tmp_path / "encoder", version="0.13.0", heads=head)
    engine(tmp_path / "decoder", version="0.14.0", heads=head)
    verdict = judge(Facts(engine=engines.look(tmp_path), triton=container("24.10")))
    assert verdict.answer == "incompatible"
    assert "encoder 0.13.0, decoder 0.14.0" in verdict.sentence()


def test_parts_of_several_tensorrt_fit_no_container(tmp_path: Path) -> None:
    engine(tmp_path / "encoder", version="0.16.0", heads=[plan_head("10.6.0.26")])
    engine(tmp_path / "decoder", version="0.16.0", heads=[plan_head("10.7.0.23")])
    verdict = judge(Facts(engine=engines.look(tmp_path), triton=container("24.12")))
    assert "decoder/rank0.engine was built by TensorRT 10.7.0.23" in verdict.sentence()
    assert not [item for item in verdict.findings if "use 24" in item.message]


# --- advice --------------------------------------------------------------------------------------


def test_no_container_of_another_release_is_offered(tmp_path: Path) -> None:
    """25.03 to 25.05 load the TensorRT of 0.18.1, and ship other releases."""
    folder = engine(tmp_path, version="0.18.1", heads=[plan_head("10.9.0.34")])
    verdict = judge(Facts(engine=engines.look(folder), triton=container("24.12")))
    said = next(item.message for item in verdict.findings if item.rule == "tensorrt-plan")
    assert said.endswith("loads 10.7.0.23; rebuild in 24.12")


def test_no_container_is_offered_whose_sources_disagree() -> None:
    verdict = judge(Facts(release="0.9.0", triton=container("24.12")))
    assert "use 24.04 or take release 0.16.0" in verdict.sentence()
    assert not [item for item in verdict.findings if "24.05" in f"{item.hint}{item.message}"]


def test_nearest_release_is_not_offered_twice() -> None:
    said = judge(Facts(release="0.18.1", triton=container("25.03"))).sentence()
    assert said.endswith("no container is known to ship 0.18.1: use 0.18.0 with 25.03")


def test_release_without_engines_is_not_told_to_build_one(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="1.2.1", heads=[plan_head("10.14.1.48")])
    said = judge(Facts(release="1.4.0rc1", engine=engines.look(folder))).sentence()
    assert "not 1.4.0rc1; use it with 1.2.1" in said


def test_era_is_said_in_words_that_can_be_read(tmp_path: Path) -> None:
    found = engines.look(engine(tmp_path, version=None, heads=[plan_head("9.2.0.5")]))
    said = judge(Facts(release="0.16.0", engine=found)).sentence()
    assert (
        "the engine is of TensorRT-LLM 0.6.0 to 0.8.0 (it does not say which), not 0.16.0; "
        "build it again with 0.16.0 or use it with its own release"
    ) in said
    said = judge(Facts(engine=found, triton=container("24.01"))).sentence()
    assert "ships TensorRT-LLM 0.7.1, the engine is of 0.6.0 to 0.8.0 (it does not say" in said


def test_month_of_no_table_is_named() -> None:
    verdict = judge(Facts(triton=container("27.01")))
    assert rows(verdict, "triton-tag") == [("triton tag", "unknown")]
    assert "tritonserver:27.01 is in no table" in verdict.sentence()


def test_image_to_look_into_is_named() -> None:
    verdict = judge(Facts(release="1.1.0", triton=container("25.11")))
    said = next(item.message for item in verdict.findings if item.rule == "triton-branch")
    assert said.endswith("--image nvcr.io/nvidia/tritonserver:25.11-trtllm-python-py3")


# --- engines and checkpoints that say little ---------------------------------------------------


def test_plan_alone_is_of_no_release(tmp_path: Path) -> None:
    """Another program may have built it, with the TensorRT of a release."""
    (tmp_path / "rank0.engine").write_bytes(plan_head("10.7.0.23") + bytes(64))
    verdict = judge(Facts(engine=engines.look(tmp_path), triton=container("24.12")))
    assert rows(verdict, "triton-release") == [("triton release", "unknown")]
    assert rows(verdict, "tensorrt-plan") == [("triton TensorRT", "ok")]


def test_what_an_engine_says_reaches_no_terminal_as_it_stands(tmp_path: Path) -> None:
    folder = engine(tmp_path, version="0.16.0\n\x1b[32mcompatible")
    verdict = judge(Facts(engine=engines.look(folder), triton=container("24.12")))
    for text in (verdict.table(), verdict.seen(), verdict.sentence(), *verdict.notes()):
        assert "\x1b" not in text
        assert "\ncompatible" not in text


def old_checkpoint(folder: Path) -> Path:
    (folder / "1-gpu").mkdir()
    (folder / "1-gpu/config.ini").write_text("[gpt]\nn_head = 16\nstorage_dtype = float16\n")
    (folder / "1-gpu/model.wte.bin").write_bytes(b"weights")
    return folder


def new_checkpoint(folder: Path) -> Path:
    from tests.unit.artifacts.folders import tensors

    config = {"architecture": "GPTForCausalLM", "dtype": "float16", "num_attention_heads": 16}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "rank0.safetensors").write_bytes(tensors())
    return folder


@pytest.mark.parametrize(
    ("made", "release", "status"),
    [
        (old_checkpoint, "0.7.1", "ok"),
        (old_checkpoint, "0.8.0", "ok"),
        (old_checkpoint, "0.9.0", "mismatch"),
        (new_checkpoint, "0.6.1", "mismatch"),
        (new_checkpoint, "0.7.0", "ok"),
        (new_checkpoint, "0.17.0.post1", "ok"),
        (new_checkpoint, "1.4.0rc1", "mismatch"),
    ],
)
def test_era_of_a_checkpoint(
    tmp_path: Path, made: Callable[[Path], Path], release: str, status: str
) -> None:
    looked = checkpoint.look(made(tmp_path))
    verdict = judge(Facts(release=release, checkpoint=looked))
    assert rows(verdict, "checkpoint-layout") == [("checkpoint layout", status)]
    ranks = next(item for item in verdict.findings if item.component == "checkpoint ranks")
    assert (ranks.status, ranks.expected, ranks.found) == ("ok", "1", "1")


def test_checkpoint_for_a_container_whose_release_is_not_known(tmp_path: Path) -> None:
    looked = checkpoint.look(new_checkpoint(tmp_path))
    assert judge(Facts(triton=container("23.11"), checkpoint=looked)).answer == "unknown"


def test_hint_names_all_that_was_named(tmp_path: Path) -> None:
    folder = new_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"version": "0.15.0", **config}))
    verdict = judge(Facts(triton=container("24.12"), checkpoint=checkpoint.look(folder)))
    assert verdict.findings[0].hint == f"kit verify-compat --triton 24.11 --checkpoint {folder}"


def test_lock_pins_another_release() -> None:
    from kit.compat.facts import LockFile
    from kit.digest import Digest
    from kit.locks.lock import Input, Lock

    pinned = Input(
        "wheel", "python", "tensorrt-llm", "0.16.0", "x.whl", "", Digest.of_bytes(b"x"), 1
    )
    lock = LockFile("x.lock.yaml", Lock("trtllm", Digest.of_bytes(b"y"), (pinned,)))
    assert judge(Facts(lock=lock, triton=container("24.12"))).answer == "compatible"
    verdict = judge(Facts(lock=lock, triton=container("24.11")))
    assert "ships TensorRT-LLM 0.15.0, the lock is of 0.16.0" in verdict.sentence()
    assert ("tensorrt_llm", "0.16.0") in [(o.component, o.version) for o in verdict.observations]
    empty = LockFile("x.lock.yaml", Lock("trtllm", Digest.of_bytes(b"y"), ()))
    assert judge(Facts(lock=empty, triton=container("24.12"))).answer == "unknown"


def lock_of(**arguments: str) -> Facts:
    from kit.compat.facts import LockFile
    from kit.digest import Digest
    from kit.locks.lock import Lock

    lock = Lock("trtllm-0.16.0", Digest.of_bytes(b"y"), (), tuple(sorted(arguments.items())))
    return Facts(lock=LockFile("x.lock.yaml", lock))


def test_lock_of_a_stack_says_its_release() -> None:
    facts = lock_of(
        RELEASE="0.16.0", TENSORRT_VERSION="10.7.0.23", NCCL_VERSION="2.23.4-1+cuda12.6"
    )
    assert judge(replace(facts, triton=container("24.12"))).answer == "compatible"
    verdict = judge(replace(facts, triton=container("24.11")))
    assert "ships TensorRT-LLM 0.15.0, the lock is of 0.16.0" in verdict.sentence()


@pytest.mark.parametrize(
    ("argument", "version", "status"),
    [
        ("TENSORRT_VERSION", "10.7.0.23", "ok"),
        ("TENSORRT_VERSION", "10.7.0.23+standin", "ok"),
        ("TENSORRT_VERSION", "10.6.0.26", "mismatch"),
        ("NCCL_VERSION", "2.22.3-1+cuda12.6", "warning"),
        ("MPI4PY_VERSION", "3.1.5", "ok"),
        ("MPI4PY_VERSION", "4.0.0", "warning"),
    ],
)
def test_versions_of_a_lock_are_those_of_its_release(
    argument: str, version: str, status: str
) -> None:
    verdict = judge(lock_of(RELEASE="0.16.0", **{argument: version}))
    found = [f for f in verdict.findings if f.rule == "lock-pins"]
    assert [f.status for f in found] == [status]


@pytest.mark.parametrize(
    ("name", "version", "release", "status"),
    [
        ("tensorrt", "10.7.0", "0.16.0", "ok"),
        ("tensorrt", "10.7.0.post1", "0.16.0", "unknown"),
        ("tensorrt", "10.6.0", "0.16.0", "mismatch"),
        ("tensorrt_cu12", "10.8.0.43", "0.18.0", "mismatch"),
        ("tensorrt", "9.2.0.post12.dev5", "0.8.0", "ok"),
        ("torch", "2.5.1+cu124", "0.16.0", "ok"),
        ("torch", "2.7.0", "0.16.0", "mismatch"),
    ],
)
def test_wheel_that_a_release_pins(
    tmp_path: Path, name: str, version: str, release: str, status: str
) -> None:
    from tests.unit.artifacts.test_wheel import write

    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    path = write(tmp_path, f"{name}-{version}-py3-none-any.whl", metadata, **{"x/lib.so": b"x"})
    verdict = judge(Facts(wheel=wheel.look(path), release=release))
    assert rows(verdict, "wheel-pin") == [(f"wheel {name} pin", status)]


# --- repositories --------------------------------------------------------------------------------


def test_engine_that_a_repository_names_is_looked_at(tmp_path: Path) -> None:
    from kit.compat.gather import Request
    from kit.compat.verdict import verify
    from kit.project import Project

    where = engine(tmp_path / "engine", version="0.9.0", heads=[plan_head("9.3.0.1")])
    folder = made_repository(tmp_path / "models", str(where))
    request = Request(model_repository=folder, triton="24.12")
    verdict = verify(Project(tmp_path, tmp_path / "home"), request)
    assert verdict.answer == "incompatible"
    assert "the engine is of 0.9.0; use 24.04" in verdict.sentence()


def test_placeholder_that_the_backend_reads_as_not_set(tmp_path: Path) -> None:
    where = limited(tmp_path / "engine", 8)
    folder = made_repository(tmp_path / "models", str(where))
    path = folder / "tensorrt_llm" / "config.pbtxt"
    blank = 'parameters: { key: "decoding_mode" value: { string_value: "${decoding_mode}" } }\n'
    path.write_text(path.read_text() + blank)
    verdict = served(folder, where)
    assert ("repository placeholder left", "warning") in rows(verdict, "repository")
    assert verdict.exit_code() == 0


def test_engine_of_the_encoder_is_beside_the_one_that_was_named(tmp_path: Path) -> None:
    where = limited(tmp_path / "engine", 8)
    other = limited(tmp_path / "encoder", 8)
    folder = made_repository(tmp_path / "models", str(where))
    path = folder / "tensorrt_llm" / "config.pbtxt"
    path.write_text(
        path.read_text()
        + 'parameters: { key: "encoder_model_path" value: { string_value: '
        + f'"{other}" }} }}\n'
    )
    named = rows(served(folder, where), "repository-engine")
    assert named == [("repository tensorrt_llm gpt_model_path", "ok")]


def test_repository_of_another_backend_names_the_container(tmp_path: Path) -> None:
    from tests.unit.artifacts.folders import filled
    from tests.unit.artifacts.folders import repository as written

    folder = written(tmp_path / "models", "0.16.0", filled())
    verdict = judge(Facts(repository=repository.look(folder), release="0.9.0"))
    said = next(item.message for item in verdict.findings if item.rule == "repository-version")
    assert said.endswith("or serve with tritonserver:24.12")
