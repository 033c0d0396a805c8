"""The Python distributions that the miniature releases ask for, most of them empty."""

from __future__ import annotations

from tests.stand_in.distributions import wheel
from tests.stand_in.tensorrt import packed

_EMPTY = (
    *("accelerate==0.25.0", "aenum==3.1.15", "click==8.1.7", "colored==2.2.4"),
    *("cuda-python==12.2.0", "cuda-python==13.1.0", "einops==0.8.0", "janus==2.0.0"),
    *("huggingface-hub==0.25.0", "lark==1.2.2", "nanobind==2.9.2", "nvidia-ml-py==13.580.82"),
    *("onnx-graphsurgeon==0.5.2", "opencv-python-headless==4.11.0.86", "protobuf==6.33.5"),
    *("polygraphy==0.48.1", "polygraphy==0.49.0", "polygraphy==0.49.9", "polygraphy==0.49.26"),
    *("pydantic==2.10.0", "rouge_score==0.1.2", "sentencepiece==0.2.0", "StrEnum==0.4.15"),
    *("tomli==2.0.1", "virtualenv==20.29.1", "urllib3==2.6.3", "Cython==0.29.37"),
    *("PyYAML==6.0.2", "pybind11==2.13.6", "h5py==3.12.1", "psutil==6.1.0"),
)
_NEEDING = {
    "torchvision==0.20.0": ("torch",),
    "transformers==4.31.0": ("tokenizers", "numpy>=1.17"),
    "transformers==4.38.2": ("tokenizers", "numpy>=1.17"),
    "transformers==4.45.1": ("tokenizers", "numpy>=1.17"),
    "transformers==4.57.3": ("tokenizers", "numpy>=1.17"),
}
_WITH_EXTRAS = {
    "nvidia-modelopt==0.21.0": ("torch", ("torch>=2.0",)),
    "nvidia-modelopt==0.37.0": ("torch", ("torch>=2.0",)),
    "pydantic-settings==2.7.0": ("yaml", ("PyYAML>=6.0.1",)),
}
OF_NVIDIA = (
    *("nvidia-ammo==0.7.4", "nvidia-cudnn-cu12==8.9.7.29", "nvidia-nccl-cu12==2.23.4"),
    *("nvidia-nccl-cu13==2.28.9",),
)
"""On NVIDIA's own index in some releases' files; on the public one here too."""

_STUBGEN = '''\
"""Writes down what a module holds, which it has to import for that."""

import importlib
import os
import sys


def main(argv):
    output, name = argv[argv.index("-o") + 1], argv[-1]
    sys.path.insert(0, os.getcwd())
    module = importlib.import_module(name)
    os.makedirs(os.path.join(output, name), exist_ok=True)
    with open(os.path.join(output, name, "__init__.pyi"), "w") as stream:
        for member in sorted(vars(module)):
            if not member.startswith("_"):
                stream.write(f"def {member}() -> int: ...\\n")
'''
_CONAN = '''\
"""The few commands of conan that a build calls; packages are there if they were restored."""

import os
import pathlib
import sys
import tarfile


def main():
    home = pathlib.Path(os.environ.get("CONAN_HOME") or pathlib.Path.home() / ".conan2")
    home.mkdir(parents=True, exist_ok=True)
    if sys.argv[1:3] == ["cache", "restore"]:
        with tarfile.open(sys.argv[3]) as archive:
            archive.extractall(home)
    elif sys.argv[1] == "install":
        recipe = (pathlib.Path(sys.argv[-1]) / "conanfile.py").read_text()
        for name in recipe.partition("packages:")[2].split():
            if not (home / "p" / name).is_dir():
                sys.exit(f"ERROR: Package '{name}' not resolved: unable to connect to remote")
    elif sys.argv[1] not in ("profile", "remote"):
        sys.exit(f"unknown command {sys.argv[1:]}")
'''
_MPI_SETUP = """\
import os

from setuptools import Extension, setup

os.environ.update(CC="mpicc", LDSHARED="mpicc -shared")

setup(
    name="mpi4py",
    version="3.1.5+standin",
    packages=["mpi4py"],
    package_dir={"mpi4py": "src/mpi4py"},
    ext_modules=[Extension("mpi4py.MPI", ["src/mpi.c"])],
)
"""
_MPI_SOURCE = """\
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <mpi.h>

static PyObject* version(PyObject* self, PyObject* arguments)
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(text, &length);
    return PyUnicode_FromStringAndSize(text, length);
}

static PyMethodDef methods[]
    = {{"Get_library_version", version, METH_NOARGS, "of the library it was built against"}, {0}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "MPI", 0, -1, methods};

PyMODINIT_FUNC PyInit_MPI(void)
{
    return PyModule_Create(&module);
}
"""
_MPI_PROJECT = """\
[build-system]
requires = ["setuptools >= 40.9.0", "wheel", "Cython >= 0.27, < 3.0.0"]
build-backend = "setuptools.build_meta"
"""


def all_wheels() -> list[tuple[str, bytes]]:
    """Every one as a wheel: file name and content."""
    found = [wheel(*_pin(pin)) for pin in (*_EMPTY, *OF_NVIDIA)]
    found += [wheel(*_pin(pin), requires=needs) for pin, needs in _NEEDING.items()]
    for pin, (extra, needs) in _WITH_EXTRAS.items():
        found.append(wheel(*_pin(pin), extras={extra: needs}))
    main = b"import sys\n\nfrom pybind11_stubgen import main\n\nmain(sys.argv)\n"
    files = {"pybind11_stubgen/__main__.py": main}
    found.append(wheel(*_pin("pybind11-stubgen==2.5.1"), _STUBGEN.encode(), files=files))
    scripts = {"conan": "conan:main"}
    found.append(wheel(*_pin("conan==2.14.0"), _CONAN.encode(), scripts=scripts))
    return found


def mpi4py(*, archive: bool = False) -> bytes:
    """The source distribution, or GitHub's archive of the tag, which has no PKG-INFO."""
    files = {
        "setup.py": _MPI_SETUP,
        "pyproject.toml": _MPI_PROJECT,
        "src/mpi.c": _MPI_SOURCE,
        "src/mpi4py/__init__.py": '__version__ = "3.1.5+standin"\n',
    }
    if not archive:
        files["PKG-INFO"] = "Metadata-Version: 2.1\nName: mpi4py\nVersion: 3.1.5+standin\n"
    top = "mpi4py-3.1.5" if archive else "mpi4py-3.1.5+standin"
    return packed(top, {path: text.encode() for path, text in files.items()})


def _pin(pin: str) -> tuple[str, str]:
    name, _, version = pin.partition("==")
    return name, f"{version}+standin"
