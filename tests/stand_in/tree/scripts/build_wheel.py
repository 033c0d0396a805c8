#!/usr/bin/env python3
"""Build the miniature's wheel: the kinds of steps of the release it stands for, in their order."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FACTS = json.loads((ROOT / "scripts" / "stand_in.json").read_text())
SMALLEST_LIBRARY = 1024


def parse():
    """The options of this release and no others."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for flags, settings in FACTS["options"]:
        parser.add_argument(*flags, **settings)
    return parser.parse_args()


def run(*command, **more):
    print("+", *command, flush=True)
    subprocess.run([str(word) for word in command], check=True, **more)


def fill_submodules():
    """Ask git for submodules that are not there."""
    paths = FACTS["submodules_looked_at"]
    if any(not (ROOT / path / ".git").exists() for path in paths):
        run("git", "submodule", "update", "--init", "--recursive", cwd=ROOT)


def install_requirements(options):
    """What the build needs of Python, and TensorRT must be among it."""
    if FACTS["has_venv"] and not options.no_venv:
        run(sys.executable, "-m", "pip", "install", "virtualenv>=20.29.1,<22.0")
    extra = ["--extra-index-url", FACTS["extra_index"]] if FACTS["extra_index"] else []
    run(sys.executable, "-m", "pip", "install", "-r", FACTS["requirements"], *extra, cwd=ROOT)
    frozen = subprocess.run(
        [sys.executable, "-m", "pip", "freeze"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    if not any(line.partition("==")[0].partition(" @")[0] == "tensorrt" for line in frozen):
        sys.exit("tensorrt is not installed")


def prepare_conan():
    """Prebuilt parts of the releases that have no LFS files for them any more."""
    if not FACTS["conan"]:
        return
    run(sys.executable, "-m", "pip", "install", f"conan=={FACTS['conan']}")
    run("conan", "profile", "detect", "-f")
    place = "https://edge.urm.nvidia.com/artifactory/api/conan/sw-tensorrt-llm-conan"
    run("conan", "remote", "add", "--force", "TensorRT-LLM", place)
    run("conan", "install", "--build=missing", "--remote=TensorRT-LLM", ROOT / "cpp")


def compile_all(options):
    """Configure and build; returns the build folder."""
    folder = Path(options.build_dir or ROOT / "cpp" / "build")
    if options.clean:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    defines = {
        "CMAKE_BUILD_TYPE": options.build_type,
        "BUILD_PYT": "OFF" if options.cpp_only else "ON",
        "BUILD_PYBIND": "ON" if has_bindings(options) else "OFF",
        "TRT_ROOT": options.trt_root or "/usr/local/tensorrt",
    }
    if options.cuda_architectures:
        refused = FACTS["refused_architectures"]
        wanted = options.cuda_architectures.split(";")
        if set(refused) & set(wanted):
            sys.exit(f"not supported: {refused}")
        defines["CMAKE_CUDA_ARCHITECTURES"] = options.cuda_architectures
    if options.use_ccache:
        defines["CMAKE_CXX_COMPILER_LAUNCHER"] = "ccache"
    words = [f"-D{name}={value}" for name, value in defines.items()]
    words += [f"-D{word}" for word in options.extra_cmake_vars]
    run("cmake", *words, "-S", ROOT / "cpp", "-B", folder)
    count = options.job_count or os.cpu_count()
    targets = FACTS["targets"] + (["bindings"] if has_bindings(options) else [])
    targets += ["benchmarks"] if getattr(options, "benchmarks", False) else []
    run("cmake", "--build", folder, "--parallel", count, "--target", *targets)
    return folder


def has_bindings(options):
    return not options.cpp_only and (
        FACTS["always_bindings"] or getattr(options, "python_bindings", False)
    )


def collect(folder, options):
    """Put what was compiled into the Python package."""
    package = ROOT / "tensorrt_llm"
    shutil.rmtree(package / "libs", ignore_errors=True)
    (package / "libs").mkdir()
    for name in FACTS["libraries"]:
        found = [*folder.rglob(name), *(ROOT / "cpp" / "tensorrt_llm").rglob(name)]
        shutil.copy2(found[0], package / "libs")
    if FACTS["worker"]:
        (package / "bin").mkdir(exist_ok=True)
        shutil.copy2(folder / "executorWorker", package / "bin")
    if has_bindings(options):
        (module,) = folder.glob("bindings.*.so")
        shutil.copy2(module, package)
        make_stubs(package, options)


def make_stubs(package, options):
    """Import the bindings, which needs a driver library, and write down what they hold."""
    if not FACTS["stubs"] or getattr(options, "skip_stubs", False):
        return
    run(sys.executable, "-m", "pip", "install", "pybind11-stubgen")
    paths = ["/usr/local/cuda/compat/lib.real"] if FACTS["helps_stubs"] else []
    environment = dict(os.environ)
    environment["LD_LIBRARY_PATH"] = ":".join([*paths, environment["LD_LIBRARY_PATH"]])
    try:
        run(
            sys.executable,
            "-m",
            "pybind11_stubgen",
            "-o",
            ".",
            "bindings",
            cwd=package,
            env=environment,
        )
    except subprocess.CalledProcessError as error:
        print(f"Failed to build pybind11 stubgen: {error}", file=sys.stderr)
        if FACTS["stubs"] == "fatal":
            sys.exit(1)


def main():
    options = parse()
    os.chdir(ROOT)
    fill_submodules()
    install_requirements(options)
    prepare_conan()
    folder = compile_all(options)
    if options.cpp_only or getattr(options, "skip_building_wheel", False):
        return
    collect(folder, options)
    output = Path(options.dist_dir or ROOT / "build")
    run(
        sys.executable,
        "-m",
        "build",
        ROOT,
        "--skip-dependency-check",
        "--no-isolation",
        "--wheel",
        "--outdir",
        output,
    )
    if options.install:
        run(sys.executable, "-m", "pip", "install", "--no-deps", *output.glob("*.whl"))


if __name__ == "__main__":
    main()
