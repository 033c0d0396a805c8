from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from kit.host import driver_library, gpus
from kit.host.facts import Gpu

SOURCE = r"""
#include <string.h>
typedef struct { unsigned long long total, free, used; } Memory;
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int nvmlInit_v2(void) { return INIT; }
const char *nvmlErrorString(int code) { return code == 18 ? "Driver/library version mismatch" : "?"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "580.159.03", size); return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    *device = (void *)(0x7f0000000000 + index); return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) { strncpy(text, "NVIDIA H200", size); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
    strncpy(text, (long)device & 1 ? "GPU-1" : "GPU-0", size); return 0;
}
int nvmlDeviceGetCudaComputeCapability(void *device, int *major, int *minor) {
    *major = 9; *minor = 0; return (long)device & 1 ? 3 : 0;
}
int nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    memory->total = 150754820096ULL; return (long)device & 1 ? 3 : 0;
}
"""


def _ask(folder):
    done = subprocess.run(
        [sys.executable, "-I", driver_library.__file__, str(folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def _libraries(folder, code):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to make stand-in libraries with")
    source = folder / "driver.c"
    source.write_text(SOURCE)
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        argv = [
            compiler,
            "-shared",
            "-fPIC",
            f"-DINIT={code}",
            "-o",
            str(folder / name),
            str(source),
        ]
        subprocess.run(argv, check=True)


@pytest.fixture(autouse=True)
def no_driver():
    if driver_library.load("libcuda.so.1", []) is not None:
        pytest.skip("this host has a driver, which the loader finds first")


def test_nothing_there(tmp_path):
    answer = _ask(tmp_path)
    assert (answer["cuda"], answer["driver"], answer["gpus"]) == (None, None, [])
    assert answer["problem"] == "libnvidia-ml.so.1 was not found"


def test_libraries_that_answer(tmp_path):
    _libraries(tmp_path, 0)
    answer = _ask(tmp_path)
    assert (answer["cuda"], answer["driver"], answer["problem"]) == ("13.0", "580.159.03", None)
    first, second = gpus.from_nvml(answer["gpus"])
    assert isinstance(first, Gpu)
    assert (first.name, first.uuid, first.compute_capability, first.memory_bytes) == (
        "NVIDIA H200",
        "GPU-0",
        "9.0",
        150754820096,
    )
    assert (second.index, second.uuid, second.compute_capability, second.memory_bytes) == (
        1,
        "GPU-1",
        None,
        None,
    )


def test_libraries_of_another_driver_than_the_module(tmp_path):
    _libraries(tmp_path, 18)
    answer = _ask(tmp_path)
    assert answer["problem"] == "NVML: Driver/library version mismatch"
    assert answer["cuda"] == "13.0"
