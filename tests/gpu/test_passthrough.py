"""GPUs inside a container are those that were asked for, on both engines.

Needs the built rehearsal image in KIT_HOME, an engine and an NVIDIA driver; nothing is downloaded.
"""

from __future__ import annotations

import re

import pytest

from kit import project
from kit.errors import ExitCode, KitError
from kit.images import build, cdi
from kit.images.docker import Docker
from kit.images.engine import Gpus, RunRequest
from kit.images.podman import Podman

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=["podman", "docker"])
def engine(request):
    if request.param == "docker":
        found = Docker.reach(project.find().home)
        if found is None:
            pytest.skip("no Docker daemon")
        return found
    if not Podman.is_installed():
        pytest.skip("no podman")
    return Podman(project.find().home)


@pytest.fixture(scope="module")
def reference(engine):
    place = project.find()
    return build.ready(place, engine, build.built(place, "rehearsal"))


def _seen(engine, reference, gpus):
    lines = []
    request = RunRequest(image=reference, argv=("nvidia-smi", "-L"), gpus=gpus)
    code = engine.run(request, lines.append)
    return code, re.findall(r"UUID: (GPU-[0-9a-f-]+)", "\n".join(lines)), lines


def test_all_gpus_of_the_host(engine, reference):
    _, host = cdi.gpus()
    code, uuids, lines = _seen(engine, reference, Gpus.parse("all"))
    assert code == 0, lines
    assert uuids == [gpu.uuid for gpu in host]


def test_one_gpu_by_index_and_by_uuid(engine, reference):
    _, host = cdi.gpus()
    for gpu in (host[0], host[-1]):
        for name in (str(gpu.index), gpu.uuid):
            code, uuids, lines = _seen(engine, reference, Gpus.parse(name))
            assert (code, uuids) == (0, [gpu.uuid]), lines


def test_no_gpu_unless_asked(engine, reference):
    lines = []
    argv = ("sh", "-c", "ls /dev | grep -c nvidia")
    engine.run(RunRequest(image=reference, argv=argv), lines.append)
    assert lines == ["0"]


def test_gpu_that_is_not_there(engine, reference):
    with pytest.raises(KitError) as caught:
        _seen(engine, reference, Gpus.parse("77"))
    assert caught.value.exit_code is ExitCode.ENVIRONMENT


def test_the_driver_answers_a_program(engine, reference):
    """`cuInit`, the number of devices, and memory on the GPU, through the driver's own library."""
    program = (
        "import ctypes; c = ctypes.CDLL('libcuda.so.1'); n = ctypes.c_int(); p = ctypes.c_void_p();"
        "x = ctypes.c_void_p();"
        "print([c.cuInit(0), c.cuDeviceGetCount(ctypes.byref(n)),"
        "c.cuDevicePrimaryCtxRetain(ctypes.byref(x), 0), c.cuCtxSetCurrent(x),"
        "c.cuMemAlloc_v2(ctypes.byref(p), ctypes.c_size_t(1 << 20))], n.value)"
    )
    lines = []
    request = RunRequest(image=reference, argv=("python3", "-c", program), gpus=Gpus.parse("all"))
    assert engine.run(request, lines.append) == 0, lines
    assert lines[-1] == f"[0, 0, 0, 0, 0] {len(cdi.gpus()[1])}"
