"""Source trees that stand for TensorRT-LLM's: true names and places, a few lines behind each.

`tree/` has what all releases share; what a release does in its own way is a row of `RELEASES`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

URL = "https://github.com/NVIDIA/TensorRT-LLM.git"
_HERE = Path(__file__).resolve().parent / "tree"
_REFERENCE = _HERE.parent.parent.parent / "dockerfiles" / "rehearsal" / "src" / "kit_rehearsal"
_TABLE = _HERE.parent.parent.parent / "kit" / "data" / "cli.json"
_BATCH = "cpp/tensorrt_llm/batch_manager/x86_64-linux-gnu"
_EXECUTOR = "cpp/tensorrt_llm/executor/x86_64-linux-gnu"
_KERNELS = "cpp/tensorrt_llm/kernels"
_WRAPPER = f"{_KERNELS}/decoderMaskedMultiheadAttention/decoderXQAImplJIT/nvrtcWrapper"
_INTERNAL = f"{_KERNELS}/internal_cutlass_kernels/x86_64-linux-gnu"

NVTX = ("3rdparty/NVTX", "https://github.com/NVIDIA/NVTX.git")
_FIRST_SUBMODULES = (
    NVTX,
    ("3rdparty/cutlass", "https://github.com/NVIDIA/cutlass.git"),
    ("3rdparty/cxxopts", "https://github.com/jarro2783/cxxopts"),
    ("3rdparty/json", "https://github.com/nlohmann/json.git"),
)
_LATER_SUBMODULES = (
    *_FIRST_SUBMODULES,
    ("3rdparty/pybind11", "https://github.com/pybind/pybind11.git"),
    ("3rdparty/ucxx", "https://github.com/rapidsai/ucxx.git"),
    ("3rdparty/xgrammar", "https://github.com/mlc-ai/xgrammar.git"),
)
XGRAMMAR_SUBMODULES = (
    ("3rdparty/dlpack", "https://github.com/dmlc/dlpack.git"),
    ("3rdparty/googletest", "https://github.com/google/googletest.git"),
)
FETCHED = (
    *("cppzmq", "cutlass", "cxxopts", "deep_ep", "deepgemm", "eigen", "flashmla"),
    *("googlebenchmark", "json", "nanobind", "nvtx", "pybind11", "ucxx", "xgrammar"),
)
"""FetchContent entries of 1.2.1 beside googletest; `nvtx` is the one that is compiled against."""

_Option = tuple[list[str], dict[str, Any]]
_FLAG = {"action": "store_true"}
_OPTIONS: tuple[_Option, ...] = (
    (["--build_type", "-b"], {"default": "Release"}),
    (["--cuda_architectures", "-a"], {}),
    (["--install", "-i"], _FLAG),
    (["--clean", "-c"], _FLAG),
    (["--use_ccache", "-ccache"], _FLAG),
    (["--job_count", "-j"], {"nargs": "?", "const": 2}),
    (["--cpp_only", "-l"], _FLAG),
    (["--extra-cmake-vars", "-D"], {"action": "append", "default": []}),
    (["--extra-make-targets"], {"nargs": "+", "default": []}),
    (["--trt_root"], {}),
    (["--nccl_root"], {}),
    (["--build_dir"], {}),
    (["--dist_dir"], {}),
    (["--skip_building_wheel"], _FLAG),
)
"""Of 0.5.0 (`kit/data`, scripts/build_wheel.py); later releases have these and more."""
_SINCE_0_6: tuple[_Option, ...] = ((["--python_bindings", "-p"], _FLAG), (["--benchmarks"], _FLAG))
_SINCE_0_8: tuple[_Option, ...] = ((["--nvtx"], _FLAG),)
_SINCE_0_14: tuple[_Option, ...] = (
    (["--fast_build", "-f"], _FLAG),
    (["--micro_benchmarks"], _FLAG),
    (["--configure_cmake"], _FLAG),
    (["--clean_wheel"], _FLAG),
)
_SINCE_0_20: tuple[_Option, ...] = ((["--no-venv"], _FLAG), (["--skip-stubs"], _FLAG))


@dataclass(frozen=True)
class Release:
    """What one release's tree does in its own way; facts as in `kit/data` and the release's files.

    Attributes:
        options: of `scripts/build_wheel.py`.
        requirements: lines of requirements.txt: true names, the few that matter here.
        development: lines of requirements-dev.txt.
        submodules: path and address.
        lfs: files that Git LFS keeps, of those that are linked.
        more: what else differs, for `scripts/stand_in.json`.
        cmake: variables of `cpp/stand_in.cmake`.
        scripts: of the examples: path → the reference backend's name for it.
    """

    options: tuple[_Option, ...]
    requirements: tuple[str, ...]
    development: tuple[str, ...]
    submodules: tuple[tuple[str, str], ...]
    lfs: tuple[str, ...]
    more: Mapping[str, Any]
    cmake: Mapping[str, str]
    scripts: tuple[str, ...]


_MORE = {
    "requirements": "requirements-dev.txt",
    "extra_index": "",
    "submodules_looked_at": ["3rdparty/cutlass"],
    "has_venv": False,
    "conan": "",
    "refused_architectures": [],
    "targets": ["tensorrt_llm", "nvinfer_plugin_tensorrt_llm", "th_common"],
    "libraries": ["libtensorrt_llm.so", "libth_common.so", "libnvinfer_plugin_tensorrt_llm.so"],
    "worker": False,
    "always_bindings": False,
    "stubs": "",
    "helps_stubs": True,
    "wants_bindings_folder": False,
    "platform_tag": True,
    "requires_python": ">=3.7, <4",
    "console_scripts": ["trtllm-build=tensorrt_llm.commands.build:main"],
}
_CMAKE = {
    "GOOGLETEST_TAG": "release-1.12.1",
    "USES_UCX": "OFF",
    "CHECKS_SIZE": "ON",
    "MAIN_LIBRARY_KIND": "SHARED",
    "TENSORRT_AT_LEAST": "8",
    "WRITES_VERSION": "OFF",
    "FETCHED_SOURCES": "",
    "NVTX_INCLUDE": "${CMAKE_CURRENT_SOURCE_DIR}/../3rdparty/NVTX/include",
    "BENCHMARKS": "bertBenchmark;gptManagerBenchmark;gptSessionBenchmark",
}
_GPT = ("examples/gpt/convert_checkpoint.py", "examples/run.py")
_BATCH_LIBRARY = f"{_BATCH}/libtensorrt_llm_batch_manager_static.a"
_EXECUTOR_LIBRARY = f"{_EXECUTOR}/libtensorrt_llm_executor_static.a"

RELEASES = {
    "0.5.0": Release(
        options=_OPTIONS,
        requirements=(
            *("build", "torch", "transformers==4.31.0", "colored", "polygraphy", "mpi4py"),
            *("tensorrt>=8.6.0", "numpy", "sentencepiece>=0.1.99", "wheel", "lark"),
        ),
        development=("torch", "transformers==4.31.0", "mpi4py", "numpy", "einops"),
        submodules=_FIRST_SUBMODULES,
        lfs=(_BATCH_LIBRARY,),
        more=_MORE
        | {
            "requirements": "requirements.txt",
            "extra_index": "https://pypi.ngc.nvidia.com",
            "libraries": ["libth_common.so", "libnvinfer_plugin_tensorrt_llm.so"],
            "platform_tag": False,
            "console_scripts": [],
        },
        cmake=_CMAKE | {"MAIN_LIBRARY_KIND": "STATIC", "CHECKS_SIZE": "OFF", "BENCHMARKS": ""},
        scripts=(
            *("examples/gpt/hf_gpt_convert.py", "examples/gpt/build.py", "examples/gpt/run.py"),
        ),
    ),
    "0.9.0": Release(
        options=(*_OPTIONS, *_SINCE_0_6, *_SINCE_0_8),
        requirements=(
            "--extra-index-url https://pypi.nvidia.com",
            *("accelerate==0.25.0", "build", "colored", "mpi4py", "numpy", "polygraphy"),
            *("StrEnum", "sentencepiece>=0.1.99", "nvidia-cudnn-cu12~=8.9"),
            *("tensorrt==9.3.0.post12.dev1", "torch>=2.2.0a,<=2.3.0a", "nvidia-ammo~=0.7.0"),
            *("transformers==4.38.2", "wheel", "janus", "setuptools"),
        ),
        development=("-r requirements.txt", "einops", "pybind11-stubgen", "rouge_score"),
        submodules=_FIRST_SUBMODULES,
        lfs=(_BATCH_LIBRARY, _EXECUTOR_LIBRARY),
        more=_MORE | {"extra_index": "https://pypi.ngc.nvidia.com", "stubs": "warn"},
        cmake=_CMAKE,
        scripts=_GPT,
    ),
    "0.16.0": Release(
        options=(*_OPTIONS, *_SINCE_0_6, *_SINCE_0_8, *_SINCE_0_14),
        requirements=(
            *("build", "colored", "mpi4py", "numpy<2", "onnx_graphsurgeon>=0.5.2", "polygraphy"),
            *("StrEnum", "sentencepiece>=0.1.99", "tensorrt~=10.7.0", "torch>=2.5.1,<=2.6.0a0"),
            *("torchvision", "nvidia-modelopt[torch]~=0.21.0", "nvidia-nccl-cu12"),
            *("transformers>=4.38.2,<=4.45.1", "pydantic>=2.9.1", "wheel", "setuptools"),
        ),
        development=("-r requirements.txt", "einops", "pybind11-stubgen", "rouge_score"),
        submodules=_LATER_SUBMODULES,
        lfs=(
            *(_BATCH_LIBRARY, f"{_BATCH}/libtensorrt_llm_ucx_wrapper.so", _EXECUTOR_LIBRARY),
            f"{_WRAPPER}/x86_64-linux-gnu/libtensorrt_llm_nvrtc_wrapper.so",
            f"{_INTERNAL}/libtensorrt_llm_internal_cutlass_kernels_static.a",
        ),
        more=_MORE
        | {
            "submodules_looked_at": [path for path, _ in _LATER_SUBMODULES],
            "refused_architectures": ["70-real"],
            "targets": [*_MORE["targets"], "executorWorker"],  # type: ignore[misc]
            "libraries": [
                *_MORE["libraries"],  # type: ignore[misc]
                "libtensorrt_llm_nvrtc_wrapper.so",
                "libtensorrt_llm_ucx_wrapper.so",
            ],
            "worker": True,
            "stubs": "fatal",
            "wants_bindings_folder": True,
        },
        cmake=_CMAKE
        | {
            "GOOGLETEST_TAG": "v1.15.2",
            "USES_UCX": "ON",
            "TENSORRT_AT_LEAST": "10",
            "WRITES_VERSION": "ON",
        },
        scripts=_GPT,
    ),
    "1.2.1": Release(
        options=(*_OPTIONS, *_SINCE_0_6[1:], *_SINCE_0_8, *_SINCE_0_14, *_SINCE_0_20),
        requirements=(
            "-c constraints.txt",
            *("build", "colored", "cuda-python>=13", "mpi4py", "numpy<2", "polygraphy"),
            *("nvidia-ml-py>=13", "StrEnum", "sentencepiece>=0.1.99", "tensorrt~=10.14.1"),
            *("torch<=2.10.0a0,>=2.9.1", "torchvision", "nvidia-modelopt[torch]~=0.37.0"),
            *("nvidia-nccl-cu13<=2.28.9,>=2.27.7", "transformers==4.57.3"),
            *("pydantic-settings[yaml]", "setuptools<80", "wheel"),
        ),
        development=("-r requirements.txt", "einops", "pybind11-stubgen", "nanobind>=2.9.0"),
        submodules=(),
        lfs=(),
        more=_MORE
        | {
            "submodules_looked_at": [],
            "has_venv": True,
            "conan": "2.14.0",
            "targets": [*_MORE["targets"], "executorWorker"],  # type: ignore[misc]
            "worker": True,
            "always_bindings": True,
            "stubs": "fatal",
            "wants_bindings_folder": True,
            "requires_python": ">=3.10, <4",
        },
        cmake=_CMAKE
        | {
            "GOOGLETEST_TAG": "v1.15.2",
            "USES_UCX": "ON",
            "TENSORRT_AT_LEAST": "10",
            "WRITES_VERSION": "ON",
            "FETCHED_SOURCES": ";".join(FETCHED),
            "BENCHMARKS": "bertBenchmark;gptManagerBenchmark;disaggServerBenchmark",
        },
        scripts=("examples/models/core/gpt/convert_checkpoint.py", "examples/run.py"),
    ),
}


def files(name: str) -> dict[str, bytes]:
    """The tree of a release without submodules and LFS files: path → content."""
    release = RELEASES[name]
    found = {
        path.relative_to(_HERE).as_posix(): path.read_bytes()
        for path in sorted(_HERE.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    facts = {**release.more, "options": [list(option) for option in release.options]}
    found["scripts/stand_in.json"] = json.dumps(facts, indent=1, sort_keys=True).encode()
    prebuilt = ";".join(path.removeprefix("cpp/") for path in release.lfs)
    variables = {**release.cmake, "PREBUILT_LIBRARIES": prebuilt, "RELEASE": name}
    rows = "".join(f'set({key} "{value}")\n' for key, value in sorted(variables.items()))
    found["cpp/stand_in.cmake"] = rows.encode()
    found["requirements.txt"] = _lines(*release.requirements)
    found["requirements-dev.txt"] = _lines(*release.development)
    found["tensorrt_llm/version.py"] = _lines(f'__version__ = "{name}+standin"')
    if name == "1.2.1":
        found["constraints.txt"] = _lines("urllib3>=2.6.3")
        found["triton_kernels/__init__.py"] = b""
        source = 'extern "C" int batchManagerStandIn(void)\n{\n    return 40;\n}'
        found["cpp/tensorrt_llm/batch_manager/manager.cpp"] = _lines(source)
        found["cpp/conanfile.py"] = _lines("# packages: tensorrt_llm_nvrtc_wrapper")
    else:
        found[".gitattributes"] = _lines(
            "*.a filter=lfs diff=lfs merge=lfs -text", "*.so filter=lfs diff=lfs merge=lfs -text"
        )
        found[".gitmodules"] = _lines(
            *(f'[submodule "{p}"]\n\tpath = {p}\n\turl = {url}' for p, url in release.submodules)
        )
    found |= _reference(name)
    for script in release.scripts:
        text = (
            f'from tensorrt_llm.reference.commands import main\n\nraise SystemExit(main("{name}", '
        )
        found[script] = f'#!/usr/bin/env python3\n{text}"{script}"))\n'.encode()
    return found


def _reference(release: str) -> dict[str, bytes]:
    """The rehearsal's backend as a part of the package, with this stand-in's own label."""
    place = "tensorrt_llm/reference"
    found = {f"{place}/data/cli.json": _TABLE.read_bytes()}
    for path in sorted(_REFERENCE.glob("*.py")):
        text = path.read_text(encoding="utf-8").replace("+rehearsal", "+standin")
        found[f"{place}/{path.name}"] = text.encode()
    return found


def library(path: str) -> bytes:
    """A prebuilt library as Git LFS keeps it: small, but one that a linker takes."""
    number = 40 if "batch_manager_static" in path else 0
    name = "batchManagerStandIn" if number else Path(path).stem.removeprefix("lib").lower()
    source = f"int {name}(void) {{ return {number}; }}\nconst char {name}_filler[1200] = {{1}};\n"
    with tempfile.TemporaryDirectory() as folder:
        object_file, output = Path(folder) / "part.o", Path(folder) / Path(path).name
        shared = path.endswith(".so")
        kind = ["-shared", "-nostdlib", f"-Wl,-soname,{output.name}"] if shared else ["-c"]
        subprocess.run(
            ["cc", "-x", "c", "-", "-fPIC", "-O1", *kind, "-o", output if shared else object_file],
            input=source.encode(),
            check=True,
        )
        if not shared:
            archiver = shutil.which("ar")
            assert archiver is not None
            subprocess.run([archiver, "rcsD", output, object_file], check=True)
        return output.read_bytes()


def _lines(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()
